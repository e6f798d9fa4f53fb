"""Declared tags: the types and the choices that tags of kernels are held to."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.admin_steps import ReasonedForm, ServiceForm, ServiceFormAdmin, Step
from apps.accounts.roles import Scope
from apps.core.admin_display import EMPTY, state_column
from apps.kernels import services
from apps.kernels.models import IndexState, TagKey

INDEX_LABELS: dict[str, str] = {IndexState.READY: "success", IndexState.WAITING: "info", IndexState.FAILED: "danger"}

REMOVE = Step(
    title="Remove the declaration",
    promises=(
        "Kernels keep their values; the tag takes any value from now on.",
        "Searches on it still work, without an index: manage.py index_tags drops it.",
    ),
    done="is no longer declared",
    call=lambda key, actor, data: services.remove_tag(tag_key=key, reason=data["reason"], actor=actor),
    icon="delete",
    is_destructive=True,
    is_for_many=False,
)


class LinesField(forms.CharField):
    """A list of texts, one a line."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 5})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]
        return [line.strip() for line in str(value or "").splitlines() if line.strip()]


class TagForm(ServiceForm):
    choices = LinesField(required=False, help_text="One a line: the only values of a text. Empty: any text.")

    class Meta:
        model = TagKey
        fields = ["name", "type", "choices", "description"]

    def write(self) -> TagKey:
        return services.declare_tag(**self.cleaned_data, actor=self.actor)


class TagChangeForm(ReasonedForm, TagForm):
    class Meta(TagForm.Meta):
        fields = ["choices", "description"]

    def write(self) -> TagKey:
        return services.update_tag(tag_key=self.instance, **self.cleaned_data, actor=self.actor)


@admin.register(TagKey)
class TagKeyAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "tag_key"
    add_form, change_form = TagForm, TagChangeForm
    steps = {"remove": REMOVE}

    list_display = ["name", "type", "allowed", "description", "index_label", "updated_at"]
    list_filter = [("type", ChoicesDropdownFilter), ("index_state", ChoicesDropdownFilter)]
    search_fields = ["name", "description", "id__exact"]
    ordering = ["name"]
    readonly_fields = ["name", "type", "index_label", "index_error", "workspace", "id", "created_at", "updated_at"]
    add_fieldsets = [(None, {"fields": ["name", "type", "choices", "description"]})]
    fieldsets = [
        (None, {"fields": ["name", "type", "choices", "description"]}),
        ("Index", {"fields": ["index_label", "index_error"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    index_label = state_column(INDEX_LABELS, "index_state")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return super().get_readonly_fields(request, obj) if obj is not None else []

    @display(description="choices")
    def allowed(self, key: TagKey) -> str:
        return ", ".join(key.choices) or EMPTY
