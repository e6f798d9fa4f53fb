"""What the cache does when many miss at once, when the one that loads for them dies, and when Redis is frozen."""

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.cache_site import Child, Site, in_fresh_process
from benchmarks.targets import Measurement, spread

PROCESSES, THREADS = 5, 10
BYTES = 1 << 20
SEED = 2026
FULL_ROUNDS, QUICK_ROUNDS = 20, 3
FULL_DEATHS, QUICK_DEATHS = 5, 1
FULL_FREEZES, QUICK_FREEZES = 7, 1
FOLLOWING = 100
FROZEN_BYTES = 100 << 10
RECOVERY_SECONDS = 30.0


def measure(site: Site, *, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    """{"stampede": {...}, "holder_killed": {...}, "frozen": {...}}."""
    say(f"{PROCESSES * THREADS} readers in {PROCESSES} processes miss one kernel at the same moment ...")
    stampedes = in_fresh_process(stampede_all, QUICK_ROUNDS if quick else FULL_ROUNDS, False)
    say("the same, and who loads is killed ...")
    deaths = in_fresh_process(stampede_all, QUICK_DEATHS if quick else FULL_DEATHS, True)
    say("freezing Redis ...")
    frozen = in_fresh_process(freeze, site, QUICK_FREEZES if quick else FULL_FREEZES)
    return {"stampede": stampedes, "holder_killed": deaths, "frozen": frozen}


def measurements(found: dict[str, Any]) -> dict[str, Measurement]:
    """The worst of all rounds."""
    loads = [float(row["loads"]) for row in found["stampede"]]
    stalls = [row["first_ms"] for row in found["frozen"]]
    return {
        "loads_for_50_misses_in_5_processes": Measurement(value=max(loads), n=len(loads), spread=spread(loads)),
        "frozen_redis_first_get_stall": Measurement(value=max(stalls), n=len(stalls), spread=spread(stalls)),
    }


# --- Many that miss at once


def stampede_all(rounds: int, is_holder_killed: bool) -> list[dict[str, Any]]:
    """``stampede``, ``rounds`` times, each upon a kernel of its own."""
    return [stampede(number, is_holder_killed) for number in range(rounds)]


def stampede(number: int, is_holder_killed: bool) -> dict[str, Any]:
    """{"readers", "right", "loads", "tiers", "first_s", "last_s"}: of one kernel that only L3 has.

    ``loads``: how often a process asked L3 for its bytes. ``is_holder_killed``: the first that does, dies (SIGKILL),
    with its ten readers. Times are from the common start to the answers of those that live.
    """
    from apps.kernels.cache import KernelStore
    from apps.kernels.cache.tiers import tiers

    digest = KernelStore().put(random.Random(f"{SEED} stampede {number} {is_holder_killed}").randbytes(BYTES))
    redis = tiers().redis
    if redis is None:
        raise RuntimeError("there is no L2")
    redis.drop(digest)
    context = get_context("fork")
    start, victims = context.Barrier(PROCESSES * THREADS), context.Value("i", int(is_holder_killed))
    children = [Child(_readers, digest, start, victims) for _ in range(PROCESSES)]
    told = [answer for child in children if (answer := _answer_of(child)) is not None]
    tiers_of: dict[str, int] = {}
    for answer in told:
        for tier in answer["tiers"]:
            tiers_of[tier] = tiers_of.get(tier, 0) + 1
    seconds = [seconds for answer in told for seconds in answer["seconds"]]
    return {
        "readers": len(told) * THREADS,
        "right": sum(answer["right"] for answer in told),
        "loads": sum(answer["loads"] for answer in told),
        "tiers": tiers_of,
        "first_s": min(seconds),
        "last_s": max(seconds),
    }


def _answer_of(child: Child) -> Any:
    """None: it was killed."""
    try:
        return child.receive()
    except EOFError:
        return None
    finally:
        child.end()


def _readers(pipe: Connection, digest: str, start: Any, victims: Any) -> None:
    """Ten threads, each with its own connection to the database, released with those of all processes."""
    from apps.kernels.cache.chunks import DatabaseTier

    loads: list[int] = []
    real = DatabaseTier.get
    # Whoever is killed must not be killed inside the start that others share: its lock would never be given back.
    past_it = threading.Barrier(THREADS)

    def counted(*arguments: Any) -> Any:
        loads.append(1)
        with victims.get_lock():
            is_victim = victims.value > 0
            victims.value -= is_victim
        if is_victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    DatabaseTier.get = counted  # type: ignore[assignment, method-assign]
    with ThreadPoolExecutor(THREADS) as pool:
        answers = [pool.submit(_read_once, digest, start, past_it) for _ in range(THREADS)]
        found = [answer.result() for answer in answers]
    pipe.send(
        {
            "right": sum(right for right, _, _ in found),
            "tiers": [str(tier) for _, tier, _ in found],
            "seconds": [seconds for _, _, seconds in found],
            "loads": len(loads),
        }
    )


def _read_once(digest: str, start: Any, past_it: threading.Barrier) -> tuple[bool, Any, float]:
    """Whether the right bytes came, from which tier, and seconds after the start."""
    import hashlib

    from django.db import connection

    from apps.kernels.cache import KernelStore, clients

    connection.ensure_connection()
    clients.client().ping()
    try:
        start.wait()
        past_it.wait()
        began = time.perf_counter()
        reading = KernelStore().stream(digest)
        data = b"".join(reading)
        return hashlib.sha256(data).hexdigest() == digest, reading.tier, time.perf_counter() - began
    finally:
        connection.close()


# --- A Redis that does not answer


def freeze(site: Site, rounds: int) -> list[dict[str, float]]:
    """Each round: milliseconds of a get before; of the first one after SIGSTOP; of the following hundred (p50, worst,
    and all together); and seconds from SIGCONT until one is answered by L2 again."""
    from apps.kernels.cache import KernelStore

    data = random.Random(f"{SEED} frozen").randbytes(FROZEN_BYTES)
    digest = KernelStore().put(data)
    found = []
    for _ in range(rounds):
        before = [_l2_or_below(digest)[1] for _ in range(FOLLOWING)]
        site.l2.freeze()
        try:
            first = _l2_or_below(digest)[1]
            following = [_l2_or_below(digest)[1] for _ in range(FOLLOWING)]
        finally:
            site.l2.thaw()
        found.append(
            {
                "before_ms": statistics.median(before) * 1e3,
                "first_ms": first * 1e3,
                "following_p50_ms": statistics.median(following) * 1e3,
                "following_worst_ms": max(following) * 1e3,
                "following_all_ms": sum(following) * 1e3,
                "recovery_s": _seconds_until(partial(_is_from_l2, digest)),
            }
        )
    return found


def _l2_or_below(digest: str) -> tuple[str, float]:
    """Which tier answered a read that L1 knows nothing of, and how many seconds it took."""
    from apps.kernels.cache import reading

    began = time.perf_counter()
    found = reading.read(digest, 0, keep_in_memory=False)
    return found.tier, time.perf_counter() - began


def _is_from_l2(digest: str) -> bool:
    from apps.kernels.cache.segments import TierName

    return _l2_or_below(digest)[0] == TierName.L2


def _seconds_until(condition: Callable[[], bool]) -> float:
    """Raises RuntimeError: it does not hold within RECOVERY_SECONDS."""
    from esper_site.embedded.process import wait_for

    began = time.perf_counter()
    if not wait_for(condition, seconds=RECOVERY_SECONDS, interval=0.01):
        raise RuntimeError("L2 answers again, but nobody asks it")
    return time.perf_counter() - began


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    stampedes, deaths, frozen = found["stampede"], found["holder_killed"], found["frozen"]
    loads = [row["loads"] for row in stampedes]
    last = statistics.median(row["last_s"] for row in stampedes) * 1e3
    return [
        f"  {len(stampedes)} stampedes of {PROCESSES * THREADS}: {min(loads)} to {max(loads)} loads from L3; "
        f"the last reader had it after {last:.0f} ms (median)",
        f"  {len(deaths)} with the loader killed: the first had it after "
        f"{max(row['first_s'] for row in deaths):.2f} s at most, the last after "
        f"{max(row['last_s'] for row in deaths):.2f} s; {max(row['loads'] for row in deaths)} loads at most by those "
        "that live",
        f"  {len(frozen)} freezes: the first get took {max(row['first_ms'] for row in frozen):.1f} ms at most, "
        f"the hundred after it {statistics.median(row['following_p50_ms'] for row in frozen):.2f} ms each "
        f"({statistics.median(row['before_ms'] for row in frozen):.2f} ms from L2 before; worst "
        f"{max(row['following_worst_ms'] for row in frozen):.1f} ms); L2 answered again "
        f"{max(row['recovery_s'] for row in frozen):.1f} s after it went on, at most",
    ]
