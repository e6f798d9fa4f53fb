"""A process that is killed while checkpoints go, are compacted, archived or recalled: every checkpoint stays whole, the
next round goes on, and what was left behind is collected."""

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from django.db import connections

from apps.checkpoints import places, services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack
from apps.checkpoints.services.archiving import archive, recall
from apps.checkpoints.services.compaction import compact
from apps.checkpoints.services.garbage import GRACE, collect_garbage
from apps.checkpoints.services.policies import create_policy
from apps.checkpoints.services.retention import expire_due
from apps.checkpoints.store import crashpoints
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from tests.support.checkpoint_garbage import collect_twice, gone, let_pass, loads, mostly_garbage
from tests.support.checkpoints import checkpoint_folder, manifest_of, save, state_of
from tests.support.objects import folder_storage

pytestmark = pytest.mark.usefixtures("committed_db", "checkpoint_folder", "folder_storage")

__all__ = ["checkpoint_folder", "folder_storage"]


@pytest.fixture
def run_id() -> UUID:
    return new_id()


def kill_at(point: str, act: Callable[[], object]) -> None:
    """Do it in a child that kills itself at ``point``. Raises AssertionError: it never came there."""
    connections.close_all()  # a connection cannot be shared
    child = os.fork()
    if child == 0:
        try:
            os.environ[crashpoints.VARIABLE] = point
            act()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"{point} was not reached"
    assert os.WTERMSIG(status) == signal.SIGKILL


def is_right(checkpoint: Checkpoint) -> bool:
    checkpoint.refresh_from_db()
    services.verify(checkpoint=checkpoint, actor=SYSTEM)
    return loads(checkpoint)


def only_what_rows_know() -> bool:
    manifests = Checkpoint.objects.filter(state=CheckpointState.COMMITTED).values_list("pk", flat=True)
    return set(places.folder().packs()) == set(Pack.objects.values_list("pk", flat=True)) and set(
        places.folder().manifests()
    ) == set(manifests)


@pytest.mark.parametrize("point", ["archive.put", "archive.recorded", "archive.freed"])
def test_archiving_goes_on(point: str, run_id: UUID) -> None:
    checkpoint = save(run_id, 10)

    kill_at(point, lambda: archive(checkpoint=checkpoint, actor=SYSTEM))

    assert is_right(checkpoint)
    assert archive(checkpoint=checkpoint, actor=SYSTEM).location == Location.ARCHIVED
    assert (places.folder().packs(), places.folder().manifests()) == ([], [])
    assert is_right(checkpoint)


@pytest.mark.parametrize("point", ["recall.named", "recall.recorded"])
def test_recalling_goes_on(point: str, run_id: UUID) -> None:
    checkpoint = archive(checkpoint=save(run_id, 10), actor=SYSTEM)

    kill_at(point, lambda: recall(checkpoint=checkpoint, actor=SYSTEM))

    assert is_right(checkpoint)
    assert recall(checkpoint=checkpoint, actor=SYSTEM).location == Location.LOCAL
    assert only_what_rows_know()
    assert is_right(checkpoint)


@pytest.mark.parametrize("point", ["compact.named", "compact.committed"])
def test_compaction_is_done_again_and_its_orphan_is_collected(point: str, run_id: UUID) -> None:
    old, newest = mostly_garbage(run_id)

    kill_at(point, compact)

    assert is_right(newest)
    compact()
    let_pass(timedelta(days=1))
    collect_twice()
    assert is_right(newest)
    assert not old.exists()
    assert only_what_rows_know()


@pytest.mark.parametrize("point", ["sweep.recorded", "sweep.deleted"])
def test_a_pack_that_has_no_row_any_more_is_an_orphan(point: str, run_id: UUID) -> None:
    pack, other = gone(run_id), save(new_id(), 30, state_of(30, frozen=1))
    let_pass(GRACE * 1.1)
    collect_garbage()
    let_pass(GRACE * 1.1)

    kill_at(point, collect_garbage)

    assert pack.exists() is (point == "sweep.recorded")
    let_pass(timedelta(days=1))
    collect_garbage()
    assert not pack.exists()
    assert is_right(other)


@pytest.mark.parametrize("point", ["expire.recorded", "expire.deleted"])
def test_the_manifest_of_an_expired_one_is_collected(point: str, run_id: UUID) -> None:
    create_policy(run_id=run_id, actor=SYSTEM, keep_last=1, keep_days=0, keep_best=0)
    old, newest = save(run_id, 10), save(run_id, 20)

    kill_at(point, lambda: expire_due(actor=SYSTEM))

    old.refresh_from_db()
    assert (old.state, manifest_of(old).exists()) == (CheckpointState.EXPIRED, point == "expire.recorded")
    let_pass(timedelta(days=1))
    collect_garbage()
    assert not manifest_of(old).exists()
    assert is_right(newest)


def test_every_point_of_the_upkeep_is_tried() -> None:
    tried = {
        point
        for mark in (test for name, test in globals().items() if name.startswith("test_"))
        for parameters in getattr(mark, "pytestmark", ())
        for point in parameters.args[1:] and parameters.args[1]
    }

    points = crashpoints.POINTS
    assert tried == set(points[points.index("archive.put") :])
