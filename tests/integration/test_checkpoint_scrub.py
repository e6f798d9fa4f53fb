"""Verifying in turn: what was not looked at for longest, so much at a time; what is broken is set aside by itself."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.checkpoints import tasks
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.services.archiving import archive
from apps.checkpoints.services.rounds import scrub
from apps.core.actors import SYSTEM
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from esper_site.celery import app
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save
from tests.support.objects import folder_storage

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder", "folder_storage")]

__all__ = ["checkpoint_folder", "folder_storage"]


@pytest.fixture
def run_id() -> UUID:
    return new_id()


def verified(checkpoint: Checkpoint, days_ago: float) -> Checkpoint:
    Checkpoint.objects.filter(pk=checkpoint.pk).update(verified_at=timezone.now() - timedelta(days=days_ago))
    return checkpoint


def just_verified() -> set[int]:
    since = timezone.now() - timedelta(minutes=5)
    return set(Checkpoint.objects.filter(verified_at__gt=since).values_list("step", flat=True))


def test_what_was_never_verified_is(run_id: UUID) -> None:
    first, second = save(run_id, 10), save(run_id, 20)

    scrubbed = scrub()

    assert (scrubbed.checkpoints, scrubbed.broken) == (2, 0)
    assert scrubbed.bytes == first.size + second.size
    assert just_verified() == {10, 20}


def test_each_is_verified_once_a_week(run_id: UUID) -> None:
    verified(save(run_id, 10), days_ago=6)
    verified(save(run_id, 20), days_ago=8)

    scrub()

    assert just_verified() == {20}


def test_one_round_reads_so_much_and_takes_what_waited_longest(run_id: UUID) -> None:
    verified(save(run_id, 10), days_ago=9)
    verified(save(run_id, 20), days_ago=8)
    save(run_id, 30)

    assert scrub(most_bytes=1).checkpoints == 1
    assert just_verified() == {30}
    scrub(most_bytes=1)
    assert just_verified() == {30, 10}


def test_what_is_in_the_object_storage_only_is_transferred_once_a_month(run_id: UUID) -> None:
    for step, days_ago in ((10, 20), (20, 40)):
        verified(archive(checkpoint=save(run_id, step), actor=SYSTEM), days_ago=days_ago)

    scrub()

    assert just_verified() == {20}


def test_a_broken_one_is_set_aside_and_the_trail_tells(run_id: UUID) -> None:
    broken, right = save(run_id, 10), save(new_id(), 30)
    flip(pack_of(broken), 1000)

    scrubbed = scrub()

    assert (scrubbed.checkpoints, scrubbed.broken) == (1, 1)
    broken.refresh_from_db()
    right.refresh_from_db()
    assert (broken.state, right.state) == (CheckpointState.QUARANTINED, CheckpointState.COMMITTED)
    assert AuditEvent.objects.filter(type="checkpoint.transition", subject_id=str(broken.pk)).exists()


def test_a_storage_that_is_away_sets_nothing_aside(run_id: UUID, checkpoint_folder: Path) -> None:
    checkpoint = save(run_id, 10)
    checkpoint_folder.rename(checkpoint_folder.with_name("away"))
    checkpoint_folder.write_text("a file where the folder should be")

    with pytest.raises(Unavailable):
        scrub()

    checkpoint.refresh_from_db()
    assert checkpoint.state == CheckpointState.COMMITTED


def test_what_lies_on_another_machine_is_left_to_it(run_id: UUID, settings: LazySettings, tmp_path: Path) -> None:
    save(run_id, 10)
    settings.CHECKPOINTS_ROOT = tmp_path / "another"

    assert scrub().checkpoints == 0


@pytest.mark.parametrize("name", ["keep", "collect", "copy", "archive", "scrub"])
def test_a_task_of_beat_outlives_a_storage_that_is_away(
    name: str, checkpoint_folder: Path, run_id: UUID, settings: LazySettings
) -> None:
    settings.CHECKPOINT_COPIES = True
    save(run_id, 10)
    checkpoint_folder.rename(checkpoint_folder.with_name("away"))
    checkpoint_folder.write_text("a file where the folder should be")

    getattr(tasks, f"{name}_checkpoints")()

    assert Checkpoint.objects.get(run_id=run_id).state == CheckpointState.COMMITTED


def test_beat_keeps_collects_archives_and_scrubs() -> None:
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}

    assert {
        f"apps.checkpoints.tasks.{name}_checkpoints" for name in ("keep", "collect", "archive", "scrub")
    } < scheduled
