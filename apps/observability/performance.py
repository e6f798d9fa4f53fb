"""What runs are worth and what growing came to, in numbers. Runs are known to an app above this one: it registers
itself as the source, and what it tells is defined here.

    register(source)                      # in AppConfig.ready() of the app that has the runs
    source().adaptation(since, until)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from apps.observability.intervals import Mean, Share, Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class AgainstControl:
    """Grown networks against networks of the same size that were trained from the start: pairs of completed runs."""

    pairs: int
    accuracy_gain: Mean
    """Test accuracy of the grown one less that of its control."""
    compute_ratio: Spread
    """Training FLOPs of the grown one per those of its control."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Of the runs that were completed in the window: accuracies in 0..1, FLOPs of training, forward and backward."""

    runs: int
    test_accuracy: Spread
    accuracy_per_gflop: Spread
    parameters: Spread
    growth: Spread
    """Parameters in the end per those at the start."""
    against_control: AgainstControl


@dataclass(frozen=True, slots=True, kw_only=True)
class Fates:
    """What became of the seeds of one operator, or of one kernel, that ended in the window."""

    name: str
    kernel_id: UUID | None
    """None for an operator, and for a kernel that is not in the library."""
    ended: int
    kept: Share
    rolled_back: Share


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """Of the seeds that germinated, and of those that ended, in the window."""

    germinated: int
    ended: int
    fossilised: int
    culled: int
    cancelled: int
    rolled_back: int
    success: Share
    """Fossilised, of those that ended."""
    rollback: Share
    gain: Mean
    """Of those that were kept: nats per held-out sample by the last paired ablation."""
    epochs_to_fossilise: Spread
    seconds_to_fossilise: Spread
    operators: Sequence[Fates]
    kernels: Sequence[Fates]
    """Those that ended most often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """A running run whose held-out loss has stopped falling, that grows nothing, and has slots for seeds."""

    run_id: UUID
    name: str
    epochs: int
    """That were looked at."""
    slope: float
    """Of the held-out loss, nats an epoch, with its interval."""
    low: float
    high: float
    p: float
    free_slots: int
    obstacle: str
    """The setting that keeps it from growing, as a path in the settings; empty: none does."""


class Source(Protocol):
    """Who knows the runs. Both ends of a window are aware; ``until`` does not belong to it."""

    def efficiency(self, since: datetime, until: datetime) -> Efficiency: ...

    def adaptation(self, since: datetime, until: datetime) -> Adaptation: ...

    def plateaus(self) -> Sequence[Plateau]: ...


_sources: list[Source] = []


def register(source: Source) -> None:
    """``source`` is asked from now on."""
    _sources[:] = [source]


def source() -> Source:
    """Raises LookupError: none is registered."""
    if not _sources:
        raise LookupError("no app has registered itself as the one that knows the runs")
    return _sources[0]
