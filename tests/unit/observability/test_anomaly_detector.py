"""The detector of one stream: what it finds, what it passes over, what it says, and what it keeps."""

import json
import math
import random
import subprocess
import sys

import pytest

from apps.observability.anomalies import COMPONENTS, THRESHOLD, VERSION, StreamDetector

STEP = 300
PROBATION = 300


def gaussian(length, *, seed=3, mean=10.0, spread=1.0):
    chance = random.Random(seed)
    return [chance.gauss(mean, spread) for _ in range(length)]


def daily(length, *, seed=3):
    """High from 9 to 18 o'clock, with noise."""
    chance = random.Random(seed)
    return [(60 if 9 <= place * STEP / 3600 % 24 < 18 else 20) + chance.uniform(0, 3) for place in range(length)]


def alarms(values, *, detector=None, first=0):
    """{position: component} of the alarms."""
    detector = detector or StreamDetector(PROBATION)
    found = {}
    for place, value in enumerate(values, first):
        if detector.update(place * STEP, value) >= THRESHOLD:
            found[place] = detector.explain().component
    return found


def first_alarm(values, start):
    return next((place, name) for place, name in alarms(values).items() if place >= start)


# --- What it finds


def test_a_value_far_beyond_all_others_is_found_at_once():
    assert alarms([*gaussian(600), 30.0]) == {600: "extreme"}


@pytest.mark.parametrize("shift", [-4, 4])
def test_a_mean_that_moves_is_found_soon_and_by_how_it_moved(shift):
    detector = StreamDetector(PROBATION)
    alarms(gaussian(600), detector=detector)

    found = alarms(gaussian(5, seed=4, mean=10 + shift, spread=0.5), detector=detector, first=600)

    assert found
    assert detector.explain().components["shift"] > 0.3


def test_values_that_do_not_follow_on_each_other_as_ever_are_found():
    pattern = [1.0, 1.0, 5.0, 5.0, 9.0, 9.0, 5.0, 5.0]
    values = [pattern[place % 8] + noise for place, noise in enumerate(gaussian(800, mean=0, spread=0.05))]

    place, name = first_alarm([*values, *[1.0, 9.0] * 10], 800)

    assert place < 810
    assert name in {"sequence", "activity"}


def test_a_signal_that_freezes_is_found():
    place, name = first_alarm([*gaussian(800), *[10.2] * 40], 800)

    assert place < 830
    assert name == "activity"


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_a_few_values_that_hardly_move_are_nothing_odd(seed):
    calm = [10.1, 9.9] * 4

    assert alarms([*gaussian(800, seed=seed), *calm, *gaussian(40, seed=seed + 50)]) == {}


def test_a_day_that_is_not_like_other_days_is_found():
    values = daily(288 * 10)
    quiet_day = 288 * 8 + 108
    values[quiet_day : quiet_day + 108] = [20.0 + noise for noise in gaussian(108, mean=1.5, spread=0.5)]

    found = alarms(values)

    assert set(found.values()) == {"season"}
    assert quiet_day <= min(found) < quiet_day + 12


# --- What it passes over


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9, 1e150])
def test_a_constant_stream_is_quiet(value):
    assert alarms([value] * 2000) == {}


def test_of_noise_about_one_value_in_a_thousand_is_an_alarm_and_fewer_in_a_stream_without_end():
    noise = [gaussian(4000, seed=seed) for seed in range(4)]

    assert sum(len(alarms(values)) for values in noise) <= 16
    assert sum(len(alarms(values, detector=StreamDetector())) for values in noise) <= 4


def test_nothing_is_said_in_the_probation():
    assert alarms([*gaussian(200), 1e6, *gaussian(99)]) == {}


def test_a_heavy_tailed_stream_must_show_more_than_a_calm_one():
    chance = random.Random(6)
    heavy = [chance.paretovariate(1.5) for _ in range(3000)]
    peak = sorted(heavy)[-20]

    assert alarms([*gaussian(3000, spread=0.1), 10 + peak])
    assert 3000 not in alarms([*heavy, peak])


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_changes_nothing(missing):
    values = gaussian(400)
    plain, holed = StreamDetector(PROBATION), StreamDetector(PROBATION)
    for place, value in enumerate(values):
        plain.update(place, value)
        holed.update(place, value)
        assert holed.update(place, missing) == 0.0

    assert holed.to_state() == {**plain.to_state(), "odd": False}


def test_huge_values_are_numbers_to_it():
    chance = random.Random(8)
    detector = StreamDetector(20)

    scores = [detector.update(place, chance.choice([1.7e308, -1.7e308, 0, 1e-320])) for place in range(300)]

    assert all(0 <= score <= 1 for score in scores)
    json.dumps(detector.to_state(), allow_nan=False)


# --- After an alarm


def test_an_anomaly_that_goes_on_is_odd_but_no_second_alarm():
    detector = StreamDetector(PROBATION)
    assert alarms([*gaussian(600), 30.0], detector=detector)

    score = detector.update(601 * STEP, 30.0)

    assert score < THRESHOLD
    assert detector.odd


def test_after_the_refractory_period_the_next_anomaly_is_an_alarm():
    values = [*gaussian(600), 40.0, *gaussian(200, seed=4), 60.0]

    assert set(alarms(values)) >= {600, 801}


def test_one_long_anomaly_does_not_pass_for_usual():
    long = gaussian(40, seed=5, mean=30)
    values = [*gaussian(600), *long, *gaussian(400, seed=4), *gaussian(5, seed=6, mean=30)]

    found = alarms(values)

    assert any(place >= 1040 for place in found)


def test_scores_are_held_back_less_and_less():
    detector = StreamDetector(PROBATION, refractory=100)
    detector.quiet = 100

    held = [detector._damped(0.4) for _ in range(100)]

    assert held == sorted(held)
    assert held[0] == pytest.approx(0.12)
    assert held[-1] == pytest.approx(0.4, rel=0.05)


# --- What it says


def test_the_explanation_names_component_range_and_time():
    detector = StreamDetector(PROBATION)
    alarms([*gaussian(600), 30.0], detector=detector)

    why = detector.explain()

    assert why.component == "extreme"
    assert why.components["extreme"] == pytest.approx(0.6)
    assert 5 < why.expected_low < 9 < 11 < why.expected_high < 15
    assert why.text.startswith("30 is above everything seen in the last 2 d (")


def test_nothing_odd_is_nothing_to_explain():
    detector = StreamDetector(PROBATION)
    alarms([10.0] * 400, detector=detector)

    why = detector.explain()

    assert (why.component, why.components, why.text) == ("", {}, "")


def test_every_component_has_its_sentence():
    from apps.observability.anomalies.words import SENTENCES, sentence

    assert set(SENTENCES) == set(COMPONENTS)
    for name in COMPONENTS:
        assert "1.5" in sentence(name, 1.5, None, None, seconds=30)


# --- What it keeps


@pytest.mark.parametrize("at", [1, 10, 150, 299, 601, 602, 1200])
def test_a_state_goes_on_exactly_as_if_nothing_had_been(at):
    values = [*daily(600), 200.0, *daily(900, seed=9)]
    whole = StreamDetector(PROBATION)
    expected = [whole.update(place * STEP, value) for place, value in enumerate(values)]
    first = StreamDetector(PROBATION)
    for place, value in enumerate(values[:at]):
        first.update(place * STEP, value)

    kept = json.dumps(first.to_state(), sort_keys=True, allow_nan=False)
    second = StreamDetector.from_state(json.loads(kept))

    assert [second.update(place * STEP, value) for place, value in enumerate(values[at:], at)] == expected[at:]


def test_a_state_stays_small():
    chance = random.Random(2)
    detector = StreamDetector()
    for place in range(12_000):
        detector.update(place * 97.0, chance.gauss(0, 1) * chance.choice([1, 1, 1, 20]) + place % 700)

    assert len(json.dumps(detector.to_state())) < 10_000


@pytest.mark.parametrize(
    "state",
    [{}, [], None, "x", {"version": VERSION + 1}, {"version": VERSION}, {**StreamDetector(9).to_state(), "season": []}],
)
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ValueError, match="state"):
        StreamDetector.from_state(state)


def test_it_needs_neither_django_nor_a_setting():
    code = (
        "import sys; from apps.observability.anomalies import StreamDetector; StreamDetector().update(0.0, 1.0)\n"
        "assert not {'django', 'torch', 'scipy'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
