"""The audit trail on a PostgreSQL of the bench's own: `manage.py bench audit [--quick]`.

Recording against a plain insert with eight writers, sealing, verifying (in a process of its own, for its memory), and
what pages of the search read. Full: a million events over a year; quick: a hundred thousand, for a look.
"""

import json
import logging
import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import psycopg

from benchmarks import audit_rows, audit_writers, targets
from benchmarks.database import own_database
from benchmarks.targets import Measurement, rows, spread
from esper_site.embedded import processes
from esper_site.embedded.postgres import Cluster

FULL_EVENTS, QUICK_EVENTS = 1_000_000, 100_000
MONTHS = 12
SEED = 2026
SEAL_BATCH = 20_000


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types."""
    events = QUICK_EVENTS if quick else FULL_EVENTS
    logging.getLogger("apps.audit").setLevel(logging.WARNING)  # a line for each of its checkpoints
    with own_database(say) as cluster:
        recording = _recording(cluster, rounds=3 if quick else 9, say=say)
        say(f"loading {events:,} events ...")
        with psycopg.connect(cluster.url("owner"), autocommit=True) as owner:
            audit_rows.load(owner, events=events, months=MONTHS, seed=SEED)
        sealing = _sealing(say)
        verifying = _verifying(repeats=1 if quick else 3, say=say)
        say("reading pages of the search ...")
        searching = {case.name: audit_rows.buffers(case) for case in audit_rows.search_cases()}
    return {
        "bench": "audit",
        "events": events,
        "recording": recording,
        "sealing": sealing,
        "verifying": verifying,
        "search_buffers": searching,
        "targets": rows("audit", _measured(recording, sealing, verifying, None if quick else searching)),
    }


def _measured(
    recording: dict[str, Any], sealing: dict[str, Any], verifying: dict[str, Any], searching: dict[str, int] | None
) -> dict[str, Measurement]:
    series = {
        "record_vs_plain_insert_8_writers": [row["ratio"] for row in recording["rounds"]],
        "seal_rate": sealing["rates"],
        "verify_rate": verifying["rates"],
        "verify_peak_memory": verifying["peak_mib"],
    }
    found = {name: Measurement.of(values) for name, values in series.items()}
    if searching is not None:  # the worst page of all: every other one reads less
        pages = [float(value) for value in searching.values()]
        found["search_page_buffers_1m_events"] = Measurement(value=max(pages), n=len(pages), spread=spread(pages))
    return found


def _recording(cluster: Cluster, *, rounds: int, say: Callable[[str], Any]) -> dict[str, Any]:
    from apps.audit import services

    say(f"recording against a plain insert, {audit_writers.WRITERS} writers, {rounds} rounds ...")
    with psycopg.connect(cluster.url("owner"), autocommit=True) as owner:
        audit_writers.make_plain_table(owner.cursor())
    with audit_writers.writers() as pipes:
        audit_writers.measure(pipes, rounds=1, seconds=2.0, between=services.seal)  # warms both
        found = audit_writers.measure(pipes, rounds=rounds, seconds=3.0, between=services.seal)
    return {
        "writers": audit_writers.WRITERS,
        "rounds": [{"plain_per_s": row.plain, "record_per_s": row.record, "ratio": row.ratio} for row in found],
    }


def _sealing(say: Callable[[str], Any]) -> dict[str, Any]:
    """Batches of 20,000, each with its nodes, its signature and its copy on the disk."""
    from apps.audit.services import sealing

    say("sealing ...")
    rates, total, started = [], 0, time.monotonic()
    while True:
        begun = time.monotonic()
        batch = sealing._seal_batch(SEAL_BATCH)
        assert batch is not None, "somebody else seals the bench's own database"
        sealing.copy_checkpoints()
        count = batch[1] - batch[0]
        if count == 0:
            break
        total += count
        if count == SEAL_BATCH:
            rates.append(count / (time.monotonic() - begun))
    return {"events": total, "seconds": time.monotonic() - started, "batch": SEAL_BATCH, "rates": rates}


def _verifying(*, repeats: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """`manage.py verify_audit --json` in a process of its own, as an operator runs it."""
    rates, peaks, seconds = [], [], []
    for number in range(repeats):
        say(f"verifying, {number + 1} of {repeats} ...")
        command, environment = processes.manage(os.environ, "verify_audit", "--json")
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            output = process.stdout.read() if process.stdout else ""
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        answer = json.loads(output.splitlines()[-1])
        assert answer["right"], answer["findings"][:3]
        rates.append(answer["events"] / answer["seconds"])
        peaks.append(usage.ru_maxrss / 1024)
        seconds.append(answer["seconds"])
    return {"events": answer["events"], "rates": rates, "peak_mib": peaks, "seconds": seconds}


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not."""
    lines = [f"Audit trail, {result['events']:,} events", ""]
    lines += targets.lines(result["targets"])
    lines += ["", "  buffer pages that a search page reads"]
    lines += [f"  {name:<52}{pages:>8,}" for name, pages in result["search_buffers"].items()]
    return "\n".join(lines) + "\n"
