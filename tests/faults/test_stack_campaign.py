"""Campaign: `kill -9` of the supervisor at many moments of its life; the suite holds a few of these moments."""

import os
import random
import signal
import threading
from pathlib import Path

import pytest

from esper_site.embedded.process import wait_for
from tests.support.up import Up

SEED = int(os.environ.get("ESPER_CAMPAIGN_SEED", "0"))
KILLS = int(os.environ.get("ESPER_CAMPAIGN_KILLS", "40"))
LIFETIME = 4.0  # seconds: from the first instruction to well after everything is ready


def kill_after(home: Path, seconds: float) -> None:
    """Start everything, kill the supervisor at that moment, and see that nothing is left."""
    with Up(home) as up:
        threading.Event().wait(seconds)
        up.interrupt(signal.SIGKILL)
        assert wait_for(lambda: not up.survivors(), seconds=20), (seconds, up.survivors())


def start_and_stop(home: Path) -> None:
    with Up(home, "--only", "none") as up:
        up.wait_until_ready()
        assert up.interrupt() == 0


@pytest.mark.parametrize("seconds", [0.05, 0.4])
def test_killed_while_it_starts_it_leaves_nothing_and_starts_again(home: Path, seconds: float) -> None:
    kill_after(home, seconds)
    start_and_stop(home)


@pytest.mark.campaign
def test_killed_at_any_moment_it_leaves_nothing_and_starts_again(home: Path) -> None:
    moments = random.Random(SEED)
    for _ in range(KILLS):
        kill_after(home, moments.uniform(0, LIFETIME))
        start_and_stop(home)
