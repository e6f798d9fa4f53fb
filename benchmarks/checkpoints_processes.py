"""The processes of the checkpoints' bench: one per system, each with a training of its own that goes on between saves.

    with serving("torch.save", work) as peer:
        peer.ask("full", 1)          # {"stall": seconds, "save": seconds, "restore": seconds, "bytes": written}

All live at the same time and are asked in turn, so that what the machine does meanwhile meets them alike. A restore is
made by a process that has just begun, with its libraries loaded and no memory used before: that is who restores.
"""

import multiprocessing
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

FROZEN_SHARE = 2 / 3
IN_PLACE = frozenset({"dcp", "dcp async"})
"""They restore into tensors that are there already: by the process that has them."""


@dataclass(frozen=True, slots=True)
class Work:
    """A trained state in a file, of a model of ``megabytes`` in float32; ``folder`` is where systems write."""

    megabytes: float
    precision: str
    state: Path
    folder: Path


class Peer:
    """A process that answers one question at a time."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, name: str, *arguments: Any) -> Any:
        """Raises RuntimeError: what went wrong there."""
        self._connection.send((name, arguments))
        try:
            is_answer, found = self._connection.recv()
        except EOFError:
            raise RuntimeError(f"the process ended when it was asked for {name}") from None
        if not is_answer:
            raise RuntimeError(found)
        return found


@contextmanager
def serving(make: Callable[..., Any], *arguments: Any) -> Iterator[Peer]:
    """A fresh process with what ``make(*arguments)`` returns: its methods are what it can be asked for."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments))
    process.start()
    theirs.close()
    try:
        yield Peer(ours)
    finally:
        ours.close()
        process.join(10)
        process.kill()


def _serve(connection: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    served = None
    while True:
        try:
            name, given = connection.recv()
        except EOFError:
            return
        try:
            served = served or make(*arguments)
            connection.send((True, getattr(served, name)(*given)))
        except Exception:
            connection.send((False, traceback.format_exc()))


class Trainer:
    """Makes the state that all begin with."""

    def train(self, work: Work, steps: int) -> dict[str, float]:
        import torch

        from benchmarks.checkpoints_training import Size, Training

        torch.set_num_threads(1)
        training = Training(Size.of(work.megabytes), work.precision)
        losses = [training.step() for _ in range(steps)]
        torch.save(training.state(), work.state)
        return {"first_loss": losses[0], "last_loss": losses[-1]}


class Keeper:
    """One system, and the training that it keeps."""

    def __init__(self, name: str, work: Work) -> None:
        import torch

        from benchmarks import checkpoints_systems as systems
        from benchmarks.checkpoints_training import Size, Training

        torch.set_num_threads(1)  # what it measures is not the training
        systems.quiet()
        self.systems = systems
        self.name = name
        self.precision = work.precision
        self.make = systems.SYSTEMS[name]
        self.root = work.folder / f"{work.precision}-{name}"
        self.training = Training(Size.of(work.megabytes), work.precision)
        self.training.load(torch.load(work.state))
        self.training.step()
        self.system: systems.System | None = None
        self.saved = 0

    def full(self) -> dict[str, float]:
        """The first save of a system that has just been made, and what it takes to restore it."""
        self.end()
        self.system = self.make(self.root)
        return self.save()

    def changed(self) -> dict[str, float]:
        """The next save, after a step that changed everything that is not frozen."""
        self.training.step()
        return self.save()

    def freeze(self) -> int:
        """Two thirds of the state change no more; how many bytes these are."""
        return sum(tensor.nbytes for tensor in self.training.freeze(FROZEN_SHARE))

    def save(self) -> dict[str, float]:
        if self.system is None:
            raise RuntimeError("there is no system yet: ask for a full save first")
        system, state, key = self.system, self.training.state(), f"step-{self.saved}"
        self.saved += 1
        before = system.size()
        begun = time.perf_counter()
        handle = system.begin(state, key)
        stalled = time.perf_counter()
        system.finish(handle)
        durable = time.perf_counter()
        size = system.size() - before
        raw = self.training.nbytes()
        return {
            "stall_ms_per_100mb": (stalled - begun) * 1e3 / (raw / 1e8),
            "save_mb_s": raw / 1e6 / (durable - begun),
            "restore_mb_s": raw / 1e6 / self.restore(key, state),
            "cold_restore_mb_s": raw / 1e6 / self.cold_restore(key, state),
            "mb": size / 1e6,
            "raw_mb": raw / 1e6,
        }

    def restore(self, key: str, state: dict[str, Any]) -> float:
        """Seconds until the tensors are there, from files that were just written."""
        if self.system is None:
            raise RuntimeError("there is no system yet: ask for a full save first")
        if self.name in IN_PLACE:
            seconds, digest = _restored(self.system, key)
        else:
            seconds, digest = _alone(self.name, self.root, key)
        if digest != self.systems.digest(state):
            raise RuntimeError("it restored another state than it saved")
        return seconds

    def cold_restore(self, key: str, state: dict[str, Any]) -> float:
        """The same from the disk, as after a restart of the machine: nothing of the files is in memory any more."""
        for path in self.root.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return self.restore(key, state)

    def end(self) -> None:
        if self.system is not None:
            self.system.close()
        shutil.rmtree(self.root, ignore_errors=True)


def _restored(system: Any, key: str) -> tuple[float, str]:
    from benchmarks import checkpoints_systems as systems

    begun = time.perf_counter()
    found = system.restore(key)
    return time.perf_counter() - begun, systems.digest(found)


def _alone(name: str, root: Path, key: str) -> tuple[float, str]:
    """By a process of its own, forked from one that has loaded the libraries and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.checkpoints_systems"])
    with context.Pool(1) as pool:
        return pool.apply(_restore_there, (name, root, key))


def _restore_there(name: str, root: Path, key: str) -> tuple[float, str]:
    import torch

    from benchmarks import checkpoints_systems as systems

    torch.set_num_threads(1)
    make = systems.SYSTEMS[name]
    with tempfile.TemporaryDirectory() as folder:  # what a library loads at its first use is no restoring
        first = make(Path(folder))
        first.finish(first.begin({"weight": torch.arange(100_000.0)}, "first"))
        first.restore("first")
    return _restored(make(root), key)


class Keepers:
    """One system in both precisions, one after the other: what is asked first is for whom."""

    def __init__(self, name: str, works: Mapping[str, Work]) -> None:
        self._name = name
        self._works = works
        self._keeper: Keeper | None = None

    def ask(self, precision: str, question: str, *arguments: Any) -> Any:
        if self._keeper is None or self._keeper.precision != precision:
            self._keeper = None  # its training's memory first
            self._keeper = Keeper(self._name, self._works[precision])
        return getattr(self._keeper, question)(*arguments)


class NamedFrozen(Keeper):
    """Ours, told which tensors are frozen: what a save costs then."""

    def __init__(self, work: Work) -> None:
        super().__init__("ours", work)
        self.root = work.folder / f"{work.precision}-named"

    def stalls(self, share: float, repeats: int) -> list[float]:
        """ms per 100 MB of the whole state."""
        from apps.checkpoints.adapter import System

        system = System(self.root)
        frozen = self.training.freeze(share)
        stalls = []
        for number in range(repeats + 1):
            begun = time.perf_counter()
            handle = system.begin(self.training.state(), f"step-{number}", frozen=frozen)
            stalls.append((time.perf_counter() - begun) * 1e3 / (self.training.nbytes() / 1e8))
            system.finish(handle)
        system.close()
        return stalls[1:]
