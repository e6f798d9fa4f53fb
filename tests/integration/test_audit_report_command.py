"""`manage.py audit_report`: a report at the terminal, with its note beside it."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from apps.accounts import services as accounts
from apps.audit import keys, proofs, services
from apps.audit import verifier as verifier_program
from apps.audit.models import AuditReport
from apps.core.actors import SYSTEM, Actor, ActorKind
from tests.support.audit import record, sealed

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, settings: LazySettings) -> Path:
    settings.ESPER_HOME = tmp_path
    storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(tmp_path / "o")}}
    settings.STORAGES = {**settings.STORAGES, "default": storage}
    return tmp_path


def run(*arguments: str) -> str:
    output = io.StringIO()
    call_command("audit_report", *arguments, stdout=output)
    return output.getvalue()


def run_json(*arguments: str) -> dict[str, Any]:
    return json.loads(run(*arguments, "--json"))


def test_the_file_and_its_note_pass_the_stand_alone_verifier(home: Path) -> None:
    record(after={"state": "REGISTERED"})
    out = home / "change.jsonl"

    run("change", "--out", str(out))

    (key,) = proofs.verifiers()
    words = ["report", str(out), "--note", f"{out}.note", "--key", key]
    assert verifier_program.main(words) == 0
    out.write_bytes(out.read_bytes() + b" ")
    assert verifier_program.main(words) == 1


def test_people_read_what_was_written_and_programs_get_one_object() -> None:
    said, answer = run("access"), run_json("access")

    assert "sha256" in said
    assert AuditReport.objects.get(pk=answer["id"]).sha256 == answer["sha256"]
    assert answer["note"].splitlines()[1] == "report"


def test_a_person_is_named_by_their_name_and_stored_by_their_pseudonym(home: Path) -> None:
    user, _ = accounts.create_user(username="grace", actor=SYSTEM)
    accounts.record_login(user=user, actor=Actor(kind=ActorKind.USER, id=user.pk, name="grace"))
    accounts.create_user(username="other", actor=SYSTEM)

    run("access", "--person", "grace", "--out", str(home / "a"))

    report = AuditReport.objects.get()
    assert report.parameters["account"] == str(user.pk)
    assert report.rows == 2
    assert b"grace" not in (home / "a").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weather"], "kind: there is no report 'weather'"),
        (["access", "--param", "since"], "not NAME=VALUE"),
        (["access", "--param", "since=then"], "parameters/since: must be a time"),
        (["access", "--as-of", "noon"], "--as-of: must be a time"),
        (["access", "--as-of", "2999-01-01T00:00:00Z"], "as_of: must not be in the future"),
        (["access", "--person", "nobody"], "nobody called 'nobody'"),
        (["provenance"], "parameters/kernel: is missing"),
    ],
)
def test_wrong_use_is_a_sentence(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)

    assert not AuditReport.objects.exists()


def test_a_folder_that_cannot_be_written_is_a_sentence(home: Path) -> None:
    with pytest.raises(CommandError, match="--out"):
        run("access", "--out", str(home / "no" / "such" / "folder"))


def test_a_key_that_is_gone_is_a_sentence(home: Path) -> None:
    sealed(1)
    record()
    (home / "audit" / keys.CURRENT).unlink()

    with pytest.raises(CommandError, match="is gone"):
        run("access")


def test_a_storage_that_is_away_leaves_a_report_that_waits(home: Path) -> None:
    services.seal()
    (home / "o").write_text("a file where the folder was")

    with pytest.raises(CommandError, match="is QUEUED: the object storage"):
        run("access")

    assert AuditReport.objects.get().state == "QUEUED"
