"""What needs a checkpoint for the time being, so that no policy lets it go meanwhile.

Work with checkpoints is known here; what only other apps know (a run that is about to go on from one) they register:

    needs.register(lambda run_id: {checkpoint_id: "the run is to go on from it"})    # in AppConfig.ready()
"""

from collections.abc import Callable, Mapping
from uuid import UUID

from apps.checkpoints.lifecycle import JobState
from apps.checkpoints.models import CheckpointJob

Need = Callable[[UUID], Mapping[UUID, str]]
"""Run -> its checkpoints that are needed -> why, in a few words."""

_needs: list[Need] = []


def register(need: Need) -> None:
    """Ask ``need`` too, from now on; the same one twice counts once."""
    if need not in _needs:
        _needs.append(need)


def needed(run_id: UUID) -> dict[UUID, str]:
    """The run's checkpoints that must stay for now -> why."""
    open_jobs = CheckpointJob.objects.filter(
        run_id=run_id, checkpoint__isnull=False, state__in=[JobState.PENDING, JobState.RUNNING]
    )
    found = {job.checkpoint_id: f"needed to {job.kind} it" for job in open_jobs if job.checkpoint_id}
    for need in _needs:
        found |= need(run_id)
    return found
