"""Processes and servers of the kernel cache are killed at named steps and seeded moments: nothing acknowledged is lost.

The suite kills at every named step once, and at a few seeded moments; `make campaign` plays the thousand kills that the
bench counts.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cache_kill_roles, cache_kills
from benchmarks.cache_kill_roles import Item
from benchmarks.cache_site import Child, Site, in_fresh_process, own_valkeys

pytestmark = pytest.mark.usefixtures("committed_db")

SEED = 1


@pytest.fixture
def site(committed_db: str, tmp_path: Path) -> Iterator[Site]:
    with own_valkeys(tmp_path, lease=cache_kills.LEASE_SECONDS) as site:
        yield site


def test_nothing_is_lost_whoever_is_killed_at_whichever_step(site: Site) -> None:
    rounds = list(cache_kills.named_rounds(SEED))

    found = in_fresh_process(cache_kills.conduct, site, rounds, SEED)

    assert (found["lost"], found["faults"]) == ([], [])
    assert found["steps_missed"] == []
    assert found["kills"] == len(rounds) == 2 * len(steps_named())


def test_nothing_is_lost_when_all_work_at_the_same_time(site: Site) -> None:
    rounds = list(cache_kills.seeded_rounds(16, SEED))
    assert {played.victim for played in rounds} >= {"writer", "relay", "mover", "redis"}

    found = in_fresh_process(cache_kills.conduct, site, rounds, SEED)

    assert (found["lost"], found["faults"]) == ([], [])
    assert found["kills"] == len(rounds)


def test_a_write_that_was_lost_would_be_found(site: Site) -> None:
    lost = Item(seed=1, size=1_000)

    found = in_fresh_process(look_for, lost)

    assert found["lost"] == [f"{lost.digest}: NotFound: there are no bytes with digest {lost.digest}"]
    assert found["not_copied"] == [lost.digest]


def look_for(item: Item) -> dict[str, Any]:
    child = Child(cache_kill_roles.checker, (item,), ())
    found: dict[str, Any] = child.receive()
    child.end()
    return found


def steps_named() -> list[str]:
    roles = (cache_kill_roles.RELAY_STEPS, cache_kill_roles.MOVER_STEPS, cache_kill_roles.READER_STEPS)
    return [step for steps in (*cache_kill_roles.WRITER_STEPS.values(), *roles) for step in steps]


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_a_thousand_kills_lose_nothing(site: Site) -> None:
    found = cache_kills.run(site, cache_kills.FULL_KILLS, say=print)

    assert (found["lost"], found["faults"]) == ([], [])
    assert found["kills"] == cache_kills.FULL_KILLS
