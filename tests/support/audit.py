"""Events of the trail for tests: recorded, committed, sealed."""

from pathlib import Path
from typing import Any

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
