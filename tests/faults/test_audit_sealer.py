"""A sealer killed at any step, and a trail that moves to another cluster: nothing is lost, nothing is sealed twice."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from apps.audit import services
from apps.audit.keys import KeyFault
from apps.audit.models import AuditCheckpoint, AuditCopy, AuditEvent, AuditLeaf, AuditPending
from apps.audit.verification import verify
from esper_site.embedded.postgres import find_binaries
from tests.support.audit import own_home, record, sealed
from tests.support.stack import Servers

pytestmark = pytest.mark.usefixtures("committed_db", "home")

home = own_home

# Each step of `services.seal`, as the function whose first call kills the process before it or after it.
STEPS = (
    "_take_lock", "_ring", "_take_final", "_append_checkpoint", "_admit", "_tell", "copy_checkpoints",
    "put_once",
)  # fmt: skip
KILLER = """
import os, signal, sys
import django
django.setup()
from django.conf import settings
from pathlib import Path
home = Path(sys.argv[3])
settings.ESPER_HOME = home
settings.STORAGES["default"] = {
    "BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(home / "objects")},
}
from apps.audit.services import sealing
name, when = sys.argv[1], sys.argv[2]
real = getattr(sealing, name)
def killed(*args, **kwargs):
    if when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(sealing, name, killed)
sealing.seal(most=100)
"""


def seal_and_die(step: str, when: str, home: Path) -> None:
    command = [sys.executable, "-c", KILLER, step, when, str(home)]
    result = subprocess.run(command, env=os.environ, timeout=60, capture_output=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr.decode()[-2000:]


def test_a_sealer_killed_at_every_step_loses_nothing_and_seals_nothing_twice(home: Path) -> None:
    """One trail through all kills: after each, the trail verifies, and in the end every event has one leaf."""
    written = [event.pk for event in sealed(3)]
    for step in STEPS:
        for when in ("before", "after"):
            written += [record(number).pk for number in range(2)]
            seal_and_die(step, when, home)
            outcome = verify()
            assert outcome.findings == [], (step, when)

    services.seal()
    assert sorted(AuditLeaf.objects.values_list("event_id", flat=True)) == sorted(written)
    assert not AuditPending.objects.exists()
    assert AuditCopy.objects.count() == AuditCheckpoint.objects.count()
    assert verify().is_right


def test_a_sealer_that_is_frozen_holds_up_no_writer_and_lets_go_when_it_dies(
    home: Path, servers: Servers, committed_db: str
) -> None:
    sealed(1)
    with psycopg.connect(servers.url("app", committed_db)) as frozen:
        frozen.execute("SELECT pg_advisory_xact_lock(%s)", [services.sealing.LOCK])
        frozen.execute("SELECT * FROM esper_audit_seal(10)")
        record()
        assert services.seal() is None, "the frozen one has the lock"

    assert services.seal().count == 1


@pytest.fixture
def binaries() -> Path:
    return find_binaries()


def test_a_trail_restored_in_another_cluster_seals_what_was_waiting(
    home: Path, servers: Servers, committed_db: str, binaries: Path, tmp_path: Path
) -> None:
    """Transaction ids of the old cluster mean nothing in the new one: the waiting rows must be sealed all the same."""
    before = [event.pk for event in sealed(5)]
    waiting = [record(number).pk for number in range(3)]
    archive = tmp_path / "trail.dump"
    run(binaries, "pg_dump", "--format=custom", f"--file={archive}", servers.url("admin", committed_db))

    with servers.clone() as other:
        with psycopg.connect(servers.url("admin", other), autocommit=True) as admin:
            admin.execute("DROP SCHEMA public CASCADE")
            admin.execute("CREATE SCHEMA public")
        run(binaries, "pg_restore", "--exit-on-error", f"--dbname={servers.url('admin', other)}", str(archive))
        with psycopg.connect(servers.url("admin", other), autocommit=True) as admin:
            # What another cluster would see: ids that its own transactions have not reached.
            admin.execute("ALTER TABLE audit_auditpending DISABLE TRIGGER USER")
            admin.execute("UPDATE audit_auditpending SET xid = '123456789012345'::xid8")
            admin.execute("ALTER TABLE audit_auditpending ENABLE TRIGGER USER")
        with psycopg.connect(servers.url("app", other)) as app:
            sealed_now = app.execute("SELECT esper_audit_seal(100)").fetchall()
            order = app.execute("SELECT event_id FROM audit_auditleaf ORDER BY index").fetchall()
    assert sealed_now == [(3,)]
    assert [key for (key,) in order] == [*before, *waiting]
    assert AuditEvent.objects.count() == 8


def run(binaries: Path, program: str, *words: str) -> None:
    result = subprocess.run([binaries / program, *words], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]


def test_recording_goes_on_while_there_is_no_key_and_sealing_catches_up(home: Path, client: Any) -> None:
    sealed(1)
    key = home / "audit" / "signing.key"
    away = key.rename(home / "away.key")
    record()
    with pytest.raises(KeyFault):
        services.seal()

    body = client.get("/metrics").content.decode()
    assert "esper_audit_unsealed_events 1.0" in body
    assert "esper_audit_unsealed_age_seconds" in body

    away.rename(key)
    assert services.seal().count == 1
    assert "esper_audit_unsealed_events 0.0" in client.get("/metrics").content.decode()
