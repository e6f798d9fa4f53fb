"""Traces made to resemble this platform, each kind by a seed: what the eviction policies are compared on.

A library of KERNELS kernels, log-normal in size (median 300 KiB, 10 KiB to 64 MiB), about 2 GiB in all. Ranks of
popularity are given at random: how often a kernel is read says nothing about its size.

- zipf: popularity alone, 1 / rank ** 0.9.
- drift: the same, but every 1,000 reads a twentieth of the ranks changes hands.
- runs: eight runs at once. Each begins with a sweep over 20 to 60 kernels, which it looks at once, then reads the few
  that it grafts again and again until it ends and another begins.
- sweeps: zipf, and now and then a pass over a third of the library (verification), each kernel once.
- arrivals: half of the reads are of kernels that were just made, each read two to four times soon after, never later.

Kinds that no constant was tuned on, to find out where a policy loses: loop (a third of the library in a circle), even
(zipf over kernels of one size), small-popular (the smaller the more popular) and large-popular.
"""

from collections.abc import Callable, Iterator

import numpy as np

from benchmarks.cache_traces import Request

KERNELS = 2_000
READS = 20_000
SMALLEST, LARGEST, MEDIAN = 10 << 10, 64 << 20, 300 << 10
SIGMA = 1.6
EXPONENT = 0.9

Random = np.random.Generator


def made(kind: str, seed: int) -> list[Request]:
    """READS reads. The same kind and seed: the same trace."""
    numbers = np.random.default_rng([seed, sorted({**TUNED, **UNTUNED}).index(kind)])
    sizes = _sizes(numbers)
    if kind == "even":
        sizes[:] = 1 << 20
    elif kind == "small-popular":
        sizes.sort()
    elif kind == "large-popular":
        sizes[::-1].sort()
    reads = {**TUNED, **UNTUNED}[kind](numbers, sizes)
    return [Request("GET", str(key), int(size)) for key, size, _ in zip(*_columns(reads), range(READS), strict=False)]


def _columns(reads: Iterator[tuple[int, int]]) -> tuple[list[int], list[int]]:
    keys, sizes = [], []
    for _, (key, size) in zip(range(READS), reads, strict=False):
        keys.append(key)
        sizes.append(size)
    return keys, sizes


def _sizes(numbers: Random) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.clip(numbers.lognormal(np.log(MEDIAN), SIGMA, KERNELS), SMALLEST, LARGEST).astype(np.int64)


def _ranks(numbers: Random, count: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Zipf-distributed ranks, 0 the most popular."""
    weights = 1.0 / np.arange(1, KERNELS + 1) ** EXPONENT
    return numbers.choice(KERNELS, size=count, p=weights / weights.sum())


def _zipf(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    for key in _ranks(numbers, READS):
        yield int(key), int(sizes[key])


def _drift(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    holder = np.arange(KERNELS)
    for number, rank in enumerate(_ranks(numbers, READS)):
        if number % 1_000 == 999:
            moved = numbers.choice(KERNELS, KERNELS // 20, replace=False)
            holder[moved] = holder[numbers.permutation(moved)]
            top = numbers.choice(50, 3, replace=False)  # and some of the most popular give way to anybody
            others = numbers.choice(np.arange(50, KERNELS), 3, replace=False)
            holder[top], holder[others] = holder[others].copy(), holder[top].copy()
        yield int(holder[rank]), int(sizes[holder[rank]])


def _runs(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    runs = [_run(numbers) for _ in range(8)]
    while True:
        number = int(numbers.integers(len(runs)))
        key = next(runs[number], None)
        if key is None:
            runs[number] = _run(numbers)
            continue
        yield key, int(sizes[key])


def _run(numbers: Random) -> Iterator[int]:
    looked_at = dict.fromkeys(int(key) for key in _ranks(numbers, int(numbers.integers(20, 60))))
    yield from looked_at
    grafted = numbers.choice(list(looked_at), min(5, len(looked_at)), replace=False)
    for key in numbers.choice(grafted, int(numbers.integers(20, 120))):
        yield int(key)


def _sweeps(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    for number, key in enumerate(_ranks(numbers, READS)):
        if number % 4_000 == 3_999:
            for swept in numbers.choice(KERNELS, KERNELS // 3, replace=False):
                yield int(swept), int(sizes[swept])
        yield int(key), int(sizes[key])


def _arrivals(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    due: list[tuple[int, int]] = []
    new = KERNELS
    old = iter(_ranks(numbers, READS))
    for number in range(READS):
        if number % 2:
            key = int(next(old))
            yield key, int(sizes[key])
            continue
        if not due or due[0][0] > number:
            new += 1
            again = sorted(number + int(wait) for wait in numbers.integers(2, 600, int(numbers.integers(1, 4))))
            due = sorted([*due, *((when, new) for when in again)])
            yield new, int(sizes[new % KERNELS])
        else:
            _, key = due.pop(0)
            yield key, int(sizes[key % KERNELS])


def _loop(numbers: Random, sizes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterator[tuple[int, int]]:
    for number in range(READS):
        key = number % (KERNELS // 3)
        yield key, int(sizes[key])


Kind = Callable[[Random, "np.ndarray[tuple[int], np.dtype[np.int64]]"], Iterator[tuple[int, int]]]
TUNED: dict[str, Kind] = {"zipf": _zipf, "drift": _drift, "runs": _runs, "sweeps": _sweeps, "arrivals": _arrivals}
UNTUNED: dict[str, Kind] = {"loop": _loop, "even": _zipf, "small-popular": _zipf, "large-popular": _zipf}
