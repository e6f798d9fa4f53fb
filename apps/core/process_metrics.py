"""What processes count by themselves (requests, tasks), of all processes of a host together.

Each process writes into files of its own in ESPER_METRICS_DIR (prometheus_client's multiprocess mode), one that forks
into others; whoever is asked adds up all of them. What a dead process counted stays: a counter must not go back. A
process that gets the number of a dead one goes on with its files. The folder is emptied only where all of a host
starts: by `manage.py up`, and at boot.

Without the folder, each process tells what it has counted itself.
"""

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import structlog
from prometheus_client import REGISTRY
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

log = structlog.get_logger(__name__)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""What prometheus_client reads when it is imported first; the settings set it from ESPER_METRICS_DIR."""
BROKEN = (struct.error, RuntimeError, ValueError, OSError)


def folder() -> Path | None:
    """Where the processes of this host write; None: each for itself."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


def counted() -> Iterator[Metric]:
    """What all processes of this host counted, or this one alone."""
    shared = folder()
    if shared is None:
        yield from REGISTRY.collect()
        return
    forget_dead(shared)
    files = [str(path) for path in sorted(shared.glob("*.db"))]
    try:
        yield from _merged(files)
    except BROKEN:
        yield from _merged([file for file in files if _is_whole(file)])


def forget_dead(shared: Path) -> None:
    """Remove the gauges that only a living process may tell, of those that are gone."""
    for number in {path.stem.rpartition("_")[2] for path in shared.glob("gauge_live*_*.db")}:
        if number.isdigit() and not _lives(int(number)):
            with contextlib.suppress(FileNotFoundError):  # another reader was faster
                mark_process_dead(int(number), str(shared))


def _merged(files: list[str]) -> Iterable[Metric]:
    return list(MultiProcessCollector.merge(files))


def _is_whole(file: str) -> bool:
    """A file that is being made now, or that a full disk cut, must not hide the others."""
    try:
        _merged([file])
    except BROKEN as error:
        log.warning("process_metrics_unreadable", file=file, error=str(error))
        return False
    return True


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True
