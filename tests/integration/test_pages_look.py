"""What the pages are made of: contrasts of both themes, numbers as people read them, and geometry."""

import re
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

import pytest
from django.conf import settings

from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.dashboards import drawing, numbers
from apps.dashboards.stages import LOOKS
from apps.kernels.lifecycle import CachePlanState
from apps.morphogenesis.lifecycle import SeedState
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Severity
from apps.training.lifecycle import RecoveryState, RunState

STATIC = Path(settings.BASE_DIR) / "static"
TOKENS = (STATIC / "css" / "tokens.css").read_text()
STAGES = (
    "dormant", "germinated", "training", "grafting", "stabilizing", "evaluating", "fossilized", "culled", "cancelled",
    "rolled-back", "embargoed",
)  # fmt: skip
SERIES = tuple(f"series-{number}" for number in range(1, 9))
MARKS = (*STAGES, "good", "bad", "held", *SERIES, "anomaly", "alert", "control", "strong-line")


def theme(name: str) -> dict[str, str]:
    block = TOKENS.split(f'[data-theme="{name}"]', 1)[1].split("}", 1)[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("surface", ["bg", "panel", "sunken"])
def test_text_stands_out_from_every_surface(name: str, surface: str) -> None:
    colours = theme(name)

    assert min(contrast(colours[text], colours[surface]) for text in ("text", "muted", "accent")) >= 4.5


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("mark", MARKS)
def test_marks_stand_out_from_panels(name: str, mark: str) -> None:
    colours = theme(name)

    assert contrast(colours[mark], colours["panel"]) >= 3


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "embargoed"])
def test_words_on_lanes_can_be_read(name: str, stage: str) -> None:
    colours = theme(name)

    assert contrast(colours["on-stage"], colours[stage]) >= (3 if stage == "dormant" else 4)


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        ("run", RunState),
        ("seed", SeedState),
        ("cache_plan", CachePlanState),
        ("checkpoint", CheckpointState),
        ("checkpoint_job", JobState),
        ("recovery", RecoveryState),
        ("alert", AlertState),
        ("notification", NotificationState),
        ("severity", Severity),
    ],
)
def test_every_state_has_a_word_an_icon_and_a_tone(kind: str, states: type[StrEnum]) -> None:
    icons = set(re.findall(r'symbol id="(\w+)"', (STATIC / "icons.svg").read_text()))
    tones = set(re.findall(r"\.tone-([\w-]+) \{", (STATIC / "css" / "parts.css").read_text()))

    for state in states:
        look = LOOKS[kind][state]
        assert look.word
        assert look.icon in icons
        assert look.tone in tones


def test_templates_carry_no_inline_script_or_style() -> None:
    offending = re.compile(r"<style|<script(?![^>]* src=)| style=| on[a-z]+=", re.IGNORECASE)

    found = [
        str(path)
        for path in (Path(settings.BASE_DIR) / "templates").rglob("*.html")
        if offending.search(path.read_text())
    ]

    assert found == []


@pytest.mark.parametrize("library", ["htmx/htmx.min.js", "uplot/uPlot.iife.min.js", "uplot/uPlot.min.css"])
def test_vendored_files_are_the_ones_that_were_written_down(library: str) -> None:
    digest = sha256((STATIC / "vendor" / library).read_bytes()).hexdigest()

    assert digest in (STATIC / "vendor" / "VERSIONS.md").read_text()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.count(12345), "12,345"),
        (numbers.count(None), "—"),
        (numbers.signed(-3104), "−3,104"),
        (numbers.signed(0), "±0"),
        (numbers.percent(0.9612), "96.1\xa0%"),
        (numbers.percent(float("nan")), "—"),
        (numbers.points(-0.004), "−0.4\xa0pp"),
        (numbers.scaled(3.14e9, "FLOP"), "3.14\xa0GFLOP"),
        (numbers.size(2048), "2.0\xa0KiB"),
        (numbers.fixed(0.0412345), "0.0412"),
        (numbers.fixed(0.0000364), "0.000036"),
        (numbers.fixed(0), "0.0000"),
        (numbers.plain(2.4e-7), "2.4e−07"),
        (numbers.duration(3.2), "3.2\xa0s"),
        (numbers.duration(3840), "1\xa0h 04\xa0min"),
        (numbers.duration(-1), "—"),
        (numbers.latency(0.0123), "12.3\xa0µs"),
        (numbers.latency(3.14159), "3.14\xa0ms"),
        (numbers.latency(1234), "1.23\xa0s"),
        (numbers.latency(None), "—"),
        (numbers.seconds(0.0123), "12.3\xa0ms"),
        (numbers.seconds(1.234), "1.23\xa0s"),
        (numbers.seconds(240), "4\xa0min"),
        (numbers.seconds(None), "—"),
        (numbers.signed_size(-2048), "−2.0\xa0KiB"),
        (numbers.signed_size(0), "±0\xa0B"),
        (numbers.count(True), "—"),
    ],
)
def test_numbers_read_as_people_write_them(text: str, expected: str) -> None:
    assert text == expected


def test_a_gap_in_a_sparkline_stays_a_gap() -> None:
    assert len(drawing.polyline([0.1, 0.2, None, 0.3, 0.4], width=96, height=24)) == 2


def test_a_sparkline_of_equal_values_is_a_flat_line() -> None:
    (line,) = drawing.polyline([0.5, 0.5, 0.5], width=96, height=24)

    assert len({point.split(",")[1] for point in line.split()}) == 1


def test_intervals_share_one_scale_with_zero_and_rent_on_it() -> None:
    first, second, third = drawing.intervals(
        [(0.01, 0.02, 0.03, 0.005), (-0.03, -0.01, 0.0, 0.005), (None, None, None, 0.1)], width=200
    )

    assert first is not None
    assert second is not None
    assert third is None
    assert first.zero == second.zero
    assert second.low < second.zero < first.rent < first.low < first.high <= 196


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "just now"),
        (-4, "just now"),
        (59, "59 sec. ago"),
        (90, "1 min. ago"),
        (91, "2 min. ago"),
        (-90, "in 2 min."),
        (7200, "2 hr. ago"),
        (86_400, "1 day ago"),
        (5 * 86_400, "5 days ago"),
        (40 * 86_400, "1 mo. ago"),
        (800 * 86_400, "2 yr. ago"),
    ],
)
def test_ages_are_said_in_the_words_of_the_page_s_script(seconds: float, words: str) -> None:
    assert numbers.ago(seconds) == words
