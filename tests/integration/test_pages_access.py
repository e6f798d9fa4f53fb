"""Who gets in, and what happens to the others."""

import pytest
from django.test import Client
from django.urls import get_resolver

from apps.audit.models import AuditEvent
from apps.dashboards.urls import urlpatterns
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.django_db

PUBLIC = {"login", "logout", "home"}


def logged_in(role: str) -> Client:
    client = Client()
    client.force_login(make_user(f"a-{role}", role=role))
    return client


def test_every_page_names_the_scope_that_it_needs() -> None:
    assert get_resolver("apps.dashboards.urls")
    for pattern in urlpatterns:
        assert pattern.name in PUBLIC or pattern.callback.scopes, pattern.name


def test_nobody_is_led_to_the_login_page_and_back() -> None:
    run = make_run()

    response = Client().get(f"/runs/{run.pk}?loss=log")

    assert response.status_code == 302
    assert response["Location"] == f"/login?next=%2Fruns%2F{run.pk}%3Floss%3Dlog"


def test_a_script_of_nobody_is_told_to_log_in() -> None:
    run = make_run()

    response = Client().get(f"/runs/{run.pk}/panels", headers={"HX-Request": "true"})

    assert response.status_code == 401
    assert response["HX-Redirect"].startswith("/login?next=")


def test_a_poll_without_a_session_is_refused_without_a_page() -> None:
    run = make_run()

    response = Client().get(f"/runs/{run.pk}/live.json", headers={"Accept": "application/json"})

    assert (response.status_code, response.content) == (401, b"")


@pytest.mark.parametrize("path", ["runs/new", "runs/{run}/stop"])
def test_a_viewer_may_not_write(path: str) -> None:
    run = make_run(state=RunState.RUNNING, done=3)

    response = logged_in("viewer").get(f"/{path.format(run=run.pk)}")

    assert response.status_code == 403
    assert "runs:write" in response.content.decode()


def test_a_viewer_cannot_stop_a_run_by_posting() -> None:
    run = make_run(state=RunState.RUNNING, done=3)

    response = logged_in("viewer").post(f"/runs/{run.pk}/stop")

    run.refresh_from_db()
    assert (response.status_code, run.command) == (403, "CONTINUE")


def test_a_viewer_sees_no_controls_and_no_audit() -> None:
    run = make_run(state=RunState.RUNNING, done=3)

    page = logged_in("viewer").get(f"/runs/{run.pk}").content.decode()

    assert "run-stop" not in page
    assert 'href="/audit"' not in page


def test_a_viewer_may_not_read_the_audit_trail() -> None:
    assert logged_in("viewer").get("/audit").status_code == 403


def test_a_page_answers_only_the_methods_that_it_names() -> None:
    assert logged_in("operator").post("/runs").status_code == 405


def test_logging_in_leads_to_the_page_that_was_wanted() -> None:
    make_user("ada")

    response = Client().post("/login", {"username": "ada", "password": "correct horse", "next": "/library"})

    assert (response.status_code, response["Location"]) == (302, "/library")
    assert AuditEvent.objects.filter(type="access.login").count() == 1


def test_logging_in_leads_nowhere_else() -> None:
    make_user("ada")

    response = Client().post(
        "/login", {"username": "ada", "password": "correct horse", "next": "https://example.org/phish"}
    )

    assert response["Location"] == "/"


def test_a_wrong_password_is_told_without_saying_which_part_is_wrong() -> None:
    make_user("ada")

    response = Client().post("/login", {"username": "ada", "password": "wrong"})

    assert response.status_code == 401
    assert "The name or the password is wrong" in response.content.decode()


def test_guessing_passwords_is_slowed_down(settings: pytest.FixtureRequest) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {"login": "3/min"}}  # type: ignore[attr-defined]
    client = Client()

    answers = [client.post("/login", {"username": "ada", "password": "x"}) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert int(answers[-1]["Retry-After"]) > 0


def test_logging_out_needs_a_post_and_ends_the_session() -> None:
    client = logged_in("viewer")

    assert client.get("/logout").status_code == 405
    assert client.post("/logout")["Location"] == "/login"
    assert client.get("/runs").status_code == 302


def test_a_form_without_its_token_changes_nothing() -> None:
    run = make_run(state=RunState.RUNNING, done=3)
    client = Client(enforce_csrf_checks=True)
    client.force_login(make_user("ada"))

    response = client.post(f"/runs/{run.pk}/pause")

    assert response.status_code == 403
    assert "The form has expired" in response.content.decode()
    assert TrainingRun.objects.get().command == "CONTINUE"


def test_pages_take_scripts_and_styles_from_this_site_only() -> None:
    policy = logged_in("viewer").get("/runs")["Content-Security-Policy"]

    assert "script-src 'self'" in policy
    assert "unsafe-inline" not in policy
