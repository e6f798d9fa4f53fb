"""The audit trail as sentences: who did what to which thing, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from apps.audit import selectors as audit
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.checkpoints.models import Checkpoint
from apps.core.ids import parse_id
from apps.kernels.models import Kernel
from apps.training.models import Seed, TrainingRun

PAGE_SIZE = 50
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(kind.family for kind in EVENT_TYPES.values()))
PAGES: Mapping[str, str] = {"run": "dashboards:run", "kernel": "dashboards:kernel"}
"""Kinds of subjects that have a page of their own."""


@dataclass(frozen=True, slots=True)
class TrailFilter:
    family: str = ""
    subject: str = ""
    before: UUID | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "TrailFilter":
        subject = parse_id(query.get("subject", ""))
        return cls(
            family=query.get("family", "") if query.get("family") in FAMILIES else "",
            subject=str(subject) if subject else "",
            before=parse_id(query.get("before", "")),
        )


@dataclass(frozen=True, slots=True)
class Line:
    """One event as a sentence: ``who`` ``verb`` ``name``."""

    event: AuditEvent
    who: str
    verb: str
    name: str
    page: str
    """The name of the URL of the subject's page, or nothing."""
    to: str
    """The state that it was moved to, or what was asked of it."""

    @property
    def is_refusal(self) -> bool:
        return self.event.outcome != "success"


@dataclass(frozen=True, slots=True)
class TrailPage:
    lines: Sequence[Line]
    next_before: UUID | None


def page(wanted: TrailFilter) -> TrailPage:
    """The newest events that fit. A fixed number of queries; ids are version 7, so they sort by time."""
    events = AuditEvent.objects.order_by("-id")
    if wanted.family:
        events = events.filter(type__startswith=f"{wanted.family}.")
    if wanted.subject:
        events = events.filter(subject_id=wanted.subject)
    if wanted.before is not None:
        events = events.filter(id__lt=wanted.before)
    rows = list(events[: PAGE_SIZE + 1])
    shown = rows[:PAGE_SIZE]
    return TrailPage(lines=_lines(shown), next_before=shown[-1].pk if len(rows) > PAGE_SIZE else None)


def _lines(events: Sequence[AuditEvent]) -> list[Line]:
    people = audit.actor_names(event.actor_id for event in events)
    names = _names(events)
    return [
        Line(
            event=event,
            who=people.get(event.actor_id, "somebody") if event.actor_id else f"the {event.actor_kind}",
            verb=EVENT_TYPES[event.type].sentence if event.type in EVENT_TYPES else event.type,
            name=names.get((event.subject_type, event.subject_id), ""),
            page=PAGES.get(event.subject_type, ""),
            to=_target(event),
        )
        for event in events
    ]


def _target(event: AuditEvent) -> str:
    changes = {change.get("path"): change.get("value") for change in event.diff if isinstance(change, dict)}
    is_move = event.type.endswith("transition") or event.type == "run.command"
    return str(changes.get("/state") or changes.get("/command") or "") if is_move else ""


def _names(events: Sequence[AuditEvent]) -> dict[tuple[str, str], str]:
    """What the subjects are called, where they have a name that is not personal. One query a kind."""
    found: dict[tuple[str, str], str] = {}
    named: dict[str, type[TrainingRun | Kernel | Blueprint]] = {
        "run": TrainingRun,
        "kernel": Kernel,
        "blueprint": Blueprint,
    }
    for kind, model in named.items():
        ids = _ids(events, kind)
        if ids:
            found |= {
                (kind, str(key)): name for key, name in model.objects.filter(pk__in=ids).values_list("pk", "name")
            }
    ids = _ids(events, "seed")
    for seed in Seed.objects.filter(pk__in=ids).select_related("slot", "run") if ids else []:
        found["seed", str(seed.pk)] = f"{seed} of {seed.run.name}"
    ids = _ids(events, "blueprint_version")
    for version in BlueprintVersion.objects.filter(pk__in=ids).select_related("blueprint") if ids else []:
        found["blueprint_version", str(version.pk)] = str(version)
    ids = _ids(events, "checkpoint")
    checkpoints = list(Checkpoint.objects.filter(pk__in=ids).values_list("pk", "epoch", "run_id") if ids else [])
    runs = dict(TrainingRun.objects.filter(pk__in={row[2] for row in checkpoints}).values_list("pk", "name"))
    return found | {
        ("checkpoint", str(key)): f"after epoch {epoch} of {runs.get(run_id, run_id)}"
        for key, epoch, run_id in checkpoints
    }


def _ids(events: Sequence[AuditEvent], kind: str) -> set[UUID]:
    keys = {parse_id(event.subject_id) for event in events if event.subject_type == kind}
    return {key for key in keys if key is not None}
