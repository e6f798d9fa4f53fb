"""Users, their roles and tokens, and the workspaces."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.cache import add_never_cache_headers
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.views import ChangeList as UnfoldChangeList
from unfold.widgets import (
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
)

from apps.accounts import services
from apps.accounts.admin_steps import ReasonForm, ServiceForm, ServiceFormAdmin, Step
from apps.accounts.models import ApiToken, User, Workspace
from apps.accounts.roles import ROLE_SCOPES, Role, Scope
from apps.core.actors import Actor
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import chip, link, state_column
from apps.core.ids import parse_id

ROLE_LABELS = {Role.VIEWER: "default", Role.OPERATOR: "info", Role.CURATOR: "primary", Role.ADMIN: "warning"}
MAX_DAYS = 3650


class RoleForm(ReasonForm):
    role = forms.ChoiceField(
        choices=[(role, f"{role}: {', '.join(sorted(ROLE_SCOPES[role]))}") for role in Role],
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ["role", "reason"]


def _set_role(user: User, actor: Actor, data: Mapping[str, Any]) -> User:
    return services.set_role(user=user, role=data["role"], reason=data["reason"], actor=actor)


SET_ROLE = Step(
    title="Change the role",
    promises=(
        "The role decides what the user may do, at once and everywhere: pages, admin, API.",
        "Tokens keep their scopes, cut down to the new role: none gains any.",
        "The last administrator cannot lose the role.",
    ),
    done="has the new role",
    call=_set_role,
    form=RoleForm,
    initial=lambda user: {"role": user.role},
    icon="badge",
    is_for_many=False,
)

ERASE = Step(
    title="Erase the person",
    promises=(
        "The account is closed for good: name, e-mail and password go, tokens and sessions end at once.",
        "Name and addresses go from the audit trail's side table, and with them who stood behind its events.",
        "Events, proofs and signed reports stay as they are, and stay valid; so do runs, designs and kernels.",
        "Nobody can bring it back. The reason stays in the trail: name nobody in it.",
    ),
    done="erased",
    call=lambda user, actor, data: services.erase_person(user=user, actor=actor, reason=data["reason"]),
    icon="person_off",
    is_destructive=True,
    is_for_many=False,
)

REVOKE = Step(
    title="Revoke the token",
    promises=(
        "Programs that use the token are refused from the next request on.",
        "It cannot be restored: issue another one instead.",
        "The audit trail keeps that it existed and what it did.",
    ),
    done="revoked",
    call=lambda token, actor, data: services.revoke_token(token=token, actor=actor, reason=data["reason"]),
    icon="key_off",
    is_destructive=True,
    is_for_many=False,
)


class UserForm(ServiceForm):
    secret = ""

    class Meta:
        model = User
        fields = ["username", "email", "role"]

    def write(self) -> User:
        user, self.secret = services.create_user(**self.cleaned_data, actor=self.actor)
        return user


class TokenForm(ServiceForm):
    secret = ""
    name = forms.CharField(max_length=100, widget=UnfoldAdminTextInputWidget, help_text="What it is for.")
    scopes = forms.MultipleChoiceField(
        choices=[(scope, scope) for scope in Scope],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="At most those of the user's role.",
    )
    days = forms.IntegerField(
        min_value=1, max_value=MAX_DAYS, initial=30, widget=UnfoldAdminIntegerFieldWidget, help_text="Lifetime in days."
    )

    class Meta:
        model = ApiToken
        fields = ["user", "name", "scopes"]

    def write(self) -> ApiToken:
        data = self.cleaned_data
        token, self.secret = services.issue_token(
            user=data["user"],
            name=data["name"],
            scopes=data["scopes"],
            lifetime=timedelta(days=data["days"]),
            actor=self.actor,
        )
        return token


class SecretOnceAdmin(ServiceFormAdmin):
    """After adding, a page shows the secret instead of a message: messages travel in cookies."""

    secret_name = ""
    secret_kept = "Only a digest is stored, and nobody can show it again."  # noqa: S105 - a sentence

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        context |= {"show_save_and_add_another": False, "show_save_and_continue": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if not change:
            obj.secret = form.secret

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        if not obj.secret:
            return super().response_add(request, obj, post_url_continue)
        return self.show_once(request, obj, obj.secret)

    def show_once(self, request: HttpRequest, obj: Any, secret: str) -> HttpResponse:
        page = {
            **self.admin_site.each_context(request),
            "title": self.secret_name,
            "opts": self.opts,
            "original": obj,
            "what": self.secret_name,
            "kept": self.secret_kept,
            "secret": secret,
            "next": self._url_of(obj),
        }
        response = TemplateResponse(request, "admin/secret.html", page)
        add_never_cache_headers(response)
        return response


@admin.register(User)
class UserAdmin(SecretOnceAdmin):
    read_scope = write_scope = Scope.ACCOUNTS_MANAGE
    subject_type = "user"
    secret_name = "Password"  # noqa: S105 - a heading
    add_form = UserForm

    list_display = ["username", "role_label", "is_active", "email", "last_login", "date_joined"]
    list_filter = [("role", ChoicesDropdownFilter), "is_active"]
    search_fields = ["username", "email", "id__exact"]
    ordering = ["username"]
    steps = {"set_role": SET_ROLE, "erase": ERASE}
    add_fieldsets = [(None, {"fields": ["username", "email", "role"]})]
    fieldsets = [
        (None, {"fields": ["username", "email", "role_label", "may"]}),
        ("Account", {"fields": ["is_active", "is_staff", "is_superuser", "last_login", "date_joined", "id"]}),
    ]

    role_label = state_column(ROLE_LABELS, "role")

    @display(description="may")
    def may(self, user: User) -> str:
        return ", ".join(sorted(user.scopes))


class TokenList(UnfoldChangeList):
    """Rows lead to the token's id: its primary key is the digest of the secret, which has no place in an address."""

    def url_for_result(self, result: ApiToken) -> str:
        return reverse("admin:accounts_apitoken_change", args=[result.id])


@admin.register(ApiToken)
class ApiTokenAdmin(SecretOnceAdmin):
    read_scope = write_scope = Scope.ACCOUNTS_MANAGE
    subject_type = "token"
    secret_name = "Token"  # noqa: S105 - a heading
    add_form = TokenForm

    list_display = ["name", "user_link", "scopes", "status", "created", "expiry"]
    list_filter = [("user__role", ChoicesDropdownFilter)]
    list_select_related = ["user"]
    search_fields = ["name", "user__username", "id__exact"]
    autocomplete_fields = ["user"]
    steps = {"revoke": REVOKE}
    add_fieldsets = [(None, {"fields": ["user", "name", "scopes", "days"]})]
    fieldsets = [
        (None, {"fields": ["name", "user_link", "scopes", "effective", "status"]}),
        ("Times", {"fields": ["created", "expiry", "id"]}),
    ]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return TokenList

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> ApiToken | None:
        key: UUID | None = parse_id(object_id)
        return self.get_queryset(request).filter(id=key).first() if key else None

    @display(description="user", ordering="user__username")
    def user_link(self, token: ApiToken) -> str:
        return link(token.user)

    @display(description="effective scopes")
    def effective(self, token: ApiToken) -> str:
        return ", ".join(sorted(token.effective_scopes)) or "none: the user's role has none of them"

    @display(description="status")
    def status(self, token: ApiToken) -> str:
        if not token.user.is_active:
            return chip("user inactive", "danger")
        return chip("expired", "danger") if token.is_expired else chip("valid", "success")


@admin.register(Workspace)
class WorkspaceAdmin(ScopedAdmin):
    read_scope = Scope.ACCOUNTS_MANAGE

    list_display = ["name", "created_at"]
    search_fields = ["name"]
    fields = ["name", "id", "created_at", "updated_at"]
