"""What `/metrics` tells of growing: ends of seeds, how much grown networks differ, how old checkpoints are."""

import math
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.ids import first_id
from apps.kernels.lifecycle import KernelState
from apps.kernels.metrics import outcomes
from apps.morphogenesis.lifecycle import SeedState
from apps.training import growth_metrics
from apps.training.lifecycle import RunState
from apps.training.models import SeedTransition
from tests.support.factories import (
    CheckpointFactory,
    KernelFactory,
    RunFactory,
    SeedFactory,
    SeedTransitionFactory,
    SlotFactory,
)
from tests.support.families import told

pytestmark = pytest.mark.django_db
S = SeedState


def end(state: SeedState, *, days_ago: float = 0.0, **seed: Any) -> SeedTransition:
    """A seed that came into that state."""
    moved: Any = SeedTransitionFactory(seed=SeedFactory(**seed), source=S.EVALUATING, target=state)
    if days_ago:
        new = first_id(timezone.now() - timedelta(days=days_ago))
        SeedTransition.objects.filter(pk=moved.pk).update(id=new)
    return moved


class TestEnds:
    def test_rates_are_of_the_seeds_that_ended(self) -> None:
        for state in (S.FOSSILIZED, S.CULLED, S.CULLED, S.ROLLED_BACK, S.STABILIZING):
            end(state)

        found = told(growth_metrics.moves())

        assert found["esper_adaptations{outcome=CULLED}"] == 2
        assert found["esper_adaptation_success_ratio"] == 0.25
        assert found["esper_adaptation_rollback_ratio"] == 0.25

    def test_what_is_older_than_a_day_does_not_count(self) -> None:
        end(S.CULLED, days_ago=1.1)
        end(S.FOSSILIZED)

        assert told(growth_metrics.moves())["esper_adaptation_success_ratio"] == 1

    def test_without_ends_there_is_no_rate_and_counts_are_zero(self) -> None:
        found = told(growth_metrics.moves())

        assert "esper_adaptation_success_ratio" not in found
        assert found["esper_adaptations{outcome=FOSSILIZED}"] == 0

    def test_moves_are_told_by_operator_and_germinations_by_kernel(self) -> None:
        end(S.GERMINATED, operator="widen", kernel_name="wide")
        end(S.GERMINATED, operator="widen", kernel_name="wide")
        end(S.GERMINATED, operator="residual", kernel_name="")

        found = told(growth_metrics.moves())

        assert found["esper_seed_transitions{operator=widen}{state=GERMINATED}"] == 2
        assert found["esper_kernel_germinations{kernel=wide}"] == 2
        assert found["esper_kernel_germinations{kernel=unnamed}"] == 1


class TestDiversity:
    def grown(self, *kept: tuple[str, str], **run: Any) -> None:
        """A completed run that kept kernels of these blueprints at these sites."""
        made: Any = RunFactory(state=RunState.COMPLETED, **run)
        for number, (site, digest) in enumerate(kept):
            slot = SlotFactory(run=made, site=site)
            SeedFactory(run=made, slot=slot, number=number, state=S.FOSSILIZED, kernel_digest=digest, kernel_id=None)

    def test_networks_that_kept_the_same_are_not_diverse(self) -> None:
        self.grown(("a", "x"))
        self.grown(("a", "x"))

        assert told(growth_metrics.diversity())["esper_architecture_diversity"] == 0

    def test_networks_that_have_nothing_in_common_are_as_diverse_as_can_be(self) -> None:
        self.grown(("a", "x"))
        self.grown(("b", "y"))

        assert told(growth_metrics.diversity())["esper_architecture_diversity"] == pytest.approx(2)

    def test_what_was_not_kept_and_what_is_not_completed_does_not_count(self) -> None:
        self.grown(("a", "x"))
        run: Any = RunFactory(state=RunState.RUNNING)
        SeedFactory(run=run, state=S.FOSSILIZED)
        other: Any = RunFactory(state=RunState.COMPLETED)
        SeedFactory(run=other, state=S.CULLED)

        assert growth_metrics.architectures() == [frozenset({("a", "x")})]

    def test_a_kernel_counts_as_the_blueprint_that_it_was_made_of(self) -> None:
        kernel: Any = KernelFactory()
        run: Any = RunFactory(state=RunState.COMPLETED)
        seed: Any = SeedFactory(run=run, state=S.FOSSILIZED, kernel_id=kernel.pk)

        assert growth_metrics.architectures() == [frozenset({(seed.slot.site, kernel.blueprint_version.digest)})]

    def test_nothing_is_told_while_nothing_has_grown(self) -> None:
        assert told(growth_metrics.diversity()) == {}

    def test_entropy_is_a_share_of_the_greatest(self) -> None:
        uneven = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(2)

        assert growth_metrics.entropy(Counter(x=2, y=2, z=2)) == pytest.approx(1)
        assert growth_metrics.entropy(Counter(x=3, y=1)) == pytest.approx(uneven)

    def test_distance_is_the_mean_of_jaccards_over_all_pairs(self) -> None:
        one, other, third = frozenset("ab"), frozenset("bc"), frozenset("ab")

        assert growth_metrics.distance([one, other, third]) == pytest.approx((2 / 3 + 0 + 2 / 3) / 3)


class TestCheckpointAge:
    def saved(self, run: Any, seconds_ago: float, **changes: Any) -> None:
        made: Any = CheckpointFactory(run_id=run.pk, **changes)
        at = timezone.now() - timedelta(seconds=seconds_ago)
        Checkpoint.objects.filter(pk=made.pk).update(created_at=at)

    def test_it_is_of_the_running_run_that_was_not_saved_for_longest(self) -> None:
        one, other, ended = (
            RunFactory(state=state) for state in (RunState.RUNNING, RunState.RUNNING, RunState.COMPLETED)
        )
        self.saved(one, 50, step=2)
        self.saved(one, 900, step=1)
        self.saved(other, 300)
        self.saved(ended, 9000)

        assert told(growth_metrics.checkpoint_age())["esper_checkpoint_age_seconds"] == pytest.approx(300, abs=5)

    def test_a_run_that_was_never_saved_counts_from_its_start(self) -> None:
        run = RunFactory(state=RunState.RUNNING, started_at=timezone.now() - timedelta(seconds=70))
        self.saved(run, 10, state=CheckpointState.ABANDONED)

        assert told(growth_metrics.checkpoint_age())["esper_checkpoint_age_seconds"] == pytest.approx(70, abs=5)

    def test_without_running_runs_there_is_none(self) -> None:
        assert told(growth_metrics.checkpoint_age()) == {}


def test_compiling_fails_at_the_share_of_what_was_judged() -> None:
    for state in (KernelState.VALIDATED, KernelState.VALIDATED, KernelState.DEPRECATED, KernelState.REJECTED):
        KernelFactory(state=state)
    KernelFactory(state=KernelState.BENCHMARKING)

    assert told(outcomes())["esper_kernel_compile_failure_ratio"] == 0.25
