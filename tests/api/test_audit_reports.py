"""Compliance reports over the API: asked for, waited for, read, checked outside, computed again."""

import hashlib
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from apps.accounts.roles import Role
from apps.audit import proofs, services
from apps.audit.models import AuditEvent, AuditPerson, AuditReport
from apps.audit.verifier import Verifier, check_report
from apps.core.ids import new_id
from tests.api.conftest import Caller
from tests.support.audit import record
from tests.support.factories import TokenFactory, UserFactory
from tests.support.problems import assert_problem

pytestmark = pytest.mark.usefixtures("committed_db")

PATH = "/api/v1/audit/reports"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings) -> Path:
    settings.ESPER_HOME = tmp_path
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "o")}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return tmp_path


@pytest.fixture
def auditor() -> Caller:
    """An operator: reads the trail, writes nothing of it."""
    return Caller(TokenFactory(user=UserFactory(username="auditor", role=Role.OPERATOR)).secret)


def ask(client: Caller, kind: str = "change", **values: Any) -> Any:
    return client.post(PATH, {"kind": kind, **values})


def ready(client: Caller, kind: str = "change", **values: Any) -> str:
    """The path of a written report."""
    path = ask(client, kind, **values)["Location"]
    services.write_report(report=AuditReport.objects.get(pk=path.rsplit("/", 1)[1]))
    return str(path)


def test_a_request_is_accepted_and_read_until_it_is_ready(auditor: Caller) -> None:
    answer = ask(auditor, "access", parameters={"since": "2026-01-01T00:00:00Z"})

    assert answer.status_code == 202
    assert answer.json()["state"] == "QUEUED"
    assert answer.json()["requested_by_name"] == "auditor"
    path = answer["Location"]
    assert auditor.get(path).json()["parameters"] == {"since": "2026-01-01T00:00:00+00:00"}
    services.write_report(report=AuditReport.objects.get())
    done = auditor.get(path)
    assert done.json()["state"] == "READY"
    assert done["ETag"] != answer["ETag"]


def test_the_same_key_asks_once(auditor: Caller) -> None:
    body = {"kind": "access"}
    first, second = (auditor.post(PATH, body, headers={"Idempotency-Key": "k"}) for _ in range(2))

    assert first.content == second.content
    assert second["Idempotency-Replayed"] == "true"
    assert AuditReport.objects.count() == 1


def test_the_content_and_its_note_pass_the_stand_alone_verifier(auditor: Caller) -> None:
    record(after={"state": "REGISTERED"})
    path = ready(auditor)

    content, note = auditor.get(f"{path}/content"), auditor.get(f"{path}/note")
    data = b"".join(content.streaming_content)

    digest = hashlib.sha256(data).digest()
    assert content["Content-Type"] == "application/jsonl"
    assert content["ETag"] == f'"sha256:{digest.hex()}"'
    assert content["Repr-Digest"] == f"sha-256=:{b64encode(digest).decode()}:"
    assert note["Content-Type"].startswith("text/plain")
    trusted = [Verifier.parse(text) for text in proofs.verifiers()]
    assert check_report(data, note.content.decode(), trusted)
    assert json.loads(data.splitlines()[0])["kind"] == "change"


@pytest.mark.parametrize("part", ["content", "note"])
def test_whoever_has_it_is_told_that_it_is_current(auditor: Caller, part: str) -> None:
    path = f"{ready(auditor)}/{part}"
    etag = auditor.get(path)["ETag"]

    answer = auditor.get(path, headers={"If-None-Match": etag})

    assert (answer.status_code, answer["ETag"]) == (304, etag)


def test_head_gives_the_digest_without_the_bytes(auditor: Caller) -> None:
    answer = auditor.head(f"{ready(auditor)}/content")

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.has_header("Repr-Digest")


@pytest.mark.parametrize("part", ["content", "note"])
def test_a_report_that_waits_has_no_content_yet(auditor: Caller, part: str) -> None:
    path = ask(auditor)["Location"]

    assert_problem(auditor.get(f"{path}/{part}"), 409, "not_ready")
    assert_problem(auditor.post(f"{path}/reproduce"), 409, "not_ready")


def test_a_storage_without_the_content_is_a_problem_that_says_so(auditor: Caller, home: Path) -> None:
    path = ready(auditor)
    (home / "o" / AuditReport.objects.get().name).unlink()

    assert_problem(auditor.get(f"{path}/content"), 503, "storage")
    assert auditor.post(f"{path}/reproduce").json()["is_same"] is False


def test_reproducing_compares_and_leaves_an_event_of_the_caller(auditor: Caller) -> None:
    path = ready(auditor)

    answer = auditor.post(f"{path}/reproduce")

    assert answer.status_code == 200
    assert answer.json() == {
        "is_same": True,
        "has_root": True,
        **dict.fromkeys(("signed", "sha256", "stored"), AuditReport.objects.get().sha256),
    }
    event = AuditEvent.objects.get(type="report.reproduced")
    assert event.actor_kind == "token"
    assert AuditPerson.objects.get(pk=event.actor_id).user_id is not None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"kind": "weather"}, "/kind"),
        ({}, "/kind"),
        ({"kind": "access", "parameters": {"sinc": "x"}}, "/parameters/sinc"),
        ({"kind": "access", "parameters": {"since": "yesterday"}}, "/parameters/since"),
        ({"kind": "access", "parameters": []}, "/parameters"),
        ({"kind": "access", "as_of": "2999-01-01T00:00:00Z"}, "/as_of"),
        ({"kind": "access", "as_of": "soon"}, "/as_of"),
        ({"kind": "provenance"}, "/parameters/kernel"),
        ({"kind": "provenance", "parameters": {"kernel": str(new_id())}}, "/parameters/kernel"),
        ({"kind": "access", "name": "mine"}, "/name"),
    ],
)
def test_a_wrong_request_names_its_field_and_asks_nothing(auditor: Caller, body: dict[str, Any], pointer: str) -> None:
    assert_problem(auditor.post(PATH, body), 400, "", pointer)

    assert not AuditReport.objects.exists()


def test_the_list_is_filtered_by_kind_and_state(auditor: Caller) -> None:
    ready(auditor, "access")
    ask(auditor, "privileges")

    assert [row["kind"] for row in auditor.get(PATH).json()["results"]] == ["privileges", "access"]
    assert [row["kind"] for row in auditor.get(f"{PATH}?state=READY").json()["results"]] == ["access"]
    assert auditor.get(f"{PATH}?kind=change").json()["results"] == []
    assert_problem(auditor.get(f"{PATH}?state=DONE"), 400, "", "/state")


def test_viewers_neither_read_nor_ask(auditor: Caller) -> None:
    path = ready(auditor)
    viewer = Caller(TokenFactory(user=UserFactory(role=Role.VIEWER)).secret)

    assert_problem(viewer.get(PATH), 403)
    assert_problem(viewer.get(f"{path}/content"), 403)
    assert_problem(ask(viewer), 403)
