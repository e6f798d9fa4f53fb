"""The main paths without a mouse: log in, start a run, stop it."""

import re

import pytest
from django.db import transaction
from playwright.sync_api import Page, expect

from apps.audit import services as audit
from apps.core.actors import SYSTEM
from apps.training.models import TrainingRun
from tests.e2e.conftest import PASSWORD, Open
from tests.support.run_rows import make_user

pytestmark = pytest.mark.e2e


def test_a_run_is_started_and_stopped_with_the_keyboard_alone(open_window: Open) -> None:
    make_user("ada", role="operator")
    visit = open_window()
    page = visit.go("/login")

    page.keyboard.type("ada")
    page.keyboard.press("Tab")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"{visit.base}/runs")

    tab_to(page, "start-run")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_be_visible()
    tab_to(page, "id_name")
    page.keyboard.type("by-hand")
    page.keyboard.press("Enter")
    page.wait_for_url("**/runs/*-*")
    expect(page.locator("#run-head .state")).to_have_text("queued")

    tab_to(page, "run-stop")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("Will happen")
    tab_to(page, "reason")
    page.keyboard.type("only a test")
    page.keyboard.press("Enter")

    expect(page.locator("#run-head .state")).to_have_text("stopped")
    assert not page.evaluate("document.getElementById('dialog').open")
    assert TrainingRun.objects.get().state == "CANCELLED"


def test_escape_closes_the_dialog_and_changes_nothing(open_window: Open) -> None:
    make_user("ada", role="operator")
    visit = open_window()
    visit.log_in("ada")
    visit.page.click("#start-run")
    expect(visit.page.locator("dialog[open]")).to_be_visible()

    visit.page.keyboard.press("Escape")

    expect(visit.page.locator("dialog[open]")).to_have_count(0)
    assert visit.page.evaluate("document.activeElement.id") == "start-run"
    assert not TrainingRun.objects.exists()


def test_the_slash_key_leads_to_the_search(open_window: Open) -> None:
    make_user("ada", role="viewer")
    visit = open_window()
    visit.log_in("ada")

    visit.page.keyboard.press("/")

    assert visit.page.evaluate("document.activeElement.id") == "search"


def test_an_event_is_found_and_proven_with_the_keyboard_alone(open_window: Open) -> None:
    make_user("ada", role="operator")
    with transaction.atomic():
        audit.record(type="kernel.registered", subject=("kernel", "a-kernel"), actor=SYSTEM, reason="needle")
    audit.seal()
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/audit")

    tab_to(page, "id_q")
    page.keyboard.type("NEEDLE")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="kernel.registered", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Verify now").focus()
    page.keyboard.press("Enter")

    expect(page.locator("#proof .tone-good")).to_have_text("proven")
    expect(page).to_have_url(re.compile(r"/audit/events/[0-9a-f-]+$"))


def tab_to(page: Page, element: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(60):
        if page.evaluate("document.activeElement?.id") == element:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"#{element} cannot be reached with the Tab key")
