"""The life-cycle tables themselves, and the class that enforces them."""

import pytest

from apps.blueprints.lifecycle import VERSION_LIFECYCLE
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE
from apps.core.errors import InvalidTransition
from apps.core.lifecycle import Lifecycle
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.training.lifecycle import FINAL_RUN_STATES, RUN_LIFECYCLE, SEED_LIFECYCLE

TABLES = [VERSION_LIFECYCLE, KERNEL_LIFECYCLE, CHECKPOINT_LIFECYCLE, RUN_LIFECYCLE, SEED_LIFECYCLE]


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_state_can_be_reached_from_an_initial_one(table: Lifecycle) -> None:
    reached = set(table.initial)
    while grown := {target for source, target in table.edges if source in reached} - reached:
        reached |= grown

    assert reached == {state for edge in table.edges for state in edge} | table.initial


def test_a_refused_move_names_what_is_allowed() -> None:
    with pytest.raises(InvalidTransition, match="from RUNNING it can go to CANCELLED, COMPLETED"):
        RUN_LIFECYCLE.check("RUNNING", "QUEUED")


def test_a_completed_run_goes_nowhere_and_other_ended_ones_only_back_to_a_checkpoint() -> None:
    ways = {state: RUN_LIFECYCLE.transitions.get(state, frozenset()) for state in FINAL_RUN_STATES}

    assert ways == {"COMPLETED": frozenset(), "FAILED": {"RECOVERING"}, "CANCELLED": {"RECOVERING"}}


def test_nothing_but_benchmarking_or_a_restore_leads_to_validated() -> None:
    sources = {source for source, target in KERNEL_LIFECYCLE.edges if target == KernelState.VALIDATED}

    assert sources == {KernelState.BENCHMARKING, KernelState.RETIRED}
