"""Movers and purges that are killed at any step, and writers that come at the same time: no bytes are ever lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DataError, connection, transaction
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.core.ids import new_id
from apps.kernels import services
from apps.kernels.cache import KernelStore, mover
from apps.kernels.lifecycle import KernelState, PlanState
from apps.kernels.models import Kernel, RetentionPlan
from apps.morphogenesis.settings import RunSettings
from apps.training import services as training
from apps.training.lifecycle import RunState
from apps.training.models import LibrarySource
from tests.support.factories import KernelFactory, RunFactory
from tests.support.objects import object_storage
from tests.support.retention import approved_plan, kernel
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["object_storage"]

# Each round forks a child that is killed before or after the first call of the named function. What its parent finds
# then, and again once the step was repeated, is printed as one line of JSON.
CAMPAIGN = """
import hashlib, json, os, signal, sys
import django
django.setup()
from datetime import timedelta
from importlib import import_module
from django.conf import settings
settings.STORAGES["default"] = {
    "BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": sys.argv[1]},
}
from django.core.files.storage import storages
from django.db import connections
from django.utils import timezone
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError
from apps.kernels import services
from apps.kernels.cache import KernelStore, archive, mover
from apps.kernels.models import Kernel, KernelBlob
from tests.support.factories import KernelFactory

MODULES = {name: import_module(f"apps.kernels.cache.{name}") for name in ("archive", "chunks", "mover")}
DOWN = ["archive.store", "archive.put", "archive.is_whole", "mover._settle", "mover.release", "chunks.empty"]
UP = ["mover._copy_up", "chunks.write", "mover._settle", "mover.release"]
PURGE = ["mover.free", "mover.sweep", "archive.delete"]

def killed(step, when):
    module, name = MODULES[step.split(".")[0]], step.split(".")[1]
    real = getattr(module, name)
    def dying(*args, **kwargs):
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        real(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(module, name, dying)

def in_child(step, when, work):
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            killed(step, when)
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def told(step, when, status, data, row, expected):
    row.refresh_from_db()
    blob = KernelBlob.objects.filter(pk=row.digest, freed_at=None).first()
    whole = blob is not None and KernelStore().get(row.digest) == data
    print(json.dumps({"step": f"{when} {step}", "status": status, "whole": whole, **expected(row, blob)}), flush=True)

def place(row, blob):
    return {"tier": row.storage_tier, "in_database": blob.in_database, "in_storage": blob.archived_at is not None}

def rest(row, blob):
    return {"state": row.state, "copy": storages["default"].exists(archive.name_of(row.digest))}

def bytes_of(name):
    return b"".join(hashlib.sha256(f"{name} {n}".encode()).digest() for n in range(20_000))

number = 0
for to, start, steps in (("cold", "warm", DOWN), ("warm", "cold", UP)):
    for step in steps:
        for when in ("before", "after"):
            number += 1
            data = bytes_of(number)
            row = KernelFactory(state="VALIDATED", data=data)
            if start == "cold":
                row = services.change_tier(kernel=row, tier="cold", actor=SYSTEM)
            move = lambda: services.change_tier(kernel=row, tier=to, actor=SYSTEM)
            status = in_child(step, when, move)
            told(step, when, status, data, row, lambda row, blob: {"now": "killed"})
            row = services.change_tier(kernel=row, tier=to, actor=SYSTEM)
            mover.settle()
            told(step, when, status, data, row, lambda row, blob: {"now": "repeated", **place(row, blob)})
for step in PURGE:
    for when in ("before", "after"):
        number += 1
        past = timezone.now() - timedelta(days=1)
        row = KernelFactory(state="RETIRED", data=bytes_of(number), retired_at=past, purge_after=past)
        row = services.change_tier(kernel=row, tier="cold", actor=SYSTEM)
        status = in_child(step, when, lambda: services.purge_kernel(kernel=row, actor=SYSTEM))
        row.refresh_from_db()
        if row.state == "RETIRED":
            told(step, when, status, bytes_of(number), row, lambda row, blob: {"now": "killed"})
            services.purge_kernel(kernel=row, actor=SYSTEM)
        mover.settle()
        told(step, when, status, b"", row, lambda row, blob: {"now": "purged", **rest(row, blob)})
"""


def test_a_mover_killed_at_every_step_loses_nothing_and_its_step_can_be_repeated(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CAMPAIGN, str(tmp_path)], env=os.environ, timeout=150, capture_output=True, check=False
    )
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    rounds = [json.loads(line) for line in result.stdout.splitlines() if line.startswith(b"{")]

    assert {found["status"] for found in rounds} == {-9}
    assert [found for found in rounds if found["now"] != "purged" and not found["whole"]] == []
    after = [found for found in rounds if found["now"] == "repeated"]
    assert len(after) == 20
    for found in after:
        assert found["in_database"] == (found["tier"] == "warm"), found
        assert found["in_storage"], found
    purged = [found for found in rounds if found["now"] == "purged"]
    assert [(found["state"], found["copy"], found["whole"]) for found in purged] == [("PURGED", False, False)] * 6


# --- At the same time


@contextmanager
def in_thread() -> Iterator[Callable[..., Future[Any]]]:
    """Runs calls on a connection of their own."""

    def run(call: Callable[..., Any], kwargs: dict[str, Any]) -> Any:
        try:
            return call(**kwargs)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        yield lambda call, **kwargs: pool.submit(run, call, kwargs)


def someone_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


def due(data: bytes) -> Kernel:
    past = timezone.now() - timedelta(days=1)
    row: Kernel = KernelFactory(state=KernelState.RETIRED, data=data, retired_at=past, purge_after=past)
    return row


def test_an_upload_of_the_same_bytes_during_a_purge_keeps_its_bytes() -> None:
    row, waiting = due(b"same"), KernelFactory(awaits_upload=True)

    with in_thread() as start:
        with transaction.atomic():
            services.upload_binary(kernel=waiting, data=b"same", actor=SYSTEM)
            purge = start(services.purge_kernel, kernel=row, actor=SYSTEM)
            wait_until(someone_waits, seconds=10)
        assert purge.result(timeout=10).state == KernelState.PURGED

    assert KernelStore().get(row.digest or "") == b"same"


def test_an_upload_that_waits_for_a_purge_brings_its_bytes() -> None:
    row, waiting = due(b"same"), KernelFactory(awaits_upload=True)

    with in_thread() as start:
        with transaction.atomic():
            services.purge_kernel(kernel=row, actor=SYSTEM)
            upload = start(services.upload_binary, kernel=waiting, data=b"same", actor=SYSTEM)
            wait_until(someone_waits, seconds=10)
        assert upload.result(timeout=10).state == KernelState.UPLOADED

    assert KernelStore().get(row.digest or "") == b"same"


def test_two_applications_of_one_plan_retire_each_kernel_once() -> None:
    rows = [kernel() for _ in range(6)]
    plan = approved_plan()

    with in_thread() as start:
        calls = [start(services.apply_plan, plan=plan, actor=SYSTEM) for _ in range(4)]
        states = {call.result(timeout=30).state for call in calls}

    assert states == {PlanState.APPLIED}
    assert AuditEvent.objects.filter(type="kernel.retired").count() == len(rows)
    assert RetentionPlan.objects.get().outcome == {"retired": 6}


def test_a_run_that_takes_the_kernel_while_the_plan_is_applied_keeps_it() -> None:
    row = kernel()
    plan = approved_plan()

    with in_thread() as start:
        with transaction.atomic():
            services.hold_kernels(kernels=[row], run_id=new_id())
            applied = start(services.apply_plan, plan=plan, actor=SYSTEM)
            wait_until(someone_waits, seconds=10)
        assert applied.result(timeout=10).outcome == {"protected": 1}

    row.refresh_from_db()
    assert row.state == KernelState.VALIDATED


def test_a_hold_that_is_set_while_the_plan_is_applied_keeps_the_kernel() -> None:
    row = kernel()
    plan = approved_plan()

    with in_thread() as start:
        with transaction.atomic():
            Kernel.objects.filter(pk=row.pk).update(legal_hold=True)
            applied = start(services.apply_plan, plan=plan, actor=SYSTEM)
            wait_until(someone_waits, seconds=10)
        assert applied.result(timeout=10).outcome == {"protected": 1}


def test_two_movers_of_the_same_bytes_are_told_apart() -> None:
    row = KernelFactory(state=KernelState.VALIDATED)
    with in_thread() as start, mover._alone_with(row.digest or ""):
        moving = start(services.change_tier, kernel=row, tier="hot", actor=SYSTEM)
        with pytest.raises(Conflict, match="being moved"):
            moving.result(timeout=10)


def test_a_move_that_fails_with_its_callers_transaction_leaves_the_bytes_to_the_next(
    monkeypatch: pytest.MonkeyPatch, object_storage: Path
) -> None:
    row = KernelFactory(state=KernelState.VALIDATED)

    def fail(digest: str, pieces: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")

    with monkeypatch.context() as patch:
        patch.setattr(mover.archive, "store", fail)
        with pytest.raises(DataError), transaction.atomic():
            services.change_tier(kernel=row, tier="cold", actor=SYSTEM)

    with in_thread() as start:
        moved = start(services.change_tier, kernel=row, tier="cold", actor=SYSTEM)
        assert moved.result(timeout=10).storage_tier == "cold"


def test_a_kernel_that_is_retired_while_its_successor_is_named_is_no_successor() -> None:
    row, successor = kernel(), kernel()

    with in_thread() as start:
        with transaction.atomic():
            services.retire_kernel(kernel=successor, reason="old", actor=SYSTEM)
            retirement = start(
                services.retire_kernel, kernel=row, reason="old", successor=Kernel(pk=successor.pk), actor=SYSTEM
            )
            wait_until(someone_waits, seconds=10)
        with pytest.raises(Invalid, match="VALIDATED"):
            retirement.result(timeout=10)


def test_naming_a_successor_does_not_wait_for_a_run_that_takes_hold_of_it() -> None:
    row, successor = kernel(), kernel()

    with in_thread() as start, transaction.atomic():
        services.hold_kernels(kernels=[successor], run_id=new_id())
        named = start(services.update_kernel, kernel=row, successor=successor, actor=SYSTEM)
        assert named.result(timeout=10).successor_id == successor.pk


def test_a_kernel_that_is_retired_while_a_run_freezes_its_library_is_not_in_it() -> None:
    row, stays = (kernel(compat={"input": [8], "output": [8]}) for _ in range(2))
    settings = RunSettings.from_mapping({"growth": {"enabled": False}}).to_dict()
    run = RunFactory(state=RunState.RUNNING, library=None, library_source=LibrarySource.LEARNED, settings=settings)

    with in_thread() as start:
        with transaction.atomic():
            services.retire_kernel(kernel=row, reason="old", actor=SYSTEM)
            library = start(training.freeze_library, run=run, fencing_token=0)
            wait_until(someone_waits, seconds=10)
        assert [offer["digest"] for offer in library.result(timeout=10) or ()] == [stays.digest]
