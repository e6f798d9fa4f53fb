"""Every page at two widths and in both themes: readable for all, still while it loads, silent on the console."""

import pytest
from django.db import transaction
from playwright.sync_api import expect

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.audit.watched import image
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.services import load_starter_library
from apps.core.actors import SYSTEM
from apps.kernels.models import Kernel
from apps.observability.lifecycle import AlertState
from apps.training.lifecycle import RunState
from tests.e2e.conftest import Open, Visit
from tests.support.run_rows import make_alert, make_anomaly, make_control, make_recordings, make_run, make_user

pytestmark = pytest.mark.e2e

STAGE = {
    "name": "determinism",
    "passed": True,
    "duration_ms": 2.064,
    "measured": {"digest": "ab" * 32, "repeated": "ab" * 32},
    "thresholds": {},
}
SIZES = {"wide": (1440, 900), "phone": (390, 844)}


@pytest.fixture
def paths(live_site: str) -> dict[str, str]:
    """Name -> path of every page, over rows that fill them."""
    ada = make_user(role="admin")
    done = make_run(name="digits-done", owner=ada)
    make_control(done)
    running = make_run(name="digits-running", state=RunState.RUNNING, done=17, owner=ada)
    make_anomaly(done, epoch=15.5, until=17)
    make_alert(done, AlertState.RESOLVED, epoch=16, until=18)
    make_alert(running, epoch=12)
    make_recordings(done)
    make_run(name="spirals-paused", task="spirals", state=RunState.PAUSED, done=14, gap=range(5, 8))
    make_run(name="digits-failed", state=RunState.FAILED, done=6, failure="its workers were lost 6 times")
    kernel = make_kernel()
    make_reports(kernel)
    event = AuditEvent.objects.filter(subject_id=str(kernel.pk)).latest("id")
    return {
        "runs": "/runs",
        "runs-none": "/runs?state=RECOVERING",
        "compare": f"/runs/compare?run={done.pk}&run={running.pk}",
        "compare-wrong": f"/runs/compare?run={done.pk}&run=nothing&run={running.pk}",
        "compare-one": f"/runs/compare?run={done.pk}",
        "start": "/runs/new",
        "run-done": f"/runs/{done.pk}",
        "run-running": f"/runs/{running.pk}",
        "stop": f"/runs/{running.pk}/stop",
        "table": f"/runs/{done.pk}/charts/loss",
        "library": "/library",
        "kernel": f"/library/kernels/{kernel.pk}",
        "checkpoints": "/checkpoints",
        "fleet": "/fleet",
        "audit": "/audit",
        "audit-found": f"/audit?family=kernel&subject_id={kernel.pk}",
        "audit-none": "/audit?q=nothing-has-this",
        "audit-wrong": "/audit?since=yesterday&actor=nobody-of-that-name",
        "audit-event": f"/audit/events/{event.pk}",
        "audit-proof": f"/audit/events/{event.pk}/proof",
        "reports": "/audit/reports",
        "reports-asking": "/audit/reports?ask=change",
        "search": "/search?q=digits",
    }


def make_reports(kernel: Kernel) -> None:
    """A signed one, and one that waits."""
    with transaction.atomic():
        audit.record(type="kernel.registered", subject=kernel, actor=SYSTEM, after=image(kernel))
    audit.write_report(report=audit.request_report(kind="access", parameters={}, actor=SYSTEM))
    audit.request_report(kind="provenance", parameters={"kernel": str(kernel.pk)}, actor=SYSTEM)


def make_kernel() -> Kernel:
    """A starter kernel that waits to be compiled."""
    version: BlueprintVersion = load_starter_library(actor=SYSTEM)[0]
    return Kernel.objects.create(
        blueprint_version=version,
        name=f"{version.blueprint.name}-v1-test",
        operator=version.operator,
        parameters=version.parameters,
        compat={"operator": version.operator, "input": ["N", 8], "output": ["N", 8]},
        bindings={"C": 8, "H": 8},
        report={"compile": {"stages": [STAGE]}},
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_page_is_accessible_still_and_fits(
    size: str, theme: str, open_window: Open, paths: dict[str, str]
) -> None:
    width, height = SIZES[size]
    visit = open_window(width=width, height=height, theme=theme)
    findings = _look(visit, "login", "/login", f"{size}-{theme}")
    visit.log_in("ada")

    for name, path in paths.items():
        findings += _look(visit, name, path, f"{size}-{theme}")

    assert findings == []


def look_everywhere(open_window: Open, paths: dict[str, str], *, area: str) -> list[str]:
    """What is wrong with the pages of an area, at both widths and in both themes."""
    findings: list[str] = []
    for size, (width, height) in SIZES.items():
        for theme in ("light", "dark"):
            visit = open_window(width=width, height=height, theme=theme)
            visit.log_in("ada")
            for name, path in paths.items():
                findings += _look(visit, f"{area}-{name}", path, f"{size}-{theme}")
    return findings


def _look(visit: Visit, name: str, path: str, suffix: str) -> list[str]:
    visit.go(path)
    if name.startswith("run-"):
        expect(visit.page.locator("#lanes a").first).to_be_attached()
    if name in {"compare", "compare-wrong"}:
        expect(visit.page.locator("#freshness-text")).to_contain_text("newest measurement")
    visit.keep(f"{name}-{suffix}")
    found = [f"{name}: {finding}" for finding in visit.violations()]
    if visit.shifted() >= 0.1:
        found.append(f"{name}: the layout shifted by {visit.shifted():.3f}")
    if visit.overflow() > 0:
        found.append(f"{name}: {visit.overflow()} px wider than its window")
    return found


def test_the_theme_that_was_chosen_stays(open_window: Open, paths: dict[str, str]) -> None:
    visit = open_window(theme="light")
    visit.log_in("ada")

    visit.page.get_by_role("button", name="Dark theme").click()
    visit.go("/library")

    assert visit.page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_zoom_scale_and_cursor_are_shared_by_all_charts_and_kept_in_the_address(
    open_window: Open, paths: dict[str, str]
) -> None:
    visit = open_window()
    visit.log_in("ada")
    page = visit.go(paths["run-done"])
    expect(page.locator("#lanes a").first).to_be_attached()
    plot = page.locator(".plot-loss .u-over")
    box = plot.bounding_box()
    assert box is not None

    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 30)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 34, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="log", exact=True).click()

    assert "from=10.0&to=20.0&loss=log" in page.url
    assert page.locator(".lanes .axis text", has_text="15").count() == 1
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 30)
    expect(page.locator("[data-column=validation_accuracy] output")).not_to_have_text("—")
    assert page.locator(".lanes .cursor").get_attribute("visibility") == "visible"

    plot.dblclick()
    expect(page).to_have_url(f"{visit.base}{paths['run-done']}?loss=log")
