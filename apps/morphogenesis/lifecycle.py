"""The seed life cycle as data (Kasmina): states, allowed transitions, the gate of each, and each operator's path.

One table, read by three parties: the engine moves seeds along it, ``training.models`` enforces it in the
database, the pages draw it. Imports nothing, so that the web process can read it without torch.
"""

from dataclasses import dataclass
from enum import StrEnum


class SeedState(StrEnum):
    """Where one germination stands. A slot that holds no seed is DORMANT."""

    DORMANT = "DORMANT"
    GERMINATED = "GERMINATED"
    TRAINING = "TRAINING"
    GRAFTING = "GRAFTING"
    STABILIZING = "STABILIZING"
    EVALUATING = "EVALUATING"
    FOSSILIZED = "FOSSILIZED"
    CULLED = "CULLED"
    CANCELLED = "CANCELLED"
    ROLLED_BACK = "ROLLED_BACK"
    EMBARGOED = "EMBARGOED"


class Gate(StrEnum):
    """The check that a transition must pass; a gate that could not measure does not pass."""

    G0 = "G0"  # germinate: kernel, contract, budget, function preserved at birth
    G1 = "G1"  # train: next epoch boundary
    G2 = "G2"  # graft: gradients healthy and the seed helps at full strength on held-out data
    GW = "GW"  # widen: function preserved, budget
    G3 = "G3"  # stabilise: alpha at its target, governor quiet
    G4 = "G4"  # evaluate: normalisation statistics and loss settled
    G5 = "G5"  # fossilise: paired ablation earns more than the rent


@dataclass(frozen=True, slots=True)
class SeedTransition:
    """One edge of the seed life cycle. ``gate`` is None for edges that evidence does not guard (cull, timers)."""

    source: SeedState
    target: SeedState
    gate: Gate | None = None


S = SeedState

SEED_TRANSITIONS: tuple[SeedTransition, ...] = (
    SeedTransition(S.DORMANT, S.GERMINATED, Gate.G0),
    SeedTransition(S.GERMINATED, S.TRAINING, Gate.G1),
    SeedTransition(S.GERMINATED, S.STABILIZING, Gate.GW),
    SeedTransition(S.TRAINING, S.GRAFTING, Gate.G2),
    SeedTransition(S.GRAFTING, S.STABILIZING, Gate.G3),
    SeedTransition(S.STABILIZING, S.EVALUATING, Gate.G4),
    SeedTransition(S.EVALUATING, S.FOSSILIZED, Gate.G5),
    *(SeedTransition(state, S.CANCELLED) for state in (S.GERMINATED, S.TRAINING)),
    *(
        SeedTransition(state, target)
        for state in (S.TRAINING, S.GRAFTING, S.STABILIZING, S.EVALUATING)
        for target in (S.CULLED, S.ROLLED_BACK)
    ),
    *(SeedTransition(state, S.EMBARGOED) for state in (S.CULLED, S.CANCELLED)),
    SeedTransition(S.EMBARGOED, S.DORMANT),
)

LIVE_STATES: frozenset[SeedState] = frozenset({S.GERMINATED, S.TRAINING, S.GRAFTING, S.STABILIZING, S.EVALUATING})

OPERATOR_PATHS: dict[str, tuple[SeedState, ...]] = {
    "residual": (S.DORMANT, S.GERMINATED, S.TRAINING, S.GRAFTING, S.STABILIZING, S.EVALUATING, S.FOSSILIZED),
    "widen": (S.DORMANT, S.GERMINATED, S.STABILIZING, S.EVALUATING, S.FOSSILIZED),
}


def gate_between(source: SeedState, target: SeedState) -> Gate | None:
    """The gate that guards ``source -> target``.

    Raises:
        ValueError: the table has no such transition.
    """
    for transition in SEED_TRANSITIONS:
        if (transition.source, transition.target) == (source, target):
            return transition.gate
    raise ValueError(f"a seed cannot go from {source} to {target}")


def next_state(operator: str, state: SeedState) -> SeedState:
    """The state that follows ``state`` on the operator's declared path.

    Raises:
        ValueError: the operator is unknown, or its path ends at (or never visits) ``state``.
    """
    path = OPERATOR_PATHS.get(operator, ())
    if state not in path[:-1]:
        raise ValueError(f"operator {operator!r} has no state after {state}")
    return path[path.index(state) + 1]
