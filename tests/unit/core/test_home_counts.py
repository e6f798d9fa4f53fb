"""Where `manage.py up` lets the processes count."""

from pathlib import Path

import pytest

from esper_site.embedded.errors import StackError
from esper_site.embedded.home import Home


def test_an_earlier_starts_counts_are_forgotten_and_nothing_else(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.metrics.mkdir()
    (home.metrics / "counter_12.db").write_bytes(b"old")
    (home.metrics / "notes.txt").write_text("somebody's")

    home.forget_counts()

    assert [path.name for path in home.metrics.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_emptied_is_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.metrics / "counter_12.db").mkdir(parents=True)

    with pytest.raises(StackError, match=f"{home.metrics} cannot be used"):
        home.forget_counts()
