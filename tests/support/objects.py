"""An object storage of a test's own."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def object_storage(settings: Any, tmp_path: Path) -> Path:
    """The folder of the default object storage, empty."""
    folder = tmp_path / "objects"
    folder.mkdir()
    backend = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder)}}
    settings.STORAGES = {**settings.STORAGES, "default": backend}
    return folder
