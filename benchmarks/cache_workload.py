"""The workload that the seed document's claim is held against: how it comes about, and as a trace.

    python -m benchmarks.cache_workload > trace.csv      # for `manage.py bench cache --trace trace.csv`

The claim: L1 answers 45 % of reads, L2 35 %, L3 18 %, so 98 % are hits, and a read takes less than 100 ms on average. A
hit is a read that is answered without L4. The numbers below were chosen once, for what they model, and not for what
comes out:

- 2,000 kernels, sizes log-normal with a median of 100 KiB (sigma 1.2: about 200 KiB on average, the largest some MiB),
  between 10 KB and 16 MiB. Size has nothing to do with popularity.
- Popularity is Zipf's with exponent 0.8 (Breslau et al., INFOCOM 1999, measured .64 to .83 for what proxies are asked).
- Four worker processes, each with one run after another. A run takes 8 to 24 kernels by popularity and reads each at
  its start. Of its next 100 to 300 reads, six in ten are of these kernels; the others are of anything, by popularity.
- Popularity drifts: ten phases, and between them one kernel in twenty changes places with another.
- Of the less popular half of the kernels, 40 % (so 20 % of all) are cold in the beginning: in L4 alone.
- L1 is 8 % of all bytes in each process, L2 32 %. Both are empty in the beginning.

Between two phases happens what beat does every few minutes: reads are counted, kernels moved, L2 and L1 warmed.
"""

import csv
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import TextIO

HEADER = ("i", "op", "key", "size", "worker")
KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The numbers of the module's docstring; sizes in bytes, ``reads`` of all workers together."""

    kernels: int = 2_000
    reads: int = 40_000
    workers: int = 4
    phases: int = 10
    seed: int = 2026
    median_size: float = 100.0 * KIB
    size_sigma: float = 1.2
    smallest: int = 10_000
    largest: int = 16 * MIB
    exponent: float = 0.8
    run_kernels: tuple[int, int] = (8, 24)
    run_reads: tuple[int, int] = (100, 300)
    run_share: float = 0.6
    drift: float = 0.05
    cold_share: float = 0.4
    l1_share: float = 0.08
    l2_share: float = 0.32


@dataclass(frozen=True, slots=True)
class Made:
    """One kernel; its bytes follow from its number."""

    number: int
    size: int
    is_cold: bool

    def data(self, seed: int) -> bytes:
        return random.Random(f"{seed} kernel {self.number}").randbytes(self.size)


@dataclass(frozen=True, slots=True)
class Read:
    phase: int
    worker: int
    kernel: int


FULL, QUICK = Workload(), Workload(kernels=150, reads=2_000, phases=4)


def kernels(workload: Workload) -> list[Made]:
    """By number."""
    chance = random.Random(f"{workload.seed} sizes")
    places = {number: place for place, number in enumerate(_popularity(workload, 0))}
    found = []
    for number in range(workload.kernels):
        size = workload.median_size * chance.lognormvariate(0, workload.size_sigma)
        is_cold = chance.random() < workload.cold_share and places[number] >= workload.kernels // 2
        found.append(Made(number, int(min(max(size, workload.smallest), workload.largest)), is_cold))
    return found


def reads(workload: Workload) -> Iterator[Read]:
    """All reads in order, the workers taking turns; the same for a seed."""
    per_phase = workload.reads // workload.phases // workload.workers
    streams = [_reads_of(workload, worker, per_phase) for worker in range(workload.workers)]
    for phase in range(workload.phases):
        for _ in range(per_phase):
            for worker, stream in enumerate(streams):
                yield Read(phase, worker, next(stream))


def _reads_of(workload: Workload, worker: int, per_phase: int) -> Iterator[int]:
    """The kernels that one worker reads, one run after another, without an end."""
    chance = random.Random(f"{workload.seed} worker {worker}")
    weights = list(accumulate(1 / place**workload.exponent for place in range(1, workload.kernels + 1)))
    popularity = {phase: _popularity(workload, phase) for phase in range(workload.phases)}
    done = 0

    def draw(count: int) -> list[int]:
        phase = min(done // per_phase, workload.phases - 1)
        return [
            popularity[phase][place] for place in chance.choices(range(workload.kernels), cum_weights=weights, k=count)
        ]

    while True:
        own = draw(chance.randint(*workload.run_kernels))
        for kernel in own:
            done += 1
            yield kernel
        for _ in range(chance.randint(*workload.run_reads)):
            done += 1
            yield chance.choice(own) if chance.random() < workload.run_share else draw(1)[0]


def _popularity(workload: Workload, phase: int) -> list[int]:
    """The numbers of the kernels in a phase, the most popular first."""
    order = list(range(workload.kernels))
    random.Random(f"{workload.seed} popularity").shuffle(order)
    for number in range(1, phase + 1):
        chance = random.Random(f"{workload.seed} drift {number}")
        for place in chance.sample(range(workload.kernels), int(workload.drift * workload.kernels)):
            other = chance.randrange(workload.kernels)
            order[place], order[other] = order[other], order[place]
    return order


def write_trace(workload: Workload, file: TextIO, *, most: int | None = None) -> None:
    """The reads as CSV: each is a GET, which stores what it misses."""
    sizes = [made.size for made in kernels(workload)]
    writer = csv.writer(file)
    writer.writerow(HEADER)
    for number, read in enumerate(islice(reads(workload), most)):
        writer.writerow((number, "GET", f"kernel-{read.kernel}", sizes[read.kernel], read.worker))


if __name__ == "__main__":
    write_trace(FULL, sys.stdout)
