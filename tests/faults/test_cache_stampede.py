"""Fifty readers in five processes miss a kernel at the same moment: one loads it for all, also after one that died."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import cache_faults
from benchmarks.cache_site import Site, in_fresh_process, own_valkeys

pytestmark = pytest.mark.usefixtures("committed_db")

LEASE_SECONDS = 1.0


@pytest.fixture
def site(committed_db: str, tmp_path: Path) -> Iterator[Site]:
    with own_valkeys(tmp_path, lease=LEASE_SECONDS) as site:
        yield site


def test_fifty_readers_that_miss_at_once_load_once(site: Site) -> None:
    (found,) = in_fresh_process(cache_faults.stampede_all, 1, False)

    assert (found["readers"], found["right"]) == (50, 50)
    assert found["loads"] == 1


def test_when_the_one_that_loads_is_killed_the_next_one_loads_for_all_after_its_lease(site: Site) -> None:
    (found,) = in_fresh_process(cache_faults.stampede_all, 1, True)

    assert (found["readers"], found["right"]) == (40, 40), "ten were killed with it"
    assert found["loads"] == 1
    assert LEASE_SECONDS * 0.9 < found["first_s"] <= found["last_s"] < LEASE_SECONDS + 2
