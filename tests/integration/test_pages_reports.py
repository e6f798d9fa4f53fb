"""The page of compliance reports: questions in people's words, states, and what came of computing one again."""

from pathlib import Path

import pytest
from django.conf import LazySettings
from django.test import Client

from apps.accounts import services as accounts
from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.audit import services
from apps.audit.models import AuditEvent, AuditReport
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels import services as kernels
from apps.kernels.models import Kernel
from tests.support.audit import record
from tests.support.factories import BlueprintVersionFactory, UserFactory

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings) -> Path:
    settings.ESPER_HOME = tmp_path
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "o")}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return tmp_path


@pytest.fixture
def ada() -> User:
    return UserFactory(username="ada", role=Role.OPERATOR)


@pytest.fixture
def browser(ada: User) -> Client:
    client = Client()
    client.force_login(ada)
    return client


@pytest.fixture
def kernel() -> Kernel:
    return kernels.register_kernel(version=BlueprintVersionFactory(), actor=SYSTEM)


def text(client: Client, path: str = "/audit/reports") -> str:
    return str(client.get(path).content.decode())


def ask(client: Client, **values: str) -> AuditReport:
    """Ask by the form; the one report that there is then."""
    response = client.post("/audit/reports", values)
    assert response.status_code == 302, response.content.decode()
    return AuditReport.objects.order_by("-id")[0]


def test_an_empty_page_says_how_to_fill_it(browser: Client) -> None:
    page = text(browser)

    assert "No report yet" in page
    assert "manage.py audit_report access" in page


@pytest.mark.parametrize(
    ("kind", "fields", "others"),
    [
        ("access", ["since", "until", "person", "as_of"], ["kernel", "subject_id"]),
        ("change", ["since", "until", "person", "subject_type", "subject_id", "as_of"], ["kernel"]),
        ("retention", ["since", "until", "as_of"], ["person", "kernel"]),
        ("privileges", ["person", "as_of"], ["since", "kernel"]),
        ("provenance", ["kernel", "as_of"], ["since", "person"]),
    ],
)
def test_each_question_has_the_fields_of_its_parameters(
    browser: Client, kind: str, fields: list[str], others: list[str]
) -> None:
    page = text(browser, f"/audit/reports?ask={kind}")

    assert [name for name in fields if f'name="{name}"' not in page] == []
    assert [name for name in others if f'name="{name}"' in page] == []


def test_a_person_is_asked_for_by_name_and_stored_by_pseudonym(browser: Client) -> None:
    user, _ = accounts.create_user(username="grace", actor=SYSTEM)
    accounts.issue_token(user=user, name="ci", scopes=["runs:read"], actor=SYSTEM)

    report = ask(browser, kind="access", person="grace", since="2026-01-01T08:30")

    assert report.parameters["account"] == str(user.pk)
    assert report.parameters["since"] == "2026-01-01T08:30:00+00:00"
    assert "grace" not in str(report.parameters)
    assert "by grace" in text(browser)


def test_a_kernel_is_asked_for_by_name_or_id(browser: Client, kernel: Kernel) -> None:
    by_name, by_id = (ask(browser, kind="provenance", kernel=word) for word in (kernel.name, str(kernel.pk)))

    assert by_name.parameters == by_id.parameters == {"kernel": str(kernel.pk)}
    assert f"of {kernel.name}" in text(browser)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "access", "person": "nobody"}, "Nobody is called that."),
        ({"kind": "access", "since": "then"}, "Enter a valid date/time."),
        ({"kind": "access", "since": "2026-02-01T00:00", "until": "2026-01-01T00:00"}, "must be after since"),
        ({"kind": "access", "as_of": "2999-01-01T00:00"}, "must not be in the future"),
        ({"kind": "provenance"}, "This field is required."),
        ({"kind": "provenance", "kernel": "no-such-kernel"}, "No kernel is called that."),
        ({"kind": "provenance", "kernel": str(new_id())}, "the trail knows no kernel"),
        ({"kind": "change", "subject_type": "weather"}, "Select a valid choice."),
    ],
)
def test_a_wrong_question_says_so_at_its_field(browser: Client, values: dict[str, str], message: str) -> None:
    response = browser.post("/audit/reports", values)

    assert response.status_code == 422
    assert message in response.content.decode()
    assert not AuditReport.objects.exists()


def test_a_report_that_is_being_written_makes_the_list_look_again(browser: Client) -> None:
    report = ask(browser, kind="access")
    waiting = text(browser)
    services.write_report(report=report)

    assert 'hx-trigger="every 2s"' in waiting
    assert "being written" in waiting
    assert 'hx-trigger="every 2s"' not in text(browser)


def test_a_written_report_can_be_downloaded_with_its_note(browser: Client) -> None:
    record(after={"state": "REGISTERED"})
    report = services.write_report(report=ask(browser, kind="change"))
    page = text(browser)

    for part in ("content", "note"):
        path = f"/api/v1/audit/reports/{report.pk}/{part}"
        assert path in page
        assert browser.get(path).status_code == 200


def test_computing_it_again_says_what_came_out(browser: Client, home: Path) -> None:
    report = services.write_report(report=ask(browser, kind="change"))

    same = browser.post(f"/audit/reports/{report.pk}/reproduce", follow=True).content.decode()
    (home / "o" / report.name).write_bytes(b"")
    other = browser.post(f"/audit/reports/{report.pk}/reproduce", follow=True).content.decode()

    assert "the same to the last byte" in same
    assert "NOT the same: the stored file is gone or is not what was signed" in other
    assert AuditEvent.objects.filter(type="report.reproduced").count() == 2


def test_what_waits_cannot_be_computed_again(browser: Client) -> None:
    report = ask(browser, kind="change")

    response = browser.post(f"/audit/reports/{report.pk}/reproduce")

    assert response.status_code == 409


def test_the_list_shows_one_question_when_asked(browser: Client) -> None:
    ask(browser, kind="change")
    ask(browser, kind="privileges")

    assert text(browser, "/audit/reports?kind=privileges").count('<tr role="row" id="r-') == 1


def test_the_number_of_queries_does_not_grow_with_the_list(
    browser: Client, django_assert_max_num_queries: object
) -> None:
    for _ in range(12):
        ask(browser, kind="access", person="ada")

    with django_assert_max_num_queries(12):  # type: ignore[operator]
        text(browser)


class TestStatement:
    def test_the_page_of_a_kernel_leads_to_its_statement(self, browser: Client, kernel: Kernel) -> None:
        assert f"/library/kernels/{kernel.pk}/statement" in text(browser, f"/library/kernels/{kernel.pk}")

        response = browser.post(f"/library/kernels/{kernel.pk}/statement")

        report = AuditReport.objects.get()
        assert response["Location"] == f"/audit/reports#r-{report.pk}"
        assert (report.kind, report.parameters) == ("provenance", {"kernel": str(kernel.pk)})

    def test_the_statement_that_there_is_is_found_until_something_happens_to_the_kernel(
        self, browser: Client, kernel: Kernel
    ) -> None:
        for _ in range(2):
            browser.post(f"/library/kernels/{kernel.pk}/statement")
        once = AuditReport.objects.count()
        kernels.quarantine_kernel(kernel=kernel, reason="bad bytes", actor=SYSTEM)
        browser.post(f"/library/kernels/{kernel.pk}/statement")

        assert (once, AuditReport.objects.count()) == (1, 2)

    def test_viewers_see_the_kernel_without_it(self, kernel: Kernel) -> None:
        viewer = Client()
        viewer.force_login(UserFactory(role=Role.VIEWER))

        assert "Provenance statement" not in text(viewer, f"/library/kernels/{kernel.pk}")
        assert viewer.post(f"/library/kernels/{kernel.pk}/statement").status_code == 403
        assert viewer.get("/audit/reports").status_code == 403
