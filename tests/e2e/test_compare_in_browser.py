"""Runs laid over each other in a browser: chosen by ticks, drawn live, zoomed together; and what is odd about a run."""

import re

import pytest
from playwright.sync_api import expect

from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric
from tests.e2e.conftest import Open
from tests.support.run_rows import make_alert, make_anomaly, make_control, make_run, make_user

pytestmark = pytest.mark.e2e


def test_ticked_runs_are_compared_in_the_order_of_the_ticks_by_keyboard_alone(open_window: Open) -> None:
    make_user("ada")
    runs = [make_run(name=f"run-{number}", epochs=3, done=3, stories=()) for number in range(3)]
    visit = open_window()
    visit.log_in("ada")
    page = visit.page
    button = page.get_by_role("button", name="Compare")
    expect(button).to_be_disabled()

    for run in (runs[2], runs[0]):
        page.get_by_role("checkbox", name=f"Compare {run.name}").press("Space")
    button.press("Enter")

    page.wait_for_url(re.compile("/runs/compare"))
    assert page.url.endswith(f"?run={runs[2].pk}&run={runs[0].pk}")
    expect(page.get_by_role("heading", level=1)).to_have_text("2 runs compared")


def test_curves_are_zoomed_together_and_follow_the_runs(open_window: Open) -> None:
    make_user("ada")
    done, running = make_run(name="done", stories=()), make_run(name="running", state=RunState.RUNNING, done=10)
    make_control(done)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/compare?run={done.pk}&run={running.pk}")
    accuracy = page.locator("[data-chart=accuracy]")
    expect(accuracy.locator("output").nth(2)).not_to_have_text("—")

    EpochMetric.objects.create(
        run=running, epoch=11, step=440, validation_accuracy=0.4321, parameters=1, train_flops=10**9
    )
    expect(accuracy.locator("output").nth(1)).to_have_text("43.21 %", timeout=8000)
    box = page.locator("[data-chart=loss] .u-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 34, steps=4)
    page.mouse.up()

    assert re.search(r"from=(9\.|10)[^&]*&to=(19\.|20)", page.url)
    page.get_by_role("button", name="Reset the zoom").click()
    assert "from=" not in page.url


def test_a_line_can_be_put_away(open_window: Open) -> None:
    make_user("ada")
    runs = [make_run(name=name, epochs=4, done=4, stories=()) for name in ("one", "two")]
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/compare?run={runs[0].pk}&run={runs[1].pk}")
    expect(page.locator("#freshness-text")).to_contain_text("newest measurement")

    line = page.locator(".legend.lines").get_by_role("button", name="two")
    line.click()

    expect(line).to_have_attribute("aria-pressed", "false")


def test_what_is_odd_is_on_the_rail_and_leads_to_its_alert(open_window: Open) -> None:
    make_user("ada")
    run = make_run(epochs=20, stories=())
    make_anomaly(run, epoch=5, until=6)
    alert = make_alert(run, epoch=10)
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(f"/runs/{run.pk}")

    anomaly = page.get_by_role("link", name="Epoch 5, anomaly of esper_run_train_loss")
    anomaly.hover()
    expect(page.locator(".lane-tip")).to_contain_text("lies above everything of the last 300 values")
    page.get_by_role("link", name="Epoch 10, alert loss spike").press("Enter")

    expect(page).to_have_url(re.compile(f"/alerts/{alert.pk}$"))
