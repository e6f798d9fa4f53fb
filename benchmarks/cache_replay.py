"""Replays the workload over the real tiers, with the real store in worker processes: the seed document's claim.

``cache_workload`` says what is read. Each worker is a process as one that serves (it follows changes, counts, warms);
between two phases this process does what beat does. In the end two new workers read the same again after all memory
was lost (new processes, an empty Redis), the second of them after warming: that is what warming is worth.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import psycopg

from benchmarks.cache_site import Child, Site, in_fresh_process
from benchmarks.cache_workload import FULL, QUICK, Made, Workload, kernels, reads
from benchmarks.targets import Measurement, spread

FIRST_READS = 500
"""After a loss of all memory, with and without warming."""
TIERS = ("l1", "l2", "l3", "l4")
CLAIM = {"l1": 0.45, "l2": 0.35, "l3": 0.18, "overall": 0.98, "mean_ms": 100.0}
"""Of the seed document."""

Answer = tuple[str, float]
"""The tier that had the first segment of a read, and how many seconds the whole read took."""


def measure(site: Site, *, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    """See ``replay``."""
    workload = QUICK if quick else FULL
    say(f"storing {workload.kernels:,} kernels, then {workload.reads:,} reads by {workload.workers} processes ...")
    found: dict[str, Any] = in_fresh_process(replay, site, workload)
    return found


def measurements(found: dict[str, Any]) -> dict[str, Measurement]:
    """The rate of all reads; ``n`` and the spread are those of the phases."""
    phases = [phase["overall"] for phase in found["phases"]]
    return {
        "overall_hits_replayed_workload": Measurement(
            value=found["all"]["overall"], n=len(phases), spread=spread(phases)
        )
    }


def replay(site: Site, workload: Workload) -> dict[str, Any]:
    """{"kernels", "bytes", "cold", "l1_bytes", "l2_bytes", "workers", "seed", "all": rates, "phases": [rates],
    "warming": see there, "seconds": {"store", "replay"}}. In a process with the environment of ``site``.

    Rates are {"reads", "l1", "l2", "l3", "l4": share of the reads, "l1_l2", "overall", "mean_ms", "tiers": {tier:
    {"p50_ms", "p95_ms"}}}.
    """
    from django.conf import settings
    from django.test.utils import override_settings

    made = kernels(workload)
    total = sum(kernel.size for kernel in made)
    l1_bytes, l2_bytes = int(workload.l1_share * total), int(workload.l2_share * total)
    began = time.monotonic()
    with override_settings(KERNEL_CACHE={**settings.KERNEL_CACHE, "l1_bytes": l1_bytes}):
        digests = _store(made, workload.seed)
        _empty(site, l2_bytes)
        stored = time.monotonic() - began
        phases = _phases(workload, digests, made)
        replayed = time.monotonic() - began - stored
        warming = _warming(site, l2_bytes, workload, digests, made)
    answers = [answer for phase in phases for answer in phase]
    return {
        "kernels": len(made),
        "bytes": total,
        "cold": sum(kernel.is_cold for kernel in made),
        "l1_bytes": l1_bytes,
        "l2_bytes": l2_bytes,
        "workers": workload.workers,
        "seed": workload.seed,
        "all": rates(answers),
        "phases": [rates(phase) for phase in phases],
        "warming": warming,
        "seconds": {"store": stored, "replay": replayed},
    }


def rates(answers: Sequence[Answer]) -> dict[str, Any]:
    """Of some reads. A hit is one that was answered without L4."""
    seconds_of = {tier: [seconds for its_tier, seconds in answers if its_tier == tier] for tier in TIERS}
    share = {tier: len(seconds) / len(answers) for tier, seconds in seconds_of.items()}
    return {
        "reads": len(answers),
        **share,
        "l1_l2": share["l1"] + share["l2"],
        "overall": 1 - share["l4"],
        "mean_ms": statistics.fmean(seconds for _, seconds in answers) * 1e3,
        "tiers": {tier: _percentiles(seconds) for tier, seconds in seconds_of.items()},
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """None: too few reads for a p95."""
    if len(seconds) < 2:
        return None
    return {"p50_ms": statistics.median(seconds) * 1e3, "p95_ms": statistics.quantiles(seconds, n=20)[18] * 1e3}


# --- The kernels


def _store(made: Sequence[Made], seed: int) -> list[str]:
    """Put every kernel into the library, with a copy in L4; the cold ones are there alone. The digests, by number."""
    from apps.core.actors import SYSTEM
    from apps.kernels.cache import KernelStore, mover, relay
    from apps.kernels.models import Kernel, StorageTier

    store = KernelStore()
    digests = [store.put(kernel.data(seed)) for kernel in made]
    while relay.drain():
        pass
    _register(made, digests)
    cold = [digests[kernel.number] for kernel in made if kernel.is_cold]
    for kernel in Kernel.objects.filter(digest__in=cold):
        mover.move(kernel, to=StorageTier.COLD, actor=SYSTEM)
    return digests


def _register(made: Sequence[Made], digests: Sequence[str]) -> None:
    """A validated kernel for each blob: one by the services, and the others as copies of its row.

    The net under the services would write an event for each: it is off meanwhile, for which it takes the owner.
    """
    from apps.blueprints.services import create_blueprint, submit_version
    from apps.blueprints.starter import starter_library
    from apps.core.actors import SYSTEM
    from apps.core.ids import new_id
    from apps.kernels.models import Kernel
    from apps.kernels.services import register_kernel

    blueprint = create_blueprint(name="bench", actor=SYSTEM)
    version = submit_version(blueprint=blueprint, spec=starter_library()["residual_mlp"].spec, actor=SYSTEM)
    first = register_kernel(version=version, awaits_upload=True, actor=SYSTEM)
    own = ("id", "name", "bindings", "digest", "size", "state", "storage_tier")
    others = [column.column for column in Kernel._meta.concrete_fields if column.column not in own]
    names = ", ".join(f'"{name}"' for name in others)
    statement = (
        f"INSERT INTO kernels_kernel ({', '.join(own)}, {names}) "
        f"SELECT %s, %s, jsonb_build_object('H', %s::int), %s, %s, 'VALIDATED', 'warm', {names} "
        "FROM kernels_kernel WHERE id = %s"
    )
    with psycopg.connect(os.environ["DATABASE_OWNER_URL"], autocommit=True) as owner:
        owner.execute(b"ALTER TABLE kernels_kernel DISABLE TRIGGER USER")
        for kernel, digest in zip(made, digests, strict=True):
            row = [new_id(), f"bench-{kernel.number}", kernel.number + 1, digest, kernel.size, first.pk]
            owner.execute(statement.encode(), row)
        owner.execute(b"ALTER TABLE kernels_kernel ENABLE TRIGGER USER")


def _empty(site: Site, l2_bytes: int) -> None:
    """L2 has nothing in it, and room for ``l2_bytes``; this process knows nothing of kernels."""
    from apps.kernels.cache.tiers import tiers

    with site.l2.client() as client:
        client.flushall()
        client.config_set("maxmemory", client.info()["used_memory"] + l2_bytes)
    tiers.cache_clear()


# --- The reads


def _phases(workload: Workload, digests: Sequence[str], made: Sequence[Made]) -> list[list[Answer]]:
    """What each phase's reads were answered by."""
    with _workers(workload.workers) as workers:
        found = []
        for phase in range(workload.phases):
            found.append(_read(workers, _orders(workload, phase, digests, made)))
            if phase < workload.phases - 1:
                _beat()
        return found


def _orders(
    workload: Workload, phase: int, digests: Sequence[str], made: Sequence[Made]
) -> list[list[tuple[str, int]]]:
    """(digest, size) of what each worker reads in a phase."""
    orders: list[list[tuple[str, int]]] = [[] for _ in range(workload.workers)]
    for read in reads(workload):
        if read.phase == phase:
            orders[read.worker].append((digests[read.kernel], made[read.kernel].size))
    return orders


def _read(workers: Sequence[Child], orders: Sequence[Sequence[tuple[str, int]]]) -> list[Answer]:
    for worker, order in zip(workers, orders, strict=True):
        worker.send(order)
    return [answer for worker in workers for answer in worker.receive()]


@contextmanager
def _workers(count: int, *, warmed: bool = False) -> Iterator[list[Child]]:
    workers = [Child(_worker, warmed) for _ in range(count)]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def _worker(pipe: Connection, warmed: bool) -> None:
    """A process that serves: reads whole kernels as it is told, and answers with the tier and seconds of each.

    ``warmed``: it loads what is read most into its L1 before it begins.
    """
    from apps.kernels.cache import KernelStore, process, warming

    process.start()
    if warmed:
        warming.warm_memory()
    while True:
        answers: list[Answer] = []
        for digest, size in pipe.recv():
            began = time.perf_counter()
            reading = KernelStore().stream(digest)
            got = sum(len(piece) for piece in reading)
            answers.append((str(reading.tier), time.perf_counter() - began))
            if got != size:
                raise RuntimeError(f"{got} bytes of {digest} instead of {size}")
        process.publish()
        pipe.send(answers)


def _beat() -> None:
    """What the schedule does every few minutes: counts of reads, what is owed, and a plan of each kind, carried out."""
    from apps.core.actors import SYSTEM
    from apps.kernels import services
    from apps.kernels.cache import accesses, relay
    from apps.kernels.models import CachePlanKind

    accesses.flush()
    relay.drain()
    for kind in (CachePlanKind.OPTIMISE, CachePlanKind.WARM):
        plan = services.plan_cache(kind=kind, actor=SYSTEM)
        if plan.moves:
            services.carry_out_cache_plan(plan=services.apply_cache_plan(plan=plan, actor=SYSTEM), actor=SYSTEM)


# --- What warming is worth


def _warming(
    site: Site, l2_bytes: int, workload: Workload, digests: Sequence[str], made: Sequence[Made]
) -> dict[str, Any]:
    """{"without", "with": rates of the first reads after all memory was lost, "gain": of the share of L1 and L2}.

    The reads are those with which the last phase of the first worker began.
    """
    first = _orders(workload, workload.phases - 1, digests, made)[0][:FIRST_READS]
    found = {}
    for name, warmed in (("without", False), ("with", True)):
        _empty(site, l2_bytes)
        if warmed:
            _beat()
        with _workers(1, warmed=warmed) as workers:
            found[name] = rates(_read(workers, [first]))
    return {**found, "gain": found["with"]["l1_l2"] - found["without"]["l1_l2"]}


def lines(found: dict[str, Any]) -> list[str]:
    """For people: beside the claim."""
    every, warming = found["all"], found["warming"]
    rows = [
        f"  {every['reads']:,} reads of {found['kernels']:,} kernels, {found['bytes'] / 2**20:,.0f} MiB "
        f"({found['cold']} of them cold at first), by {found['workers']} processes with "
        f"{found['l1_bytes'] / 2**20:.0f} MiB of L1 each, {found['l2_bytes'] / 2**20:.0f} MiB of L2; seed "
        f"{found['seed']}",
        f"  {'':<12}{'claimed':>10}{'measured':>10}{'p50 ms':>10}{'p95 ms':>10}",
    ]
    for tier in TIERS:
        claimed = f"{CLAIM[tier]:.0%}" if tier in CLAIM else ""
        times = every["tiers"][tier]
        cells = f"{times['p50_ms']:>10.2f}{times['p95_ms']:>10.2f}" if times else ""
        rows.append(f"  {tier.upper():<12}{claimed:>10}{every[tier]:>10.1%}{cells}")
    rows += [
        f"  {'L1 and L2':<12}{CLAIM['l1'] + CLAIM['l2']:>10.0%}{every['l1_l2']:>10.1%}",
        f"  {'overall':<12}{CLAIM['overall']:>10.0%}{every['overall']:>10.1%}",
        f"  {'mean':<12}{'<100 ms':>10}{every['mean_ms']:>7.2f} ms",
        "  by phase, overall: " + " ".join(f"{phase['overall']:.1%}" for phase in found["phases"]),
        f"  the first {warming['with']['reads']} reads after all memory was lost: L1 and L2 answer "
        f"{warming['without']['l1_l2']:.1%}, warmed {warming['with']['l1_l2']:.1%} (gain {warming['gain']:.1%}); "
        f"{warming['without']['mean_ms']:.2f} ms and {warming['with']['mean_ms']:.2f} ms each",
    ]
    return rows
