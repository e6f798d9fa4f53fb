"""Counts of many processes in one folder: what is dead still counts, what is broken hides nothing."""

import os
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.values import MultiProcessValue

from apps.core import process_metrics
from apps.core.process_metrics import VARIABLE, counted


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def count(pid: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of that number counts so many."""
    with monkeypatch.context() as patch:
        patch.setattr("prometheus_client.values.ValueClass", MultiProcessValue(lambda: pid))
        Counter("esper_events", "Events.", registry=CollectorRegistry()).inc(number)


def total() -> float:
    return sum(sample.value for family in counted() for sample in family.samples if sample.name == "esper_events_total")


def gone() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_processes_count_is_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    count(11, 2, monkeypatch)
    count(12, 3, monkeypatch)

    assert total() == 5


def test_a_process_that_gets_the_number_of_a_dead_one_goes_on_with_its_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    count(11, 2, monkeypatch)
    count(11, 3, monkeypatch)

    assert total() == 5


@pytest.mark.parametrize("content", [b"", b"\xff" * 64])
def test_a_file_that_cannot_be_read_hides_no_other(
    folder: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    count(11, 2, monkeypatch)
    (folder / "counter_12.db").write_bytes(content)

    assert total() == 2


def test_gauges_of_the_living_vanish_with_their_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in (os.getpid(), dead := gone()):
        with monkeypatch.context() as patch:
            patch.setattr("prometheus_client.values.ValueClass", MultiProcessValue(lambda pid=pid: pid))
            Gauge("esper_now", "Now.", registry=CollectorRegistry(), multiprocess_mode="liveall").set(1)

    samples = [sample for family in counted() for sample in family.samples]

    assert [sample.labels["pid"] for sample in samples] == [str(os.getpid())]
    assert not list(folder.glob(f"*_{dead}.db"))


def test_a_process_that_counted_nothing_leaves_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are many; each file is read again at each scrape."""
    idle, busy = gone(), gone()
    count(idle, 0, monkeypatch)
    count(busy, 2, monkeypatch)
    count(os.getpid(), 0, monkeypatch)

    assert total() == 2
    assert {path.name for path in folder.iterdir()} == {f"counter_{busy}.db", f"counter_{os.getpid()}.db"}


def test_without_the_folder_a_process_tells_its_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)

    assert process_metrics.folder() is None
    assert "python_info" in {family.name for family in counted()}
