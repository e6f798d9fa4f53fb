"""Which tests can run on this machine; the others are deselected, and one line says so with the remedy.

With ESPER_REQUIRE_TOOLS=1 (as in CI) a missing tool is a failure instead.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
NOTES = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class Need:
    """What the tests with a marker need, and how to get it; `required`: CI must have it."""

    marker: str
    present: Callable[[], bool]
    remedy: str
    required: bool


def _on_path(*names: str) -> bool:
    return any(map(shutil.which, names))


def _cuda() -> bool:
    if not Path("/dev/nvidiactl").exists():  # spares the import of torch on most machines
        return False
    import torch

    return torch.cuda.is_available()


NEEDS = (
    Need("e2e", lambda: _on_path(*CHROMIUMS), "a Chromium on PATH (Debian: apt-get install chromium)", required=True),
    Need(
        "promtool", lambda: _on_path("promtool"), "promtool on PATH (Debian: apt-get install prometheus)", required=True
    ),
    Need("gpu", _cuda, "a CUDA device and a CUDA build of PyTorch", required=False),
    Need("root", lambda: os.geteuid() == 0, "root, in a container or a virtual machine", required=False),
)


def deselect(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that can run here; campaigns only where `-m` asks for them.

    Raises:
        pytest.UsageError: a tool is missing and ESPER_REQUIRE_TOOLS is set.
    """
    missing: list[tuple[Need, int]] = []
    for need in NEEDS:
        count = sum(1 for item in items if item.get_closest_marker(need.marker))
        if count and not need.present():
            missing.append((need, count))
    required = [need.remedy for need, _ in missing if need.required]
    if required and os.environ.get("ESPER_REQUIRE_TOOLS") == "1":
        raise pytest.UsageError(f"ESPER_REQUIRE_TOOLS=1, and this machine lacks {'; '.join(required)}.")
    dropped = {need.marker for need, _ in missing}
    if "campaign" not in (config.option.markexpr or ""):
        dropped.add("campaign")
    removed = [item for item in items if any(item.get_closest_marker(marker) for marker in dropped)]
    if removed:
        config.hook.pytest_deselected(items=removed)
        items[:] = [item for item in items if item not in set(removed)]
    config.stash[NOTES] = [f"{count} {need.marker} tests not run: they need {need.remedy}" for need, count in missing]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for note in config.stash.get(NOTES, []):
        terminalreporter.write_line(note, yellow=True)
