"""The workload that the claim is held against: the same for a seed, with the numbers that it says it has."""

import csv
import io
import statistics
from dataclasses import replace

import pytest

from benchmarks.cache_workload import HEADER, Workload, _popularity, kernels, reads, write_trace

SMALL = Workload(kernels=400, reads=8_000, phases=4)


def test_a_seed_always_gives_the_same_kernels_and_reads() -> None:
    other = replace(SMALL, seed=7)

    assert kernels(SMALL) == kernels(SMALL)
    assert list(reads(SMALL)) == list(reads(SMALL))
    assert kernels(SMALL) != kernels(other)
    assert list(reads(SMALL)) != list(reads(other))
    assert kernels(SMALL)[3].data(1) == kernels(SMALL)[3].data(1) != kernels(SMALL)[4].data(1)


def test_workers_take_turns_and_phases_follow_each_other() -> None:
    found = list(reads(SMALL))

    assert len(found) == SMALL.reads
    assert [read.worker for read in found[:8]] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [read.phase for read in found] == sorted(read.phase for read in found)
    assert {read.phase for read in found} == {0, 1, 2, 3}


def test_sizes_are_within_their_limits_and_about_their_median() -> None:
    sizes = [made.size for made in kernels(replace(SMALL, kernels=4_000))]

    assert min(sizes) >= SMALL.smallest
    assert max(sizes) <= SMALL.largest
    assert statistics.median(sizes) == pytest.approx(SMALL.median_size, rel=0.1)


def test_only_kernels_of_the_less_popular_half_are_cold() -> None:
    made, popularity = kernels(SMALL), _popularity(SMALL, 0)
    cold = {kernel.number for kernel in made if kernel.is_cold}

    assert cold.isdisjoint(popularity[: SMALL.kernels // 2])
    assert len(cold) / SMALL.kernels == pytest.approx(SMALL.cold_share / 2, rel=0.25)


def test_popular_kernels_are_read_more_and_popularity_drifts() -> None:
    counts = [0] * SMALL.kernels
    for read in reads(SMALL):
        counts[read.kernel] += 1
    before, after = _popularity(SMALL, 0), _popularity(SMALL, 3)

    tenth = SMALL.kernels // 10
    assert sum(counts[kernel] for kernel in before[:tenth]) > 2 * sum(counts[kernel] for kernel in before[-tenth:])
    assert sorted(before) == sorted(after) == list(range(SMALL.kernels))
    moved = sum(one != other for one, other in zip(before, after, strict=True))
    assert 0 < moved < SMALL.kernels / 2


def test_the_trace_has_the_reads_in_order() -> None:
    file = io.StringIO()
    write_trace(SMALL, file, most=100)

    header, *rows = csv.reader(io.StringIO(file.getvalue()))
    sizes = [made.size for made in kernels(SMALL)]
    assert tuple(header) == HEADER
    wanted = list(reads(SMALL))[:100]
    assert rows == [
        [str(i), "GET", f"kernel-{read.kernel}", str(sizes[read.kernel]), str(read.worker)]
        for i, read in enumerate(wanted)
    ]
