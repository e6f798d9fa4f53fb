"""The audit trail as sentences: who did what to which thing, and why."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q
from django.urls import reverse

from apps.audit import selectors as audit
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent, AuditLeaf
from apps.audit.search import Position, Search, search
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy
from apps.core.ids import parse_id
from apps.kernels.models import CachePlan, Kernel, KernelAlias, RetentionPlan, RetentionPolicy
from apps.observability.models import Alert, AlertRoute, AlertRule, Notification, Silence
from apps.training.models import RecoveryEvent, Seed, TrainingRun

PAGE_SIZE = 50
LOOK_BACK = 200
"""Earlier events of a subject that are looked through for what a value was before."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a subject is called, where that is not personal, and its page, if it has one."""

    name: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One event as a sentence: ``who`` ``verb`` ``subject``."""

    event: AuditEvent
    who: str
    verb: str
    subject: Named
    to: str
    """The state that it was moved to, or what was asked of it."""

    @property
    def is_refusal(self) -> bool:
        return self.event.outcome != "success"

    @property
    def says_subject(self) -> bool:
        """Of a person the trail shows no number where the sentence is about who did it."""
        return self.event.subject_type != "user" or self.event.type == "access.user_created"


@dataclass(frozen=True, slots=True)
class TrailPage:
    """``after`` is where the next page begins; a page that ``is_short`` looked no further than there."""

    lines: Sequence[Line]
    after: Position | None
    is_short: bool


@dataclass(frozen=True, slots=True)
class Change:
    """One value of an event's difference. ``old`` is None where it is not known."""

    path: str
    old: Any
    is_old_known: bool
    new: Any
    is_removed: bool


@dataclass(frozen=True, slots=True)
class Portrait:
    """One event with all that its page shows."""

    line: Line
    changes: Sequence[Change]
    index: int | None
    """Its place in the tree, None while it is not sealed."""


def page(wanted: Search, *, after: Position | None) -> TrailPage:
    """The newest events that fit."""
    found = search(wanted, size=PAGE_SIZE, after=after)
    return TrailPage(lines=lines_of(found.events), after=found.after, is_short=found.is_short)


def portrait(event_id: UUID) -> Portrait | None:
    """None: there is no such event in the event store."""
    event = AuditEvent.objects.filter(pk=event_id).first()
    if event is None:
        return None
    (line,) = lines_of([event])
    index = AuditLeaf.objects.filter(event_id=event.pk).values_list("index", flat=True).first()
    return Portrait(line=line, changes=_changes(event), index=index)


def _changes(event: AuditEvent) -> list[Change]:
    """The difference as old and new: an event has new values only, the old ones stand in earlier events."""
    operations = [operation for operation in event.diff if isinstance(operation, dict)]
    before = _before(event, {operation["path"] for operation in operations if operation.get("op") != "add"})
    return [
        Change(
            path=operation["path"].removeprefix("/").replace("~1", "/").replace("~0", "~"),
            old=before.get(operation["path"]),
            is_old_known=operation["path"] in before or operation.get("op") == "add",
            new=operation.get("value"),
            is_removed=operation.get("op") == "remove",
        )
        for operation in operations
    ]


def _before(event: AuditEvent, paths: set[str]) -> dict[str, Any]:
    """Path -> the last value that an earlier event of the subject gave it."""
    if not paths:
        return {}
    earlier = audit.events_of(subject_type=event.subject_type, subject_id=event.subject_id).filter(
        Q(at__lt=event.at) | Q(at=event.at, id__lt=event.pk)
    )
    found: dict[str, Any] = {}
    for diff in earlier.values_list("diff", flat=True)[:LOOK_BACK]:
        for operation in diff:
            if operation.get("path") in paths - found.keys():
                found[operation["path"]] = operation.get("value")
        if len(found) == len(paths):
            break
    return found


def lines_of(events: Sequence[AuditEvent]) -> list[Line]:
    people = audit.actor_names(event.actor_id for event in events)
    names = _names(events)
    return [
        Line(
            event=event,
            who=people.get(event.actor_id, "somebody") if event.actor_id else f"the {event.actor_kind}",
            verb=EVENT_TYPES[event.type].sentence if event.type in EVENT_TYPES else event.type,
            subject=names.get((event.subject_type, event.subject_id), Named()),
            to=_target(event),
        )
        for event in events
    ]


TARGETS = {"run.command": "/command", "kernel.tier_changed": "/storage_tier"}
"""Type -> the column whose new value ends its sentence. Of a transition it is the state."""


def _target(event: AuditEvent) -> str:
    column = "/state" if event.type.endswith("transition") else TARGETS.get(event.type)
    changes = {change.get("path"): change.get("value") for change in event.diff if isinstance(change, dict)}
    return str(changes.get(column) or "")


def _names(events: Sequence[AuditEvent]) -> dict[tuple[str, str], Named]:
    """What the subjects are called, where they have a name that is not personal. One query a kind."""
    found: dict[tuple[str, str], Named] = {}
    for kind, reader in READERS.items():
        ids = _ids(events, kind)
        if ids:
            found |= {(kind, str(key)): named for key, named in reader(ids)}
    return found | {
        ("report", event.subject_id): Named("", f"{reverse('dashboards:reports')}#r-{event.subject_id}")
        for event in events
        if event.subject_type == "report"
    }


Read = Iterable[tuple[UUID, Named]]


def _runs(ids: set[UUID]) -> Read:
    for key, name in TrainingRun.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, reverse("dashboards:run", args=[key]))


def _kernels(ids: set[UUID]) -> Read:
    for key, name in Kernel.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, reverse("dashboards:kernel", args=[key]))


def _blueprints(ids: set[UUID]) -> Read:
    for key, name in Blueprint.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, reverse("dashboards:blueprint", args=[key]))


def _versions(ids: set[UUID]) -> Read:
    for version in BlueprintVersion.objects.filter(pk__in=ids).select_related("blueprint"):
        page = reverse("dashboards:blueprint", args=[version.blueprint_id])
        yield version.pk, Named(str(version), f"{page}#v{version.number}")


def _aliases(ids: set[UUID]) -> Read:
    for alias in KernelAlias.objects.filter(pk__in=ids).select_related("blueprint"):
        yield alias.pk, Named(str(alias), reverse("dashboards:blueprint", args=[alias.blueprint_id]))


def _policies(ids: set[UUID]) -> Read:
    for key, name in RetentionPolicy.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, reverse("dashboards:retirement"))


def _plans(ids: set[UUID]) -> Read:
    for plan in RetentionPlan.objects.filter(pk__in=ids).select_related("policy"):
        yield (
            plan.pk,
            Named(f"…{str(plan.pk)[-6:]} of {plan.policy.name}", reverse("dashboards:retention-plan", args=[plan.pk])),
        )


def _cache_plans(ids: set[UUID]) -> Read:
    for plan in CachePlan.objects.filter(pk__in=ids).only("kind"):
        yield plan.pk, Named(str(plan), reverse("dashboards:cache-plan", args=[plan.pk]))


def _seeds(ids: set[UUID]) -> Read:
    for seed in Seed.objects.filter(pk__in=ids).select_related("slot", "run"):
        page = reverse("dashboards:run", args=[seed.run_id])
        yield seed.pk, Named(f"{seed} of {seed.run.name}", f"{page}#seed-{seed.number}")


def _checkpoints(ids: set[UUID]) -> Read:
    rows = list(Checkpoint.objects.filter(pk__in=ids).values_list("pk", "step", "run_id"))
    runs = _run_names({run_id for *_, run_id in rows})
    for key, step, run_id in rows:
        yield (
            key,
            Named(f"at step {step:,} of {runs.get(run_id, run_id)}", reverse("dashboards:checkpoint", args=[key])),
        )


def _checkpoint_policies(ids: set[UUID]) -> Read:
    rows = list(CheckpointPolicy.objects.filter(pk__in=ids).values_list("pk", "run_id"))
    runs = _run_names({run_id for _, run_id in rows if run_id})
    for key, run_id in rows:
        page = reverse("dashboards:checkpoints")
        yield (
            key,
            Named(f"of {runs.get(run_id, run_id)}", f"{page}?run={run_id}") if run_id else Named("of all runs", page),
        )


def _checkpoint_jobs(ids: set[UUID]) -> Read:
    rows = list(CheckpointJob.objects.filter(pk__in=ids).values_list("pk", "kind", "run_id", "checkpoint_id"))
    runs = _run_names({run_id for _, _, run_id, _ in rows})
    for key, kind, run_id, checkpoint_id in rows:
        page = f"{reverse('dashboards:checkpoints')}?run={run_id}"
        if checkpoint_id:
            page = reverse("dashboards:checkpoint", args=[checkpoint_id])
        yield key, Named(f"{kind}, of {runs.get(run_id, run_id)}", page)


def _recoveries(ids: set[UUID]) -> Read:
    for recovery in RecoveryEvent.objects.filter(pk__in=ids).select_related("run"):
        page = f"{reverse('dashboards:recovery')}?run={recovery.run_id}"
        yield recovery.pk, Named(f"of {recovery.run.name}", page)


def _alerts(ids: set[UUID]) -> Read:
    for key, summary in Alert.objects.filter(pk__in=ids).values_list("pk", "summary"):
        yield key, Named(summary, reverse("dashboards:alert", args=[key]))


def _alert_rules(ids: set[UUID]) -> Read:
    for key, name in AlertRule.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, f"{reverse('dashboards:alert-rules')}#r-{key}")


def _silences(ids: set[UUID]) -> Read:
    for key, comment in Silence.objects.filter(pk__in=ids).values_list("pk", "comment"):
        yield key, Named(comment, f"{reverse('dashboards:silences')}#s-{key}")


def _alert_routes(ids: set[UUID]) -> Read:
    for key, name in AlertRoute.objects.filter(pk__in=ids).values_list("pk", "name"):
        yield key, Named(name, f"{reverse('dashboards:alert-routes')}?route={key}")


def _notifications(ids: set[UUID]) -> Read:
    for key, name in Notification.objects.filter(pk__in=ids).values_list("pk", "route_name"):
        yield key, Named(f"over {name}", f"{reverse('dashboards:alert-routes')}#m-{key}")


def _run_names(ids: set[UUID]) -> dict[UUID, str]:
    return dict(TrainingRun.objects.filter(pk__in=ids).values_list("pk", "name"))


READERS = {
    "run": _runs,
    "kernel": _kernels,
    "blueprint": _blueprints,
    "blueprint_version": _versions,
    "alias": _aliases,
    "retention_policy": _policies,
    "retention_plan": _plans,
    "cache_plan": _cache_plans,
    "seed": _seeds,
    "checkpoint": _checkpoints,
    "checkpoint_policy": _checkpoint_policies,
    "checkpoint_job": _checkpoint_jobs,
    "recovery": _recoveries,
    "alert": _alerts,
    "alert_rule": _alert_rules,
    "silence": _silences,
    "alert_route": _alert_routes,
    "notification": _notifications,
}


def _ids(events: Sequence[AuditEvent], kind: str) -> set[UUID]:
    keys = {parse_id(event.subject_id) for event in events if event.subject_type == kind}
    return {key for key in keys if key is not None}
