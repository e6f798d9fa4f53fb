"""`manage.py checkpoints ...`: what runs saved, and all that can be done with it, by hand, for operators.

It stands in the app that has the runs, because some of it takes one; the services are those of the API.
"""

import json
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from django.core.serializers.json import DjangoJSONEncoder
from rich.console import Console
from rich.table import Column, Table

from apps.checkpoints import selectors
from apps.checkpoints.api.serializers import CheckpointSerializer, ComponentComparisonSerializer
from apps.checkpoints.contents import compared
from apps.checkpoints.lifecycle import OVER, CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import compaction, exporting, garbage, jobs, pinning, retention, rounds
from apps.checkpoints.services.exporting import Format
from apps.core.actors import SYSTEM
from apps.core.console import progress_bar
from apps.core.errors import Conflict, ServiceError
from apps.core.ids import parse_id
from apps.training.models import TrainingRun
from apps.training.services.uploads import import_run_checkpoint

Answer = tuple[dict[str, Any], str]
SHOWN = 50
"""Rows that are printed, unless more are asked for."""
POLL_SECONDS = 0.5
WIDTH = 140
MOST = 2**63 - 1
"""What the database can count to."""


class Command(BaseCommand):
    help = "What runs saved: look at it, verify, restore, keep, let go, archive, export and import it."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True, metavar="|".join(STEPS))
        made = {name: steps.add_parser(name, help=HELP[name]) for name in STEPS}
        for name in ("show", "verify", "restore", "replay", "pin", "unpin", "diff", "archive", "recall", "export"):
            made[name].add_argument("checkpoint", metavar="CHECKPOINT", help="its id")
        for name in ("create", "import"):
            made[name].add_argument("--run", required=True, help="id of the run")
        for name in ("list", "retention"):
            made[name].add_argument("--run", help="id of a run; all of them without it")
        _add_own(made)
        for name, step in made.items():
            step.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
            if name not in READING:
                step.add_argument("--reason", default="by hand", help="why: it stands in the trail")

    def handle(self, *args: Any, step: str, json: bool, **options: Any) -> None:
        try:
            answer, text = STEPS[step](options)
        except ServiceError as error:
            raise CommandError(error.detail) from None
        self.stdout.write(_dumped(answer) if json else text)
        if answer.get("problem") and "kind" in answer:
            raise CommandError(f"it is {answer['state']}: {answer['problem']}")


def _add_own(made: Mapping[str, ArgumentParser]) -> None:
    made["list"].add_argument("--state", choices=[str(state) for state in CheckpointState])
    made["list"].add_argument("--most", type=_count, default=SHOWN, help=f"default: {SHOWN}")
    made["restore"].add_argument("--validate-only", action="store_true", help="only check that it could be restored")
    made["restore"].add_argument(
        "--component", action="append", help="only this one, for --validate-only; may be repeated"
    )
    made["replay"].add_argument("--to-step", type=_count, required=True, help="the step to train to, and to save at")
    made["diff"].add_argument(
        "other", metavar="OTHER", help="id of the one that it is compared with: what has changed since"
    )
    made["retention"].add_argument("--apply", action="store_true", help="let go now of what no rule keeps")
    for name in ("restore", "retention"):
        made[name].add_argument("--yes", action="store_true", help="do not ask")
    made["scrub"].add_argument("--megabytes", type=_count, default=4096, help="to read at most (default: 4096)")
    made["export"].add_argument("path", metavar="FILE", type=Path, help="a new file; for dcp a new directory")
    made["export"].add_argument("--format", choices=[str(name) for name in Format], default=str(Format.SAFETENSORS))
    made["export"].add_argument("--component", action="append", help="only this one; may be repeated")
    made["import"].add_argument("path", metavar="FILE", type=Path, help="of safetensors or torch.save")
    made["import"].add_argument(
        "--fencing-token", type=_count, help="of whoever has the run; without it the run is taken"
    )
    made["import"].add_argument("--epoch", type=_count, help="of the state (default: what the file tells, else 0)")
    made["import"].add_argument("--at-step", type=_count, help="of the state (default: what the file tells, else 0)")


def _count(text: str) -> int:
    """Raises ArgumentTypeError: it is no number that can be counted to."""
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(MOST)) or int(text) > MOST:
        raise ArgumentTypeError(f"{text[:40]!r} is not a whole number from 0 to {MOST}")
    return int(text)


def _dumped(answer: Mapping[str, Any]) -> str:
    return json.dumps(answer, cls=DjangoJSONEncoder)


def _checkpoint(given: str) -> Checkpoint:
    key = parse_id(given)
    found = Checkpoint.objects.filter(pk=key).first() if key else None
    if found is None:
        raise CommandError(f"there is no checkpoint {given}: `manage.py checkpoints list` names them")
    return found


def _run(given: str) -> TrainingRun:
    key = parse_id(given)
    found = TrainingRun.objects.filter(pk=key).first() if key else None
    if found is None:
        raise CommandError(f"there is no run {given}")
    return found


def _confirm(question: str, options: Mapping[str, Any]) -> None:
    """Raises CommandError: it was not wanted."""
    if options["yes"]:
        return
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        raise CommandError("nobody answered: give --yes to do it without being asked") from None
    if answer.strip().lower() not in {"y", "yes"}:
        raise CommandError("nothing was done")


# --- Look


def _list(options: dict[str, Any]) -> Answer:
    rows = Checkpoint.objects.order_by("-id")
    if options["run"]:
        rows = rows.filter(run_id=_run(options["run"]).pk)
    if options["state"]:
        rows = rows.filter(state=options["state"])
    shown = list(rows[: options["most"]])
    headings = ("run", "step", "state", "reason", "size", "stored", "where", "verified", "")
    table = Table(Column("checkpoint", no_wrap=True), *headings)
    for row in shown:
        verified = f"{row.verified_at:%Y-%m-%d %H:%M}" if row.verified_at else "-"
        sizes = (f"{row.size:,}", f"{row.stored_bytes:,}")
        named = (str(row.pk), f"…{str(row.run_id)[-6:]}", f"{row.step:,}", row.state, row.reason)
        table.add_row(*named, *sizes, row.location, verified, "pinned" if row.pinned else "")
    more = rows.count() - len(shown)
    text = _printed(table) + (f"\n... and {more:,} more (--most)" if more else "")
    return {"checkpoints": [CheckpointSerializer(row).data for row in shown], "more": more}, text


def _show(options: dict[str, Any]) -> Answer:
    row = _checkpoint(options["checkpoint"])
    found = selectors.preview(run_id=row.run_id).judged
    judged = next((each for each in found if each.checkpoint.pk == row.pk), None)
    verdict = {
        "keep": judged.verdict.keep, "why": judged.verdict.reasons, "goes_at": judged.verdict.goes_at,
        "frees": judged.verdict.frees,
    } if judged else None  # fmt: skip
    answer = {**CheckpointSerializer(row).data, "components": row.components, "retention": verdict}
    lines = [f"{name}: {value}" for name, value in answer.items() if name not in {"components", "retention"}]
    lines += [f"{name}: {part['tensors']:,} tensors, {part['bytes']:,} B" for name, part in row.components.items()]
    if judged:
        lines.append(f"{'stays' if judged.verdict.keep else 'goes'}: {', '.join(judged.verdict.reasons)}")
    answer.pop("problem")  # of the checkpoint, not of this command
    return {**answer, "broken": row.problem}, "\n".join(lines)


def _diff(options: dict[str, Any]) -> Answer:
    newer, older = _checkpoint(options["checkpoint"]), _checkpoint(options["other"])
    found = compared(older=older, newer=newer)
    table = Table("component", "added", "removed", "reshaped", "changed", "same", "bytes", "shared")
    for part in found.values():
        counts = (part.added, part.removed, part.reshaped, part.changed, part.same, part.bytes, part.shared)
        table.add_row(part.name, *(f"{count:,}" for count in counts))
    components = [ComponentComparisonSerializer(part).data for part in found.values()]
    return {"before": older.pk, "after": newer.pk, "components": components}, _printed(table)


def _printed(table: Table) -> str:
    console = Console(width=WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


# --- Work


def _create(options: dict[str, Any]) -> Answer:
    return _done(JobKind.CREATE, options, run_id=_run(options["run"]).pk)


def _verify(options: dict[str, Any]) -> Answer:
    return _done(JobKind.VERIFY, options, checkpoint=_checkpoint(options["checkpoint"]))


def _archive(options: dict[str, Any]) -> Answer:
    return _done(JobKind.ARCHIVE, options, checkpoint=_checkpoint(options["checkpoint"]))


def _recall(options: dict[str, Any]) -> Answer:
    return _done(JobKind.RECALL, options, checkpoint=_checkpoint(options["checkpoint"]))


def _replay(options: dict[str, Any]) -> Answer:
    parameters = {"step": options["to_step"]}
    return _done(JobKind.REPLAY, options, checkpoint=_checkpoint(options["checkpoint"]), parameters=parameters)


def _restore(options: dict[str, Any]) -> Answer:
    checkpoint = _checkpoint(options["checkpoint"])
    parameters: dict[str, Any] = {"validate_only": options["validate_only"]}
    if options["component"]:
        if not options["validate_only"]:
            raise CommandError("--component is for --validate-only: a run goes on from all of its components")
        parameters["components"] = options["component"]
    if not options["validate_only"]:
        kept = selectors.checkpoints_of(checkpoint.run_id).filter(state=CheckpointState.COMMITTED)
        later = kept.filter(step__gt=checkpoint.step).count()
        _confirm(
            f"Let the run go on from step {checkpoint.step:,}? {later} later checkpoints stay: a start after its next "
            "save takes the newest.",
            options,
        )
    return _done(JobKind.RESTORE, options, checkpoint=checkpoint, parameters=parameters)


def _done(
    kind: JobKind,
    options: Mapping[str, Any],
    *,
    run_id: UUID | None = None,
    checkpoint: Checkpoint | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Answer:
    """Do the work here; where a worker was faster, or only the run itself can, watch it."""
    job = jobs.request_job(
        kind=kind, run_id=run_id, checkpoint=checkpoint, parameters=parameters, actor=SYSTEM, reason=options["reason"]
    )
    try:
        job = _watched(job)
    except KeyboardInterrupt:
        raise CommandError(
            f"interrupted: a worker goes on with it; DELETE /api/v1/operations/{job.pk} stops it"
        ) from None
    return _told(job)


def _watched(job: CheckpointJob) -> CheckpointJob:
    with progress_bar(job.kind) as progress:
        while job.state not in OVER:
            try:
                job = jobs.run_job(job_id=job.pk, progress=progress, actor=SYSTEM)
            except Conflict:
                job = CheckpointJob.objects.get(pk=job.pk)
            if job.state not in OVER:
                threading.Event().wait(POLL_SECONDS)
                job.refresh_from_db()
                progress(job.done, job.total)
    return job


def _told(job: CheckpointJob) -> Answer:
    given_up = "somebody gave it up" if job.state == JobState.CANCELLED else ""
    answer = {
        "operation": job.pk, "kind": job.kind, "state": job.state, "run": job.run_id, "checkpoint": job.checkpoint_id,
        "result": job.result, "problem": job.problem or given_up,
    }  # fmt: skip
    result = ", ".join(f"{name} {value}" for name, value in job.result.items())
    return answer, f"{job.kind} is {job.state}" + (f": {result}" if result else "")


# --- Keep and let go


def _pin(options: dict[str, Any]) -> Answer:
    row = pinning.pin(checkpoint=_checkpoint(options["checkpoint"]), actor=SYSTEM, reason=options["reason"])
    return {"checkpoint": row.pk, "pinned": row.pinned}, f"{row.pk} stays until it is unpinned"


def _unpin(options: dict[str, Any]) -> Answer:
    row = pinning.unpin(checkpoint=_checkpoint(options["checkpoint"]), actor=SYSTEM, reason=options["reason"])
    return {"checkpoint": row.pk, "pinned": row.pinned}, f"{row.pk} is left to the policy of its run"


def _retention(options: dict[str, Any]) -> Answer:
    run_id = _run(options["run"]).pk if options["run"] else None
    runs = [run_id] if run_id else _runs_with_checkpoints()
    previews = {run: selectors.preview(run_id=run) for run in runs}
    going = [judged for preview in previews.values() for judged in preview.going]
    frees = sum(preview.frees for preview in previews.values())
    lines = list(_verdicts(previews.values()))
    lines.append(f"{len(going)} checkpoints go, which frees {frees:,} B")
    answer: dict[str, Any] = {
        "runs": len(previews), "goes": [judged.checkpoint.pk for judged in going], "frees": frees, "expired": 0,
    }  # fmt: skip
    if options["apply"] and going:
        _confirm(f"Let go of {len(going)} checkpoints?", options)
        expired = retention.expire_due(run_id=run_id, actor=SYSTEM)
        answer["expired"] = expired.checkpoints
        lines.append(
            f"{expired.checkpoints} have gone; `manage.py checkpoints collect` frees their bytes after an hour"
        )
    return answer, "\n".join(lines)


def _runs_with_checkpoints() -> list[UUID]:
    rows = Checkpoint.objects.filter(state__in=[CheckpointState.COMMITTED, CheckpointState.QUARANTINED])
    return list(rows.order_by("run_id").values_list("run_id", flat=True).distinct())


def _verdicts(previews: Iterable[selectors.Preview]) -> Iterable[str]:
    for preview in previews:
        for judged in preview.judged:
            row, verdict = judged.checkpoint, judged.verdict
            when = f", goes {verdict.goes_at:%Y-%m-%d %H:%M}" if verdict.goes_at else ""
            yield (
                f"{'stays' if verdict.keep else 'goes '} {row.pk} step {row.step:,}: "
                f"{', '.join(verdict.reasons)}{when}, {verdict.frees:,} B"
            )


def _collect(options: dict[str, Any]) -> Answer:
    collected = garbage.collect_garbage()
    compacted = compaction.compact()
    answer = {**collected.as_dict(), "compacted_packs": compacted.packs, "compacted_bytes": compacted.bytes}
    lines = [f"{name}: {value}" for name, value in answer.items() if name != "problems"]
    return answer, "\n".join([*lines, *collected.problems])


def _scrub(options: dict[str, Any]) -> Answer:
    scrubbed = rounds.scrub(most_bytes=options["megabytes"] * 1_000_000)
    answer = {"checkpoints": scrubbed.checkpoints, "bytes": scrubbed.bytes, "broken": scrubbed.broken}
    return answer, f"{scrubbed.checkpoints} verified, {scrubbed.bytes:,} B read, {scrubbed.broken} broken"


# --- To and from files


def _export(options: dict[str, Any]) -> Answer:
    exported = exporting.export_checkpoint(
        checkpoint=_checkpoint(options["checkpoint"]),
        path=options["path"],
        format=Format(options["format"]),
        components=options["component"],
        actor=SYSTEM,
        reason=options["reason"],
    )
    answer = {
        "path": str(exported.path), "format": str(exported.format), "components": exported.components,
        "bytes": exported.bytes,
    }  # fmt: skip
    return answer, f"{exported.path}: {', '.join(exported.components)}, {exported.bytes:,} B"


def _import(options: dict[str, Any]) -> Answer:
    row = import_run_checkpoint(
        run=_run(options["run"]),
        path=options["path"],
        fencing_token=options["fencing_token"],
        epoch=options["epoch"],
        step=options["at_step"],
        actor=SYSTEM,
    )
    answer = dict(CheckpointSerializer(row).data)
    answer.pop("problem")
    return answer, f"{row.pk}: step {row.step:,}, {row.size:,} B"


READING = frozenset({"list", "show", "diff", "collect", "scrub", "retention", "import"})
"""What is not asked why: it writes nothing, or what others decided."""
STEPS: dict[str, Callable[[dict[str, Any]], Answer]] = {
    "list": _list, "show": _show, "create": _create, "verify": _verify, "restore": _restore, "replay": _replay,
    "pin": _pin, "unpin": _unpin, "diff": _diff, "retention": _retention, "collect": _collect, "archive": _archive,
    "recall": _recall, "scrub": _scrub, "export": _export, "import": _import,
}  # fmt: skip
HELP = {
    "list": "checkpoints, newest first",
    "show": "one checkpoint: its components, and whether it stays",
    "create": "save a run now, at the end of its step",
    "verify": "read and check every byte",
    "restore": "let the run go on from a checkpoint (asks, or --yes)",
    "replay": "train from before a step until it, and save there",
    "pin": "keep a checkpoint, whatever the policy says",
    "unpin": "leave it to the policy again",
    "diff": "what has changed between two, by component",
    "retention": "what stays, why, and what goes when; nothing is touched without --apply",
    "collect": "sweep what no checkpoint needs, and write packs anew that are mostly garbage",
    "archive": "move a checkpoint to the object storage",
    "recall": "bring it back",
    "scrub": "verify what was not looked at for longest",
    "export": "write a checkpoint to a file of safetensors, torch.save, or a directory of DCP",
    "import": "make a file of safetensors or torch.save a checkpoint of an external run",
}
