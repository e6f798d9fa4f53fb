"""Proofs over the API: what comes back convinces the stand-alone verifier, and nothing else does."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from apps.accounts.roles import Role
from apps.audit import services, verifier
from apps.audit.models import AuditCheckpoint
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from tests.api.conftest import Caller
from tests.support.audit import own_home, record, sealed
from tests.support.factories import TokenFactory, UserFactory
from tests.support.problems import assert_problem

pytestmark = pytest.mark.usefixtures("committed_db", "home")

home = own_home


@pytest.fixture
def reader(committed_db: str) -> Caller:
    with transaction.atomic():
        user = UserFactory(role=Role.OPERATOR)
        return Caller(TokenFactory(user=user, scopes=["audit:read"]).secret)


@pytest.fixture
def events(reader: Caller, home: Path) -> list[Any]:
    """300 events under the first checkpoint; the reader's own rows have events too."""
    return sealed(300)


def inclusion(reader: Caller, **query: Any) -> Any:
    return reader.get("/api/v1/audit/proofs/inclusion", query)


def run_verifier(folder: Path, what: str, proof: Any, keys: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """The one file, alone: no project on its path."""
    file = folder / "given.json"
    file.write_text(json.dumps(proof))
    alone = folder / "verifier.py"
    alone.write_text(Path(verifier.__file__).read_text())
    command = [sys.executable, "-I", str(alone), what, str(file), *(f"--key={key}" for key in keys), *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=60, check=False)


class TestInclusion:
    def test_every_sealed_event_is_proven_to_the_stand_alone_verifier(
        self, reader: Caller, events: list[Any], tmp_path: Path
    ) -> None:
        for event in (events[0], events[255], events[256], events[-1]):
            proof = inclusion(reader, event=event.pk).json()

            result = run_verifier(tmp_path, "proof", proof, proof["keys"])
            assert (result.returncode, result.stdout.split(":")[0]) == (0, "right"), result.stdout + result.stderr

    def test_a_changed_event_convinces_nobody(self, reader: Caller, events: list[Any], tmp_path: Path) -> None:
        proof = inclusion(reader, event=events[7].pk).json()
        proof["event"]["reason"] = "it was somebody else"

        result = run_verifier(tmp_path, "proof", proof, proof["keys"])
        assert result.returncode == 1
        assert f"event {events[7].pk} does not have its leaf" in result.stdout

    def test_an_event_can_be_proven_under_an_earlier_checkpoint_that_one_has(
        self, reader: Caller, events: list[Any]
    ) -> None:
        first = AuditCheckpoint.objects.earliest("size")
        sealed(3)

        proof = inclusion(reader, event=events[0].pk, size=first.size).json()
        assert (proof["size"], proof["checkpoint"]) == (first.size, first.note)

    def test_an_event_that_waits_says_so(self, reader: Caller, events: list[Any]) -> None:
        waiting = record()

        assert_problem(inclusion(reader, event=waiting.pk), 409, "not_sealed")

    def test_an_event_sealed_later_is_not_in_an_earlier_tree(self, reader: Caller, events: list[Any]) -> None:
        first = AuditCheckpoint.objects.earliest("size")
        (late,) = sealed(1)

        assert_problem(inclusion(reader, event=late.pk, size=first.size), 409, "not_in_tree")

    @pytest.mark.parametrize(
        ("query", "status", "pointer"),
        [
            ({}, 400, "/event"),
            ({"event": "nonsense"}, 400, "/event"),
            ({"event": str(new_id())}, 404, ""),
            ({"event": str(new_id()), "size": "-1"}, 404, ""),
            ({"event": str(new_id()), "depth": "2"}, 400, "/depth"),
        ],
    )
    def test_bad_questions_are_told(self, reader: Caller, query: dict[str, str], status: int, pointer: str) -> None:
        response = inclusion(reader, **query)

        assert response.status_code == status
        assert [error["pointer"] for error in response.json()["errors"]] == ([pointer] if pointer else [])

    @pytest.mark.parametrize("size", ["-1", "1.5", "x", "9" * 30, "\u0661"])
    def test_a_malformed_size_is_named(self, reader: Caller, events: list[Any], size: str) -> None:
        response = inclusion(reader, event=events[0].pk, size=size)

        assert [error["pointer"] for error in response.json()["errors"]] == ["/size"]

    def test_a_size_that_nobody_signed_is_not_found(self, reader: Caller, events: list[Any]) -> None:
        assert inclusion(reader, event=events[0].pk, size=2).status_code == 404

    def test_the_answer_is_read_again_only_when_it_changed(self, reader: Caller, events: list[Any]) -> None:
        etag = inclusion(reader, event=events[0].pk)["ETag"]
        again = reader.get("/api/v1/audit/proofs/inclusion", {"event": events[0].pk}, headers={"If-None-Match": etag})
        assert again.status_code == 304


class TestConsistency:
    def test_the_trail_is_proven_to_have_only_grown(self, reader: Caller, events: list[Any], tmp_path: Path) -> None:
        first = AuditCheckpoint.objects.earliest("size").size
        sealed(40)

        proof = reader.get("/api/v1/audit/proofs/consistency", {"from": first}).json()
        result = run_verifier(tmp_path, "proof", proof, proof["keys"])
        assert result.returncode == 0, result.stdout + result.stderr

        proof["path"][0] = "00" * 32
        assert run_verifier(tmp_path, "proof", proof, proof["keys"]).returncode == 1

    @pytest.mark.parametrize(
        ("query", "status"), [({}, 400), ({"from": "x"}, 400), ({"from": "7"}, 404), ({"from": "1", "until": "2"}, 400)]
    )
    def test_bad_questions_are_told(
        self, reader: Caller, events: list[Any], query: dict[str, str], status: int
    ) -> None:
        assert reader.get("/api/v1/audit/proofs/consistency", query).status_code == status

    def test_a_later_tree_is_not_the_beginning_of_an_earlier_one(self, reader: Caller, events: list[Any]) -> None:
        first = AuditCheckpoint.objects.earliest("size").size
        sealed(1)
        newest = AuditCheckpoint.objects.latest("size").size

        response = reader.get("/api/v1/audit/proofs/consistency", {"from": newest, "to": first})
        assert_problem(response, 409, "order")


def test_checkpoints_and_keys_are_listed_for_whoever_keeps_them(reader: Caller, events: list[Any]) -> None:
    services.rotate_key(actor=SYSTEM, reason="yearly")
    services.seal()

    notes = reader.get("/api/v1/audit/checkpoints", {"page_size": 1}).json()
    keys = reader.get("/api/v1/audit/keys").json()["results"]

    assert notes["has_more"] is True
    assert notes["results"][0]["note"] == AuditCheckpoint.objects.latest("size").note
    assert [key["admitted_by"] for key in keys] == ["", keys[0]["id"]]


def test_the_verifier_itself_can_be_fetched(reader: Caller) -> None:
    response = reader.get("/api/v1/audit/verifier")

    assert response.content.decode() == Path(verifier.__file__).read_text()
    assert "verifier.py" in response["Content-Disposition"]


def test_the_state_of_the_trail_is_told_before_and_after_its_first_checkpoint(reader: Caller, home: Path) -> None:
    empty = reader.get("/api/v1/audit/state").json()
    assert (empty["sealed"], empty["checkpoint_size"], empty["verified_at"], empty["fault"]) == (0, None, None, "")

    sealed(3)
    record()
    services.verify_trail(actor=SYSTEM)

    state = reader.get("/api/v1/audit/state").json()
    assert state["sealed"] == state["checkpoint_size"] >= 3
    assert state["unsealed"] == 2, "the event that waits, and that of the verification"
    assert (state["findings"], state["uncopied"], state["is_stale"]) == (0, 0, False)
