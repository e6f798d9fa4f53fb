"""Rebuilding: the files alone are enough to have every checkpoint again."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command

from apps.audit.models import AuditEvent
from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference, Pack, StoredObject
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, manifest_of, pack_of, save

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder", "folder_storage")]

__all__ = ["checkpoint_folder"]

TOLD_BY_FILES = (
    *("run_id", "epoch", "step", "fencing_token", "state", "name", "format", "reason", "parent_id", "digest", "size"),
    *("metrics", "fingerprint", "environment", "store_id", "location"),
)


def forget_everything() -> None:
    """As after the loss of the database (its audit trail apart)."""
    ObjectReference.objects.all().delete()
    StoredObject.objects.all().delete()
    Pack.objects.all().delete()
    Checkpoint.objects.all().delete()


def test_a_database_without_checkpoints_has_them_all_again() -> None:
    run_id = new_id()
    save(run_id, 10, metrics={"validation_loss": 0.25})
    save(run_id, 20)
    before = list(Checkpoint.objects.order_by("pk").values(*TOLD_BY_FILES))
    forget_everything()

    rebuilt = services.rebuild(actor=SYSTEM)

    assert (rebuilt.checkpoints, rebuilt.packs, rebuilt.broken) == (2, 2, [])
    assert list(Checkpoint.objects.order_by("pk").values(*TOLD_BY_FILES)) == before
    loaded = services.load_latest(run_id=run_id, actor=WORKER)
    assert loaded is not None
    assert loaded.checkpoint.step == 20


def test_the_trail_tells_what_was_found() -> None:
    checkpoint = save()
    forget_everything()

    services.rebuild(actor=SYSTEM)

    assert AuditEvent.objects.filter(type="checkpoint.rebuilt", subject_id=str(checkpoint.pk)).count() == 1


def test_what_is_known_stays_as_it_is() -> None:
    checkpoint = save()

    rebuilt = services.rebuild(actor=SYSTEM)

    assert (rebuilt.checkpoints, rebuilt.packs, rebuilt.known) == (0, 0, 1)
    assert Checkpoint.objects.get(pk=checkpoint.pk).row_version == checkpoint.row_version


def test_a_dry_run_adds_nothing() -> None:
    save()
    forget_everything()

    assert services.rebuild(actor=SYSTEM, dry_run=True).checkpoints == 1

    assert not Checkpoint.objects.exists()
    assert not Pack.objects.exists()


def test_a_checkpoint_that_is_not_whole_is_named_and_left_out() -> None:
    run_id = new_id()
    first, second = save(run_id, 10), save(run_id, 20)
    flip(manifest_of(second), 200)
    pack = pack_of(first)
    flip(pack, pack.stat().st_size - 4)
    forget_everything()

    rebuilt = services.rebuild(actor=SYSTEM)

    assert not Checkpoint.objects.exists()
    named = {broken["file"] for broken in rebuilt.broken}
    assert named == {f"manifests/{first.pk}.json", f"manifests/{second.pk}.json", f"packs/{pack.stem}.pack"}


def test_what_was_given_up_does_not_come_back() -> None:
    checkpoint = save()
    Checkpoint.objects.filter(pk=checkpoint.pk).update(state=CheckpointState.EXPIRED)

    assert services.rebuild(actor=SYSTEM).checkpoints == 0


def test_a_folder_that_is_gone_is_no_empty_one(checkpoint_folder: Path) -> None:
    checkpoint_folder.rename(checkpoint_folder.with_name("aside"))
    checkpoint_folder.write_text("a file where the folder should be")

    with pytest.raises(Unavailable):
        services.rebuild(actor=SYSTEM)


def test_the_command_says_what_it_added() -> None:
    save()
    forget_everything()
    out = StringIO()

    call_command("rebuild_checkpoints", "--json", stdout=out)

    assert json.loads(out.getvalue().splitlines()[-1]) == {
        "checkpoints": 1,
        "packs": 1,
        "objects": 3,
        "known": 0,
        "broken": [],
        "dry_run": False,
    }
