"""The bench of checkpoints on a small state: every system keeps it, every row is measured, every flip is noticed."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from benchmarks import checkpoints, checkpoints_flips, checkpoints_steps
from benchmarks.checkpoints_processes import serving
from benchmarks.checkpoints_systems import SYSTEMS
from benchmarks.targets import TARGETS


class InThisProcess:
    def __init__(self, served: Any) -> None:
        self.served = served

    def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self.served, name)(*arguments)


@contextmanager
def serving_here(make: Callable[..., Any], *arguments: Any) -> Iterator[InThisProcess]:
    """Without the seconds that a process takes to load torch."""
    yield InThisProcess(make(*arguments))


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Any]]:
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for module in (checkpoints, checkpoints_flips, checkpoints_steps):
            patch.setattr(module, "serving", serving_here)
        yield checkpoints.run(quick=True, megabytes=1, say=lambda text: None)
    torch.set_num_threads(threads)


def test_every_row_of_the_area_is_measured(found: dict[str, Any]) -> None:
    wanted = [row["name"] for row in tomllib.loads(TARGETS.read_text())["target"] if row["area"] == "checkpoints"]

    assert [row["name"] for row in found["targets"]] == wanted
    assert all(row["value"] is not None and row["n"] >= 2 for row in found["targets"])


@pytest.mark.parametrize("precision", checkpoints.PRECISIONS)
def test_every_system_saves_and_restores_in_every_case(found: dict[str, Any], precision: str) -> None:
    systems = found["systems"][precision]

    assert set(systems) == set(SYSTEMS)
    for name, cases in systems.items():
        assert set(cases) == ({"full"} if name in checkpoints.SLOW else set(checkpoints.CASES))
        assert all(figure["median"] > 0 for case in cases.values() for figure in case.values())


def test_two_thirds_that_are_frozen_take_no_room_again_in_ours_alone(found: dict[str, Any]) -> None:
    """In float32: in bfloat16 every tensor of a model this small shares its object with others."""
    sizes = {
        name: cases["frozen"]["mb"]["median"] / cases["full"]["mb"]["median"]
        for name, cases in found["systems"]["fp32"].items()
        if name not in checkpoints.SLOW
    }

    assert sizes.pop("ours") < 0.6
    assert all(share > 0.99 for share in sizes.values())


def test_every_flipped_bit_of_ours_is_noticed(found: dict[str, Any]) -> None:
    ours = found["flips"]["ours"]

    assert ours["undetected"] == 0
    assert all(ours["regions"].values())
    assert {"pack: magic number", "pack: index", "pack: end mark", "manifest: body"} < set(ours["regions"])
    assert found["flips"]["peers"]["torch.save"] == "restored silently wrong"


def test_a_training_beside_its_saves_is_compared_with_as_many_steps_alone(found: dict[str, Any]) -> None:
    pairs = found["slowdown"]["pairs"]

    assert len(pairs) == checkpoints.QUICK_ROUNDS
    assert all(pair["beside_s"] > 0 and pair["stall_s"] > 0 for pair in pairs)


def test_the_table_has_every_row_and_every_system(found: dict[str, Any]) -> None:
    table = checkpoints.table(found)

    assert all(row["name"] in table for row in found["targets"])
    assert all(table.count(f"\n  {system} ") >= 2 for system in SYSTEMS)


def test_a_process_answers_what_it_is_asked_and_says_what_went_wrong() -> None:
    with serving(dict, {"a": 1}) as peer:
        assert peer.ask("get", "a") == 1
        with pytest.raises(RuntimeError, match="KeyError"):
            peer.ask("pop", "b")
        assert peer.ask("get", "a") == 1, "it goes on after an error"
