"""Checkpoints as files of other programs, and the other way; no file that would run code, or grow, is ever loaded."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from apps.accounts.models import default_workspace_id
from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.services import exporting, loading
from apps.checkpoints.services.exporting import Exported, Format
from apps.core.actors import WORKER
from apps.core.errors import Conflict, Invalid, LeaseLost, NotFound, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save
from tests.support.factories import CheckpointFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]


def state() -> dict[str, Any]:
    shared = torch.randn(3, 4)
    return {
        "tolaria": {
            "model": {"layers.0.weight": shared, "tied": shared, "half": torch.ones(2, dtype=torch.bfloat16)},
            "optimizer": {0: {"step": torch.tensor(7.0), "betas": (0.9, 0.999)}},
            "random": {"numpy": np.arange(4, dtype=np.uint32), "python": (3, (1, 2), None)},
            "loss": float("nan"),
        },
        "tamiyo": {"histories": [1, 2, 2**70], "name": "greedy"},
    }


def export(checkpoint: Checkpoint, path: Path, format: Format, **values: Any) -> Exported:
    return exporting.export_checkpoint(checkpoint=checkpoint, path=path, format=format, actor=WORKER, **values)


def imported(path: Path, guard: Callable[[], None] = lambda: None, **values: Any) -> Checkpoint:
    return exporting.import_checkpoint(
        path=path,
        run_id=new_id(),
        workspace_id=default_workspace_id(),
        fencing_token=3,
        guard=guard,
        actor=WORKER,
        **values,
    )


def assert_alike(found: Any, wanted: Any) -> None:
    """The same trees; NaN is NaN."""
    if isinstance(wanted, torch.Tensor):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    elif isinstance(wanted, np.ndarray):
        assert np.array_equal(np.asarray(found), wanted)
    elif isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name in wanted:
            assert_alike(found[name], wanted[name])
    elif isinstance(wanted, list | tuple):
        assert type(found) is type(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert_alike(one, other)
    else:
        assert found == wanted or (found != found and wanted != wanted)


class TestExporting:
    def test_safetensors_has_each_tensor_by_its_place(self, tmp_path: Path) -> None:
        export(save(state=state()), tmp_path / "out.safetensors", Format.SAFETENSORS)

        found = load_file(tmp_path / "out.safetensors")

        assert found["tolaria/model/half"].dtype == torch.bfloat16
        assert "tolaria/optimizer/0/step" in found

    def test_torch_reads_its_file_as_weights(self, tmp_path: Path) -> None:
        export(save(state=state()), tmp_path / "out.pt", Format.TORCH)

        found = torch.load(tmp_path / "out.pt", weights_only=True)

        assert found["tamiyo"] == state()["tamiyo"]
        assert found["tolaria"]["model"]["tied"].data_ptr() == found["tolaria"]["model"]["layers.0.weight"].data_ptr()

    @pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
    def test_a_distributed_checkpoint_is_a_directory(self, tmp_path: Path) -> None:
        from torch.distributed import checkpoint as dcp

        made = {"tolaria": {"head": torch.arange(6.0).reshape(2, 3)}}
        export(save(state=made), tmp_path / "out", Format.DCP)

        found = {"tolaria": {"head": torch.zeros(2, 3)}}
        dcp.load(found, checkpoint_id=tmp_path / "out", no_dist=True)
        assert torch.equal(found["tolaria"]["head"], made["tolaria"]["head"])

    def test_one_component_is_exported_alone(self, tmp_path: Path) -> None:
        exported = export(save(state=state()), tmp_path / "out.pt", Format.TORCH, components=["tamiyo"])

        assert exported.components == ("tamiyo",)
        assert list(torch.load(tmp_path / "out.pt", weights_only=True)) == ["tamiyo"]

    def test_the_trail_tells_what_was_exported(self, tmp_path: Path) -> None:
        checkpoint = save()
        exported = export(checkpoint, tmp_path / "out.pt", Format.TORCH, reason="for the paper")

        event = AuditEvent.objects.get(type="checkpoint.exported")
        assert (event.subject_id, event.reason) == (str(checkpoint.pk), "for the paper")
        assert (event.payload["file"], event.payload["bytes"]) == ("out.pt", exported.bytes)

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "out.pt").write_bytes(b"precious")

        with pytest.raises(Conflict, match="never overwrites"):
            export(save(), tmp_path / "out.pt", Format.TORCH)
        assert (tmp_path / "out.pt").read_bytes() == b"precious"

    def test_a_component_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="no component 'urza'; it has tamiyo, tolaria"):
            export(save(), tmp_path / "out.pt", Format.TORCH, components=["urza"])

    def test_broken_bytes_are_never_exported(self, tmp_path: Path) -> None:
        broken = save()
        flip(pack_of(broken), 1000)

        with pytest.raises(Unavailable, match="verify it"):
            export(broken, tmp_path / "out.pt", Format.TORCH)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]

    def test_of_one_whose_bytes_are_gone_there_is_nothing_to_export(self, tmp_path: Path) -> None:
        with pytest.raises(Conflict, match="EXPIRED"):
            export(CheckpointFactory(state=CheckpointState.EXPIRED), tmp_path / "out.pt", Format.TORCH)

    def test_a_folder_that_is_not_there_is_a_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="there is no folder"):
            export(save(), tmp_path / "nowhere" / "out.safetensors", Format.SAFETENSORS)

    @pytest.mark.parametrize("format", Format)
    def test_a_folder_that_takes_nothing_is_a_clear_error(
        self, tmp_path: Path, format: Format, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "_settle", full)

        with pytest.raises(Unavailable, match="could not be written: no space left"):
            export(save(), tmp_path / "out", format)
        assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def full(part: Path, path: Path) -> int:
    raise OSError("no space left")


class TestImporting:
    @pytest.mark.parametrize("format", [Format.SAFETENSORS, Format.TORCH])
    def test_what_was_exported_comes_back(self, tmp_path: Path, format: Format) -> None:
        made = state()
        export(save(step=40, state=made), tmp_path / "out", format)

        checkpoint = imported(tmp_path / "out")

        assert_alike(loading.load(checkpoint=checkpoint).components, made)
        assert (checkpoint.state, checkpoint.reason, checkpoint.fencing_token) == ("COMMITTED", "upload", 3)

    def test_safetensors_tells_its_step(self, tmp_path: Path) -> None:
        export(save(step=40), tmp_path / "out", Format.SAFETENSORS)

        assert (imported(tmp_path / "out").step, imported(tmp_path / "out", step=7).step) == (40, 7)

    def test_plain_tensors_become_the_component_model(self, tmp_path: Path) -> None:
        tensors = {"layers.0.weight": torch.randn(4, 4), "layers.0.bias": torch.zeros(4)}
        save_file(tensors, tmp_path / "plain.safetensors")
        torch.save(tensors, tmp_path / "plain.pt")

        for name in ("plain.safetensors", "plain.pt"):
            assert_alike(dict(sorted(loaded_model(imported(tmp_path / name)).items())), dict(sorted(tensors.items())))

    def test_who_has_lost_the_run_imports_nothing(self, tmp_path: Path) -> None:
        def lost() -> None:
            raise LeaseLost("another client owns this run now")

        torch.save({"a": torch.ones(2)}, tmp_path / "in.pt")

        with pytest.raises(LeaseLost):
            imported(tmp_path / "in.pt", guard=lost)
        assert not Checkpoint.objects.filter(state=CheckpointState.COMMITTED).exists()


def loaded_model(checkpoint: Checkpoint) -> dict[str, Any]:
    model: dict[str, Any] = loading.load(checkpoint=checkpoint).components["model"]
    return model


class Exploit:
    """What a pickle runs when it is loaded."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("exploited"),))


def crafted_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"a": Exploit()}))


def crafted_weights(path: Path) -> None:
    torch.save({"a": Exploit()}, path)


def cut_weights(path: Path) -> None:
    torch.save({"a": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def compressed_weights(path: Path) -> None:
    torch.save({"a": torch.zeros(100_000)}, path.with_suffix(".plain"))
    with zipfile.ZipFile(path.with_suffix(".plain")) as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))


def expanded_weights(path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(1_000_000_000)}, path)


def branching_weights(path: Path) -> None:
    """A few lists, each of which holds the one before twice: 2**60 values when they are walked."""
    tree: list[Any] = [1]
    for _ in range(60):
        tree = [tree, tree]
    torch.save({"a": tree}, path)


def sparse_weights(path: Path) -> None:
    torch.save({"a": torch.eye(3).to_sparse()}, path)


def foreign(path: Path) -> None:
    path.write_bytes(b"GIF89a" * 100)


def endless_header(path: Path) -> None:
    path.write_bytes((2**60).to_bytes(8, "little") + b"{}")


def wrong_metadata(path: Path) -> None:
    save_file({"a": torch.ones(1)}, path, {"esper": '{"format":"esper-export/1","components":{"net":{"tree":{}}}}'})


def component_outside(path: Path) -> None:
    told = '{"format":"esper-export/1","components":{"../../etc":{"tree":{"$leaf":0},"leaves":["a"]}}}'
    save_file({"a": torch.ones(1)}, path, {"esper": told})


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "craft",
    [
        crafted_pickle,
        crafted_weights,
        cut_weights,
        compressed_weights,
        expanded_weights,
        branching_weights,
        sparse_weights,
        foreign,
        endless_header,
        wrong_metadata,
        component_outside,
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_in_a_sentence(
    craft: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    craft(tmp_path / "in.bin")

    with pytest.raises(Invalid, match=r"in\.bin") as refusal:
        imported(tmp_path / "in.bin")

    assert refusal.value.errors[0].pointer == "/file"
    assert not (tmp_path / "exploited").exists()
    assert not Checkpoint.objects.exists()


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        imported(tmp_path / "nowhere.pt")
