"""`/checkpoints` and `/checkpoint-policies`: what was saved, what becomes of it, how two differ, and their bytes."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest
import torch
from blake3 import blake3
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy, JobKind
from apps.checkpoints.services import jobs
from apps.core.errors import Conflict
from apps.core.ids import new_id
from tests.api.conftest import Caller
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save, state_of
from tests.support.factories import CheckpointFactory, CheckpointPolicyFactory
from tests.support.problems import assert_problem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]

CHECKPOINTS, POLICIES = "/api/v1/checkpoints", "/api/v1/checkpoint-policies"


def address_of(checkpoint: Checkpoint, what: str = "") -> str:
    return f"{CHECKPOINTS}/{checkpoint.pk}{what}"


def post(client: Caller, path: str, body: Any = None, **headers: str) -> Any:
    return client.post(path, body or {}, format="json", headers=headers)


class TestListing:
    @pytest.mark.parametrize(
        ("query", "names"),
        [
            ("state=QUARANTINED", {"broken"}),
            ("location=ARCHIVED", {"far"}),
            ("reason=demand", {"asked"}),
            ("pinned=true", {"kept"}),
            ("pinned=false&state=COMMITTED", {"far", "asked"}),
        ],
    )
    def test_checkpoints_are_found_by_what_they_are(self, admin: Caller, query: str, names: set[str]) -> None:
        CheckpointFactory(name="broken", state=CheckpointState.QUARANTINED)
        CheckpointFactory(name="far", location="ARCHIVED")
        CheckpointFactory(name="asked", reason="demand")
        CheckpointFactory(name="kept", pinned=True)

        found = admin.get(f"{CHECKPOINTS}?{query}").json()["results"]

        assert {checkpoint["name"] for checkpoint in found} == names

    def test_those_of_one_run_are_found(self, admin: Caller) -> None:
        mine, _ = CheckpointFactory(), CheckpointFactory()

        (found,) = admin.get(CHECKPOINTS, {"run": str(mine.run_id)}).json()["results"]

        assert found["id"] == str(mine.pk)

    def test_a_word_that_is_no_answer_to_pinned_is_refused(self, admin: Caller) -> None:
        assert_problem(admin.get(CHECKPOINTS, {"pinned": "perhaps"}), 400, "invalid", "/pinned")


class TestOne:
    def test_it_tells_its_components_and_whether_it_stays(self, admin: Caller) -> None:
        checkpoint = save()

        answer = admin.get(address_of(checkpoint)).json()

        tolaria = next(part for part in answer["components"] if part["name"] == "tolaria")
        assert (tolaria["tensors"], tolaria["bytes"]) == (3, 40_000 * 4 + 30_000 * 4 + 12)
        assert answer["retention"]["keep"] is True
        assert "the newest one" in answer["retention"]["why"]

    def test_of_one_whose_bytes_are_gone_there_is_nothing_to_decide(self, admin: Caller) -> None:
        gone = CheckpointFactory(state=CheckpointState.EXPIRED)

        assert admin.get(address_of(gone)).json()["retention"] is None

    def test_it_is_sent_once(self, admin: Caller) -> None:
        checkpoint = save()
        etag = admin.get(address_of(checkpoint))["ETag"]

        assert admin.get(address_of(checkpoint), headers={"If-None-Match": etag}).status_code == 304

    def test_it_shows_its_past(self, admin: Caller) -> None:
        checkpoint = save()
        before = timezone.now().isoformat().replace("+00:00", "Z")
        post(admin, address_of(checkpoint, "/pin"))

        past = admin.get(address_of(checkpoint), {"as_of": before}).json()

        assert (past["state"]["pinned"], past["event"]["type"]) == (False, "checkpoint.committed")


class TestPins:
    def test_a_pinned_checkpoint_stays_until_it_is_unpinned(self, admin: Caller) -> None:
        checkpoint = save()

        pinned = post(admin, address_of(checkpoint, "/pin"), {"reason": "for the paper"}).json()
        unpinned = post(admin, address_of(checkpoint, "/unpin")).json()

        assert "pinned" in pinned["retention"]["why"]
        assert (pinned["pinned"], unpinned["pinned"]) == (True, False)

    def test_what_is_gone_cannot_be_pinned(self, admin: Caller) -> None:
        gone = CheckpointFactory(state=CheckpointState.EXPIRED)

        assert_problem(post(admin, address_of(gone, "/pin")), 409, "no_bytes")

    def test_to_read_is_not_to_write(self, caller: Any) -> None:
        reader = caller(scopes=["runs:read"])

        assert_problem(post(reader, address_of(save(), "/pin")), 403, "permission_denied")


class TestWork:
    @pytest.fixture(autouse=True)
    def _works(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What a run takes is another app's: here any of it may be asked for, and nothing is done."""

        def allowed(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
            if parameters.get("step") == 0:
                raise Conflict("step 0 lies before the checkpoint", code="before")

        for kind in (JobKind.CREATE, JobKind.RESTORE, JobKind.REPLAY):
            monkeypatch.setitem(jobs.WORKS, kind.value, jobs.Work(allowed, None, "default"))

    def test_a_save_is_asked_for_and_watched(self, admin: Caller) -> None:
        run_id = new_id()

        response = post(admin, CHECKPOINTS, {"run": str(run_id)})

        assert (response.status_code, response.json()["kind"]) == (202, "checkpoint.create")
        assert response.json()["subject"] == f"/api/v1/runs/{run_id}"
        assert admin.get(response["Location"]).json()["state"] == "pending"

    def test_a_save_that_is_done_names_the_checkpoint(self, admin: Caller) -> None:
        checkpoint = save()
        response = post(admin, CHECKPOINTS, {"run": str(checkpoint.run_id)})
        jobs.finish_job(CheckpointJob.objects.get(), checkpoint=checkpoint)

        answer = admin.get(response["Location"]).json()

        assert (answer["state"], answer["result"]) == ("succeeded", {"checkpoint": str(checkpoint.pk)})

    @pytest.mark.parametrize(
        ("what", "body", "parameters"),
        [
            ("verify", {}, {}),
            ("archive", {}, {}),
            ("recall", {}, {}),
            ("replay", {"step": 20}, {"step": 20}),
            ("restore", {}, {"validate_only": False}),
            (
                "restore",
                {"validate_only": True, "components": ["tolaria"]},
                {"validate_only": True, "components": ["tolaria"]},
            ),
        ],
    )
    def test_long_work_is_answered_by_an_operation(
        self, admin: Caller, what: str, body: dict[str, Any], parameters: dict[str, Any]
    ) -> None:
        checkpoint = save()

        response = post(admin, address_of(checkpoint, f"/{what}"), {**body, "reason": "because"})

        assert (response.status_code, response.json()["kind"]) == (202, f"checkpoint.{what}")
        assert response.json()["subject"] == address_of(checkpoint)
        assert CheckpointJob.objects.get().parameters == parameters

    def test_an_operation_can_be_cancelled(self, admin: Caller) -> None:
        location = post(admin, address_of(save(), "/verify"))["Location"]

        assert admin.delete(location).json()["state"] == "cancelled"
        assert CheckpointJob.objects.get().state == JobState.CANCELLED

    def test_to_cancel_takes_the_scope_to_write(self, admin: Caller, caller: Any) -> None:
        location = post(admin, address_of(save(), "/verify"))["Location"]

        assert_problem(caller(scopes=["runs:read"]).delete(location), 403, "permission_denied")

    def test_what_is_wrong_is_told_by_the_operation(self, admin: Caller) -> None:
        location = post(admin, address_of(save(), "/verify"))["Location"]
        jobs.fail_job(CheckpointJob.objects.get(), "object 1f0c: its bytes are not those of its name")

        answer = admin.get(location).json()

        assert (answer["state"], answer["problem"]) == ("failed", "object 1f0c: its bytes are not those of its name")

    def test_a_refused_check_is_a_problem(self, admin: Caller) -> None:
        assert_problem(post(admin, address_of(save(), "/replay"), {"step": 0}), 409, "before")

    def test_components_are_only_for_validation(self, admin: Caller) -> None:
        answer = post(admin, address_of(save(), "/restore"), {"components": ["tolaria"]})

        assert_problem(answer, 400, "invalid", "/components")

    def test_a_restore_of_another_checkpoint_waits_for_the_first(self, admin: Caller) -> None:
        run_id = new_id()
        first, second = save(run_id, 10), save(run_id, 20)
        post(admin, address_of(first, "/restore"))

        assert_problem(post(admin, address_of(second, "/restore")), 409, "busy")


class TestComparing:
    def compared(self, admin: Caller, older: Checkpoint, newer: Checkpoint) -> dict[str, Any]:
        answer = admin.get(address_of(newer, "/diff"), {"with": str(older.pk)}).json()
        return {component["name"]: component for component in answer["components"]}

    def test_it_tells_what_changed_and_what_is_shared(self, admin: Caller) -> None:
        run_id = new_id()

        tolaria = self.compared(admin, save(run_id, 10), save(run_id, 20))["tolaria"]

        assert (tolaria["changed"], tolaria["same"], tolaria["shared"]) == (2, 1, 120_000)
        assert {found["name"] for found in tolaria["differences"]} == {"model/head", "model/bias"}

    def test_small_tensors_that_lie_in_one_object_are_told_apart(self, admin: Caller) -> None:
        def small(step: int) -> dict[str, Any]:
            return {"tolaria": {"a": torch.ones(3), "b": torch.full((3,), float(step))}}

        tolaria = self.compared(admin, save(step=1, state=small(1)), save(step=2, state=small(2)))["tolaria"]

        assert [(found["name"], found["change"]) for found in tolaria["differences"]] == [("b", "changed")]

    def test_it_names_what_came_went_and_has_another_shape(self, admin: Caller) -> None:
        before = save(step=1, state={"tolaria": {"kept": torch.ones(4), "went": torch.ones(2), "grew": torch.ones(2)}})
        after = save(step=2, state={"tolaria": {"kept": torch.ones(4), "came": torch.ones(9), "grew": torch.ones(3)}})

        found = {each["name"]: each for each in self.compared(admin, before, after)["tolaria"]["differences"]}

        assert {name: each["change"] for name, each in found.items()} == {
            "went": "removed",
            "came": "added",
            "grew": "reshaped",
        }
        assert (found["grew"]["before"], found["grew"]["after"]) == ("float32 2", "float32 3")

    def test_another_checkpoint_has_to_be_there(self, admin: Caller) -> None:
        path = address_of(save(), "/diff")

        assert_problem(admin.get(path, {"with": str(new_id())}), 400, "not_found", "/with")
        assert_problem(admin.get(path), 400, "invalid", "/with")

    def test_one_without_bytes_cannot_be_compared(self, admin: Caller) -> None:
        gone = CheckpointFactory(state=CheckpointState.EXPIRED)

        assert_problem(admin.get(address_of(save(), "/diff"), {"with": str(gone.pk)}), 409, "no_bytes")


class TestDownloading:
    def manifest(self, admin: Caller, checkpoint: Checkpoint) -> Any:
        return admin.get(address_of(checkpoint, "/manifest"))

    def leaf(self, admin: Caller, checkpoint: Checkpoint, number: int) -> Any:
        return self.manifest(admin, checkpoint).json()["components"]["tolaria"]["leaves"][number]

    def test_the_etag_of_a_manifest_is_the_digest_of_its_body(self, admin: Caller) -> None:
        checkpoint = save()

        response = self.manifest(admin, checkpoint)

        assert response["Content-Type"] == "application/json"
        assert response["ETag"] == f'"{blake3(response.content).hexdigest()}"' == f'"{checkpoint.digest}"'

    def test_a_manifest_that_the_client_has_is_not_sent_again(self, admin: Caller) -> None:
        path = address_of(save(), "/manifest")

        assert admin.get(path, headers={"If-None-Match": admin.get(path)["ETag"]}).status_code == 304

    def test_a_state_is_put_together_from_its_objects(self, admin: Caller) -> None:
        checkpoint = save(step=30)
        leaf = self.leaf(admin, checkpoint, 0)

        parts = [
            admin.get(address_of(checkpoint, f"/objects/{digest}")).content[offset : offset + length]
            for digest, offset, length in leaf["parts"]
        ]

        head = torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.float32).reshape(leaf["shape"])
        assert torch.equal(head, state_of(30)["tolaria"]["model"]["head"])

    def test_an_object_has_its_digest_for_etag_and_is_sent_in_ranges(self, admin: Caller) -> None:
        checkpoint = save()
        (digest, _, length), *_ = self.leaf(admin, checkpoint, 0)["parts"]
        path = address_of(checkpoint, f"/objects/{digest}")

        whole, part = admin.get(path), admin.get(path, headers={"Range": "bytes=8-15"})

        assert (whole["ETag"], blake3(whole.content).hexdigest()) == (f'"{digest}"', digest)
        assert (part.status_code, part["Content-Range"]) == (206, f"bytes 8-15/{length}")
        assert part.content == whole.content[8:16]
        assert admin.get(path, headers={"If-None-Match": whole["ETag"]}).status_code == 304
        assert_problem(admin.get(path, headers={"Range": f"bytes={length}-"}), 416, "range")

    def test_an_object_of_another_checkpoint_is_not_given_out(self, admin: Caller) -> None:
        mine, other = save(step=1), save(step=2)
        (digest, _, _), *_ = self.leaf(admin, other, 0)["parts"]

        assert_problem(admin.get(address_of(mine, f"/objects/{digest}")), 404, "no_object")

    def test_broken_bytes_are_set_aside_and_never_sent(self, admin: Caller) -> None:
        checkpoint = save()
        (digest, _, _), *_ = self.leaf(admin, checkpoint, 0)["parts"]
        flip(pack_of(checkpoint), 1000)

        assert_problem(admin.get(address_of(checkpoint, f"/objects/{digest}")), 503, "corrupt_checkpoint")
        assert Checkpoint.objects.get(pk=checkpoint.pk).state == CheckpointState.QUARANTINED

    def test_of_one_whose_bytes_are_gone_there_is_nothing_to_send(self, admin: Caller) -> None:
        gone = CheckpointFactory(state=CheckpointState.EXPIRED)

        assert_problem(admin.get(address_of(gone, "/manifest")), 409, "no_bytes")


class TestPolicies:
    def test_a_run_gets_a_policy_of_its_own(self, admin: Caller) -> None:
        run_id = new_id()

        response = post(admin, POLICIES, {"run": str(run_id), "keep_last": 5, "schedule": "auto"})

        assert (response.status_code, response.json()["run_id"]) == (201, str(run_id))
        assert admin.get(response["Location"]).json()["keep_last"] == 5
        assert_problem(post(admin, POLICIES, {"run": str(run_id)}), 409, "duplicate")

    def test_a_wrong_number_is_named(self, admin: Caller) -> None:
        assert_problem(post(admin, POLICIES, {"keep_last": 0}), 400, "invalid", "/keep_last")

    def test_it_is_changed_by_who_has_seen_it(self, admin: Caller) -> None:
        path = f"{POLICIES}/{CheckpointPolicyFactory().pk}"
        etag = admin.get(path)["ETag"]

        changed = admin.patch(path, {"keep_days": 30}, format="json", headers={"If-Match": etag})
        late = admin.patch(path, {"keep_days": 1}, format="json", headers={"If-Match": etag})

        assert (changed.status_code, changed.json()["keep_days"]) == (200, 30)
        assert_problem(late, 412, "if_match")

    def test_it_is_removed(self, admin: Caller) -> None:
        path = f"{POLICIES}/{CheckpointPolicyFactory().pk}"

        response = admin.delete(f"{path}?reason=tidy", headers={"If-Match": admin.get(path)["ETag"]})

        assert response.status_code == 204
        assert not CheckpointPolicy.objects.exists()

    def test_the_preview_tells_what_goes_next_and_what_that_frees(self, admin: Caller) -> None:
        run_id = new_id()
        old, new = save(run_id, 10), save(run_id, 20)
        Checkpoint.objects.filter(pk=old.pk).update(created_at="2026-01-01T00:00:00Z")
        policy = CheckpointPolicyFactory(run_id=run_id, keep_last=1, keep_days=1, keep_best=0)

        answer = admin.get(f"{POLICIES}/{policy.pk}/preview").json()

        kept = {each["checkpoint"]: each["keep"] for each in answer["checkpoints"]}
        assert kept == {str(old.pk): False, str(new.pk): True}
        assert (answer["runs"], answer["goes"]) == (1, 1)
        assert 0 < answer["frees"] < old.stored_bytes
        assert Checkpoint.objects.filter(state=CheckpointState.COMMITTED).count() == 2


def test_a_body_that_is_no_object_is_a_problem(admin: Caller) -> None:
    response = admin.generic("POST", CHECKPOINTS, json.dumps([1]), content_type="application/json")

    assert_problem(response, 400, "invalid")
