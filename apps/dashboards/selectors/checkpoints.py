"""Checkpoints as people look at them: what there is, what it takes, what goes next, and one of them in full."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.urls import reverse

from apps.audit import selectors as audit
from apps.checkpoints import selectors as checkpoints
from apps.checkpoints.comparing import ComponentComparison, Difference
from apps.checkpoints.contents import compared
from apps.checkpoints.lifecycle import OVER, CheckpointState, JobState
from apps.checkpoints.models import (
    Checkpoint,
    CheckpointJob,
    CheckpointPolicy,
    JobKind,
    Location,
    ObjectReference,
    SaveReason,
    Schedule,
    StoredObject,
)
from apps.checkpoints.retention import Verdict
from apps.core.ids import parse_id
from apps.dashboards import checkpoint_drawing, numbers
from apps.dashboards.checkpoint_drawing import Saved, Timeline
from apps.dashboards.selectors import trail
from apps.dashboards.selectors.paging import newest
from apps.training.models import RecoveryEvent, TrainingRun

PAGE_SIZE = 50
KEPT = (CheckpointState.COMMITTED, CheckpointState.QUARANTINED)
"""Those whose bytes are there."""
GONE = (CheckpointState.EXPIRED, CheckpointState.ABANDONED)
MEASURED = 1000
"""The newest saves, of which the percentiles are."""
BROKEN_SHOWN = 5
JOBS_SHOWN = 8
EVENTS_SHOWN = 12
NEIGHBOURS_SHOWN = 4
JUDGED_SHOWN = 20
COMPARABLE = 50
DIFFERENCES_SHOWN = 30
DRAWN = 60
DRAWN_NARROW = 24
WIDE, NARROW = 1060, 330
"""Pixels that the timeline is drawn for: on a desk, on a phone."""

REASONS: dict[str, str] = {
    SaveReason.EPOCH: "epochs",
    SaveReason.INTERVAL: "interval",
    SaveReason.DEMAND: "on demand",
    SaveReason.END: "end",
    SaveReason.REPLAY: "replay",
    SaveReason.UPLOAD: "upload",
}
WHY: dict[str, str] = {
    SaveReason.EPOCH: "after so many epochs",
    SaveReason.INTERVAL: "when its interval had passed",
    SaveReason.DEMAND: "when somebody asked for it",
    SaveReason.END: "when the run, or its segment, ended",
    SaveReason.REPLAY: "when this step was trained again",
    SaveReason.UPLOAD: "by the run's own client",
}
PLACES: dict[str, str] = {
    Location.LOCAL: "folder",
    Location.UPLOADING: "on its way to the archive",
    Location.ARCHIVED: "archive",
}
HOLDS: dict[str, str] = {
    "tolaria": "network, optimizer, random state, position in the data",
    "tamiyo": "policy, governor, what they have seen",
    "kasmina": "seeds, slots, kernels, strengths, ledgers",
    "urza": "kernel versions in use, state of the library",
}
KINDS: dict[str, str] = {
    JobKind.CREATE: "save now",
    JobKind.VERIFY: "verify",
    JobKind.RESTORE: "restore",
    JobKind.REPLAY: "replay to a step",
    JobKind.ARCHIVE: "archive",
    JobKind.RECALL: "recall",
}
MAKES = frozenset({JobKind.CREATE, JobKind.REPLAY})
"""Kinds of work of which a new checkpoint comes."""
CHOICES: dict[str, tuple[str, ...]] = {
    "state": tuple(CheckpointState),
    "location": tuple(Location.values),
    "reason": tuple(SaveReason.values),
}
"""What a chip can select; any other value in a query string is ignored."""


# --- The list


@dataclass(frozen=True, slots=True)
class CheckpointFilter:
    """What the query string asks for. Those that are gone show only if they are asked for."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    run_id: UUID | None = None
    pinned: bool = False
    gone: bool = False
    after: UUID | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> "CheckpointFilter":
        return cls(
            chosen={name: query[name] for name, known in CHOICES.items() if query.get(name) in known},
            run_id=parse_id(query.get("run", "")),
            pinned=query.get("pinned") == "1",
            gone=query.get("gone") == "1",
            after=parse_id(query.get("after", "")),
        )

    @property
    def narrows(self) -> bool:
        return bool(self.chosen or self.pinned)

    def fitting(self) -> QuerySet[Checkpoint]:
        found = Checkpoint.objects.filter(**self.chosen)
        if self.run_id:
            found = found.filter(run_id=self.run_id)
        if self.pinned:
            found = found.filter(pinned=True)
        if not self.gone and "state" not in self.chosen:
            found = found.exclude(state__in=GONE)
        return found


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint as the lists show it; ``added`` are its raw bytes that no other had."""

    checkpoint: Checkpoint
    run_name: str

    @property
    def added(self) -> int:
        return max(self.checkpoint.size - self.checkpoint.shared_bytes, 0)

    @property
    def reason(self) -> str:
        return REASONS.get(self.checkpoint.reason, self.checkpoint.reason)

    @property
    def why(self) -> str:
        return WHY.get(self.checkpoint.reason, self.checkpoint.reason)

    @property
    def place(self) -> str:
        return PLACES.get(self.checkpoint.location, self.checkpoint.location)


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    rows: Sequence[Row]
    next_after: UUID | None


def page(wanted: CheckpointFilter) -> CheckpointPage:
    """The newest that fit. Two queries."""
    found = newest(wanted.fitting().defer("components", "environment"), after=wanted.after, shown=PAGE_SIZE)
    names = run_names({row.run_id for row in found.rows})
    return CheckpointPage(
        rows=[Row(row, names.get(row.run_id, str(row.run_id))) for row in found.rows], next_after=found.next_after
    )


def run_names(ids: set[UUID]) -> dict[UUID, str]:
    return dict(TrainingRun.objects.filter(pk__in=ids).values_list("pk", "name"))


# --- What it takes


@dataclass(frozen=True, slots=True)
class Seconds:
    """Percentiles of the newest saves; None: none was measured."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """``counted`` has the numbers; ``unique`` are the raw bytes without what several checkpoints have in common."""

    counted: checkpoints.Totals
    pinned: int
    unique: int
    stall: Seconds
    save: Seconds

    @property
    def count(self) -> int:
        return sum(self.counted.states.values())

    @property
    def kept(self) -> int:
        return self.counted.states.get(CheckpointState.COMMITTED, 0)

    @property
    def shared(self) -> int:
        return max(self.counted.raw_bytes - self.unique, 0)

    @property
    def shared_share(self) -> float | None:
        return self.shared / self.counted.raw_bytes if self.counted.raw_bytes else None

    @property
    def compressed_share(self) -> float | None:
        """Of the bytes that are not shared, what compression took away."""
        return 1 - self.counted.stored_bytes / self.unique if self.unique else None

    @property
    def stored_share(self) -> float | None:
        return self.counted.stored_bytes / self.counted.raw_bytes if self.counted.raw_bytes else None


def totals(run_id: UUID | None = None) -> Totals:
    """Of all runs, or of one. Seven queries."""
    rows = Checkpoint.objects.filter(run_id=run_id) if run_id else Checkpoint.objects.all()
    objects = StoredObject.objects.filter(unreferenced_at=None)
    if run_id:
        mine = ObjectReference.objects.filter(object=OuterRef("pk"), checkpoint__run_id=run_id)
        objects = objects.filter(Exists(mine))
    stalls, saves = _seconds(rows)
    return Totals(
        counted=checkpoints.totals(run_id=run_id),
        pinned=rows.filter(pinned=True, state__in=KEPT).count(),
        unique=objects.aggregate(raw=Sum("raw_size"))["raw"] or 0,
        stall=stalls,
        save=saves,
    )


def _seconds(rows: QuerySet[Checkpoint]) -> tuple[Seconds, Seconds]:
    pairs = list(
        rows.filter(stall_seconds__isnull=False).order_by("-id").values_list("stall_seconds", "save_seconds")[:MEASURED]
    )
    return percentiles([stall for stall, _ in pairs]), percentiles([save for _, save in pairs])


def percentiles(values: Sequence[float | None]) -> Seconds:
    """By the nearest rank: each is a value that was measured."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return Seconds(None, None)
    return Seconds(*(known[math.ceil(share * len(known)) - 1] for share in (0.5, 0.95)))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong lately, and where to read on."""

    at: Any
    text: str
    problem: str
    href: str


def troubles(run_id: UUID | None = None) -> list[Trouble]:
    """The newest that are broken or were never completed, and the newest work that failed. Three queries."""
    mine = Q(run_id=run_id) if run_id else Q()
    broken = Checkpoint.objects.filter(mine, state__in=[CheckpointState.QUARANTINED, CheckpointState.ABANDONED])
    failed = CheckpointJob.objects.filter(mine, state=JobState.FAILED)
    rows, jobs = list(broken.order_by("-id")[:BROKEN_SHOWN]), list(failed.order_by("-id")[:BROKEN_SHOWN])
    names = run_names({row.run_id for row in rows} | {job.run_id for job in jobs})
    found = [
        Trouble(
            at=row.updated_at,
            text=f"step {row.step:,} of {names.get(row.run_id, row.run_id)} "
            + ("is broken" if row.state == CheckpointState.QUARANTINED else "was not completed"),
            problem=row.problem,
            href=reverse("dashboards:checkpoint", args=[row.pk]),
        )
        for row in rows
    ]
    found += [
        Trouble(
            at=job.updated_at,
            text=f"“{KINDS.get(job.kind, job.kind)}” failed for {names.get(job.run_id, job.run_id)}",
            problem=job.problem,
            href=page_of_job(job),
        )
        for job in jobs
    ]
    return sorted(found, key=lambda trouble: trouble.at, reverse=True)[:BROKEN_SHOWN]


def page_of_job(job: CheckpointJob) -> str:
    if job.checkpoint_id:
        return reverse("dashboards:checkpoint", args=[job.checkpoint_id])
    return f"{reverse('dashboards:checkpoints')}?run={job.run_id}"


# --- One run


@dataclass(frozen=True, slots=True)
class JobLine:
    """Work that was asked for. ``share`` is None where its length is not known."""

    job: CheckpointJob
    words: str

    @property
    def share(self) -> float | None:
        return min(self.job.done / self.job.total, 1.0) if self.job.total else None

    @property
    def is_open(self) -> bool:
        return self.job.state not in OVER

    @property
    def made(self) -> UUID | None:
        """The checkpoint that came of it, if it was not there before."""
        return parse_id(str(self.job.result.get("checkpoint", ""))) if self.job.kind in MAKES else None

    @property
    def came(self) -> str:
        """What came of it, where that is no checkpoint."""
        if self.job.kind == JobKind.VERIFY:
            return f"every byte is right: {numbers.size(self.job.result.get('bytes'))}"
        return "done"

    @property
    def progress(self) -> str:
        if not self.job.total:
            return ""
        read = numbers.count if self.job.kind == JobKind.REPLAY else numbers.size
        return f"{read(self.job.done)} of {read(self.job.total)}{' steps' if self.job.kind == JobKind.REPLAY else ''}"


@dataclass(frozen=True, slots=True)
class RunPortrait:
    """The checkpoints of one run over its steps. ``left_out``: older ones that are not drawn."""

    run: TrainingRun | None
    wide: Timeline | None
    narrow: Timeline | None
    drawn: Sequence[Checkpoint]
    left_out: int
    jobs: Sequence[JobLine]
    recoveries: int

    @property
    def is_at_work(self) -> bool:
        return any(line.is_open for line in self.jobs)

    @property
    def drawings(self) -> list[tuple[str, Timeline]]:
        """(class that says where it is shown, drawing)."""
        return [(name, drawn) for name, drawn in (("wide", self.wide), ("narrow", self.narrow)) if drawn]


def run_portrait(run_id: UUID) -> RunPortrait:
    """Four queries."""
    kept = Checkpoint.objects.filter(run_id=run_id, state__in=KEPT).order_by("-step", "-id")
    newest_first = list(kept.defer("components", "environment")[: DRAWN + 1])
    drawn = newest_first[:DRAWN]
    return RunPortrait(
        run=TrainingRun.objects.filter(pk=run_id).first(),
        wide=checkpoint_drawing.timeline([_saved(row) for row in drawn], width=WIDE) if drawn else None,
        narrow=checkpoint_drawing.timeline([_saved(row) for row in drawn[:DRAWN_NARROW]], width=NARROW)
        if drawn
        else None,
        drawn=drawn,
        left_out=max(kept.count() - DRAWN, 0) if len(newest_first) > DRAWN else 0,
        jobs=_jobs(CheckpointJob.objects.filter(run_id=run_id)),
        recoveries=RecoveryEvent.objects.filter(run_id=run_id).count(),
    )


def _saved(row: Checkpoint) -> Saved:
    added = max(row.size - row.shared_bytes, 0)
    notes = [
        "pinned" if row.pinned else "",
        "broken" if row.state == CheckpointState.QUARANTINED else "",
        "in the archive" if row.location == Location.ARCHIVED else "",
    ]
    return Saved(
        step=row.step,
        added=added,
        shared=row.size - added,
        words=f"step {row.step:,}: {numbers.size(added)} new, {numbers.size(row.size - added)} shared"
        + "".join(f", {note}" for note in notes if note),
        is_broken=row.state == CheckpointState.QUARANTINED,
        is_archived=row.location == Location.ARCHIVED,
        is_pinned=row.pinned,
    )


def _jobs(jobs: QuerySet[CheckpointJob]) -> list[JobLine]:
    return [JobLine(job, KINDS.get(job.kind, job.kind)) for job in jobs.order_by("-id")[:JOBS_SHOWN]]


# --- What stays, and what goes next


@dataclass(frozen=True, slots=True)
class JudgedLine:
    checkpoint: Checkpoint
    verdict: Verdict

    @property
    def is_due(self) -> bool:
        """It goes in the next round."""
        return not self.verdict.keep


@dataclass(frozen=True, slots=True)
class Retention:
    """What a policy makes of the checkpoints of a run: what goes soonest first, then what stays, the newest first."""

    policy: CheckpointPolicy
    words: Sequence[str]
    lines: Sequence[JudgedLine]
    left_out: int
    stay: int
    frees: int
    """Bytes that the next round frees."""

    @property
    def is_default(self) -> bool:
        """No policy was written: the platform's own defaults hold."""
        return self.policy._state.adding

    @property
    def next(self) -> JudgedLine | None:
        """The one that goes next by itself."""
        first = self.lines[0] if self.lines else None
        return first if first is not None and first.verdict.goes_at is not None else None


def retention(run_id: UUID) -> Retention:
    """A fixed number of queries."""
    found = checkpoints.preview(run_id=run_id)
    lines = [JudgedLine(each.checkpoint, each.verdict) for each in found.judged]
    going = sorted((line for line in lines if line.verdict.goes_at), key=_goes_at)
    staying = [line for line in lines if not line.verdict.goes_at]
    return Retention(
        policy=found.policy,
        words=policy_words(found.policy),
        lines=[*going, *staying][:JUDGED_SHOWN],
        left_out=max(len(lines) - JUDGED_SHOWN, 0),
        stay=len(staying),
        frees=found.frees,
    )


def _goes_at(line: JudgedLine) -> tuple[Any, int]:
    return line.verdict.goes_at, line.checkpoint.step


def verdict(checkpoint: Checkpoint) -> JudgedLine | None:
    """What its policy makes of one checkpoint; None: it is no longer, or not yet, something to keep."""
    if checkpoint.state not in KEPT:
        return None
    found = checkpoints.preview(run_id=checkpoint.run_id)
    return next(
        (JudgedLine(each.checkpoint, each.verdict) for each in found.judged if each.checkpoint == checkpoint), None
    )


def policy_words(policy: CheckpointPolicy) -> list[str]:
    """When runs save, and what stays, in words."""
    saves = {
        Schedule.INTERVAL: f"saves every {numbers.duration(policy.interval_seconds)}",
        Schedule.AUTO: "saves as often as costs half a percent of the training time",
        Schedule.OFF: "saves after epochs, on demand and at the end only",
    }
    counted = [
        (policy.keep_last, f"the newest {policy.keep_last}"),
        (policy.keep_days, f"those younger than {policy.keep_days} day{'' if policy.keep_days == 1 else 's'}"),
        (
            policy.keep_best,
            f"the best{'' if policy.keep_best == 1 else f' {policy.keep_best}'} by {policy.best_metric}",
        ),
        (policy.keep_daily, f"one of each of {policy.keep_daily} days"),
        (policy.keep_weekly, f"one of each of {policy.keep_weekly} weeks"),
        (policy.keep_monthly, f"one of each of {policy.keep_monthly} months"),
    ]
    kept = ", ".join(words for number, words in counted if number)
    words = [saves[Schedule(policy.schedule)], f"keeps {kept}"]
    if policy.archive_after_hours is not None:
        words.append(f"moves them to the archive after {policy.archive_after_hours} h")
    return words


# --- Two of them


@dataclass(frozen=True, slots=True)
class ComponentDifference:
    """What differs in one component, the largest tensors first."""

    name: str
    holds: str
    compared: ComponentComparison
    shown: Sequence[Difference]

    @property
    def shared_share(self) -> float | None:
        return self.compared.shared / self.compared.bytes if self.compared.bytes else None


@dataclass(frozen=True, slots=True)
class CheckpointDifference:
    components: Sequence[ComponentDifference]

    @property
    def shared(self) -> int:
        return sum(line.compared.shared for line in self.components)

    @property
    def shared_share(self) -> float | None:
        whole = sum(line.compared.bytes for line in self.components)
        return self.shared / whole if whole else None

    @property
    def growth(self) -> int:
        """Bytes by which the newer one is larger."""
        return sum(line.compared.bytes - line.compared.bytes_before for line in self.components)

    @property
    def counts(self) -> dict[str, int]:
        names = ("changed", "added", "reshaped", "removed")
        return {name: sum(getattr(line.compared, name) for line in self.components) for name in names}


def difference(checkpoint: Checkpoint, other: Checkpoint) -> CheckpointDifference:
    """From ``other`` to ``checkpoint``. Reads both manifests.

    Raises:
        ServiceError: they cannot be read, or what they say is not right.
    """
    found = compared(older=other, newer=checkpoint)
    return CheckpointDifference(
        [
            ComponentDifference(
                name=name,
                holds=HOLDS.get(name, ""),
                compared=each,
                shown=sorted(each.differences, key=lambda tensor: -tensor.bytes)[:DIFFERENCES_SHOWN],
            )
            for name, each in sorted(found.items(), key=lambda item: -item[1].bytes)
        ]
    )


def comparable(checkpoint: Checkpoint) -> list[Checkpoint]:
    """Others of its run whose bytes are there, the newest first."""
    others = Checkpoint.objects.filter(run_id=checkpoint.run_id, state__in=KEPT).exclude(pk=checkpoint.pk)
    return list(others.order_by("-step", "-id").only("step", "epoch")[:COMPARABLE])


# --- One checkpoint


@dataclass(frozen=True, slots=True)
class ComponentLine:
    """``bytes`` raw, ``added`` those of them that were new; ``share`` of the largest component, for the bar."""

    name: str
    holds: str
    tensors: int
    bytes: int
    added: int
    share: float

    @property
    def shared(self) -> int:
        return max(self.bytes - self.added, 0)


@dataclass(frozen=True, slots=True)
class Portrait:
    """``newest_step`` and ``newer``: of the run's complete ones, what came after it."""

    row: Row
    run: TrainingRun | None
    parent: Checkpoint | None
    children: Sequence[Checkpoint]
    components: Sequence[ComponentLine]
    jobs: Sequence[JobLine]
    newest_step: int
    newer: int
    newer_bytes: int

    @property
    def checkpoint(self) -> Checkpoint:
        return self.row.checkpoint

    @property
    def is_newest(self) -> bool:
        return self.checkpoint.state == CheckpointState.COMMITTED and not self.newer

    @property
    def is_at_work(self) -> bool:
        return any(line.is_open for line in self.jobs)

    @property
    def tensors(self) -> int:
        return sum(line.tensors for line in self.components)

    @property
    def added_share(self) -> float | None:
        return self.row.added / self.checkpoint.size if self.checkpoint.size else None

    @property
    def steps_again(self) -> int:
        """Steps that a run set back to it trains again."""
        return max(self.newest_step - self.checkpoint.step, 0)


def portrait(checkpoint_id: UUID) -> Portrait | None:
    """None: there is no such checkpoint. Six queries."""
    checkpoint = Checkpoint.objects.filter(pk=checkpoint_id).first()
    if checkpoint is None:
        return None
    run = TrainingRun.objects.filter(pk=checkpoint.run_id).first()
    of_run = Checkpoint.objects.filter(run_id=checkpoint.run_id)
    later = list(
        of_run.filter(state=CheckpointState.COMMITTED, step__gt=checkpoint.step)
        .order_by("-step")
        .values_list("step", "stored_bytes")
    )
    return Portrait(
        row=Row(checkpoint, run.name if run else str(checkpoint.run_id)),
        run=run,
        parent=of_run.filter(pk=checkpoint.parent_id).first() if checkpoint.parent_id else None,
        children=list(of_run.filter(parent_id=checkpoint.pk).order_by("id")[:NEIGHBOURS_SHOWN]),
        components=components_of(checkpoint),
        jobs=_jobs(CheckpointJob.objects.filter(checkpoint=checkpoint)),
        newest_step=max((step for step, _ in later), default=checkpoint.step),
        newer=len(later),
        newer_bytes=sum(stored for _, stored in later),
    )


def components_of(checkpoint: Checkpoint) -> list[ComponentLine]:
    """The largest first."""
    found = {name: facts for name, facts in checkpoint.components.items() if isinstance(facts, Mapping)}
    most = max([int(facts.get("bytes", 0)) for facts in found.values()] + [1])
    lines = [
        ComponentLine(
            name=name,
            holds=HOLDS.get(name, ""),
            tensors=int(facts.get("tensors", 0)),
            bytes=int(facts.get("bytes", 0)),
            added=int(facts.get("stored", 0)),
            share=int(facts.get("bytes", 0)) / most,
        )
        for name, facts in found.items()
    ]
    return sorted(lines, key=lambda line: (-line.bytes, line.name))


def history(checkpoint: Checkpoint) -> list[trail.Line]:
    """What was done to it, for those who may read the trail."""
    mine = audit.events_of(subject_type="checkpoint", subject_id=str(checkpoint.pk))
    return trail.lines_of(list(mine[:EVENTS_SHOWN]))
