"""Files of the object storage: whose they are when a command was run by root."""

import os
from pathlib import Path

import pytest
from django.core.files.storage import FileSystemStorage

from apps.core.objects import get, put, put_once

NOBODY = 65534


@pytest.mark.root
def test_what_root_stores_belongs_to_whoever_the_folder_belongs_to(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)

    put(FileSystemStorage(location=folder), "audit/checkpoints/1.note", b"note")

    made = [folder / "audit", folder / "audit/checkpoints", folder / "audit/checkpoints/1.note"]
    assert {path.stat().st_uid for path in made} == {NOBODY}
    assert tmp_path.stat().st_uid == os.geteuid()


def test_a_repeated_step_finds_what_it_stored_and_replaces_nothing_else(tmp_path: Path) -> None:
    storage = FileSystemStorage(location=tmp_path)

    assert put_once(storage, "a/b", b"one") is True
    assert put_once(storage, "a/b", b"one") is False
    with pytest.raises(FileExistsError, match="holds something else"):
        put_once(storage, "a/b", b"two")
    with pytest.raises(FileExistsError, match="is taken"):
        put(storage, "a/b", b"two")
    assert get(storage, "a/b") == b"one"
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
