"""The default policy (Tamiyo): when to grow, and where with what. Every choice says what it saw and what it refused.

When: the training-loss average improves by less than 5 % over 150 steps (the trigger), or 30 % of the steps are done
(forced), and never outside the window of the settings. Once open, growth goes on seed by seed until the deadline.
Where and what: the best (site, kernel) by score = the kernel's prior gain minus its penalty for recent culls; ties by
the host's preferred operator, then by site. Reasons and measurements: docs/growth.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.morphogenesis.contracts import SiteContract
from apps.morphogenesis.monitors import Reading
from apps.morphogenesis.protocols import Action, KernelOffer, Refusal
from apps.morphogenesis.settings import GrowthSettings

CULL_PENALTY = 2.0
PENALTY_DECAY = 0.5
"""Per epoch."""
NEGLIGIBLE = 1e-3
MAX_REFUSALS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Growth is open: the rule that opened it, a sentence, and what was observed then."""

    rule: str
    reason: str
    observed: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the policy chooses from: open sites, and why each of the others is not (site -> reason)."""

    sites: Sequence[SiteContract]
    closed: Mapping[str, str]
    offers: Sequence[KernelOffer]
    parameters: int
    epochs_left: int
    epochs_needed: Mapping[str, int]
    """Operator -> epochs that its life cycle takes at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A kernel for a site, and the alternatives refused."""

    site: SiteContract
    offer: KernelOffer
    score: float
    refused: tuple[Refusal, ...]


class Policy:
    """Decides for one run. Its state goes into the snapshot."""

    def __init__(self, settings: GrowthSettings, *, planned_steps: int, preference: Sequence[str]) -> None:
        self._settings = settings
        self._planned_steps = planned_steps
        self._preference = {operator: rank for rank, operator in enumerate(preference)}
        self.opening: Opening | None = None
        self.germinated = 0
        self._penalties: dict[str, float] = {}
        self._barred: dict[str, str] = {}

    def wants_growth(self, reading: Reading, history: Sequence[tuple[int, float]]) -> bool:
        """Is it time? ``history`` holds (step, training-loss average) at the last checks."""
        share = reading.step / self._planned_steps
        inside = self._settings.window_start <= share <= self._settings.deadline
        if not (self._settings.enabled and inside and self.germinated < self._settings.max_seeds):
            return False
        if self.opening is None:
            self.opening = self._plateau(reading, history) or self._forced(share)
        return self.opening is not None

    def choose(self, situation: Situation) -> tuple[Choice | None, tuple[Refusal, ...]]:
        """The best candidate, or None and why every site was refused."""
        candidates: list[tuple[tuple[Any, ...], SiteContract, KernelOffer]] = []
        refused: list[Refusal] = [_refusal(site, "", reason) for site, reason in situation.closed.items()]
        for rank, site in enumerate(situation.sites):
            fitting = [offer for offer in situation.offers if _fits(offer, site)]
            if not fitting:
                refused.append(_refusal(site.name, "", f"no kernel of the library fits {_show(site)}"))
            for offer in fitting:
                reason = self._refuse(offer, site, situation)
                if reason:
                    refused.append(_refusal(site.name, offer.digest, reason))
                    continue
                preference = self._preference.get(site.operator, len(self._preference))
                candidates.append(((-self.score(offer), preference, rank, offer.name, offer.digest), site, offer))
        candidates.sort(key=lambda candidate: candidate[0])
        refused += [
            _refusal(site.name, offer.digest, f"ranked lower (score {self.score(offer):+.3f}, {site.operator})")
            for _, site, offer in candidates[1:]
        ]
        if not candidates:
            return None, tuple(refused[:MAX_REFUSALS])
        _, site, offer = candidates[0]
        choice = Choice(site=site, offer=offer, score=self.score(offer), refused=tuple(refused[:MAX_REFUSALS]))
        return choice, choice.refused

    def score(self, offer: KernelOffer) -> float:
        """Expected worth: prior gain in nats, minus the penalty for recent culls of this blueprint."""
        return offer.prior - self._penalties.get(offer.name, 0.0)

    def bar(self, digest: str, reason: str) -> None:
        """Never offer this kernel again in this run."""
        self._barred[digest] = reason

    def note_cull(self, name: str) -> None:
        """A seed of this blueprint was culled."""
        self._penalties[name] = self._penalties.get(name, 0.0) + CULL_PENALTY

    def end_epoch(self) -> None:
        """Penalties fade."""
        faded = {name: penalty * PENALTY_DECAY for name, penalty in self._penalties.items()}
        self._penalties = {name: penalty for name, penalty in faded.items() if penalty > NEGLIGIBLE}

    def state(self) -> dict[str, Any]:
        """JSON types only."""
        opening = self.opening
        return {
            "opening": None
            if opening is None
            else {"rule": opening.rule, "reason": opening.reason, "observed": dict(opening.observed)},
            "germinated": self.germinated,
            "penalties": dict(self._penalties),
            "barred": dict(self._barred),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self.opening = Opening(**state["opening"]) if state["opening"] else None
        self.germinated = state["germinated"]
        self._penalties = dict(state["penalties"])
        self._barred = dict(state["barred"])

    def _plateau(self, reading: Reading, history: Sequence[tuple[int, float]]) -> Opening | None:
        past = [entry for entry in history if entry[0] <= reading.step - self._settings.trigger_steps]
        if not past:
            return None
        step, average = past[-1]
        improvement = 1 - reading.average / average if average > 0 else 0.0
        if improvement >= self._settings.trigger_improvement:
            return None
        return Opening(
            rule="loss_plateau",
            reason=f"the training-loss average improved by {improvement:.1%} over {reading.step - step} steps, "
            f"less than {self._settings.trigger_improvement:.0%}",
            observed={"average": reading.average, "past_average": average, "improvement": improvement},
        )

    def _forced(self, share: float) -> Opening | None:
        if share < self._settings.forced_at:
            return None
        return Opening(
            rule="forced_deadline",
            reason=f"{share:.0%} of the steps are done and the loss has not levelled off: growth later would cost more "
            "than it gains",
            observed={"share": share, "forced_at": self._settings.forced_at},
        )

    def _refuse(self, offer: KernelOffer, site: SiteContract, situation: Situation) -> str | None:
        needed = situation.epochs_needed[site.operator]
        if offer.digest in self._barred:
            return self._barred[offer.digest]
        if situation.parameters + offer.parameters > self._settings.parameter_budget:
            return f"{situation.parameters + offer.parameters:,} parameters would be over the budget"
        if needed > situation.epochs_left:
            return f"it takes {needed} epochs to judge, and {situation.epochs_left} are left"
        return None


def _fits(offer: KernelOffer, site: SiteContract) -> bool:
    shapes = tuple(offer.input_shape), tuple(offer.output_shape)
    return offer.operator == site.operator and shapes == (site.input_shape, site.output_shape)


def _show(site: SiteContract) -> str:
    shapes = " -> ".join(f"[{', '.join(map(str, shape))}]" for shape in (site.input_shape, site.output_shape))
    return f"{site.operator} {shapes}"


def _refusal(site: str, kernel: str, reason: str) -> Refusal:
    return Refusal(action=Action.GERMINATE, site=site, kernel=kernel, reason=reason)
