"""Writes a run's events, numbered: one sequence over decisions, transitions, outcomes and epochs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from apps.morphogenesis.gates import Verdict
from apps.morphogenesis.lifecycle import SeedState, gate_between
from apps.morphogenesis.protocols import (
    Action,
    DecisionLog,
    DecisionRecord,
    EpochRecord,
    GraftOutcome,
    Refusal,
    TelemetrySink,
    TransitionRecord,
)
from apps.morphogenesis.seeds import Seed


class Journal:
    """The one writer of events. ``epoch`` (1-based) and ``step`` are where the run stands."""

    def __init__(self, decisions: DecisionLog, telemetry: TelemetrySink) -> None:
        self._decisions = decisions
        self._telemetry = telemetry
        self._sequence = 0
        self.epoch = 1
        self.step = 0
        self.counts: Counter[str] = Counter()
        """Decisions under "decisions", transitions under the name of the state they enter."""

    def decide(
        self,
        action: Action,
        *,
        rule: str,
        reason: str,
        seed: Seed | None = None,
        site: str = "",
        kernel: str = "",
        observed: Mapping[str, Any] | None = None,
        refused: Sequence[Refusal] = (),
    ) -> None:
        """Record a decision. A seed names its own site and kernel."""
        self.counts["decisions"] += 1
        self._decisions.decision(
            DecisionRecord(
                sequence=self._next(),
                epoch=self.epoch,
                step=self.step,
                action=action,
                rule=rule,
                reason=reason,
                site=seed.site if seed else site,
                seed=seed.number if seed else None,
                kernel=seed.kernel if seed else kernel,
                observed=observed or {},
                refused=refused,
            )
        )

    def move(self, seed: Seed, target: SeedState, *, reason: str, verdict: Verdict | None = None) -> None:
        """Record a transition of the seed and make it. Raises ValueError: the table has no such edge."""
        self._transition(seed, seed.state, target, reason, verdict)
        seed.enter(target, self.step)

    def measure(self, record_of: Mapping[str, Any]) -> None:
        """Record an epoch's measurements."""
        self._telemetry.epoch(EpochRecord(sequence=self._next(), epoch=self.epoch, step=self.step, **record_of))

    def settle(self, seed: Seed, *, loss_after: float, rent: float) -> None:
        """Record the ledger of a seed that has reached its end."""
        evidence = seed.evidence
        self._decisions.outcome(
            GraftOutcome(
                sequence=self._next(),
                epoch=self.epoch,
                seed=seed.number,
                site=seed.site,
                kernel=seed.kernel,
                verdict=seed.state,
                parameters=seed.parameters,
                train_flops=seed.train_flops,
                loss_before=seed.loss_before,
                loss_after=loss_after,
                rent=rent,
                contribution=evidence.contribution if evidence else None,
                contribution_low=evidence.low if evidence else None,
                contribution_high=evidence.high if evidence else None,
                accuracy_difference=evidence.accuracy_difference if evidence else None,
                mcnemar_p=evidence.mcnemar_p if evidence else None,
            )
        )

    def state(self) -> dict[str, Any]:
        """JSON types only."""
        return {"sequence": self._sequence, "counts": {str(name): count for name, count in self.counts.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave."""
        self._sequence = state["sequence"]
        self.counts = Counter(state["counts"])

    def _transition(
        self, seed: Seed, source: SeedState, target: SeedState, reason: str, verdict: Verdict | None
    ) -> None:
        gate = gate_between(source, target)
        assert gate == (verdict.gate if verdict else None), f"{source} -> {target} passed {verdict} instead of {gate}"
        self.counts[target] += 1
        self._decisions.transition(
            TransitionRecord(
                sequence=self._next(),
                epoch=self.epoch,
                step=self.step,
                seed=seed.number,
                site=seed.site,
                operator=seed.operator,
                kernel=seed.kernel,
                source=source,
                target=target,
                reason=reason,
                gate=gate,
                measured=verdict.measured if verdict else {},
                thresholds=verdict.thresholds if verdict else {},
                alpha=seed.alpha,
            )
        )

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence
