"""The seed's life cycle table: every operator's path is made of its edges, and every edge leads somewhere."""

from itertools import pairwise

import pytest

from apps.morphogenesis.gates import GATES
from apps.morphogenesis.lifecycle import (
    LIVE_STATES,
    OPERATOR_PATHS,
    SEED_TRANSITIONS,
    Gate,
    SeedState,
    gate_between,
    next_state,
)


@pytest.mark.parametrize("operator", OPERATOR_PATHS)
def test_each_step_of_an_operators_path_is_guarded_by_a_gate(operator: str) -> None:
    path = OPERATOR_PATHS[operator]
    gates = [gate_between(source, target) for source, target in pairwise(path)]
    assert all(gate in GATES for gate in gates)


@pytest.mark.parametrize("state", SeedState)
def test_every_state_can_be_reached(state: SeedState) -> None:
    assert state in {transition.target for transition in SEED_TRANSITIONS}


@pytest.mark.parametrize("state", sorted(LIVE_STATES))
def test_every_live_state_can_be_left_without_passing_a_gate(state: SeedState) -> None:
    ways_out = {edge.target for edge in SEED_TRANSITIONS if edge.source is state and edge.gate is None}
    assert ways_out & {SeedState.CULLED, SeedState.CANCELLED}


@pytest.mark.parametrize("end", [SeedState.FOSSILIZED, SeedState.ROLLED_BACK])
def test_a_fossil_and_a_rolled_back_seed_stay_what_they_are(end: SeedState) -> None:
    assert not [edge for edge in SEED_TRANSITIONS if edge.source is end]


def test_no_edge_appears_twice() -> None:
    edges = [(edge.source, edge.target) for edge in SEED_TRANSITIONS]
    assert len(edges) == len(set(edges))


def test_a_widening_skips_incubation_and_ramp() -> None:
    assert next_state("widen", SeedState.GERMINATED) is SeedState.STABILIZING
    assert gate_between(SeedState.GERMINATED, SeedState.STABILIZING) is Gate.GW


def test_an_edge_that_the_table_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot go from DORMANT to FOSSILIZED"):
        gate_between(SeedState.DORMANT, SeedState.FOSSILIZED)


@pytest.mark.parametrize(
    ("operator", "state"), [("widen", SeedState.FOSSILIZED), ("widen", SeedState.GRAFTING), ("nonsense", "DORMANT")]
)
def test_there_is_nothing_after_the_end_of_a_path_or_off_it(operator: str, state: SeedState) -> None:
    with pytest.raises(ValueError, match="has no state after"):
        next_state(operator, state)
