"""The main job as a person does it: start a run in the page, with real workers, and watch what it grows."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from apps.training.models import Seed, TrainingRun
from tests.e2e.conftest import Open
from tests.support.programs import RunningProgram
from tests.support.run_rows import make_user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ENDED = re.compile("fossilised|culled")
TRAINED = 120_000  # ms: the kernels are compiled, then 40 epochs are trained, on a busy machine


def test_a_run_started_in_the_page_grows_and_is_compared_with_its_control(
    open_window: Open, worker: Callable[..., RunningProgram]
) -> None:
    make_user("ada", role="operator")
    worker("compile")
    worker("train")
    visit = open_window()
    visit.log_in("ada")
    page = visit.page

    page.click("#start-run")
    page.fill("#id_name", "first-light")
    page.get_by_role("button", name="Start the run").click()
    page.wait_for_url("**/runs/*-*")

    expect(page.locator("#run-head .state")).to_have_text("completed", timeout=TRAINED)
    fates = page.locator("#run-aside .grew .state")
    expect(fates.first).to_have_text(ENDED, timeout=10_000)
    expect(page.locator("#run-aside .compare")).to_be_visible(timeout=TRAINED)
    visit.keep("grown-in-the-browser", full=True)

    run = TrainingRun.objects.get(name="first-light")
    assert run.state == "COMPLETED"
    assert fates.count() == Seed.objects.filter(run=run).count() > 0
