"""A trail of any length for benches and tests: the same events for a seed, with their right leaves, over whole months.

And the searches that are measured on it, with the disk pages that each page of results reads.
"""

import hashlib
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import orjson
import psycopg

TABLE = "audit_auditevent"
COLUMNS = (
    "id",
    "at",
    "type",
    "workspace_id",
    "subject_type",
    "subject_id",
    "actor_id",
    "actor_kind",
    "actor_digest",
    "address_digest",
    "token_id",
    "request_id",
    "trace_id",
    "reason",
    "outcome",
    "diff",
    "payload",
    "leaf",
)
NULL = "\\N"
KINDS = (
    ("adaptation.decision", "run", 40),
    ("seed.transition", "seed", 25),
    ("run.transition", "run", 8),
    ("kernel.field_report", "kernel", 8),
    ("checkpoint.committed", "checkpoint", 8),
    ("kernel.transition", "kernel", 5),
    ("access.login", "user", 4),
    ("blueprint.modified", "blueprint", 1),
    ("kernel.quarantined", "kernel", 0.5),
    ("run.rollback", "run", 0.4),
    ("access.role_changed", "user", 0.01),
)
STATES = ("DORMANT", "GERMINATED", "TRAINING", "GRAFTING", "STABILIZING", "EVALUATING", "FOSSILIZED", "CULLED")
WORDS = (
    "accuracy",
    "moved",
    "rent",
    "gain",
    "gate",
    "plateau",
    "embargo",
    "budget",
    "interval",
    "loss",
    "kept",
    "site",
)


def fixed_id(name: str, number: int = 0) -> UUID:
    """A UUIDv7 that is the same in every run: subjects and actors to search for."""
    digits = random.Random(f"{name} {number}").getrandbits(74)
    moment = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000) + number
    return uuid7(moment, digits)


def uuid7(milliseconds: int, bits: int) -> UUID:
    """RFC 9562, section 5.7, of a time and 74 bits."""
    return UUID(int=(milliseconds << 80) | (7 << 76) | ((bits >> 62) << 64) | (2 << 62) | (bits & ((1 << 62) - 1)))


BUSY_SUBJECT = str(fixed_id("busy"))
"""A run that a tenth of all events is about."""
PEOPLE = 40
BUSY_ACTOR, QUIET_ACTOR, NO_ACTOR = fixed_id("actor", 0), fixed_id("actor", PEOPLE - 1), fixed_id("nobody")
RARE, RARE_IN_DIFF = "heliotrope", "quokka_100%"
RARE_EVERY = 50_000


def load(
    connection: psycopg.Connection[Any], *, events: int, months: int, seed: int, until: datetime | None = None
) -> None:
    """Put ``events`` events into the last ``months`` months, the one of ``until`` (now, to the hour) included.

    ``connection`` is the owner's, in autocommit. Months that are over get partitions and, in the end, text indexes.
    """
    last = (until or datetime.now(UTC)).replace(minute=0, second=0, microsecond=0)
    if last.day == 1 and last.hour == 0:
        last += timedelta(hours=1)
    spans = _spans(last, months)
    chance = random.Random(seed)
    for number, (start, end) in enumerate(spans):
        count = events * (number + 1) // months - events * number // months
        with connection.transaction():
            _fill(connection, start, min(end, last), _lines(start, min(end, last), count, chance), end)
    _add_people(connection)
    connection.execute("SELECT esper_audit_index_text()")
    connection.execute(f"ANALYZE {TABLE}".encode())
    connection.execute(b"VACUUM audit_auditpending")


def _add_people(connection: psycopg.Connection[Any]) -> None:
    """The side table: what the events commit to by digest."""
    for number in range(PEOPLE):
        person = fixed_id("actor", number)
        connection.execute(
            "INSERT INTO audit_auditperson (id, salt) VALUES (%s, %s) ON CONFLICT DO NOTHING", [person, salt_of(number)]
        )
        connection.execute(
            "INSERT INTO audit_auditpersonalvalue (id, person_id, kind, value, digest) "
            "VALUES (%s, %s, 'name', %s, %s) ON CONFLICT DO NOTHING",
            [fixed_id("value", number), person, f"person {number}", person_digest(number)],
        )


def salt_of(number: int) -> bytes:
    return hashlib.sha256(f"salt {number}".encode()).digest()


@cache
def person_digest(number: int) -> str:
    """The HMAC that stands for the person's name in events."""
    from apps.audit.pseudonyms import Pseudonym

    return Pseudonym(id=fixed_id("actor", number), salt=salt_of(number)).digest("name", f"person {number}")


def _spans(last: datetime, months: int) -> list[tuple[datetime, datetime]]:
    starts = [last.replace(day=1, hour=0)]
    while len(starts) < months:
        starts.append((starts[-1] - timedelta(days=1)).replace(day=1))
    return [(start, (start + timedelta(days=32)).replace(day=1)) for start in reversed(starts)]


def _fill(
    connection: psycopg.Connection[Any], start: datetime, last: datetime, lines: Iterator[str], end: datetime
) -> None:
    """Into the partition if there is one; else a table is filled, then attached: its indexes are built at once."""
    name = f"{TABLE}_{start:%Y_%m}"
    is_there = connection.execute("SELECT to_regclass(%s)", [name]).fetchone() != (None,)
    if not is_there:
        connection.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING CONSTRAINTS)".encode())
    with connection.cursor() as cursor, cursor.copy(f"COPY {name} ({', '.join(COLUMNS)}) FROM STDIN".encode()) as copy:
        for line in lines:
            copy.write(line.encode())
    if is_there:
        return
    for statement in (
        f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{start}') TO ('{end}')",
        f"CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION esper_audit_refuse()",
        f"SELECT esper_audit_restrict('{name}')",
        f"INSERT INTO audit_auditpending (event_id, at, leaf) SELECT id, at, leaf FROM {name}",
    ):
        connection.execute(statement.encode())


def _lines(start: datetime, end: datetime, count: int, chance: random.Random) -> Iterator[str]:
    """Rows in COPY's text format, evenly over the time, in the order of their ids."""
    names, subjects, weights = zip(*KINDS, strict=True)
    step = (end - start) / max(count, 1)
    request, left = "", 0
    for number in range(count):
        if left == 0:
            request, left = f"req-{chance.getrandbits(64):016x}", chance.randint(1, 5)
        left -= 1
        at = start + step * number + timedelta(microseconds=7)
        kind = chance.choices(range(len(names)), weights)[0]
        yield _line(at, names[kind], subjects[kind], request, number, chance)


def _line(at: datetime, kind: str, subject: str, request: str, number: int, chance: random.Random) -> str:
    from apps.audit.canonical import dumps
    from apps.audit.verifier import leaf_hash

    is_person = chance.random() < 0.4
    person = min(int(chance.expovariate(0.3)), PEOPLE - 1) if is_person else None
    actor = str(fixed_id_of("actor", person)) if person is not None else None
    about = chance.random()
    subject_id = str(fixed_id_of(subject, chance.randrange(4_000)))
    if subject == "run" and about < 0.2:
        subject_id = BUSY_SUBJECT
    state = chance.choice(STATES)
    rare = number % RARE_EVERY == 17
    words = " ".join(chance.choices(WORDS, k=6))
    values: dict[str, Any] = {
        "actor_digest": person_digest(person) if person is not None else "",
        "actor_id": actor,
        "actor_kind": "user" if actor else "worker",
        "address_digest": "",
        "at": at.isoformat(),
        "diff": [
            {"op": "replace", "path": "/state", "value": RARE_IN_DIFF if rare else state},
            {"op": "replace", "path": "/stage_epochs", "value": chance.randrange(40)},
            {"op": "replace", "path": "/contribution", "value": f"{chance.random():.8f}"},
        ],
        "id": str(uuid7(int(at.timestamp() * 1000), chance.getrandbits(74))),
        "outcome": "failure" if chance.random() < 0.01 else "success",
        "payload": {
            "epoch": chance.randrange(200),
            "gain": {"high": f"{chance.random():.6f}", "low": f"{-chance.random():.6f}", "value": "0.0123"},
            "gate": "stabilized",
            "thresholds": {"rent": "0.000012", "steps": 120},
        },
        "reason": f"epoch {chance.randrange(200)}: {words}{f' {RARE} {number}' if rare else ''}",
        "request_id": request,
        "subject_id": subject_id,
        "subject_type": subject,
        "token_id": f"token-{chance.randrange(20)}" if actor and chance.random() < 0.2 else "",
        "trace_id": f"{chance.getrandbits(128):032x}",
        "type": kind,
        "workspace_id": None,
    }
    leaf = leaf_hash(dumps(values)).hex()
    values["diff"], values["payload"] = (orjson.dumps(values[name]).decode() for name in ("diff", "payload"))
    values["leaf"] = f"\\x{leaf}"
    cells = (values[name] for name in COLUMNS)
    return "\t".join(NULL if cell is None else cell.replace("\\", "\\\\") for cell in cells) + "\n"


_ids: dict[tuple[str, int], UUID] = {}


def fixed_id_of(name: str, number: int) -> UUID:
    """``fixed_id``, remembered."""
    key = (name, number)
    if key not in _ids:
        _ids[key] = fixed_id(name, number)
    return _ids[key]


# --- What is searched for


@dataclass(frozen=True, slots=True)
class SearchCase:
    """``filters`` are those of ``apps.audit.search.Search``; ``back`` is the part of the trail that lies behind."""

    name: str
    filters: dict[str, Any] = field(default_factory=dict)
    back: float = 0.0
    size: int = 50
    oldest_first: bool = False


def search_cases() -> list[SearchCase]:
    """One page each: every filter, rare and frequent, combinations, deep pages, and what is not there."""
    actor, subject = {"actor_id": BUSY_ACTOR}, {"subject_types": ("run",), "subject_id": BUSY_SUBJECT}
    rare_type, often_type = {"types": ("access.role_changed",)}, {"types": ("adaptation.decision",)}
    family = {"types": ("kernel.field_report", "kernel.transition", "kernel.quarantined", "kernel.uploaded")}
    text = {"text": RARE}
    return [
        SearchCase("no filter"),
        SearchCase("no filter, 200 rows", size=200),
        SearchCase("no filter, deep", back=0.6),
        SearchCase("no filter, oldest first", oldest_first=True),
        SearchCase("frequent type", often_type),
        SearchCase("frequent type, deep", often_type, back=0.6),
        SearchCase("rare type", rare_type),
        SearchCase("type without events", {"types": ("audit.key_replaced",)}),
        SearchCase("family", family),
        SearchCase("many types", {"types": tuple(name for name, _, _ in KINDS)}),
        SearchCase("busy subject", subject),
        SearchCase("busy subject, 200 rows, deep", subject, back=0.6, size=200),
        SearchCase("busy subject, rare text", {**subject, **text}),
        SearchCase("busy subject, failures", {**subject, "outcome": "failure"}),
        SearchCase("subject of any type", {"subject_id": BUSY_SUBJECT}),
        SearchCase("subject of any type, none", {"subject_id": str(NO_ACTOR)}),
        SearchCase("busy actor", actor),
        SearchCase("busy actor, 200 rows", actor, size=200),
        SearchCase("busy actor, rare type", {**actor, **rare_type}),
        SearchCase("busy actor, failures, deep", {**actor, "outcome": "failure"}, back=0.5),
        SearchCase("quiet actor", {"actor_id": QUIET_ACTOR}),
        SearchCase("actor without events", {"actor_id": NO_ACTOR}),
        SearchCase("kind of actor", {"actor_kind": "worker"}),
        SearchCase("failures", {"outcome": "failure"}),
        SearchCase("outcome without events", {"outcome": "refused"}),
        SearchCase("request without events", {"request_id": "req-none"}),
        SearchCase("token", {"token_id": "token-7"}),
        SearchCase("rare text", text),
        SearchCase("rare text, deep", text, back=0.5),
        SearchCase("rare text in the diff", {"text": RARE_IN_DIFF}),
        SearchCase("frequent text", {"text": "plateau"}),
        SearchCase("frequent text, deep", {"text": "plateau"}, back=0.5),
        SearchCase("text that nothing has, of frequent parts", {"text": "plateau plateaued"}),
        SearchCase("text that nothing has, of frequent parts, deep", {"text": "contribution moved"}, back=0.3),
        SearchCase("text that nothing has", {"text": "xyzzy"}),
        SearchCase("two letters that nothing has", {"text": "q#"}),
        SearchCase("rare text, rare type", {**text, **rare_type}),
        SearchCase("rare text, family, deep", {**text, **family}, back=0.4),
    ]


def buffers(case: SearchCase) -> int:
    """The disk pages (shared hit + read) of exactly the statements that the search issues for one page."""
    from apps.audit.search import Position, Search, search
    from benchmarks.database import pages_read

    after = Position(*_nth(case.back)) if case.back else None
    return pages_read(
        lambda: search(Search(**case.filters), size=case.size, after=after, newest_first=not case.oldest_first)
    )


def _nth(back: float) -> tuple[datetime, UUID]:
    """The place that a part of the trail's time lies behind."""
    from django.db.models import Max, Min

    from apps.audit.models import AuditEvent

    ends = AuditEvent.objects.aggregate(first=Min("at"), last=Max("at"))
    at = ends["last"] - (ends["last"] - ends["first"]) * back
    return at, uuid7(int(at.timestamp() * 1000), secrets.randbits(74))
