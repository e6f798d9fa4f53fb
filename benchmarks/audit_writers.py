"""Eight processes that write events, or plain rows, at the same time: what the bench of recording starts."""

import multiprocessing
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

WRITERS = 8
PLAIN_TABLE = "bench_plain"


@dataclass(frozen=True, slots=True)
class Round:
    """Events per second of all writers together, for plain inserts and for recording, one after the other."""

    plain: float
    record: float

    @property
    def ratio(self) -> float:
        return self.plain / self.record


def make_plain_table(cursor: Any) -> None:
    """The same columns, unpartitioned, with only a primary key. Made by the owner."""
    cursor.execute(f"CREATE TABLE {PLAIN_TABLE} (LIKE audit_auditevent, PRIMARY KEY (id))")


@contextmanager
def writers(count: int = WRITERS) -> Iterator[list[Connection]]:
    """Processes that wait for (mode, seconds) and answer with how many they wrote and how long it took."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(count)]
    processes = [
        context.Process(target=_work, args=(child, number), daemon=True) for number, (_, child) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    ours = [ours for ours, _ in pipes]
    try:
        for pipe in ours:
            pipe.recv()  # ready
        yield ours
    finally:
        for pipe in ours:
            pipe.send(None)
        for process in processes:
            process.join(30)


def rate(pipes: list[Connection], mode: str, seconds: float) -> float:
    """Transactions per second of all writers together."""
    for pipe in pipes:
        pipe.send((mode, seconds))
    return sum(written / took for written, took in (pipe.recv() for pipe in pipes))


def _work(pipe: Connection, number: int) -> None:
    import django

    django.setup()
    modes = _modes(number)
    for write in modes.values():
        write()
    pipe.send("ready")
    while (order := pipe.recv()) is not None:
        mode, seconds = order
        started, written, write = time.perf_counter(), 0, modes[mode]
        while (took := time.perf_counter() - started) < seconds:
            write()
            written += 1
        pipe.send((written, took))


def _modes(number: int) -> dict[str, Callable[[], None]]:
    """One write of each mode: a seed's transition as a train worker reports it, and the same columns without us."""
    from django.db import connection, transaction
    from django.utils import timezone
    from psycopg.types.json import Jsonb

    from apps.audit import services as audit
    from apps.audit.services.recording import COLUMNS
    from apps.core.actors import Actor, ActorKind
    from apps.core.ids import new_id

    actor = Actor(kind=ActorKind.USER, id=new_id(), name=f"writer {number}", address="192.0.2.1")
    payload = {"gate": "G2", "measured": {"ratio": 0.31, "gain": 0.012}, "thresholds": {"ratio": 0.1, "gain": 0.0}}
    seeds = [str(new_id()) for _ in range(100)]
    insert = f"INSERT INTO {PLAIN_TABLE} ({', '.join(COLUMNS)}) VALUES ({', '.join(['%s'] * len(COLUMNS))})"
    diff = [{"op": "replace", "path": "/state", "value": "GRAFTING"}]
    told = {name: str(value) for name, value in {"gate": "G2", "measured": "0.31", "thresholds": "0.1"}.items()}

    def record() -> None:
        with transaction.atomic():
            audit.record(
                type="seed.transition",
                subject=("seed", secrets.choice(seeds)),
                actor=actor,
                reason="two epochs, gradients measured, the shadow gain is positive",
                before={"state": "TRAINING"},
                after={"state": "GRAFTING"},
                payload=payload,
            )

    def plain() -> None:
        values = {
            "id": new_id(),
            "at": timezone.now(),
            "type": "seed.transition",
            "workspace_id": None,
            "subject_type": "seed",
            "subject_id": secrets.choice(seeds),
            "actor_id": actor.id,
            "actor_kind": "user",
            "actor_digest": "0" * 64,
            "address_digest": "0" * 64,
            "token_id": "",
            "request_id": "",
            "trace_id": "",
            "reason": "two epochs, gradients measured, the shadow gain is positive",
            "outcome": "success",
            "diff": Jsonb(diff),
            "payload": Jsonb(payload | told),
            "leaf": bytes(32),
        }
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(insert, [values[name] for name in COLUMNS])

    return {"record": record, "plain": plain}


def measure(pipes: list[Connection], rounds: int, seconds: float, between: Callable[[], Any]) -> list[Round]:
    """Both modes in turn, round by round, so that what else the machine does meets both."""
    found = []
    for number in range(rounds):
        modes = ("plain", "record") if number % 2 == 0 else ("record", "plain")
        rates = {mode: rate(pipes, mode, seconds) for mode in modes}
        found.append(Round(**rates))
        between()
    return found
