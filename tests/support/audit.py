"""Events of the trail for tests: recorded, committed, sealed."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import LazySettings
from django.db import transaction

from apps.audit import services
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.ids import new_id


def record(number: int = 0, **values: Any) -> AuditEvent:
    """One committed event about a kernel of its own."""
    values = {"type": "kernel.registered", "subject": ("kernel", str(new_id())), "actor": SYSTEM} | values
    with transaction.atomic():
        return services.record(**{"payload": {"number": number}, **values})


def sealed(count: int, **values: Any) -> list[AuditEvent]:
    """``count`` events under one new checkpoint."""
    events = [record(number, **values) for number in range(count)]
    services.seal()
    return events


@pytest.fixture(name="home")
def own_home(tmp_path: Path, settings: LazySettings) -> Path:
    """A data folder of the test's own: keys and copies."""
    settings.ESPER_HOME = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "objects")},
        },
    }
    return tmp_path


def backdated(owner: psycopg.Connection[Any], month: str, count: int) -> list[AuditEvent]:
    """``count`` unsealed events of a month that is over (such as "2026-01"), in a partition made for them."""
    name = f"audit_auditevent_{month.replace('-', '_')}"
    start = datetime.fromisoformat(f"{month}-01T00:00:00+00:00")
    end = (start + timedelta(days=32)).replace(day=1)
    owner.execute(
        f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF audit_auditevent "
        f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')".encode()
    )
    owner.execute(
        f"CREATE OR REPLACE TRIGGER audit_no_truncate BEFORE TRUNCATE ON {name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION esper_audit_refuse()".encode()
    )
    with pytest.MonkeyPatch.context() as clock:
        clock.setattr("apps.audit.services.recording.timezone.now", lambda: start + timedelta(days=9))
        return [record(number) for number in range(count)]
