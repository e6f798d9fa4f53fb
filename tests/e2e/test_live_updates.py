"""An open run page follows its run: new epochs, new states, silence, and a server that goes away."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RunLease, TrainingRun
from tests.e2e.conftest import Open
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e


def add_epoch(run: TrainingRun, epoch: int, accuracy: float) -> None:
    EpochMetric.objects.create(
        run=run, epoch=epoch, step=epoch * 40, train_loss=0.1, validation_loss=0.2, validation_accuracy=accuracy,
        parameters=9000, train_flops=10**9, learning_rate=1e-3,
    )  # fmt: skip


def test_a_new_epoch_shows_without_a_reload(open_window: Open) -> None:
    make_user("ada")
    run = make_run(state=RunState.RUNNING, done=10)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/{run.pk}")
    expect(page.locator("#freshness-text")).to_contain_text("epoch 10 measured")

    add_epoch(run, 11, 0.7654)

    expect(page.locator("[data-column=validation_accuracy] output")).to_have_text("76.54 %")
    expect(page.locator("#freshness-text")).to_contain_text("epoch 11 measured")


def test_what_was_unfolded_stays_unfolded_when_the_state_changes(open_window: Open) -> None:
    make_user("ada")
    run = make_run(state=RunState.RUNNING, done=14)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/{run.pk}")
    page.locator("#decisions summary").first.click()

    run.state = RunState.PAUSED
    run.save()

    expect(page.locator("#run-head .state")).to_have_text("paused")
    expect(page.locator("#decisions details[open]")).to_have_count(1)


def test_a_silent_worker_is_told(open_window: Open) -> None:
    make_user("ada")
    run = make_run(state=RunState.RUNNING, done=10)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/{run.pk}")

    RunLease.objects.filter(run=run).update(expires_at=timezone.now() - timedelta(seconds=1))

    expect(page.locator("#run-head .health")).to_contain_text("no sign of life")
    expect(page.locator("#freshness-text")).to_contain_text("Stale")


def test_a_server_that_is_away_is_told_and_the_page_recovers(open_window: Open) -> None:
    make_user("ada")
    run = make_run(state=RunState.RUNNING, done=10)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/{run.pk}")
    expect(page.locator("#freshness-text")).to_contain_text("measured")

    page.route("**/live.json*", lambda route: route.abort())
    expect(page.locator("#freshness-text")).to_contain_text("The server does not answer")
    page.unroute("**/live.json*")

    expect(page.locator("#freshness-text")).to_contain_text("measured", timeout=10_000)
    visit.complaints.clear()  # the browser itself reports each refused request
