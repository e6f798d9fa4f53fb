"""The ports of the engine: what it asks of the platform, and nothing else. ``training.runner`` implements them.

Every event carries ``sequence``, a counter that the engine keeps in its snapshots. A run resumed from a snapshot
repeats the events that came after it, bit for bit; a sink therefore ignores a sequence that it has already stored.
An event's ``epoch`` is the 1-based number of the epoch in which it fell, its ``step`` the steps trained before it. A
rollback of the governor turns both back; ``sequence`` never goes back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from apps.morphogenesis.lifecycle import Gate, SeedState


class KernelUnavailable(Exception):
    """The platform cannot give the kernel's bytes: not VALIDATED any more, quarantined, or its store is away."""


class RunFailed(Exception):
    """The run cannot go on: its loss diverges whatever the governor does, or its snapshot is not its own."""


class RunInterrupted(Exception):
    """This worker no longer owns the run (lease lost): stop at once, write nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelOffer:
    """One VALIDATED kernel of the run's frozen library snapshot.

    ``input_shape``/``output_shape`` are those of the bound spec, batch first as ``"N"``; free dimensions are symbols.
    ``prior`` is the mean gain in nats that field reports gave it (0 = neutral).
    """

    digest: str
    name: str
    operator: str
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    parameters: int
    prior: float = 0.0


class KernelSource(Protocol):
    """Where germination gets its kernels."""

    def offers(self) -> Sequence[KernelOffer]:
        """The run's library snapshot, always in the same order."""

    def load(self, digest: str) -> bytes:
        """The kernel's artefact, bytes whose sha256 is ``digest``. Raises KernelUnavailable."""


COMPONENTS = ("tolaria", "tamiyo", "kasmina")
"""What a run is made of: the training of the network, the policy and its journal, and what grows."""

EPOCH = "epoch"
END = "end"
"""Why the trainer itself saves: so many epochs are over; the run, its segment or its work until a pause is."""

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a run needs to go on bit-exactly: for each of ``COMPONENTS`` a tree of tensors and JSON types.

    The tensors are those that training goes on with: whoever keeps the snapshot copies them before its ``save``
    returns, except those whose ``id`` is in ``frozen``: to them nobody writes any more.

    ``epoch`` counts completed epochs, ``step`` steps trained. ``metrics`` is what was measured last, ``fingerprint``
    the blake3, in hex, of the logits of one pass: a restored network is known to be the same by it.
    """

    epoch: int
    step: int
    components: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    fingerprint: str = ""
    frozen: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What came of a snapshot that was put into a fresh network.

    ``fingerprint`` is that of the restored network. ``differences`` maps each tensor whose shape the fresh network did
    not have to (shape in the snapshot, shape in the fresh network); None where there is no such tensor.
    """

    snapshot: Snapshot
    fingerprint: str
    differences: Mapping[str, tuple[Shape | None, Shape | None]]
    restore_seconds: float
    validate_seconds: float


class CheckpointSink(Protocol):
    """Where snapshots go."""

    def due(self) -> str:
        """Why a snapshot should be taken now, or "". Asked after each step: it must cost microseconds."""

    def save(self, snapshot: Snapshot, reason: str) -> bool:
        """Take a snapshot; it need not be durable yet. False: it was not taken, since another is being stored.

        Raises RunInterrupted when the lease is lost."""

    def settle(self) -> bool:
        """Wait until the newest snapshot is durable. False: it could not be stored, and the run trains on meanwhile."""

    def latest(self) -> Snapshot | None:
        """The newest good snapshot, or None for a fresh run. Asked again, after one was refused by ``restored``."""

    def restored(self, restored: Restored) -> bool:
        """Told how the newest snapshot was restored. False: it is not what was saved, and another is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What one epoch measured. Losses in nats, accuracies in 0..1, FLOPs cumulative (forward and backward)."""

    sequence: int
    epoch: int
    step: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    parameters: int
    train_flops: int
    learning_rate: float
    live_seeds: Mapping[str, str] = field(default_factory=dict)
    """Site -> state of each slot that is not DORMANT, as the epoch was trained: its gates are met right after."""


class TelemetrySink(Protocol):
    """Where measurements go."""

    def epoch(self, record: EpochRecord) -> None: ...

    def reading(self, name: str, value: float) -> None:
        """One of ``READINGS`` has this value now. Called in the loop: it must cost microseconds, and never raise."""


READINGS = (
    "train_loss",
    "gradient_norm",
    "samples_per_second",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "parameters",
    "live_seeds",
    "overhead_ratio",
)
"""The first three after each check of the monitors, over the steps since the last; the others after each epoch.

``gradient_norm`` is the host's root mean square per parameter, ``overhead_ratio`` the seconds of growing per second of
training, told only where growth is enabled. A loss that is not finite is told as it is.
"""


class Action(StrEnum):
    """What the policy (Tamiyo) can decide."""

    GERMINATE = "GERMINATE"
    ADVANCE = "ADVANCE"
    FOSSILIZE = "FOSSILIZE"
    CULL = "CULL"
    CANCEL = "CANCEL"
    ROLLBACK = "ROLLBACK"
    HOLD = "HOLD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An alternative that was looked at and not taken, with the reason."""

    action: str
    site: str
    kernel: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision: what was observed, the rule that fired, what was refused. ``reason`` is a sentence for people."""

    sequence: int
    epoch: int
    step: int
    action: Action
    rule: str
    reason: str
    site: str = ""
    seed: int | None = None
    kernel: str = ""
    observed: Mapping[str, Any] = field(default_factory=dict)
    refused: Sequence[Refusal] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRecord:
    """One move of a seed along its life cycle, with the gate's measured values and thresholds.

    ``seed`` numbers the germinations of a run from 1; a seed's first record (DORMANT -> GERMINATED) names its kernel.
    """

    sequence: int
    epoch: int
    step: int
    seed: int
    site: str
    operator: str
    kernel: str
    source: SeedState
    target: SeedState
    reason: str
    gate: Gate | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, Any] = field(default_factory=dict)
    alpha: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GraftOutcome:
    """The ledger of a seed at its end: rent against gain (what a field report is made of).

    ``contribution`` and its bounds are nats per held-out sample, None when no ablation could be measured.
    """

    sequence: int
    epoch: int
    seed: int
    site: str
    kernel: str
    verdict: SeedState
    parameters: int
    train_flops: int
    loss_before: float
    loss_after: float
    contribution: float | None = None
    contribution_low: float | None = None
    contribution_high: float | None = None
    rent: float = 0.0
    accuracy_difference: float | None = None
    mcnemar_p: float | None = None


class DecisionLog(Protocol):
    """Where decisions, transitions and outcomes are kept, in the order in which they fall."""

    def decision(self, record: DecisionRecord) -> None: ...

    def transition(self, record: TransitionRecord) -> None: ...

    def outcome(self, record: GraftOutcome) -> None: ...


class Command(StrEnum):
    """What the outside wants of a run, asked at each step boundary."""

    CONTINUE = "CONTINUE"
    PAUSE = "PAUSE"
    STOP = "STOP"


class Control(Protocol):
    """The run's remote control. ``poll`` is called at each step boundary: it must cost microseconds."""

    def poll(self) -> Command:
        """Raises RunInterrupted when this worker has lost the run."""
