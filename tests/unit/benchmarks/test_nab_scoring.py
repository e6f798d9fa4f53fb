"""The score of the Numenta Anomaly Benchmark, against values worked out by hand."""

import math

import numpy as np
import pytest

from benchmarks import anomalies_scoring as scoring

LENGTH = 1000
WINDOW = (500, 599)


def alarms_at(*places):
    scores = np.zeros(LENGTH)
    scores[list(places)] = 1.0
    return scores


def raw(*places, windows=(WINDOW,)):
    return scoring.raw_score(scoring.mark(LENGTH, windows), alarms_at(*places), 0.5)


def by_hand(position):
    return 2 / (1 + math.exp(5 * position)) - 1


def test_no_alarm_at_all_is_0_and_every_left_edge_is_100():
    marked = scoring.mark(LENGTH, [WINDOW, (800, 899)])

    assert scoring.standard([marked], [alarms_at()], 0.5) == 0
    assert scoring.standard([marked], [alarms_at(500, 800)], 0.5) == pytest.approx(100)


def test_a_hit_is_worth_less_the_later_it_comes():
    assert raw(500) == pytest.approx(1.0)
    assert raw(550) == pytest.approx(by_hand(-0.5) / by_hand(-1.0))
    assert raw(599) == pytest.approx(by_hand(-0.01) / by_hand(-1.0))
    assert by_hand(-0.5) == pytest.approx(0.84828, abs=1e-5)


def test_of_several_alarms_in_a_window_the_first_counts():
    assert raw(520, 560, 590) == raw(520)


def test_a_missed_window_costs_one():
    assert raw() == -1
    assert raw(windows=[WINDOW, (800, 899)]) == -2


def test_an_alarm_before_any_window_costs_its_whole_weight():
    assert raw(300) == pytest.approx(-1 - 0.11)


def test_an_alarm_behind_a_window_costs_more_the_further_it_is():
    assert raw(600) == pytest.approx(-1 + 0.11 * by_hand(1 / 99))
    assert raw(649) == pytest.approx(-1 + 0.11 * by_hand(50 / 99))
    assert raw(950) == pytest.approx(-1 - 0.11)


def test_the_first_15_percent_are_not_scored():
    assert raw(149) == -1
    assert raw(150) == pytest.approx(-1.11)
    assert [scoring.probation(length) for length in (1000, 4032, 22_695)] == [150, 604, 750]


def test_a_window_at_the_beginning_is_scored_where_it_is_not_of_the_probation():
    marked = scoring.mark(LENGTH, [(100, 199)])

    assert marked.windows == 1
    assert scoring.raw_score(marked, alarms_at(120, 180), 0.5) == pytest.approx(by_hand(-0.2) / by_hand(-1.0))


def test_the_best_threshold_gives_the_score_that_every_threshold_is_compared_by():
    chance = np.random.default_rng(5)
    marked = [scoring.mark(LENGTH, [WINDOW]), scoring.mark(LENGTH, [(300, 340), (800, 850)])]
    scores = [chance.random(LENGTH).round(2) ** 4 for _ in marked]
    scores[0][510] = scores[1][310] = 0.98

    found = scoring.best_threshold(marked, scores)

    every = sorted({0.0, 1.1, *scores[0].tolist(), *scores[1].tolist()})
    best = max(scoring.standard(marked, scores, threshold) for threshold in every)
    assert scoring.standard(marked, scores, found) == pytest.approx(best)


def test_streams_without_windows_have_no_score_of_their_own_but_cost():
    quiet = scoring.mark(LENGTH, [])

    assert scoring.standard([quiet], [alarms_at(300)], 0.5) is None
    both = scoring.standard([quiet, scoring.mark(LENGTH, [WINDOW])], [alarms_at(300), alarms_at(500)], 0.5)
    assert both == pytest.approx(100 * (2 - 0.11) / 2)
