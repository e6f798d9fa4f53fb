"""The five questions that a compliance report answers, as data and pure functions over events.

A question names the events that it reads (``Wanted``) and says what a line of its answer is. ``read`` brings exported
events (``proofs.exported``) in the order of the tree: from the database, or from a list. The same events give the same
bytes: an answer holds no name, no clock and nothing that is not under the signed root.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from apps.audit.lifecycle import ReportKind
from apps.audit.provenance import provenance
from apps.audit.reading import Event, Read, Row, Wanted, changed, event_row, patched
from apps.core.errors import FieldError, Invalid
from apps.core.ids import parse_id

Parameters = Mapping[str, str]
MAX_TEXT = 64

# --- Parameters


def _time(value: str) -> str:
    """A time with its zone, in UTC."""
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be a time with its zone, such as 2026-01-31T12:00:00Z")
    return moment.astimezone(UTC).isoformat()


def _id(value: str) -> str:
    found = parse_id(value)
    if found is None:
        raise ValueError("must be an id (a UUID)")
    return str(found)


def _text(value: str) -> str:
    if not value.isprintable() or len(value) > MAX_TEXT:
        raise ValueError(f"must be at most {MAX_TEXT} printable characters")
    return value


@dataclass(frozen=True, slots=True)
class Parameter:
    """``read`` turns what was given into its one canonical form. Raises ValueError, which says what is wanted."""

    name: str
    read: Callable[[str], str]
    help: str
    required: bool = False


SINCE = Parameter("since", _time, "events at or after this time")
UNTIL = Parameter("until", _time, "events before this time")
PERSON = Parameter("person", _id, "the pseudonym of a person (`actor_id` of events)")
ACCOUNT = Parameter("account", _id, "the id of a user's account: events about it and its tokens")
SUBJECT_TYPE = Parameter("subject_type", _text, "the kind of asset, such as kernel or run")
SUBJECT_ID = Parameter("subject_id", _text, "the id of one asset")
KERNEL = Parameter("kernel", _id, "the id of the kernel", required=True)


# --- Questions


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """``rows`` yields the lines of the answer and, as the last one, its ``{"summary": ...}``."""

    title: str
    answers: str
    parameters: tuple[Parameter, ...]
    rows: Callable[[Read, Parameters], Iterator[Row]]
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(parameter.name for parameter in self.parameters))

    def checked(self, given: Mapping[str, Any]) -> dict[str, str]:
        """The parameters in their canonical form.

        Raises:
            Invalid: one is unknown, missing or not what it should be; each is named.
        """
        errors = [
            FieldError(f"/parameters/{name}", "unknown", f"unknown parameter; known: {', '.join(self.names) or 'none'}")
            for name in given
            if name not in self.names
        ]
        values: dict[str, str] = {}
        for parameter in self.parameters:
            pointer, value = f"/parameters/{parameter.name}", given.get(parameter.name)
            if value is None:
                if parameter.required:
                    errors.append(FieldError(pointer, "required", f"is missing: {parameter.help}"))
                continue
            try:
                if not isinstance(value, str) or not value:
                    raise ValueError("must be text, and not empty")
                values[parameter.name] = parameter.read(value)
            except ValueError as error:
                errors.append(FieldError(pointer, "invalid", str(error)))
        since, until = _range(values)
        if since is not None and until is not None and since >= until:
            errors.append(FieldError("/parameters/until", "range", "must be after since"))
        if errors:
            raise Invalid(errors[0].detail, errors=errors)
        return values


def _range(parameters: Parameters) -> tuple[datetime | None, datetime | None]:
    since, until = (parameters.get(name) for name in ("since", "until"))
    return (datetime.fromisoformat(since) if since else None, datetime.fromisoformat(until) if until else None)


def _within(parameters: Parameters, types: tuple[str, ...]) -> Wanted:
    """Events of these types in the range and about the subject that the parameters name."""
    since, until = _range(parameters)
    subject_type, subject_id = parameters.get("subject_type", ""), parameters.get("subject_id", "")
    return Wanted(types=types, since=since, until=until, subject_type=subject_type, subject_id=subject_id)


# --- access: who came in, who was refused, and what let them in

ACCESS = ("access.*", "*.exported", "report.requested")


def access(read: Read, parameters: Parameters) -> Iterator[Row]:
    """Logins, refusals, logouts, tokens, roles and what was taken out of the trail."""
    counts: Counter[str] = Counter()
    people: set[str] = set()
    for event in read(_within(parameters, ACCESS)):
        if _is_of(event, parameters):
            counts[f"{event['type']} {event['outcome']}"] += 1
            people |= {event["actor_id"]} if event["actor_id"] else set()
            yield event_row(event, diff=True)
    yield {"summary": {"events": dict(sorted(counts.items())), "people": len(people)}}


def _is_of(event: Event, parameters: Parameters) -> bool:
    """Whether the event is by the person, or about the account or one of its tokens; all are, if none is named."""
    person, account = parameters.get("person"), parameters.get("account")
    if person is None and account is None:
        return True
    if person is not None and event["actor_id"] == person:
        return True
    return account is not None and account in {event["subject_id"], changed(event).get("user_id")}


# --- change: what was changed, with the difference


def change(read: Read, parameters: Parameters) -> Iterator[Row]:
    """Every event that changed an asset."""
    counts: Counter[str] = Counter()
    for event in read(_within(parameters, ("*",))):
        if event["diff"] and parameters.get("person") in {None, event["actor_id"]}:
            counts[event["subject_type"]] += 1
            yield event_row(event, diff=True)
    yield {"summary": {"changes": dict(sorted(counts.items()))}}


# --- retention: what was let go

LET_GO: Mapping[str, frozenset[str]] = {
    "checkpoint": frozenset({"ABANDONED", "EXPIRED"}),
    "kernel": frozenset({"DEPRECATED", "RETIRED", "PURGED"}),
    "blueprint_version": frozenset({"RETIRED"}),
}
"""Kind of asset -> the states in which it is on its way out, or gone."""
RETENTION_ALWAYS = ("audit.partition_archived", "access.person_erased", "access.account_closed", "access.token_revoked")
RETENTION = (*RETENTION_ALWAYS, "checkpoint.*", "kernel.*", "blueprint.version_transition")


def retention(read: Read, parameters: Parameters) -> Iterator[Row]:
    """Checkpoints that expired, kernels that were retired or purged, months that were archived, people erased."""
    counts: Counter[str] = Counter()
    for event in read(_within(parameters, RETENTION)):
        state = str(changed(event).get("state", ""))
        if event["type"] in RETENTION_ALWAYS or state in LET_GO.get(event["subject_type"], ()):
            counts[f"{event['subject_type']} {state or event['type'].partition('.')[2]}"] += 1
            yield {**event_row(event), "became": state, "payload": event["payload"]}
    yield {"summary": {"let_go": dict(sorted(counts.items()))}}


# --- privileges: who might do what at the time

USER_FACTS = ("role", "is_active", "is_staff", "is_superuser")


def privileges(read: Read, parameters: Parameters) -> Iterator[Row]:
    """Roles and live tokens, folded from the events of access up to the time of the report."""
    users, tokens, last = _folded(read)
    account, moment = parameters.get("account"), parameters["as_of"]
    roles: Counter[str] = Counter()
    rows: list[Row] = []
    for key, user in users.items():
        if account not in {None, key}:
            continue
        facts = {name: user[name] for name in USER_FACTS if name in user}
        roles[str(facts.get("role", ""))] += bool(facts.get("is_active"))
        rows.append({"user": key, **facts, **last["user", key]})
    live = {key: token for key, token in tokens.items() if _is_live(token, moment)}
    for key, token in live.items():
        owner = _owner(token)
        if account not in {None, owner}:
            continue
        usable = bool(users.get(owner, {}).get("is_active", False))
        told = {"scopes": token.get("scopes", []), "expiry": token.get("expiry"), "owner_is_active": usable}
        rows.append({"token": key, "user": owner, **told, **last["token", key]})
    yield from sorted(rows, key=lambda row: int(row["index"]))
    held = sum("token" in row for row in rows)
    yield {"summary": {"active_users": dict(sorted((+roles).items())), "live_tokens": held}}


def _folded(read: Read) -> tuple[dict[str, Row], dict[str, Row], dict[tuple[str, str], Row]]:
    """Users and tokens by id, as their events leave them, and the event that each is known from."""
    folds: dict[str, dict[str, Row]] = {"user": {}, "token": {}}
    last: dict[tuple[str, str], Row] = {}
    for event in read(Wanted(types=("access.*",))):
        kind, key = event["subject_type"], event["subject_id"]
        if kind not in folds or not event["diff"]:
            continue
        folds[kind][key] = patched(folds[kind].get(key, {}), event["diff"])
        last[kind, key] = {"index": event["index"], "event": event["id"], "since": event["at"]}
        if event["type"] == "access.token_revoked":
            del folds[kind][key]
    return folds["user"], folds["token"], last


def _owner(token: Row) -> str:
    """Events of before the whole row was told say ``user``."""
    return str(token.get("user_id") or token.get("user") or "")


def _is_live(token: Row, moment: str) -> bool:
    expiry = token.get("expiry")
    return expiry is None or datetime.fromisoformat(str(expiry)) > datetime.fromisoformat(moment)


# --- All of them

QUESTIONS: Mapping[ReportKind, Question] = {
    ReportKind.ACCESS: Question(
        title="Access",
        answers="Who logged in, who was refused, which tokens and roles were given and taken.",
        parameters=(SINCE, UNTIL, PERSON, ACCOUNT),
        rows=access,
    ),
    ReportKind.CHANGE: Question(
        title="Changes",
        answers="What was changed in which asset, by whom, with the difference.",
        parameters=(SINCE, UNTIL, PERSON, SUBJECT_TYPE, SUBJECT_ID),
        rows=change,
    ),
    ReportKind.RETENTION: Question(
        title="Retention",
        answers="What was let go: checkpoints, kernels, months of the trail, people.",
        parameters=(SINCE, UNTIL),
        rows=retention,
    ),
    ReportKind.PRIVILEGES: Question(
        title="Privileges",
        answers="Who had which role and which live tokens at the time of the report.",
        parameters=(ACCOUNT,),
        rows=privileges,
    ),
    ReportKind.PROVENANCE: Question(
        title="Provenance of a kernel",
        answers="Where a kernel comes from, how it was checked, and in which runs it grew.",
        parameters=(KERNEL,),
        rows=provenance,
    ),
}


def question_of(kind: str) -> Question:
    """Raises Invalid, naming the kinds that there are."""
    try:
        return QUESTIONS[ReportKind(kind)]
    except ValueError:
        kinds = ", ".join(ReportKind)
        raise Invalid(f"there is no report {kind!r}; reports: {kinds}", pointer="/kind", code="choice") from None


def answer(read: Read, *, kind: str, parameters: Parameters, as_of: datetime) -> Iterator[Row]:
    """The lines of the answer; the last one is its summary."""
    return question_of(kind).rows(read, {**parameters, "as_of": as_of.astimezone(UTC).isoformat()})
