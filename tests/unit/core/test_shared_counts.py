"""The setting ESPER_METRICS_DIR: where it cannot be, it is named; on a full disk it is left alone."""

from collections import namedtuple
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from apps.core.process_metrics import folder
from esper_site.settings import process_metrics

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # put back afterwards


def test_the_folder_is_made_and_named_where_the_library_looks(tmp_path: Path) -> None:
    process_metrics.share(str(tmp_path / "a" / "b"))

    assert folder() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_a_folder_that_cannot_be_made_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ImproperlyConfigured, match=r"ESPER_METRICS_DIR: .*/file/counts cannot be made"):
        process_metrics.share(str(tmp_path / "file" / "counts"))


def test_on_a_full_disk_a_process_counts_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_metrics.shutil, "disk_usage", lambda path: Usage(1 << 30, 1 << 30, 1 << 20))

    with pytest.warns(RuntimeWarning, match="counts are not shared"):
        process_metrics.share(str(tmp_path))

    assert folder() is None
