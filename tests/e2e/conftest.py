"""A real browser on a real web server. Pages that log an error to the console fail their test."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.tools import CHROMIUMS

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
SUPPORT = Path(__file__).parents[1] / "support"
ARTIFACTS = Path(__file__).parents[2] / "artifacts" / "screenshots"
PASSWORD = "correct horse"
COUNT_SHIFTS = """
window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
}).observe({type: "layout-shift", buffered: true});
"""


@dataclass
class Visit:
    """One browser window. ``complaints`` collects what the console and the page's scripts had to say."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def go(self, path: str) -> Page:
        self.page.goto(self.base + path)
        return self.page

    def log_in(self, username: str) -> None:
        self.go("/login")
        self.page.fill("#id_username", username)
        self.page.fill("#id_password", PASSWORD)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(f"{self.base}/runs")

    def keep(self, name: str, *, full: bool = False) -> None:
        """Keep a screenshot under artifacts/."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=full)

    def violations(self) -> list[str]:
        """Serious and critical findings of axe-core on the page as it is now."""
        if not self.page.evaluate("typeof window.axe === 'object'"):
            self.page.evaluate((SUPPORT / "axe" / "axe.min.js").read_text())
        result = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{found['id']}: {node['target']} {node['failureSummary']}"
            for found in result["violations"]
            if found["impact"] in {"serious", "critical"}
            for node in found["nodes"]
        ]

    def shifted(self) -> float:
        """Cumulative layout shift without the viewer's doing."""
        return float(self.page.evaluate("window.shifted"))

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


Open = Callable[..., Visit]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    executable = next(path for path in map(shutil.which, CHROMIUMS) if path)
    # Playwright's loop runs in this thread between its calls, which Django would take for async code.
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def open_window(browser: Browser, live_site: str) -> Iterator[Open]:
    """``open_window(width=390, theme="dark")`` opens a window on the live site; no page may complain on the console."""
    contexts: list[BrowserContext] = []
    visits: list[Visit] = []

    def start(*, width: int = 1440, height: int = 900, theme: str = "light") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
        context.add_init_script(COUNT_SHIFTS)
        page = context.new_page()
        visit = Visit(page=page, base=live_site)
        page.on("console", lambda message: message.type == "error" and visit.complaints.append(message.text))
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        contexts.append(context)
        visits.append(visit)
        return visit

    yield start
    for context in contexts:
        context.close()
    assert [complaint for visit in visits for complaint in visit.complaints] == []
