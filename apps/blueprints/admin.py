"""The library's designs: blueprints with what people read about them, and their immutable versions."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeNumericFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin_steps import PrettyJSONField, ReasonedForm, ServiceForm, ServiceFormAdmin, Step, StepAdmin
from apps.accounts.roles import Scope
from apps.blueprints import services
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.actors import Actor
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import link, number, short, state_column, whole

VERSION_LABELS = {
    VersionState.SUBMITTED: "info",
    VersionState.COMPILING: "info",
    VersionState.CHARACTERIZED: "success",
    VersionState.INVALID: "danger",
    VersionState.RETIRED: "warning",
}


class SpecForm(forms.Form):
    """The spec of the next version, starting from the newest one."""

    spec = PrettyJSONField(help_text="A wrong spec is refused with the place of the mistake.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["spec"].widget.attrs["rows"] = 28


def _newest_spec(blueprint: Blueprint) -> dict[str, Any]:
    newest = blueprint.versions.order_by("-number").first()
    return {"spec": newest.spec if newest else {}}


def _submit(blueprint: Blueprint, actor: Actor, data: Mapping[str, Any]) -> BlueprintVersion:
    return services.submit_version(blueprint=blueprint, spec=data["spec"], actor=actor)


SUBMIT = Step(
    title="Submit a version",
    promises=(
        "The spec is checked, and becomes the next version; a version never changes afterwards.",
        "It is compiled when its first kernel is registered; runs see nothing of it before a kernel is VALIDATED.",
        "A spec that is a version already stays that version: nothing is written.",
    ),
    done="has a new version",
    call=_submit,
    form=SpecForm,
    initial=_newest_spec,
    icon="upload",
    is_primary=True,
    is_for_many=False,
)


FLAT = "A flat JSON object: text, numbers, true, false, null, and lists of these."


class BlueprintAddForm(ServiceForm):
    card = PrettyJSONField(required=False, initial=dict, help_text=f"What people read. {FLAT}")
    tags = PrettyJSONField(required=False, initial=dict, help_text=f"What searches match. {FLAT}")

    class Meta:
        model = Blueprint
        fields = ["name", "title", "card", "tags"]

    def write(self) -> Blueprint:
        return services.create_blueprint(**self.cleaned_data, actor=self.actor)


class BlueprintChangeForm(ReasonedForm, BlueprintAddForm):
    class Meta(BlueprintAddForm.Meta):
        fields = ["title", "card", "tags"]

    def write(self) -> Blueprint:
        return services.update_blueprint(blueprint=self.instance, **self.cleaned_data, actor=self.actor)


@admin.register(Blueprint)
class BlueprintAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "blueprint"
    add_form, change_form = BlueprintAddForm, BlueprintChangeForm

    list_display = ["name", "title", "version_count", "tags", "created_at"]
    search_fields = ["name", "title", "id__exact"]
    ordering = ["name"]
    steps = {"submit_version": SUBMIT}
    readonly_fields = ["name", "workspace", "next_number", "id", "created_at", "updated_at"]
    add_fieldsets = [(None, {"fields": ["name", "title", "card", "tags"]})]
    fieldsets = [
        (None, {"fields": ["name", "title", "card", "tags"]}),
        ("Row", {"fields": ["workspace", "next_number", "id", "created_at", "updated_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return super().get_readonly_fields(request, obj) if obj is not None else []

    def get_queryset(self, request: HttpRequest) -> QuerySet[Blueprint]:
        return super().get_queryset(request).annotate(version_count=Count("versions"))

    @display(description="versions", ordering="version_count")
    def version_count(self, blueprint: Any) -> int:
        return int(blueprint.version_count)


class CloneForm(forms.Form):
    name = forms.CharField(
        max_length=100, widget=UnfoldAdminTextInputWidget, help_text="Of the new blueprint. It never changes."
    )


class SeedForm(forms.Form):
    seed = forms.IntegerField(
        min_value=0,
        max_value=2**31 - 1,
        initial=1,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The same seed gives the same spec.",
    )


class CrossForm(SeedForm):
    other = forms.ModelChoiceField(
        BlueprintVersion.objects.all(),
        label="Other version",
        widget=UnfoldAdminTextInputWidget,
        help_text="The id of a version with the same contract: operator, input and output.",
        error_messages={"invalid_choice": "There is no version with this id."},
    )
    field_order = ["other", "seed"]


def _made(made: services.Submission) -> str:
    return (
        f"{made.version} was made from it" if made.created else f"{made.version} is that already: nothing was written"
    )


CLONE = Step(
    title="Clone",
    promises=(
        "A blueprint of its own starts with this version's spec, card and tags.",
        "Its lineage says where it came from. This blueprint does not change.",
    ),
    done=lambda blueprint: f"cloned as {blueprint}",
    call=lambda version, actor, data: services.clone_blueprint(version=version, name=data["name"], actor=actor),
    form=CloneForm,
    icon="content_copy",
    is_for_many=False,
)
MUTATE = Step(
    title="Mutate",
    promises=(
        "The blueprint gets a next version: this one with one change that the seed draws.",
        "It keeps the operator's rule, so it is still nothing at birth. Nothing is compiled yet.",
        "If the blueprint has that spec already, nothing is written.",
    ),
    done=_made,
    call=lambda version, actor, data: services.mutate_version(version=version, seed=data["seed"], actor=actor),
    form=SeedForm,
    icon="shuffle",
)
CROSS = Step(
    title="Cross with another",
    promises=(
        "The blueprint gets a next version: a combination of this one and the other that the seed draws.",
        "Its lineage has both, with the share of its nodes that came from each. Nothing is compiled yet.",
        "If the blueprint has that spec already, nothing is written.",
    ),
    done=_made,
    call=lambda version, actor, data: services.cross_versions(
        left=version, right=data["other"], seed=data["seed"], actor=actor
    ),
    form=CrossForm,
    icon="merge",
    is_for_many=False,
)


@admin.register(BlueprintVersion)
class BlueprintVersionAdmin(StepAdmin):
    """A version never changes: its buttons make others from it."""

    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "blueprint_version"
    steps = {"clone": CLONE, "mutate": MUTATE, "cross": CROSS}

    list_display = ["version", "state_label", "operator", "size", "digest_short", "created_at"]
    list_filter = [("state", ChoicesDropdownFilter), "operator", ("parameters", RangeNumericFilter)]
    list_select_related = ["blueprint"]
    search_fields = ["blueprint__name", "digest__startswith", "id__exact"]
    fieldsets = [
        (None, {"fields": ["blueprint_link", "number", "state_label", "operator", "size"]}),
        ("Spec", {"fields": ["spec", "whole_digest"]}),
        ("Row", {"fields": ["id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(VERSION_LABELS)

    @display(description="version", ordering="-id")
    def version(self, version: BlueprintVersion) -> str:
        return str(version)

    @display(description="blueprint", ordering="blueprint__name")
    def blueprint_link(self, version: BlueprintVersion) -> str:
        return link(version.blueprint)

    @display(description="parameters", ordering="parameters")
    def size(self, version: BlueprintVersion) -> str:
        return number(version.parameters, ",d")

    @display(description="digest")
    def digest_short(self, version: BlueprintVersion) -> str:
        return short(version.digest)

    @display(description="digest")
    def whole_digest(self, version: BlueprintVersion) -> str:
        return whole(version.digest)


@admin.register(VersionLineage)
class VersionLineageAdmin(ScopedAdmin):
    """Which version came from which; edges are never changed."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["child_link", "kind", "parent_link", "weight", "created_at"]
    list_filter = ["kind"]
    list_select_related = ["child__blueprint", "parent__blueprint"]
    search_fields = ["child__blueprint__name", "parent__blueprint__name"]
    fields = ["child_link", "kind", "parent_link", "weight", "run_id", "id", "created_at"]

    @display(description="version", ordering="child__blueprint__name")
    def child_link(self, edge: VersionLineage) -> str:
        return link(edge.child)

    @display(description="came from", ordering="parent__blueprint__name")
    def parent_link(self, edge: VersionLineage) -> str:
        return link(edge.parent)
