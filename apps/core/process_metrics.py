"""What processes count by themselves (requests, tasks), of all processes of a host together.

Each process writes into files of its own in ESPER_METRICS_DIR (prometheus_client's multiprocess mode), one that forks
into others; whoever is asked adds up all of them. What a dead process counted stays: a counter must not go back. A
process that gets the number of a dead one goes on with its files; those of one that counted nothing go with it, as
every command of `manage.py` leaves some. The folder is emptied only where all of a host starts: by `manage.py up`, and
at boot.

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
from prometheus_client.mmap_dict import MmapedDict
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
    """Of processes that are gone, remove the gauges that only a living one may tell, and files without any count."""
    files: dict[str, list[Path]] = {}
    for path in shared.glob("*_*.db"):
        files.setdefault(path.stem.rpartition("_")[2], []).append(path)
    for number, paths in files.items():
        if number.isdigit() and not _lives(int(number)):
            with contextlib.suppress(FileNotFoundError):  # another reader was faster
                mark_process_dead(int(number), str(shared))
            for path in filter(_is_empty, paths):
                path.unlink(missing_ok=True)


def _is_empty(file: Path) -> bool:
    """Whether nothing was counted there. One that cannot be read may hold counts."""
    try:
        return not any(value for _, value, _, _ in MmapedDict.read_all_values_from_file(str(file)))
    except BROKEN:
        return False


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
