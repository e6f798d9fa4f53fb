"""Is the run healthy? One sentence for the first screen, by rules that are read from the top."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.dashboards.numbers import duration
from apps.dashboards.selectors.live import Stamp
from apps.morphogenesis.protocols import Command
from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, Severity
from apps.training.lifecycle import RunState
from apps.training.models import RunKind


@dataclass(frozen=True, slots=True)
class Health:
    """``tone`` is good, active, held or bad; ``sentence`` says what is going on and what happens next."""

    tone: str
    sentence: str


NAMED = 3
PENDING: dict[str, str] = {
    Command.PAUSE: "Pausing at the next step boundary.",
    Command.STOP: "Stopping at the next step boundary.",
}


def of(stamp: Stamp, firing: Sequence[Alert] = ()) -> Health:
    """``firing`` are the alerts about the run that fire, the gravest first."""
    found = _of(stamp)
    if not firing:
        return Health(found.tone, f"{found.sentence}{_on_the_way(stamp)}")
    names = ", ".join(dict.fromkeys(alert.rule_name for alert in firing[:NAMED]))
    more = f" and {len(firing) - NAMED} more" if len(firing) > NAMED else ""
    told = f"{len(firing)} alert{'s are' if len(firing) > 1 else ' is'} firing: {names}{more}."
    is_grave = found.tone == "bad" or firing[0].severity == Severity.CRITICAL
    rest = found.sentence.removeprefix("Healthy: ")
    return Health("bad" if is_grave else "held", f"{told} {rest[:1].upper()}{rest[1:]}")


def _on_the_way(stamp: Stamp) -> str:
    """What was odd and is over: the bands over the curves."""
    anomalies = sum(count for what, count, _ in stamp.watch if what == "anomaly")
    alerts = sum(count for what, count, _ in stamp.watch if what == AlertState.RESOLVED)
    told = [f"{alerts} alert{'s' * (alerts > 1)}"] if alerts else []
    told += [f"{anomalies} anomal{'ies' if anomalies > 1 else 'y'}"] if anomalies else []
    return f" On the way there: {' and '.join(told)}." if told else ""


def _of(stamp: Stamp) -> Health:
    run = stamp.run
    progress = f"epoch {stamp.last_epoch} of {run.epochs}"
    if run.state == RunState.FAILED:
        return Health("bad", f"Failed at {progress}: {run.failure or 'no reason was recorded'}.".replace("..", "."))
    if run.state == RunState.RUNNING and stamp.silent:
        return Health(
            "bad",
            f"Its worker gives no sign of life since {progress}. Another one takes over from the last snapshot "
            "as soon as the lease has run out; nothing that is stored is lost.",
        )
    if run.state == RunState.RUNNING and run.command in PENDING:
        return Health("held", f"{PENDING[run.command]} Now in {progress}.")
    if run.state == RunState.RUNNING and stamp.last_epoch == 0:
        return Health("active", _preparing(stamp))
    if run.state == RunState.RUNNING:
        return Health("active", f"Healthy: {progress} measured, its worker answers.")
    if run.state == RunState.QUEUED:
        who = "its client" if run.kind == RunKind.EXTERNAL else "a free train worker"
        return Health("waiting", f"Waiting for {who}.")
    if run.state == RunState.PAUSED:
        return Health("held", f"Paused after {progress}; it goes on from exactly there when it is resumed.")
    if run.state == RunState.RECOVERING:
        return Health("held", f"Lost its worker after {progress}; the next one goes on from the last snapshot.")
    if run.state == RunState.CANCELLED:
        return Health("waiting", f"Stopped after {progress}. What was measured until then is kept.")
    spent = duration(run.ended_at - run.started_at) if run.ended_at and run.started_at else ""
    return Health("good", f"Completed all {run.epochs} epochs{f' in {spent}' if spent else ''}.")


def _preparing(stamp: Stamp) -> str:
    if stamp.run.kind == RunKind.INTERNAL and stamp.run.library is None:
        return "Waiting for its kernels: they are compiled and validated before the first epoch."
    return "In its first epoch."
