"""`/metrics` over real worker and web processes: killed and started anew between two scrapes, they lose no count."""

import dataclasses
import os
import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from prometheus_client.parser import text_string_to_metric_families

from apps.core.process_metrics import VARIABLE
from apps.core.tasks import expire_idempotency_keys
from esper_site.embedded import ports, processes
from esper_site.embedded.process import Program
from tests.support.programs import RunningProgram, Start
from tests.support.waiting import wait_until

TASK = "apps.core.tasks.expire_idempotency_keys"
CHILDREN = 3


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's processes count, and this process looks; it is not one of them."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture
def workers(committed_db: str, start_program: Start, folder: Path) -> RunningProgram:
    """One worker of three processes."""
    environment = os.environ | {"ESPER_METRICS_DIR": str(folder)}
    program = processes.worker("default", environment, host=f"metrics-{os.getpid()}")
    command = tuple(
        {"--pool=threads": "--pool=prefork", "--concurrency=4": f"--concurrency={CHILDREN}"}.get(part, part)
        for part in program.command
    )
    return start_program(
        dataclasses.replace(program, command=command, patience=10.0), lambda running: " ready." in running.output
    )


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def counting(folder: Path) -> set[int]:
    """The processes that have counted."""
    return {int(path.stem.rpartition("_")[2]) for path in folder.glob("counter_*.db")}


def test_no_task_is_lost_or_counted_twice_when_processes_are_killed_between_scrapes(
    workers: RunningProgram, folder: Path, client: Client
) -> None:
    def done() -> float:
        return value(client.get("/metrics").content.decode(), "esper_tasks_total", task=TASK, outcome="success")

    def send(number: int) -> None:
        for _ in range(number):
            expire_idempotency_keys.delay()

    send(20)
    wait_until(lambda: done() == 20, seconds=30)
    first = counting(folder) - {workers.pid}
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    send(20)
    wait_until(lambda: done() == 40, seconds=30)

    text = client.get("/metrics").content.decode()
    assert value(text, "esper_tasks_total", task=TASK, outcome="success") == 40
    assert value(text, "esper_task_seconds_count", task=TASK) == 40
    assert counting(folder) > first


def test_two_web_processes_count_each_request_once_and_the_exporter_tells_the_same(
    committed_db: str, start_program: Start, folder: Path
) -> None:
    environment = os.environ | {"ESPER_METRICS_DIR": str(folder)}
    web, port = ports.private_port(None), ports.private_port(None)
    program = processes.web(environment | {"ESPER_WEB_PORT": str(web)}, web)
    two = list(program.command)
    two[two.index("--workers") + 1] = "2"
    start_program(dataclasses.replace(program, command=tuple(two)), answers(f"{web}/healthz"))
    command, environment = processes.manage(environment, "metrics_exporter", "--port", str(port))
    exporter = Program(name="exporter", command=tuple(command), environment=environment, folder=Path.cwd())
    start_program(exporter, answers(f"{port}/metrics"))
    before = value(fetch(f"{port}/metrics"), "django_http_responses_total_by_status_total", status="200")

    for _ in range(7):
        fetch(f"{web}/healthz")

    told = [fetch(f"{place}/metrics") for place in (port, web)]
    counts = [value(text, "django_http_responses_total_by_status_total", status="200") for text in told]
    assert counts == [before + 7, before + 7]
    assert value(told[1], "esper_runs") == 0  # rows are the web's to tell
    assert "esper_runs" not in told[0]
    assert "python_gc" not in told[1]  # of one process, whichever answers


def fetch(place: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{place}", timeout=10) as answer:
        return str(answer.read().decode())


def answers(place: str) -> Callable[[RunningProgram], bool]:
    def ask(running: RunningProgram) -> bool:
        try:
            fetch(place)
        except OSError:
            return False
        return True

    return ask


class TestWhatTheExporterRefuses:
    def test_no_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(VARIABLE, raising=False)

        with pytest.raises(CommandError, match="ESPER_METRICS_DIR is not set"):
            call_command("metrics_exporter")

    @pytest.mark.parametrize("port", ["-1", "65536"])
    def test_a_port_that_cannot_be(self, folder: Path, port: str) -> None:
        with pytest.raises(CommandError, match=f"--port must be 0 to 65535, not {port}"):
            call_command("metrics_exporter", f"--port={port}")

    def test_an_address_that_is_not_here(self, folder: Path) -> None:
        with pytest.raises(CommandError, match=r"Cannot listen on 192\.0\.2\.1"):
            call_command("metrics_exporter", "--address=192.0.2.1")
