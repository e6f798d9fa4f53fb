"""What a run remembers of each live seed and of each slot, as values that go into a snapshot."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from apps.morphogenesis.alpha import AlphaRamp
from apps.morphogenesis.evidence import Evidence
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.slots import Mode

KEPT_LOSSES = 512
RATIO_DECAY = 0.9

MODES: Mapping[SeedState, Mode] = {
    SeedState.GERMINATED: Mode.OFF,
    SeedState.TRAINING: Mode.SHADOW,
    SeedState.GRAFTING: Mode.GRAFT,
    SeedState.STABILIZING: Mode.GRAFT,
    SeedState.EVALUATING: Mode.GRAFT,
}
"""How a slot runs its live residual seed in each state."""


@dataclass(slots=True, kw_only=True)
class GradientRecord:
    """Seed/host gradient ratio (root mean square per parameter): moving average, peak, and whether all were finite.

    ``share`` is the size of the seed's output as a share of the activation that it is added to, at the last reading.
    """

    readings: int = 0
    ratio: float | None = None
    peak: float | None = None
    finite: bool = True
    share: float | None = None

    def note(self, ratio: float, share: float | None) -> None:
        """One reading."""
        finite = math.isfinite(ratio)
        self.share = share if share is not None and math.isfinite(share) else None
        self.readings += 1
        self.finite = self.finite and finite
        if finite:
            self.ratio = ratio if self.ratio is None else RATIO_DECAY * self.ratio + (1 - RATIO_DECAY) * ratio
            self.peak = max(ratio, self.peak or 0.0)


@dataclass(slots=True, kw_only=True)
class Seed:
    """One germination.

    ``flops`` are forward FLOPs per sample; ``start``/``count`` the units that a widening added; ``ramp`` the strength
    of a residual branch; ``losses`` the training losses since the seed began to stabilise; ``doom`` the reason of a
    planned cull while alpha ramps down; ``evidence`` the last paired ablation.
    """

    number: int
    site: str
    operator: str
    kernel: str
    name: str
    parameters: int
    flops: int
    loss_before: float
    state: SeedState
    state_step: int
    start: int = 0
    count: int = 0
    ramp: AlphaRamp | None = None
    gradients: GradientRecord = field(default_factory=GradientRecord)
    losses: list[float] = field(default_factory=list)
    train_flops: int = 0
    evidence: Evidence | None = None
    doom: str = ""

    @property
    def alpha(self) -> float:
        """The strength at which the seed takes part: a widening is merged at full strength."""
        if self.operator == "widen":
            return 1.0
        return self.ramp.value if self.ramp else 0.0

    @property
    def runs(self) -> bool:
        """Does a training step spend FLOPs on it?"""
        return self.operator == "widen" or MODES[self.state] is not Mode.OFF

    def enter(self, state: SeedState, step: int) -> None:
        """Move to another state; timers of the old one are over."""
        self.state, self.state_step, self.losses = state, step, []

    def note_losses(self, losses: tuple[float, ...]) -> None:
        self.losses = [*self.losses, *losses][-KEPT_LOSSES:]

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return {**asdict(self), "state": str(self.state)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        ramp, evidence = values["ramp"], values["evidence"]
        return cls(
            **{
                **values,
                "state": SeedState(values["state"]),
                "ramp": AlphaRamp.from_dict(ramp) if ramp else None,
                "gradients": GradientRecord(**values["gradients"]),
                "losses": list(values["losses"]),
                "evidence": Evidence(**evidence) if evidence else None,
            }
        )


@dataclass(slots=True, kw_only=True)
class Embargo:
    """A slot's rest after a cull: until the end of epoch ``until``; its seed is still to be cleared away."""

    until: int
    seed: Seed


@dataclass(slots=True, kw_only=True)
class SlotBook:
    """Which slots may not be used: locked for good by a rollback, or resting under an embargo."""

    locked: dict[str, str] = field(default_factory=dict)
    """Site -> why."""
    embargoed: dict[str, Embargo] = field(default_factory=dict)

    def refusal(self, site: str) -> str | None:
        """Why nothing may germinate at the site, or None."""
        if site in self.locked:
            return f"the slot is locked: {self.locked[site]}"
        if site in self.embargoed:
            return f"the slot is under embargo until epoch {self.embargoed[site].until}"
        return None

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        embargoed = {site: {"until": rest.until, "seed": rest.seed.to_dict()} for site, rest in self.embargoed.items()}
        return {"locked": dict(self.locked), "embargoed": embargoed}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        embargoed = {
            site: Embargo(until=entry["until"], seed=Seed.from_dict(entry["seed"]))
            for site, entry in values["embargoed"].items()
        }
        return cls(locked=dict(values["locked"]), embargoed=embargoed)
