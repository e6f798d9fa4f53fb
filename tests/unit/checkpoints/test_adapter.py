"""The store for programs without the platform: states by key, sound or refused."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import torch

from apps.checkpoints.adapter import MOST_COMPONENTS, System
from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.index import Saved
from tests.unit.checkpoints.making import same


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path)
    yield system
    system.close()


def save(system: System, state: Any, key: str) -> Saved:
    return system.finish(system.begin(state, key))


STATES = {
    "components": {"model": {"weight": torch.randn(300, 300)}, "optimizer": [{1: torch.tensor(3.0)}], "step": 5},
    "names that are no words": {"layer.0": torch.ones(3), "Läyer 1": {"a": (1, 2.5, None)}},
    "the name of the whole": {"state": 1, "model": 2},
    "keys that are numbers": {0: torch.ones(3), 1: "one"},
    "a flat dictionary": {f"layer.{number}": torch.tensor(number) for number in range(MOST_COMPONENTS + 1)},
    "a list": [torch.ones(2), "text", b"bytes"],
    "a number": 5,
    "nothing": {},
}


@pytest.mark.parametrize("kind", STATES)
def test_a_state_of_any_form_comes_back_to_any_process(system: System, tmp_path: Path, kind: str) -> None:
    save(system, STATES[kind], "key")

    other = System(tmp_path)
    restored = other.restore("key")
    other.close()

    assert same(restored, STATES[kind])
    assert list(restored) == list(STATES[kind]) if isinstance(restored, dict) else True


@pytest.mark.parametrize(
    "kind", ["components", "names that are no words", "the name of the whole", "a flat dictionary"]
)
def test_one_component_comes_back_alone(system: System, kind: str) -> None:
    state = STATES[kind]
    save(system, state, "key")

    assert all(same(system.restore_component("key", name), part) for name, part in state.items())
    with pytest.raises(KeyError):
        system.restore_component("key", "what is not there")


def test_training_may_write_to_the_state_as_soon_as_begin_returns(system: System) -> None:
    weight = torch.zeros(1_000_000)
    handle = system.begin({"model": weight}, "key")
    weight.fill_(1)
    system.finish(handle)

    assert system.restore("key")["model"].max() == 0


def test_each_key_has_its_state_and_the_newest_of_a_key_answers(system: System) -> None:
    for key, step in (("a", 1), ("b", 2), ("a", 3)):
        save(system, {"step": step}, key)

    assert [system.restore(key)["step"] for key in ("a", "b")] == [3, 2]
    with pytest.raises(KeyError):
        system.restore("c")


def test_what_has_not_changed_takes_no_room_again(system: System) -> None:
    frozen, moving = torch.randn(500_000), torch.randn(50_000)
    save(system, {"frozen": frozen, "moving": moving}, "first")
    before = system.size()
    moving.add_(1)
    save(system, {"frozen": frozen, "moving": moving}, "second")

    assert system.size() - before < moving.nbytes * 1.1 < before / 5
    assert torch.equal(system.restore("second")["frozen"], frozen)


def test_tensors_that_are_named_as_frozen_are_saved_too(system: System) -> None:
    frozen = torch.randn(100_000)
    system.finish(system.begin({"model": frozen}, "key", frozen=[frozen]))

    assert torch.equal(system.restore("key")["model"], frozen)


def test_a_state_that_cannot_be_kept_is_refused_at_once(system: System) -> None:
    with pytest.raises(UnsupportedState, match="model/loss"):
        system.begin({"model": {"loss": print}}, "key")


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _manifest(system: System, saved: Saved) -> Path:
    return system.folder.manifest_path(saved.manifest.id)


def _pack(system: System, saved: Saved) -> Path:
    return system.folder.pack_path(saved.packs[0].pack_id)


def test_a_flipped_bit_of_a_tensor_is_refused_and_other_components_come_back(system: System) -> None:
    saved = save(system, {"model": torch.randn(50_000), "optimizer": torch.randn(60_000)}, "key")
    broken = next(entry for entry in saved.packs[0].entries if entry.raw_size == 240_000)
    _flip(_pack(system, saved), broken.offset + 100)

    with pytest.raises(CorruptCheckpoint, match=broken.digest[:12]):
        system.restore("key")
    assert len(system.restore_component("key", "model")) == 50_000


@pytest.mark.parametrize("damage", ["manifest", "index"])
def test_a_damaged_checkpoint_is_not_passed_over_for_an_older_one_of_its_key(system: System, damage: str) -> None:
    save(system, {"model": torch.zeros(50_000)}, "key")
    newest = save(system, {"model": torch.ones(50_000)}, "key")
    _flip(_manifest(system, newest) if damage == "manifest" else _pack(system, newest), -60)

    with pytest.raises(CorruptCheckpoint, match=str(newest.manifest.id)):
        system.restore("key")


def test_a_damaged_pack_names_itself_and_spoils_only_what_it_holds(system: System) -> None:
    save(system, {"model": torch.zeros(50_000)}, "sound")
    broken = save(system, {"model": torch.ones(50_000)}, "broken")
    _flip(_pack(system, broken), -1)

    assert system.restore("sound")["model"].max() == 0
    with pytest.raises(CorruptCheckpoint, match=str(broken.packs[0].pack_id)):
        system.restore("broken")


def test_a_damaged_manifest_that_is_older_does_not_stand_in_the_way(system: System) -> None:
    older = save(system, {"step": 1}, "key")
    save(system, {"step": 2}, "key")
    _flip(_manifest(system, older), 100)

    assert system.restore("key") == {"step": 2}


def test_checkpoints_are_in_the_order_of_their_ids(system: System) -> None:
    ids: list[UUID] = [save(system, {"step": step}, "key").manifest.id for step in range(5)]

    assert ids == sorted(ids)


def test_it_works_without_django(tmp_path: Path) -> None:
    program = (
        "import sys, torch; from apps.checkpoints.adapter import System; system = System(sys.argv[1]);"
        "system.finish(system.begin({'model': torch.ones(3)}, 'key')); assert all(system.restore('key')['model'] == 1);"
        "system.close(); print(sorted({'django', 'celery', 'redis'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
