"""Files of the object storage: whose they are when a command was run by root."""

import os
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage

from apps.core.objects import INCOMING, put

NOBODY = 65534


@pytest.mark.root
def test_what_root_stores_belongs_to_whoever_the_folder_belongs_to(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)

    put(FileSystemStorage(location=folder), "audit/checkpoints/1.note", b"note")

    made = [folder / INCOMING, folder / "audit", folder / "audit/checkpoints", folder / "audit/checkpoints/1.note"]
    assert {path.stat().st_uid for path in made} == {NOBODY}
    assert tmp_path.stat().st_uid == os.geteuid()
