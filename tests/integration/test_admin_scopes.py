"""Who may do what in the admin: every address, every role. The list of addresses is generated from the URL conf."""

import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite, ModelAdmin
from django.test import Client

from apps.accounts.models import User, Workspace
from apps.accounts.roles import ROLE_SCOPES, Role
from apps.core.admin import ScopedAdmin
from tests.support.admin_rows import Page, make_rows, pages_of
from tests.support.factories import UserFactory

pytestmark = pytest.mark.django_db

READ = {
    "training": "runs:read",
    "checkpoints": "runs:read",
    "observability": "runs:read",
    "kernels": "library:read",
    "blueprints": "library:read",
    "audit": "audit:read",
    "accounts": "accounts:manage",
}
WRITE = {
    ("training.trainingrun", "pause"): "runs:write",
    ("training.trainingrun", "resume"): "runs:write",
    ("training.trainingrun", "stop"): "runs:write",
    **{("checkpoints.checkpoint", button): "runs:write" for button in ("verify", "pin", "unpin", "archive", "recall")},
    **{("observability.alert", button): "runs:write" for button in ("acknowledge", "silence")},
    **{("observability.alertrule", button): "runs:write" for button in ("add", "enable", "disable", "reset", "remove")},
    **{("observability.silence", button): "runs:write" for button in ("add", "end")},
    **{("observability.alertroute", button): "runs:write" for button in ("add", "test", "rotate_secret", "remove")},
    ("observability.notification", "retry"): "runs:write",
    ("checkpoints.checkpointpolicy", "add"): "runs:write",
    ("checkpoints.checkpointpolicy", "remove"): "runs:write",
    ("checkpoints.checkpointjob", "cancel"): "runs:write",
    **{
        ("kernels.kernel", button): "library:write"
        for button in (
            *("restore", "set_alias", "tag", "pin", "unpin", "hold", "lift_hold", "name_successor"),
            *("move_tier", "warm", "verify", "deprecate", "retire", "quarantine"),
        )
    },
    ("kernels.tagkey", "add"): "library:write",
    ("kernels.tagkey", "remove"): "library:write",
    **{("blueprints.blueprintversion", button): "library:write" for button in ("clone", "mutate", "cross")},
    ("kernels.retentionpolicy", "add"): "library:write",
    ("kernels.retentionpolicy", "make_plan"): "library:write",
    **{("kernels.retentionplan", button): "library:write" for button in ("approve", "apply", "discard")},
    **{("kernels.cacheplan", button): "library:write" for button in ("apply", "cancel")},
    ("kernels.cacheoutbox", "try_again"): "library:write",
    **{("kernels.kernelalias", button): "library:write" for button in ("protect", "unprotect", "remove")},
    ("blueprints.blueprint", "add"): "library:write",
    ("blueprints.blueprint", "submit_version"): "library:write",
    ("accounts.user", "add"): "accounts:manage",
    ("accounts.user", "set_role"): "accounts:manage",
    ("accounts.user", "erase"): "accounts:manage",
    ("accounts.apitoken", "add"): "accounts:manage",
    ("accounts.apitoken", "revoke"): "accounts:manage",
}
"""Everything in the admin that can lead to a write, beside the forms of rows."""
EDITABLE = {
    *("blueprints.blueprint", "checkpoints.checkpointpolicy", "kernels.retentionpolicy", "kernels.tagkey"),
    *("observability.alertrule", "observability.alertroute"),
}
SITE = {
    "index": 200,
    "search": 200,
    "jsi18n": 200,
    "logout": 405,  # by POST only
    "login": 302,  # to the one login page
    "password_change": 403,
    "password_change_done": 403,
    "autocomplete": 403,  # without a field to complete
}
"""What anybody who is let in gets at the addresses of no model."""


def expected_of_get(page: Page, scopes: frozenset[str]) -> int:
    if not page.model:
        return SITE[page.name]
    if page.verb == "delete":
        return 403
    if page.verb in {"changelist", "change", "history"}:
        allowed = READ[page.model.partition(".")[0]] in scopes
    elif page.verb == "add":
        allowed = WRITE.get((page.model, "add"), "nobody") in scopes
    else:
        allowed = WRITE[page.model, page.verb] in scopes
    return 403 if not allowed else 302 if page.verb == "history" else 200


def log_in(client: Client, role: str, **values: object) -> User:
    user = UserFactory(role=role, **{"is_staff": True, **values})
    client.force_login(user)
    return user


@pytest.mark.parametrize("role", Role)
def test_every_address_answers_each_role_as_its_scopes_say(client: Client, role: str) -> None:
    rows = make_rows()
    log_in(client, role)

    wrong = {
        page.name: (answer, expected)
        for page in pages_of()
        if (answer := client.get(page.url(rows)).status_code) != (expected := expected_of_get(page, ROLE_SCOPES[role]))
    }

    assert wrong == {}


def test_an_address_that_the_table_does_not_know_fails_the_walk() -> None:
    """The walk above can fail: a button without an entry is an error, not a pass."""
    with pytest.raises(KeyError):
        expected_of_get(Page("training_trainingrun_explode", "training.trainingrun", True), ROLE_SCOPES[Role.ADMIN])


def test_the_walk_sees_every_model_and_every_button() -> None:
    pages = list(pages_of())

    assert {page.model for page in pages if page.model} == {model._meta.label_lower for model in admin.site._registry}
    assert {(page.model, page.verb) for page in pages} >= set(WRITE)
    assert len(pages) > 80


def test_nobody_is_sent_to_the_login_page_from_every_address(client: Client) -> None:
    rows = make_rows()

    answers = {page.name: client.get(page.url(rows)) for page in pages_of() if page.name not in {"login", "logout"}}

    strays = {
        name for name, answer in answers.items() if not answer.headers.get("Location", "").startswith("/admin/login")
    }
    assert strays == set()


def test_posting_without_a_session_is_refused_everywhere(client: Client) -> None:
    rows = make_rows()

    answers = {page.name: client.post(page.url(rows)).status_code for page in pages_of() if page.name != "logout"}

    assert set(answers.values()) == {302}


def test_the_admins_login_is_the_one_login_page(client: Client) -> None:
    answer = client.get("/admin/kernels/kernel/", follow=True)

    assert [url for url, _ in answer.redirect_chain] == [
        "/admin/login/?next=/admin/kernels/kernel/",
        "/login?next=%2Fadmin%2Fkernels%2Fkernel%2F",
    ]


def test_a_viewer_is_told_that_the_admin_is_not_for_viewers(client: Client) -> None:
    log_in(client, Role.VIEWER, is_staff=False)

    answer = client.get("/admin/", follow=True)

    assert answer.status_code == 403
    assert "operators, curators and administrators" in answer.content.decode()


def test_a_superuser_has_the_scopes_of_an_administrator(client: Client) -> None:
    log_in(client, Role.VIEWER, is_superuser=True)

    assert client.get("/admin/accounts/user/").status_code == 200


def test_an_inactive_administrator_is_nobody(client: Client) -> None:
    user = log_in(client, Role.ADMIN)
    User.objects.filter(pk=user.pk).update(is_active=False)

    assert client.get("/admin/").status_code == 302


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.CURATOR])
def test_the_index_shows_what_the_role_may_read_and_no_more(client: Client, role: str) -> None:
    log_in(client, role)

    shown = {entry["app_label"] for entry in client.get("/admin/").context["app_list"]}

    assert shown == {app for app, scope in READ.items() if scope in ROLE_SCOPES[role]}


class TestReadOnly:
    """With an administrator who is a superuser: what is refused here is refused to everybody."""

    @pytest.fixture(autouse=True)
    def _root(self, client: Client) -> None:
        log_in(client, Role.ADMIN, is_superuser=True)

    def test_no_row_can_be_saved_but_those_with_a_form(self, client: Client) -> None:
        rows = make_rows()

        allowed = {
            page.model
            for page in pages_of()
            if page.verb == "change" and client.post(page.url(rows), {"name": "x"}).status_code != 403
        }

        assert allowed == EDITABLE

    def test_no_row_can_be_deleted(self, client: Client) -> None:
        rows = make_rows()

        answers = {
            page.model: client.post(page.url(rows), {"post": "yes"}).status_code
            for page in pages_of()
            if page.verb == "delete"
        }

        assert set(answers.values()) == {403}
        assert all(type(row).objects.filter(pk=row.pk).exists() for row in rows.values())

    def test_no_selection_can_be_deleted(self, client: Client) -> None:
        rows = make_rows()

        for page in pages_of():
            if page.verb == "changelist":
                row = rows[page.model]
                client.post(
                    page.url(rows), {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"}
                )

        assert all(type(row).objects.filter(pk=row.pk).exists() for row in rows.values())

    def test_only_what_has_a_form_can_be_added(self, client: Client) -> None:
        rows = make_rows()

        allowed = {
            page.model
            for page in pages_of()
            if page.verb == "add" and client.post(page.url(rows), {}).status_code != 403
        }

        assert allowed == {model for model, verb in WRITE if verb == "add"}


def unguarded(site: AdminSite) -> list[str]:
    """Registered pages that are not ours, or that do not say who may read them."""
    return [
        model._meta.label_lower
        for model, page in site._registry.items()
        if not isinstance(page, ScopedAdmin) or not page.read_scope
    ]


def test_every_registered_page_says_who_may_read_it() -> None:
    assert unguarded(admin.site) == []


def test_a_page_of_djangos_own_kind_would_be_found() -> None:
    site = AdminSite(name="planted")
    site.register(Workspace, ModelAdmin)

    assert unguarded(site) == ["accounts.workspace"]


def test_models_of_other_packages_have_no_page() -> None:
    assert {model.__module__.partition(".")[0] for model in admin.site._registry} == {"apps"}
