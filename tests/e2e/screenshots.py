"""Takes the pictures of docs/screenshots: every page at two widths and in both themes, over rows that fill it.

    python -m pytest tests/e2e/screenshots.py                 # all of them
    python -m pytest tests/e2e/screenshots.py -k cache        # those of one area

It is no test: pytest collects it only when it is named. ``<page>.png`` is 1440 px wide and light, ``<page>-dark.png``,
``<page>-phone.png`` and ``<page>-phone-dark.png`` are the others. Whoever takes them looks at each: is it healthy, what
grew and why, can I trust it, what breaks next?
"""

from pathlib import Path

import pytest

from apps.audit import services as audit
from apps.audit.models import AuditEvent
from apps.blueprints.services import load_starter_library
from apps.checkpoints.services.policies import create_policy
from apps.core.actors import SYSTEM, Actor, ActorKind
from apps.observability.lifecycle import AlertState
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, TrainingRun
from apps.training.services import create_run, stop_run
from tests.e2e import test_cache_in_browser, test_checkpoints_in_browser, test_library_in_browser
from tests.e2e.conftest import Open
from tests.support.alert_rows import watched_platform
from tests.support.run_rows import (
    STORIES,
    make_alert,
    make_anomaly,
    make_control,
    make_recordings,
    make_run,
    make_user,
)

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
WINDOWS = {
    "": (1440, 900, "light"),
    "-dark": (1440, 900, "dark"),
    "-phone": (390, 844, "light"),
    "-phone-dark": (390, 844, "dark"),
}

paths_of_cache = test_cache_in_browser.paths
paths_of_checkpoints = test_checkpoints_in_browser.paths
paths_of_library = test_library_in_browser.paths


def take(open_window: Open, pages: dict[str, str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for ending, (width, height, theme) in WINDOWS.items():
        visit = open_window(width=width, height=height, theme=theme)
        visit.log_in("ada")
        for name, path in pages.items():
            page = visit.go(path)
            page.wait_for_load_state("networkidle")
            page.screenshot(path=FOLDER / f"{name}{ending}.png")


def test_runs(open_window: Open, live_site: str) -> None:
    ada = make_user(role="admin")
    three = [make_run(name=f"digits-mlp-{seed}", seed=seed, owner=ada, seconds_per_epoch=9) for seed in range(3)]
    for run, accuracy in zip(three, (-0.011, -0.004, -0.008), strict=True):
        make_control(run, accuracy=accuracy)
    make_control(make_run(name="digits-narrow", seed=5, owner=ada, stories=STORIES[:1]), accuracy=0.006)
    make_run(name="spirals-lost", task="spirals", state=RunState.RECOVERING, done=22, owner=make_user("grace"))
    make_run(name="digits-too-fast", state=RunState.FAILED, done=6, failure="the loss is not a finite number")
    spiked = make_run(name="digits-mlp-spiked", seed=4, owner=ada, seconds_per_epoch=9)
    make_control(spiked, accuracy=0.002)
    _spike(spiked)
    growing = make_run(name="digits-mlp-growing", seed=6, state=RunState.RUNNING, done=27, owner=ada, silent_seconds=0)
    make_alert(growing, epoch=26, summary="Growing takes 7.1 % of the time of training, above 5 %")
    make_run(name="digits-next", seed=7, state=RunState.QUEUED, owner=ada)
    compared = "&".join(f"run={run.pk}" for run in [*three, spiked])
    take(
        open_window,
        {
            "runs": "/runs",
            "run": f"/runs/{spiked.pk}",
            "compare": f"/runs/compare?{compared}",
            "search": "/search?q=digits",
        },
    )


def _spike(run: TrainingRun) -> None:
    """Two epochs in which the loss jumped, what noticed it, and what the worker recorded."""
    EpochMetric.objects.filter(run=run, epoch=27).update(
        train_loss=0.62, validation_loss=0.71, validation_accuracy=0.81
    )
    EpochMetric.objects.filter(run=run, epoch=28).update(train_loss=0.24, validation_loss=0.3, validation_accuracy=0.92)
    make_recordings(run)
    make_anomaly(run, epoch=26.2, until=27.4, value=0.62, expected=(0.09, 0.15))
    make_alert(
        run, AlertState.RESOLVED, epoch=26.4, until=28.6,
        summary="The training loss jumped to 0.62, 21 times its usual spread above its median of 0.11",
    )  # fmt: skip


def test_library(open_window: Open, paths_of_library: dict[str, str]) -> None:
    names = {"library": "found", "kernel": "kernel", "versions": "diff", "retirement": "plan"}
    take(open_window, {name: paths_of_library[path] for name, path in names.items()})


def test_cache(open_window: Open, paths_of_cache: dict[str, str]) -> None:
    take(open_window, {"cache": paths_of_cache["now"]})


def test_checkpoints(open_window: Open, paths_of_checkpoints: dict[str, str]) -> None:
    names = {
        "checkpoints": "of-run",
        "checkpoint": "one",
        "checkpoint-diff": "diff",
        "restore": "restore",
        "recovery": "recovery",
    }
    take(open_window, {name: paths_of_checkpoints[path] for name, path in names.items()})


def test_audit(open_window: Open, live_site: str) -> None:
    ada = make_user(role="admin")
    person = Actor(kind=ActorKind.USER, id=ada.pk)
    load_starter_library(actor=SYSTEM)
    create_policy(actor=person, reason="the disk of the lab is small")
    for seed in range(2):
        run = create_run(settings={"task": "digits", "host": "mlp", "seed": seed}, name=f"digits-{seed}", actor=person)
    stop_run(run=run, actor=person, reason="the wrong seed")
    audit.write_report(report=audit.request_report(kind="access", parameters={}, actor=person))
    event = AuditEvent.objects.filter(subject_id=str(run.pk)).latest("id")
    take(open_window, {"audit": "/audit", "audit-proof": f"/audit/events/{event.pk}/proof"})


def test_alerts(open_window: Open, live_site: str) -> None:
    make_user(role="admin")
    run = make_run(name="digits-grown", state=RunState.RUNNING, done=0, stories=())
    found = watched_platform(run=run)
    take(
        open_window,
        {
            "alerts": "/alerts",
            "alert": f"/alerts/{found['disk_alert'].pk}",
            "anomalies": "/alerts/anomalies",
            "fleet": "/fleet",
        },
    )
