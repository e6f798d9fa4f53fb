"""Saving: training waits for a copy, only what changed is written, and what fails leaves everything as it was."""

import errno
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
import torch

from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import MissingObjects, UnsupportedState
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import FolderIndex, Saved
from apps.checkpoints.store.packs import OBJECT_BYTES
from apps.checkpoints.store.restoring import FolderSource, load
from apps.checkpoints.store.saving import COMMITS, Meta, Saver
from apps.checkpoints.store.staging import Staging
from tests.unit.checkpoints.making import same, state

MIB = 1024 * 1024
BEFORE_THE_COMMIT = crashpoints.POINTS[: crashpoints.POINTS.index("commit.before")]


def meta(**fields: Any) -> Meta:
    return Meta(run_id=UUID(int=1), workspace_id=UUID(int=2), **fields)


class Store:
    """A folder, its index, and a saver for both."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.folder = Folder(root)
        self.index = FolderIndex(self.folder)
        self.saver = Saver(self.folder, self.index, **options)

    def save(self, components: dict[str, Any], *, frozen: Collection[torch.Tensor] = (), **fields: Any) -> Saved:
        handle = self.saver.begin(components, meta(**fields), frozen={id(tensor) for tensor in frozen})
        assert handle is not None
        return handle.wait(30)

    def restore(self, saved: Saved) -> dict[str, Any]:
        """From the files alone."""
        index = FolderIndex(self.folder)
        assert saved.manifest.id in {manifest.id for manifest in index.checkpoints()}
        return load(saved.manifest, FolderSource(self.folder, index.place), torch=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.saver.close()


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None]], None]:
    return lambda hook: monkeypatch.setattr(crashpoints, "hook", hook)


@pytest.fixture
def held(hooked: Callable[[Callable[[str], None]], None]) -> Iterator[threading.Event]:
    """Saves wait at their beginning until this is set."""
    go_on = threading.Event()
    hooked(lambda point: None if point != "save.begun" or go_on.wait(30) else pytest.fail("nobody let it go on"))
    yield go_on
    go_on.set()


# What is saved


def test_a_state_comes_back_bit_for_bit(store: Store) -> None:
    components = state()

    assert same(store.restore(store.save(components)), components)


def test_what_training_writes_after_the_copy_is_not_saved(store: Store, held: threading.Event) -> None:
    weight = torch.zeros(100_000)
    handle = store.saver.begin({"tolaria": {"weight": weight}}, meta())
    assert handle is not None
    weight.fill_(1)
    held.set()

    assert store.restore(handle.wait(30))["tolaria"]["weight"].max() == 0


def test_an_array_is_copied_too(store: Store, held: threading.Event) -> None:
    array = np.arange(5)
    handle = store.saver.begin({"tolaria": [array, np.float32(2.5)]}, meta())
    assert handle is not None
    array[:] = 0
    held.set()

    restored, number = store.restore(handle.wait(30))["tolaria"]
    assert restored.tolist() == [0, 1, 2, 3, 4]
    assert number == np.float32(2.5)


def test_a_state_that_has_not_changed_takes_no_pack(store: Store) -> None:
    components = state()
    first, second = store.save(components), store.save(components)

    assert second.packs == ()
    assert (second.new_bytes, second.shared_bytes) == (0, first.raw_bytes)
    assert same(store.restore(second), components)


def test_of_a_large_tensor_only_the_objects_that_changed_are_written(store: Store) -> None:
    weight = torch.randint(0, 256, (2 * OBJECT_BYTES + MIB,), dtype=torch.uint8)
    store.save({"tolaria": weight})
    weight[OBJECT_BYTES + 5] ^= 1

    second = store.save({"tolaria": weight})

    assert [entry.raw_size for entry in second.packs[0].entries] == [OBJECT_BYTES]
    assert second.shared_bytes == OBJECT_BYTES + MIB
    assert torch.equal(store.restore(second)["tolaria"], weight)


def test_equal_tensors_are_written_once(store: Store) -> None:
    saved = store.save({"tolaria": [torch.ones(MIB), torch.ones(MIB)], "tamiyo": torch.ones(MIB)})

    assert len(saved.packs[0].entries) == 1


def test_small_tensors_of_a_component_share_an_object_for_each_type_of_number(store: Store) -> None:
    steps = {f"{number}": torch.tensor(float(number)) for number in range(50)}

    saved = store.save({"tolaria": {"steps": steps, "counts": [torch.tensor(1), torch.tensor(2)]}})

    assert sorted(entry.raw_size for entry in saved.packs[0].entries) == [16, 200]
    assert same(store.restore(saved)["tolaria"]["steps"], steps)


def test_more_small_tensors_than_an_object_holds_take_several(store: Store) -> None:
    tensors = [torch.randint(0, 256, (60_000,), dtype=torch.uint8) for _ in range(150)]

    saved = store.save({"tolaria": tensors})

    assert [entry.raw_size for entry in saved.packs[0].entries] == [139 * 60_000, 11 * 60_000]
    assert same(store.restore(saved)["tolaria"], tensors)


def test_a_tensor_that_is_in_the_state_twice_is_one_again_after_the_restore(store: Store) -> None:
    tied = torch.randn(10)

    restored = store.restore(store.save({"tolaria": {"in": tied, "out": tied}}))["tolaria"]

    assert restored["in"] is restored["out"]


def test_the_manifest_says_what_the_caller_says_and_which_checkpoint_came_before(store: Store) -> None:
    first = store.save({"tolaria": 1}, step=5, epoch=2, metrics={"loss": 0.5}, labels={"key": "a"}).manifest
    second = store.save({"tolaria": 2}, step=6).manifest

    assert (first.step, first.epoch, first.metrics, first.labels) == (5, 2, {"loss": 0.5}, {"key": "a"})
    assert (first.parent_id, second.parent_id) == (None, first.id)


def test_every_stage_has_its_seconds(store: Store) -> None:
    seconds = store.save(state()).seconds

    assert set(seconds) == {"stall", "hash", "find", "pack", "manifest", "commit", "total"}
    assert all(value >= 0 for value in seconds.values())


# Frozen tensors


def test_a_tensor_that_is_named_as_frozen_is_read_where_it_is(store: Store, held: threading.Event) -> None:
    weight = torch.zeros(100_000)
    handle = store.saver.begin({"tolaria": weight}, meta(), frozen={id(weight)})
    assert handle is not None
    weight.fill_(1)
    held.set()

    assert store.restore(handle.wait(30))["tolaria"].min() == 1, "it was not copied when the save began"


def test_a_frozen_tensor_that_has_not_changed_is_a_reference(store: Store) -> None:
    weight, small = torch.randn(MIB), torch.randn(10)
    components = {"tolaria": [weight, small]}
    first = store.save(components)

    second = store.save(components, frozen=[weight])

    assert second.packs == ()
    assert second.shared_bytes == first.raw_bytes


def test_a_frozen_tensor_that_was_written_to_all_the_same_is_stored_as_it_is_now(store: Store) -> None:
    weight = torch.randn(MIB)
    store.save({"tolaria": weight}, frozen=[weight])
    weight.data[5] += 1

    assert torch.equal(store.restore(store.save({"tolaria": weight}, frozen=[weight]))["tolaria"], weight)


def test_a_frozen_tensor_that_is_written_to_meanwhile_gives_a_sound_checkpoint(
    store: Store, hooked: Callable[[Callable[[str], None]], None]
) -> None:
    weight = torch.zeros(MIB)
    hooked(lambda point: weight.fill_(1) if point == "pack.created" else None)  # it has been hashed, not written

    restored = store.restore(store.save({"tolaria": weight}, frozen=[weight]))["tolaria"]

    assert restored.unique().tolist() == [1.0]


def test_a_frozen_tensor_that_is_not_contiguous_is_copied(store: Store) -> None:
    weight = torch.randn(300, 200).t()

    assert torch.equal(store.restore(store.save({"tolaria": weight}, frozen=[weight]))["tolaria"], weight)


def _step_of_a_fused_optimizer(weight: torch.Tensor) -> None:
    weight.grad = torch.ones_like(weight)
    torch.optim.AdamW([weight], fused=True).step()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(_step_of_a_fused_optimizer, id="a fused optimizer"),
        pytest.param(lambda weight: weight.data.add_(1), id="through .data"),
        pytest.param(lambda weight: weight.detach().numpy().__iadd__(1), id="through numpy"),
    ],
)
def test_a_tensor_whose_version_says_that_nothing_changed_is_stored_anew(
    store: Store, write: Callable[[torch.Tensor], object]
) -> None:
    weight = torch.nn.Parameter(torch.randn(MIB))
    store.save({"tolaria": weight})
    version = weight._version

    write(weight)
    saved = store.save({"tolaria": weight})

    assert weight._version == version, "it proves nothing"
    assert saved.shared_bytes == 0
    assert torch.equal(store.restore(saved)["tolaria"], weight.detach())


# One after another


def test_while_one_is_in_flight_a_save_that_must_not_wait_is_counted(store: Store, held: threading.Event) -> None:
    first = store.saver.begin({"tolaria": 1}, meta(), wait=False)
    assert store.saver.begin({"tolaria": 2}, meta(), wait=False) is None
    assert store.saver.coalesced == 1

    held.set()
    assert first is not None
    first.wait(30)

    assert store.save({"tolaria": 3}).manifest.parent_id == first.wait().manifest.id


def test_a_save_that_may_wait_is_copied_while_one_is_in_flight(store: Store, held: threading.Event) -> None:
    weight = torch.zeros(100_000)
    handles = []
    for number in range(2):
        handles.append(store.saver.begin({"tolaria": weight.fill_(number)}, meta()))
    weight.fill_(9)
    assert not any(handle.done() for handle in handles if handle)
    held.set()

    assert [store.restore(handle.wait(30))["tolaria"][0].item() for handle in handles if handle] == [0, 1]


def test_savers_of_two_runs_share_what_is_equal_once_it_is_committed(tmp_path: Path) -> None:
    first = Store(tmp_path)
    first.save({"tolaria": torch.ones(MIB)})
    second = Store(tmp_path)

    assert second.save({"tolaria": torch.ones(MIB)}).packs == ()


def test_two_savers_at_the_same_time_both_save(tmp_path: Path) -> None:
    stores = [Store(tmp_path), Store(tmp_path)]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda store: [store.save(state()) for _ in range(3)], stores))

    assert all(same(stores[0].restore(saved), state()) for saves in found for saved in saves)


def test_prepared_memory_is_what_the_first_save_uses(store: Store) -> None:
    components = state()
    store.saver.prepare(components)

    assert same(store.restore(store.save(components)), components)


def test_without_a_background_all_is_done_when_begin_returns(tmp_path: Path) -> None:
    store = Store(tmp_path, background=False)
    handle = store.saver.begin(state(), meta())

    assert handle is not None
    assert handle.done()
    assert same(store.restore(handle.wait(0)), state())


# What goes wrong


def test_callers_hear_of_the_beginning_before_anything_is_written_and_of_the_end(tmp_path: Path) -> None:
    heard: list[Any] = []
    store = Store(
        tmp_path,
        on_begin=lambda meta: heard.append((meta.step, store.folder.packs())),
        on_end=lambda: heard.append("end"),
    )

    store.save(state(), step=7)
    store.saver.close()

    assert heard == [(7, []), "end"]


def test_memory_that_is_not_there_for_a_copy_fails_the_save_and_not_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Exception] = []
    store = Store(tmp_path, on_failure=lambda _, error: told.append(error))

    def no_memory(staging: Staging, tensors: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "take", no_memory)
        handle = store.saver.begin(state(), meta())
    assert handle is not None
    with pytest.raises(RuntimeError, match="memory"):
        handle.wait(0)
    assert len(told) == 1
    assert store.save(state()).packs
    store.saver.close()


def test_a_failure_is_told_and_raised_and_the_next_save_goes_on(
    tmp_path: Path, hooked: Callable[[Callable[[str], None]], None]
) -> None:
    told: list[tuple[int, str]] = []
    store = Store(tmp_path, on_failure=lambda meta, error: told.append((meta.step, str(error))))
    hooked(_full_at("pack.created"))

    with pytest.raises(OSError, match="No space left"):
        store.save(state(), step=7)
    hooked(lambda point: None)

    assert told == [(7, "[Errno 28] No space left on device")]
    assert same(store.restore(store.save(state())), state())


@pytest.mark.parametrize("point", BEFORE_THE_COMMIT)
def test_a_disk_that_is_full_at_any_point_leaves_the_checkpoint_before_and_no_files(
    store: Store, hooked: Callable[[Callable[[str], None]], None], point: str
) -> None:
    first = store.save({"tolaria": torch.ones(50_000)})
    files = _files(store.folder)
    hooked(_full_at(point))

    with pytest.raises(OSError, match="No space left"):
        store.save({"tolaria": torch.zeros(50_000)})

    assert _files(store.folder) == files
    assert store.restore(first)["tolaria"].min() == 1


def test_files_of_a_commit_that_may_have_gone_through_stay(
    store: Store, hooked: Callable[[Callable[[str], None]], None]
) -> None:
    hooked(_full_at("commit.after"))

    with pytest.raises(OSError, match="No space left"):
        store.save({"tolaria": torch.ones(50_000)})

    (manifest,) = FolderIndex(store.folder).checkpoints()
    assert load(manifest, FolderSource(store.folder, FolderIndex(store.folder).place), torch=True)["tolaria"].min() == 1


def test_an_id_that_was_used_before_is_refused_and_its_checkpoint_stays(store: Store) -> None:
    first = store.save({"tolaria": 1})

    with pytest.raises(FileExistsError):
        store.save({"tolaria": 2}, id=first.manifest.id)

    assert store.restore(first) == {"tolaria": 1}


def test_objects_that_vanished_since_they_were_found_are_written_again(store: Store) -> None:
    components = {"tolaria": torch.ones(MIB)}
    first = store.save(components)
    store.folder.delete_pack(first.packs[0].pack_id)

    second = store.save(components)

    assert len(second.packs) == 1
    assert second.shared_bytes == 0
    assert same(store.restore(second), components)


def test_an_index_that_finds_objects_and_loses_them_every_time_ends_in_an_error(tmp_path: Path) -> None:
    class Forgetful(FolderIndex):
        tries = 0

        def commit(self, saved: Saved) -> None:
            self.tries += 1
            raise MissingObjects(saved.manifest.objects())

    folder = Folder(tmp_path)
    index = Forgetful(folder)
    handle = Saver(folder, index).begin({"tolaria": torch.ones(5)}, meta())
    assert handle is not None

    with pytest.raises(MissingObjects):
        handle.wait(30)

    assert index.tries == COMMITS
    assert (folder.packs(), folder.manifests()) == ([], [])


@pytest.mark.parametrize(
    ("components", "place"),
    [
        ({"tolaria": {"model": {"weight": torch.ones(2).to_sparse()}}}, "tolaria/model/weight"),
        ({"tolaria": [1, torch.empty(2, device="meta")]}, "tolaria/1"),
        ({"tolaria": {"model": object()}}, "tolaria/model"),
        ({"Tolaria!": 1}, "Tolaria!"),
    ],
)
def test_a_state_that_cannot_be_kept_is_refused_at_once_and_says_where(
    store: Store, components: dict[str, Any], place: str
) -> None:
    with pytest.raises(UnsupportedState, match=place):
        store.saver.begin(components, meta())

    assert store.save({"tolaria": 1}, id=uuid4()).manifest.parent_id is None


def _full_at(wanted: str) -> Callable[[str], None]:
    def hook(point: str) -> None:
        if point == wanted:
            raise OSError(errno.ENOSPC, "No space left on device")

    return hook


def _files(folder: Folder) -> set[str]:
    return {path.name for path in folder.root.rglob("*") if path.is_file()}
