"""`/runs/{id}/checkpoints/uploads`: a client that trains elsewhere sends its state, and only what is not here yet."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from blake3 import blake3
from hypothesis import HealthCheck, given, settings, strategies

from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference
from apps.checkpoints.services import uploads
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.folder import Folder as StoreFolder
from apps.core.actors import WORKER
from apps.core.errors import Invalid
from apps.core.ids import new_id
from apps.training.models import RunLease
from tests.api.conftest import Caller
from tests.support.checkpoints import checkpoint_folder, save
from tests.support.factories import RunFactory
from tests.support.problems import assert_problem

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]

CHUNK = 8 * 1024 * 1024


class Client:
    """What a training loop elsewhere does with its state: component -> name -> tensor."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        body = {"kind": "external", "settings": {"task": "mine", "host": "resnet", "epochs": 20}}
        self.path = caller.post("/api/v1/runs", body)["Location"]
        self.token = self.take()
        self.objects: dict[str, bytes] = {}

    def take(self, holder: str = "laptop") -> int:
        token: int = self.caller.post(f"{self.path}/heartbeat", {"holder": holder}).json()["fencing_token"]
        return token

    def manifest(self, state: Mapping[str, Mapping[str, torch.Tensor]], step: int = 40, **more: Any) -> dict[str, Any]:
        components = {name: self._component(tensors) for name, tensors in state.items()}
        return {"epoch": step // 10, "step": step, "components": components, **more}

    def _component(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        leaves = []
        for tensor in tensors.values():
            data = tensor.numpy().tobytes()
            chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
            parts = [(self._keep(chunk), 0, len(chunk)) for chunk in chunks]
            leaves.append({"dtype": str(tensor.dtype)[6:], "shape": list(tensor.shape), "parts": parts})
        return {"tree": {"model": {name: {"$leaf": at} for at, name in enumerate(tensors)}}, "leaves": leaves}

    def _keep(self, data: bytes) -> str:
        digest = blake3(data).hexdigest()
        self.objects[digest] = data
        return digest

    def begin(self, manifest: dict[str, Any], token: int | None = None) -> Any:
        body = {"fencing_token": self.token if token is None else token, "manifest": manifest}
        return self.caller.post(f"{self.path}/checkpoints/uploads", body, format="json")

    def send(self, upload: str, digest: str, data: bytes | None = None) -> Any:
        path = f"{self.path}/checkpoints/uploads/{upload}/objects/{digest}"
        return self.caller.put(
            path, self.objects[digest] if data is None else data, content_type="application/octet-stream"
        )

    def commit(self, upload: str, token: int | None = None) -> Any:
        body = {"fencing_token": self.token if token is None else token}
        return self.caller.post(f"{self.path}/checkpoints/uploads/{upload}/commit", body, format="json")

    def upload(self, state: Mapping[str, Mapping[str, torch.Tensor]], **more: Any) -> tuple[list[str], Any]:
        """What had to be sent, and the answer to the commit."""
        begun = self.begin(self.manifest(state, **more)).json()
        for digest in begun["missing"]:
            assert self.send(begun["upload"], digest).status_code == 204
        return begun["missing"], self.commit(begun["upload"])


def state(seed: int) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {"net": {"frozen": torch.arange(30_000.0), "head": torch.randn(20_000, generator=generator)}}


@pytest.fixture
def client(admin: Caller) -> Client:
    return Client(admin)


def staged(folder: Path) -> list[Path]:
    root = folder / uploads.FOLDER
    return list(root.iterdir()) if root.is_dir() else []


class TestSending:
    def test_what_was_sent_is_the_latest_checkpoint_of_the_run(self, client: Client) -> None:
        _, response = client.upload(state(1), metrics={"validation_loss": 0.25}, labels={"host": "laptop"})

        answer = response.json()
        assert (response.status_code, answer["state"], answer["reason"]) == (201, "COMMITTED", "upload")
        assert (answer["step"], answer["fencing_token"]) == (40, client.token)
        assert answer["metrics"] == {"validation_loss": 0.25}
        loaded = services.load_latest(run_id=Checkpoint.objects.get().run_id, actor=WORKER)
        assert loaded is not None
        assert torch.equal(loaded.components["net"]["model"]["head"], state(1)["net"]["head"])

    def test_only_what_is_not_here_yet_has_to_be_sent(self, client: Client) -> None:
        first, _ = client.upload(state(1), step=10)
        second, response = client.upload(state(2), step=20)

        assert (len(first), len(second)) == (2, 1)
        assert response.json()["shared_bytes"] == 120_000

    def test_a_state_that_is_here_already_needs_no_object(self, client: Client) -> None:
        client.upload(state(1), step=10)
        missing, response = client.upload(state(1), step=20)

        assert (missing, response.status_code) == ([], 201)

    def test_a_tensor_of_more_than_one_object_arrives_whole(self, client: Client) -> None:
        large = {"net": {"large": torch.arange(2_200_000, dtype=torch.float32)}}

        missing, response = client.upload(large)

        assert (len(missing), response.json()["size"]) == (2, 8_800_000)

    def test_what_was_downloaded_can_be_sent_to_another_run(self, admin: Caller, client: Client) -> None:
        checkpoint = save()
        manifest = admin.get(f"/api/v1/checkpoints/{checkpoint.pk}/manifest").json()
        known = {name: manifest[name] for name in ("epoch", "step", "components", "metrics", "environment")}

        begun = client.begin(known).json()

        assert begun["missing"] == []
        assert client.commit(begun["upload"]).json()["size"] == checkpoint.size

    def test_the_folder_of_an_upload_goes_with_its_commit(
        self, client: Client, checkpoint_folder: Path, django_capture_on_commit_callbacks: Any
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            client.upload(state(1))

        assert staged(checkpoint_folder) == []


class TestAgain:
    def test_an_object_can_be_sent_again(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()
        digest = begun["missing"][0]

        assert [client.send(begun["upload"], digest).status_code for _ in range(2)] == [204, 204]

    def test_a_commit_whose_answer_was_lost_is_answered_again(self, client: Client) -> None:
        _, first = client.upload(state(1))

        assert client.commit(first.json()["id"]).json()["id"] == first.json()["id"]
        assert Checkpoint.objects.count() == 1

    def test_a_commit_that_came_too_early_is_made_good(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()

        early = client.commit(begun["upload"])
        for digest in begun["missing"]:
            client.send(begun["upload"], digest)

        body = assert_problem(early, 409, "missing_objects")
        assert begun["missing"][0] in body["detail"]
        assert client.commit(begun["upload"]).status_code == 201

    def test_a_commit_goes_on_where_a_killed_one_stopped(self, client: Client, checkpoint_folder: Path) -> None:
        begun = client.begin(client.manifest(state(1))).json()
        for digest in begun["missing"]:
            client.send(begun["upload"], digest)
        (checkpoint_folder / "manifests").mkdir(exist_ok=True)
        (checkpoint_folder / "manifests" / f"{begun['upload']}.json").write_bytes(b"half of")

        assert client.commit(begun["upload"]).status_code == 201


class TestFencing:
    def test_a_client_that_has_lost_the_run_can_neither_begin_nor_commit(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()
        for digest in begun["missing"]:
            client.send(begun["upload"], digest)
        RunLease.objects.update(fencing_token=client.token + 1)  # somebody else has taken it

        assert_problem(client.begin(client.manifest(state(1))), 409, "lease_lost")
        assert_problem(client.commit(begun["upload"]), 409, "lease_lost")
        assert not Checkpoint.objects.exists()
        assert not ObjectReference.objects.exists()

    def test_only_external_runs_take_uploads(self, client: Client) -> None:
        client.path = f"/api/v1/runs/{RunFactory().pk}"

        assert_problem(client.begin(client.manifest(state(1))), 409, "not_external")

    def test_the_upload_of_another_run_is_not_found(self, admin: Caller, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()
        other = Client(admin)

        assert_problem(other.commit(begun["upload"]), 404, "no_upload")


class TestWrongInput:
    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"step": -1}, "/manifest/step"),
            ({"epoch": "two"}, "/manifest/epoch"),
            ({"reason": "demand"}, "/manifest/reason"),
            ({"components": {"../../etc": {"tree": {}, "leaves": []}}}, "/manifest"),
            ({"components": {"net": {"tree": {"$leaf": 7}, "leaves": []}}}, "/manifest"),
            ({"components": []}, "/manifest"),
            ({"metrics": {"loss": "low"}}, "/manifest"),
        ],
    )
    def test_a_wrong_manifest_is_refused_and_named(self, client: Client, change: dict[str, Any], pointer: str) -> None:
        assert_problem(client.begin({**client.manifest(state(1)), **change}), 400, "", pointer)
        assert not Checkpoint.objects.exists()

    def test_what_is_missing_in_a_manifest_is_named(self, client: Client) -> None:
        assert_problem(client.begin({"epoch": 1, "step": 10}), 400, "invalid", "/manifest/components")

    @pytest.mark.parametrize(
        "leaf",
        [
            {"dtype": "float32", "shape": [10**9, 10**9], "parts": []},
            {"dtype": "float32", "shape": [2], "parts": [["f" * 64, 0, 12]]},
            {"dtype": "object", "shape": [1], "parts": [["f" * 64, 0, 8]]},
            {"dtype": "uint8", "shape": [8], "parts": [["../../../../etc/passwd", 0, 8]]},
            {"dtype": "uint8", "shape": [8], "parts": [["f" * 64, 2**40, 8]]},
        ],
    )
    def test_a_leaf_that_is_not_what_it_says_is_refused(self, client: Client, leaf: dict[str, Any]) -> None:
        manifest = client.manifest(state(1))
        manifest["components"]["net"] = {"tree": {"$leaf": 0}, "leaves": [leaf]}

        assert_problem(client.begin(manifest), 400, "manifest", "/manifest")

    def test_a_reference_beyond_the_end_of_an_object_is_refused(self, client: Client) -> None:
        client.upload(state(1))
        manifest = client.manifest(state(1))
        digest = manifest["components"]["net"]["leaves"][1]["parts"][0][0]
        leaf = {"dtype": "uint8", "shape": [90_000], "parts": [[digest, 0, 90_000]]}
        manifest["components"]["net"] = {"tree": {"$leaf": 0}, "leaves": [leaf]}

        assert_problem(client.begin(manifest), 400, "beyond_the_end", "/manifest/components")

    def test_bytes_of_another_digest_are_refused(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()

        assert_problem(client.send(begun["upload"], begun["missing"][0], b"others"), 400, "digest_mismatch")

    def test_an_object_that_nobody_asked_for_is_refused(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()

        assert_problem(client.send(begun["upload"], blake3(b"mine").hexdigest(), b"mine"), 404, "no_object")

    def test_an_object_has_a_largest_size(self, client: Client) -> None:
        begun = client.begin(client.manifest(state(1))).json()

        assert_problem(client.send(begun["upload"], begun["missing"][0], bytes(CHUNK + 1)), 413)

    def test_an_upload_that_is_not_there_is_not_found(self, client: Client) -> None:
        assert_problem(client.send(str(new_id()), "f" * 64, b""), 404, "no_upload")
        assert_problem(client.commit(str(new_id())), 404, "no_upload")

    def test_a_run_has_a_few_uploads_at_a_time(self, client: Client) -> None:
        for _ in range(uploads.MOST_OPEN):
            client.begin(client.manifest(state(1)))

        assert_problem(client.begin(client.manifest(state(1))), 409, "too_many_uploads")


ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 10**40, 0.5, "", "x" * 600, "../../x", [], {}, [[]], {"$leaf": 0}, {"$leaf": -1},
    {"$tuple": 3}, {"$dict": [[[], 1]]}, {"$bytes": "?"}, {"$float": "much"}, {"$int": "0x"}, ["f" * 64, 0, 2**62],
)  # fmt: skip


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, item in inner:
        yield (*path, name)
        yield from places_in(item, (*path, name))


def refused_at(document: dict[str, Any]) -> list[str]:
    """The pointers of the refusal; none: it is taken. Anything else that is raised is not caught."""
    try:
        uploads.begin_upload(run_id=new_id(), workspace_id=new_id(), document=document)
    except Invalid as error:
        return [fault.pointer for fault in error.errors] or [""]
    return []


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=strategies.data())
def test_no_change_of_a_manifest_is_more_than_refused(data: strategies.DataObject) -> None:
    """Whatever stands anywhere in it: it is taken as a manifest, or refused with a pointer into it."""
    good = {
        "epoch": 1, "step": 2, "metrics": {"loss": 0.5}, "environment": {"torch": "2"},
        "components": {
            "net": {
                "tree": {"w": {"$leaf": 0}, "betas": {"$tuple": [0.9, 1]}},
                "leaves": [{"dtype": "float32", "shape": [2], "parts": [["f" * 64, 0, 8]]}],
            }
        },
    }  # fmt: skip
    document = json.loads(json.dumps(good))
    *path, last = data.draw(strategies.sampled_from(list(places_in(document))))
    parent = document
    for step in path:
        parent = parent[step]
    parent[last] = data.draw(strategies.sampled_from(ODD_VALUES))

    assert all(pointer.startswith("/manifest") for pointer in refused_at(document))


class TestFolderInTrouble:
    def test_a_folder_that_is_away_is_told_and_nothing_is_lost(
        self, client: Client, checkpoint_folder: Path, settings: Any
    ) -> None:
        begun = client.begin(client.manifest(state(1))).json()
        settings.CHECKPOINTS_ROOT = checkpoint_folder / "store.json" / "away"

        for response in (
            client.begin(client.manifest(state(1))),
            client.send(begun["upload"], begun["missing"][0]),
            client.commit(begun["upload"]),
        ):
            assert_problem(response, 503, "storage")

    def test_a_disk_that_fills_up_during_the_commit_leaves_the_upload_to_be_committed_later(
        self, client: Client, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(name: str) -> None:
            if name == "manifest.written":
                raise OSError("no space left on device")

        begun = client.begin(client.manifest(state(1))).json()
        for digest in begun["missing"]:
            client.send(begun["upload"], digest)
        with monkeypatch.context() as patch:
            patch.setattr(crashpoints, "hook", full)
            assert_problem(client.commit(begun["upload"]), 503, "storage")

        assert not Checkpoint.objects.exists()
        assert list((checkpoint_folder / "packs").iterdir()) == []
        assert client.commit(begun["upload"]).status_code == 201

    def test_a_manifest_for_which_there_is_no_room_is_refused_at_once(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))

        assert_problem(client.begin(client.manifest(state(1))), 413, "no_room")


def test_uploads_that_are_left_alone_are_collected(client: Client, checkpoint_folder: Path) -> None:
    begun = client.begin(client.manifest(state(1))).json()
    client.send(begun["upload"], begun["missing"][0])

    assert uploads.collect_uploads() == 0
    assert uploads.collect_uploads(older_than=0.0) == 1
    assert staged(checkpoint_folder) == []
    assert not Checkpoint.objects.filter(state=CheckpointState.COMMITTED).exists()


def test_a_commit_that_was_killed_leaves_no_manifest_once_its_upload_is_collected(
    client: Client, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def kill(*args: Any, **options: Any) -> None:
        raise Killed

    begun = client.begin(client.manifest(state(1))).json()
    for digest in begun["missing"]:
        client.send(begun["upload"], digest)
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "_committed", kill)
        patch.setattr(StoreFolder, "delete_manifest", lambda folder, key: 0)  # nobody is left to do it
        with pytest.raises(Killed):
            client.commit(begun["upload"])
    assert list((checkpoint_folder / "manifests").iterdir())

    uploads.collect_uploads(older_than=0.0)

    assert list((checkpoint_folder / "manifests").iterdir()) == []
