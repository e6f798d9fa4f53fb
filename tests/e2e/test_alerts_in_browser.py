"""The pages of alerts, anomalies and the fleet at two widths and in both themes; an alert acknowledged by keyboard."""

import pytest
from playwright.sync_api import expect

from apps.observability.models import Alert, Silence
from apps.training.lifecycle import RunState
from tests.e2e.conftest import Open
from tests.e2e.test_keyboard import tab_to
from tests.e2e.test_pages_in_browser import look_everywhere
from tests.support.alert_rows import watched_platform
from tests.support.run_rows import make_run, make_user

pytestmark = pytest.mark.e2e


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page, over a platform on which things happen."""
    make_user(role="admin")
    run = make_run(name="digits-grown", state=RunState.RUNNING, done=0, stories=())
    found = watched_platform(run=run, hours=2.0, every=60)
    return {
        "list": "/alerts",
        "one": f"/alerts/{found['disk_alert'].pk}",
        "anomalies": "/alerts/anomalies",
        "rules": "/alerts/rules",
        "routes": "/alerts/routes",
        "fleet": "/fleet",
    }


def test_the_pages_are_accessible_still_and_fit(open_window: Open, paths: dict[str, str]) -> None:
    assert look_everywhere(open_window, paths, area="alerts") == []


def test_charts_are_drawn_zoom_together_and_say_how_old_they_are(open_window: Open, paths: dict[str, str]) -> None:
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/fleet")
    expect(page.locator(".metric .u-over")).to_have_count(6)
    first = page.locator(".metric").first
    expect(first.locator(".age")).to_contain_text("newest")
    expect(first.locator(".legend output").first).to_contain_text("%")
    box = first.locator(".u-over").bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 34, steps=4)
    page.mouse.up()
    expect(page.locator("#reset-zoom")).to_be_visible()
    page.locator("#reset-zoom").click()
    expect(page.locator("#reset-zoom")).to_be_hidden()

    page.get_by_role("link", name="Disk used as a table").click()
    expect(page.locator("dialog[open]")).to_contain_text("gpu-1")


def test_an_alert_is_acknowledged_and_silenced_with_the_keyboard_alone(
    open_window: Open, paths: dict[str, str]
) -> None:
    alert = Alert.objects.get(rule_name="Disk is nearly full")
    visit = open_window()
    visit.log_in("ada")
    page = visit.go("/alerts")

    tab_to(page, f"ack-{alert.pk}")
    page.keyboard.press("Enter")
    expect(page.locator("dialog[open]")).to_contain_text("Will happen")
    tab_to(page, "note")
    page.keyboard.type("I look at it")
    page.keyboard.press("Enter")
    expect(page.locator(f"#a-{alert.pk}")).to_contain_text("acknowledged")
    expect(page.locator(".badge")).to_have_count(0)

    tab_to(page, f"silence-{alert.pk}")
    page.keyboard.press("Enter")
    expect(page.locator("#mutes")).to_contain_text("1 open alert")
    boxes = page.locator(".choices input")
    for place in range(boxes.count()):
        boxes.nth(place).focus()
        page.keyboard.press("Space")
    expect(page.locator("#mutes")).to_contain_text("nothing: tick at least one label")
    page.keyboard.press("Space")
    expect(page.locator("#mutes")).to_contain_text("1 open alert")
    tab_to(page, "id_comment")
    page.keyboard.type("the disk is swapped")
    page.keyboard.press("Enter")
    expect(page.locator(f"#a-{alert.pk}")).to_contain_text("Silenced: the disk is swapped")
    assert Silence.objects.filter(comment="the disk is swapped").count() == 1
