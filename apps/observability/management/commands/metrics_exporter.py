"""Serves what the processes of this host count to Prometheus, where no web process does: `manage.py metrics_exporter`.

One exporter a host, whatever number of workers: if each of them served its own counts, every scrape would see another.
"""

import argparse
import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from prometheus_client import start_http_server
from prometheus_client.registry import Collector, CollectorRegistry

from apps.core import process_metrics

PORT = 9464
"""The one that OpenTelemetry's exporters for Prometheus have by default."""


class Counted(Collector):
    """What the processes of this host count. What is read from rows is the web's to tell: once, not once a host."""

    def collect(self) -> Any:
        return process_metrics.counted()


class Command(BaseCommand):
    """Serves `/metrics` of this host's processes until it is told to end."""

    help = "Serve what the worker processes of this host count to Prometheus, where no web process runs."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=PORT, help=f"to listen on (default: {PORT})")
        parser.add_argument("--address", default="127.0.0.1", help="to listen on (default: 127.0.0.1)")

    def handle(self, *args: Any, port: int, address: str, **options: Any) -> None:
        folder = process_metrics.folder()
        if folder is None:
            raise CommandError("ESPER_METRICS_DIR is not set: the workers' counts are in no place that can be read.")
        if not 0 <= port <= 65_535:
            raise CommandError(f"--port must be 0 to 65535, not {port}.")
        registry = CollectorRegistry()
        registry.register(Counted())
        try:
            server, thread = start_http_server(port, address, registry)
        except (OSError, OverflowError) as error:
            raise CommandError(
                f"Cannot listen on {address}:{port}: {error}. Choose another --port or --address."
            ) from None
        self.stdout.write(f"serving {folder} at http://{address}:{server.server_port}/metrics")
        self.stdout.flush()
        _wait_for_the_end()
        server.shutdown()
        thread.join()


def _wait_for_the_end() -> None:
    over = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    over.wait()
