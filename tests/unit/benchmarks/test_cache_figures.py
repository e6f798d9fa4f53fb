"""How the figures of the cache's bench are made from what was measured."""

from typing import Any

import pytest

from benchmarks import cache, cache_faults, cache_kill_roles, cache_kills, cache_replay, cache_tiers
from benchmarks.targets import Measurement

FROZEN = {
    "before_ms": 0.2,
    "first_ms": 51.0,
    "following_p50_ms": 0.4,
    "following_worst_ms": 2.0,
    "following_all_ms": 50.0,
    "recovery_s": 4.9,
}


def test_a_read_from_l4_is_a_miss_and_every_other_one_a_hit() -> None:
    answers = [("l1", 0.001)] * 6 + [("l2", 0.002)] * 2 + [("l3", 0.004), ("l4", 0.010)]

    found = cache_replay.rates(answers)

    assert (found["l1"], found["l2"], found["l3"], found["l4"]) == (0.6, 0.2, 0.1, 0.1)
    assert found["overall"] == 0.9
    assert found["l1_l2"] == pytest.approx(0.8)
    assert found["mean_ms"] == pytest.approx(2.4)
    assert found["tiers"]["l1"] == {"p50_ms": 1.0, "p95_ms": 1.0}
    assert found["tiers"]["l3"] is None, "one read has no p95"


def test_the_worst_stampede_and_the_longest_stall_count() -> None:
    rounds = [{"loads": loads, "last_s": 0.1} for loads in (1, 1, 3)]
    found = {"stampede": rounds, "holder_killed": [], "frozen": [FROZEN, {**FROZEN, "first_ms": 58.0}]}

    measured = cache_faults.measurements(found)

    assert measured["loads_for_50_misses_in_5_processes"].value == 3
    assert measured["frozen_redis_first_get_stall"].value == 58.0


def test_a_ratio_is_of_the_medians_of_each_round() -> None:
    ours = [2.0] * 9 + [100.0] + [3.0] * 10
    theirs = [1.0] * 20

    assert cache_tiers._ratios(ours * 5, theirs * 5) == [2.0, 3.0] * 5


def test_every_lost_write_counts() -> None:
    found = {"lost": ["3: writer: x: NotFound"], "kills": 1000}

    measured = cache_kills.measurements(found)["acknowledged_writes_lost_in_1000_kills"]

    assert (measured.value, measured.n) == (1.0, 1000)


def test_a_quick_look_is_not_held_to_what_needs_full_size() -> None:
    everything = Measurement(value=1.0, n=1, spread=0.0)
    names = ("overall_hits_replayed_workload", "frozen_redis_first_get_stall", "acknowledged_writes_lost_in_1000_kills")
    measured = dict.fromkeys(names, everything)

    assert set(cache._held_to(measured, quick=True)) == {"frozen_redis_first_get_stall"}
    assert cache._held_to(measured, quick=False) == measured


def test_a_seed_always_gives_the_same_kills_and_another_seed_others() -> None:
    assert list(cache_kills.seeded_rounds(50, 7)) == list(cache_kills.seeded_rounds(50, 7))
    assert list(cache_kills.seeded_rounds(50, 7)) != list(cache_kills.seeded_rounds(50, 8))


def test_seeded_kills_are_of_everybody_and_half_of_those_of_processes_at_named_steps() -> None:
    rounds = list(cache_kills.seeded_rounds(1000, 2026))

    assert {played.victim for played in rounds} == set(cache_kills.VICTIMS)
    of_processes = [played for played in rounds if played.victim in cache_kills.ROLES]
    assert sum(played.step is not None for played in of_processes) / len(of_processes) == pytest.approx(0.5, abs=0.05)
    assert all((played.step is None) == (played.moment is not None) for played in rounds)
    numbers = [item.seed for played in rounds for item in played.items]
    assert len(numbers) == len(set(numbers)), "no two writes are of the same bytes"


def test_every_named_step_is_killed_before_and_after() -> None:
    rounds = list(cache_kills.named_rounds(1))
    named: list[tuple[str, Any]] = [(played.victim, played.step) for played in rounds]

    for role, steps in cache_kills.STEPS.items():
        for name in steps:
            for when in ("before", "after"):
                assert (role, cache_kill_roles.Step(when, name)) in named
