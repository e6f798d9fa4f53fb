"""Reading runs and what they grew."""

from uuid import UUID

from django.db.models import Exists, Max, OuterRef, QuerySet, Subquery

from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.training.lifecycle import RecoveryState
from apps.training.models import EpochMetric, RecoveryEvent, Seed, TrainingRun


def runs() -> QuerySet[TrainingRun]:
    """Runs with what they measured first and last (``last_epoch``, ``last_accuracy``, ``first_parameters``...)."""
    measured = EpochMetric.objects.filter(run=OuterRef("pk"))
    newest, oldest = measured.order_by("-epoch"), measured.order_by("epoch")
    return TrainingRun.objects.select_related("owner", "workspace", "control_of").annotate(
        last_epoch=Subquery(newest.values("epoch")[:1]),
        last_accuracy=Subquery(newest.values("validation_accuracy")[:1]),
        last_loss=Subquery(newest.values("validation_loss")[:1]),
        last_parameters=Subquery(newest.values("parameters")[:1]),
        first_parameters=Subquery(oldest.values("parameters")[:1]),
    )


def seeds_of(run_id: UUID) -> QuerySet[Seed]:
    return Seed.objects.filter(run_id=run_id).select_related("slot").order_by("number")


def control_of(run: TrainingRun) -> TrainingRun | None:
    """The static control of a grown run, if it has one."""
    return run.controls.order_by("-id").first()


def wishes_of(run_id: UUID) -> tuple[str, bool]:
    """What people want of a run that trains: the newest command, and whether somebody waits for a save."""
    saves = CheckpointJob.objects.filter(run_id=OuterRef("pk"), kind=JobKind.CREATE, state=JobState.PENDING)
    command, wanted = TrainingRun.objects.values_list("command", Exists(saves)).get(pk=run_id)
    return str(command), bool(wanted)


def steps_trained(run: TrainingRun) -> int:
    """How far the run has got, by what it measured and saved."""
    measured = EpochMetric.objects.filter(run=run).aggregate(step=Max("step"))["step"]
    saved = Checkpoint.objects.filter(run_id=run.pk).exclude(state=CheckpointState.ABANDONED)
    return max(measured or 0, saved.aggregate(step=Max("step"))["step"] or 0)


def base_of(run: TrainingRun, step: int) -> Checkpoint | None:
    """The newest good checkpoint that is not beyond ``step``."""
    good = Checkpoint.objects.filter(run_id=run.pk, state=CheckpointState.COMMITTED, step__lte=step)
    return good.order_by("-step", "-id").first()


def recovery_under_way(run_id: UUID) -> RecoveryEvent | None:
    """The run's return that has not come to its end."""
    return RecoveryEvent.objects.filter(run_id=run_id, state=RecoveryState.OPEN).first()
