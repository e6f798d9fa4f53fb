"""The risk of a kernel: what outcomes do to it, and that its probabilities are to be believed."""

from dataclasses import dataclass

import numpy as np
import pytest

from apps.kernels import risk
from apps.kernels.risk import Outcomes, assess


def test_without_outcomes_anything_is_possible() -> None:
    assessed = assess(Outcomes(0, 0))

    assert assessed.value == pytest.approx(0.5, abs=0.01)
    assert assessed.confidence < 0.05


def test_failures_raise_the_risk_and_grafts_that_were_kept_lower_it() -> None:
    risks = [assess(Outcomes(failed, 10 - failed)).value for failed in range(11)]

    assert risks == sorted(risks)
    assert risks[0] < 0.1 < 0.9 < risks[-1]


def test_more_outcomes_of_one_rate_give_more_confidence() -> None:
    confidences = [assess(Outcomes(number, number)).confidence for number in (1, 4, 16, 64)]

    assert confidences == sorted(confidences)
    assert confidences[-1] > 0.8


def test_a_new_kernel_starts_near_siblings_that_agree() -> None:
    agreeing = assess(Outcomes(0, 0), [Outcomes(16, 4)] * 12)
    differing = assess(Outcomes(0, 0), [Outcomes(20, 0), Outcomes(0, 20)] * 6)

    assert agreeing.value == pytest.approx(0.8, abs=0.03)
    assert agreeing.confidence > 0.6
    assert differing.confidence < 0.2


def test_its_own_outcomes_win_over_its_siblings_in_the_end() -> None:
    siblings = [Outcomes(8, 2)] * 10

    few, many = (assess(Outcomes(0, number), siblings).value for number in (2, 200))

    assert few > 0.5
    assert many < 0.15


def test_the_value_lies_in_its_interval() -> None:
    for failed, kept in ((0, 0), (0, 40), (40, 0), (3, 5)):
        assessed = assess(Outcomes(failed, kept))
        assert 0 <= assessed.low <= assessed.value <= assessed.high <= 1


def test_the_order_of_siblings_does_not_matter() -> None:
    siblings = [Outcomes(1, 5), Outcomes(4, 0), Outcomes(2, 2)]

    assert assess(Outcomes(1, 1), siblings).value == pytest.approx(assess(Outcomes(1, 1), siblings[::-1]).value)


@dataclass(frozen=True)
class Simulation:
    """Kernels with known failure rates: what was predicted of each, and whether its next graft failed."""

    rates: "np.ndarray"
    predicted: "np.ndarray"
    unpooled: "np.ndarray"
    covered: "np.ndarray"

    def brier(self, predictions: "np.ndarray") -> float:
        """Expected over the next graft, so that only the predictions vary."""
        return float(np.mean((predictions - self.rates) ** 2 + self.rates * (1 - self.rates)))

    def calibration_error(self, predictions: "np.ndarray") -> float:
        """Expected calibration error over ten bins (Naeini et al. 2015), against the true rates."""
        bins = np.minimum((predictions * 10).astype(int), 9)
        return sum(
            float(np.mean(bins == index)) * abs(predictions[bins == index].mean() - self.rates[bins == index].mean())
            for index in np.unique(bins)
        )


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    """200 blueprints of 4 kernels with 1 to 11 outcomes each; neither mean nor spread of the rates is on the grid."""
    generator = np.random.default_rng(20_061)
    rates, predicted, unpooled, covered = [], [], [], []
    for _ in range(200):
        mean, strength = generator.beta(1.0, 1.0), generator.uniform(2.0, 20.0)
        own = generator.beta(mean * strength, (1 - mean) * strength, size=4)
        grafts = generator.integers(1, 12, size=4)
        failures = generator.binomial(grafts, own)
        outcomes = [Outcomes(int(f), int(n - f)) for f, n in zip(failures, grafts, strict=True)]
        for index, rate in enumerate(own):
            assessed = assess(outcomes[index], outcomes[:index] + outcomes[index + 1 :])
            rates.append(rate)
            predicted.append(assessed.value)
            unpooled.append(failures[index] / grafts[index])
            covered.append(assessed.low <= rate <= assessed.high)
    return Simulation(*(np.array(values) for values in (rates, predicted, unpooled, covered)))


class TestCalibration:
    def test_it_predicts_better_than_the_rate_of_the_kernel_alone(self, simulation: Simulation) -> None:
        assert simulation.brier(simulation.predicted) < simulation.brier(simulation.unpooled) - 0.01

    def test_what_it_calls_a_probability_comes_true_that_often(self, simulation: Simulation) -> None:
        assert simulation.calibration_error(simulation.predicted) < 0.04
        assert (
            simulation.calibration_error(simulation.predicted) < simulation.calibration_error(simulation.unpooled) / 2
        )

    def test_nine_of_ten_intervals_hold_the_rate(self, simulation: Simulation) -> None:
        assert np.mean(simulation.covered) == pytest.approx(risk.INTERVAL, abs=0.035)


class TestGain:
    def test_nothing_measured_is_no_gain(self) -> None:
        assert risk.gain([]) is None

    def test_one_graft_has_the_bound_of_its_own_ablation(self) -> None:
        assert risk.gain([0.2], low_of_one=0.1) == risk.Gain(mean=0.2, low=0.1)

    def test_several_grafts_have_students_bound(self) -> None:
        gain = risk.gain([1.0, 2.0, 3.0])

        assert gain is not None
        assert gain.mean == pytest.approx(2.0)
        assert gain.low == pytest.approx(2.0 - 4.302653 / 3**0.5, abs=1e-5)  # t(0.975, 2) = 4.302653
