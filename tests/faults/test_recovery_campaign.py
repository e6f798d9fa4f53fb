"""Long: kill -9 of the train worker again and again in one run, at seeded random moments; the weights are the same."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from tests.faults.test_run_faults import SHORT_LEASE, in_state, kill, make_run, reached, recovered
from tests.support.waiting import wait_until

__all__ = ["make_run"]

KILLS = 20


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_twenty_random_kills_do_not_change_the_weights(
    make_run: Callable[..., TrainingRun], worker: Callable[..., Any]
) -> None:
    moments = random.Random(20).sample(range(2, 100), KILLS)
    worker("compile")
    victim = worker("train", **SHORT_LEASE)
    undisturbed = make_run(epochs=120)
    wait_until(lambda: in_state(undisturbed, RunState.COMPLETED), seconds=300)

    killed = make_run(epochs=120)
    for epoch in sorted(moments):
        wait_until(lambda epoch=epoch: reached(killed, epoch), seconds=120)  # type: ignore[misc]
        kill(victim)
        wait_until(lambda: recovered(killed), seconds=30)
        victim = worker("train", **SHORT_LEASE)
    wait_until(lambda: in_state(killed, RunState.COMPLETED), seconds=120)

    assert killed.result["weights_digest"] == undisturbed.result["weights_digest"]
    assert killed.result["topology_digest"] == undisturbed.result["topology_digest"]
