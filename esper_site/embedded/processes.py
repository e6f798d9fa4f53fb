"""The platform's own processes, as data: web, one worker a queue, and beat."""

import os
import sys
from collections.abc import Mapping

from esper_site.embedded.home import REPOSITORY
from esper_site.embedded.process import Program

# Queue -> the pool that suits it. `train` and `compile` compute with torch, which must not run in a process that forks
# or beside other threads: one child of their own, one task at a time. `default` only waits for others: threads.
POOLS: dict[str, tuple[str, ...]] = {
    "default": ("--pool=threads", "--concurrency=4"),
    "train": ("--pool=prefork", "--concurrency=1"),
    "compile": ("--pool=prefork", "--concurrency=1"),
}
WORKERS = tuple(POOLS)
NAMES = ("web", *WORKERS, "beat")

KEEP_SECONDS = "60"
"""How long a thread of the web server keeps its connection to the database."""

WORKER_READY = r"@\S+ ready\."
WORKER_PATIENCE = 20.0  # seconds: a task may finish its step and hand back its lease


def web(environment: Mapping[str, str], port: int) -> Program:
    """The application server; ready when `/healthz` answers, which the caller asks."""
    command = (
        *(sys.executable, "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--blocking-threads", "4", "--no-ws", "--workers-kill-timeout", "5"),
        "esper_site.wsgi:application",
    )
    kept = {"ESPER_DB_KEEP_SECONDS": KEEP_SECONDS} | dict(environment)
    return Program(name="web", command=command, environment=_unbuffered(kept), folder=REPOSITORY)


def worker(queue: str, environment: Mapping[str, str], *, host: str | None = None) -> Program:
    """The Celery worker of one queue; `host` makes its name unique where several share a broker."""
    command = (
        *_celery("worker"),
        *(f"--queues={queue}", f"--hostname={queue}@{host or '%h'}", "--loglevel=INFO", *POOLS[queue]),
        # Workers here need no gossip or start-up synchronisation with each other; both delay the start by a second.
        *("--without-gossip", "--without-mingle"),
    )
    return Program(
        name=queue,
        command=command,
        environment=_unbuffered(environment),
        folder=REPOSITORY,
        patience=WORKER_PATIENCE,
        ready_pattern=WORKER_READY,
    )


def beat(environment: Mapping[str, str]) -> Program:
    """The scheduler, with its schedule in the database."""
    command = (
        *_celery("beat"),
        *("--loglevel=INFO", "--scheduler=django_celery_beat.schedulers:DatabaseScheduler", "--pidfile="),
    )
    return Program(name="beat", command=command, environment=_unbuffered(environment), folder=REPOSITORY)


def manage(environment: Mapping[str, str], *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a `manage.py` command."""
    return [sys.executable, str(REPOSITORY / "manage.py"), *arguments], _unbuffered(environment)


def _celery(command: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "--quiet", "--app=esper_site.celery:app", command)


def _unbuffered(environment: Mapping[str, str]) -> dict[str, str]:
    settings = {"DJANGO_SETTINGS_MODULE": os.environ.get("DJANGO_SETTINGS_MODULE", "esper_site.settings.dev")}
    return settings | dict(environment) | {"PYTHONUNBUFFERED": "1"}
