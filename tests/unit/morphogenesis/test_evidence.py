"""Evidence: the interval covers what it should, and the last gate tells useful seeds from useless ones."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.morphogenesis.contracts import start_topology
from apps.morphogenesis.datasets import Dataset, Split, epoch_order
from apps.morphogenesis.evidence import Judged, bootstrap_interval, mcnemar, paired_ablation
from apps.morphogenesis.gates import judge
from apps.morphogenesis.governor import Governor
from apps.morphogenesis.hosts import build_host
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.lifecycle import Gate, SeedState
from apps.morphogenesis.measures import Observed, measure_worth
from apps.morphogenesis.monitors import Monitors
from apps.morphogenesis.planting import fetch, plant
from apps.morphogenesis.seeds import Seed
from tests.unit.morphogenesis.support import kernels, quick_settings, tiny_digits

CASES = 200
SAMPLES = 297
SPREAD = 0.4
"""Standard deviation of the paired differences, nats: twice what an ablation on digits shows (0.2)."""
USEFUL_GAIN = 0.08


def passes(gain: float, case: int) -> bool:
    """Does G5 let a seed through whose true worth is ``gain`` nats per sample?"""
    generator = np.random.default_rng(case)
    with_seed = generator.gamma(0.5, 0.4, SAMPLES)
    without = with_seed + generator.normal(gain, SPREAD, SAMPLES)
    correct = np.ones(SAMPLES, dtype=bool)
    evidence = paired_ablation(
        Judged(losses=with_seed, correct=correct),
        Judged(losses=without, correct=correct),
        confidence=0.95,
        resamples=500,
        seed=(case,),
    )
    assert evidence is not None
    measured = {"epochs": 2, "contribution_low": evidence.low, "loss_growth": -0.1, "healthy": True}
    thresholds = {"min_eval_epochs": 1, "rent_due": 0.0005, "loss_tolerance": 0.02}
    return judge(Gate.G5, measured, thresholds).passed


def test_a_planted_useful_seed_passes_in_four_of_five_of_two_hundred_cases() -> None:
    assert sum(passes(USEFUL_GAIN, case) for case in range(CASES)) >= 0.8 * CASES


def test_a_planted_useless_seed_passes_in_at_most_one_of_twenty_of_two_hundred_cases() -> None:
    assert sum(passes(0.0, case) for case in range(CASES)) <= 0.05 * CASES


@pytest.mark.parametrize(("honest", "wanted"), [(True, 8), (False, 0)])
def test_a_real_widening_passes_when_it_learnt_from_labels_and_not_when_it_learnt_from_noise(
    honest: bool, wanted: int
) -> None:
    passed = sum(real_widening_passes(honest, case) for case in range(10))
    assert passed >= wanted if honest else passed <= wanted


def real_widening_passes(honest: bool, case: int) -> bool:
    """Train a host too narrow for its task, widen it, train on true labels or on shuffled ones, and ask G5."""
    settings = quick_settings(width=4, seed=case)
    host = build_host(start_topology(settings), torch.Generator().manual_seed(case))
    learner = Learner(host, tiny_digits(), settings, torch.device("cpu"))
    train(learner, epochs=6)
    before = learner.judge(learner.data.validation).loss
    contract = learner.host.contracts()[1]
    source = kernels(settings, ["widen"])
    offer = next(offer for offer in source.offers() if offer.input_shape == contract.input_shape)
    fetched = fetch(source, offer)
    assert not isinstance(fetched, str)
    start, count = plant(learner, contract, *fetched)
    if not honest:
        learner.data = shuffled(learner.data, case)
    train(learner, epochs=8)
    seed = Seed(
        number=1,
        site=contract.name,
        operator="widen",
        kernel=offer.digest,
        name=offer.name,
        parameters=offer.parameters,
        flops=0,
        loss_before=before,
        state=SeedState.EVALUATING,
        state_step=0,
        start=start,
        count=count,
    )
    held = learner.judge(learner.data.validation)
    observed = Observed(seed=seed, learner=learner, governor=Governor(), settings=settings, held=held, step=100)
    thresholds = {"min_eval_epochs": 1, "rent_due": observed.rent, "loss_tolerance": settings.growth.loss_tolerance}
    return judge(Gate.G5, measure_worth(observed), thresholds).passed


def shuffled(data: Dataset, case: int) -> Dataset:
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(case))
    train = Split(inputs=data.train.inputs, targets=data.train.targets[order])
    return Dataset(train=train, validation=data.validation, test=data.test)


def train(learner: Learner, epochs: int) -> None:
    monitors = Monitors(decay=0.9, horizon=16)
    for epoch in range(epochs):
        order = epoch_order(0, epoch, len(learner.data.train))
        for step in range(learner.steps_per_epoch):
            learner.train_step(order, step, monitors, watch=False)


def test_the_bootstrap_interval_covers_the_true_mean_about_as_often_as_it_claims() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for case in range(300):
        low, high = bootstrap_interval(generator.exponential(1.0, 200), confidence=0.9, resamples=300, seed=(case,))
        hits += low <= 1.0 <= high
    assert 0.83 <= hits / 300 <= 0.95


def test_the_bootstrap_is_a_function_of_its_seed() -> None:
    values = np.random.default_rng(0).normal(size=50)
    first, again, other = (
        bootstrap_interval(values, confidence=0.95, resamples=200, seed=(seed,)) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_an_ablation_with_a_loss_that_is_not_finite_measures_nothing() -> None:
    fine = Judged(losses=np.array([1.0, 2.0]), correct=np.array([True, False]))
    broken = Judged(losses=np.array([1.0, np.nan]), correct=np.array([True, False]))
    for pair in ((fine, broken), (broken, fine)):
        assert paired_ablation(*pair, confidence=0.95, resamples=100, seed=(0,)) is None


def test_the_contribution_is_positive_when_the_seed_lowers_the_loss() -> None:
    correct = np.array([True] * 30)
    evidence = paired_ablation(
        Judged(losses=np.full(30, 0.5), correct=correct),
        Judged(losses=np.full(30, 0.75), correct=~correct),
        confidence=0.95,
        resamples=100,
        seed=(0,),
    )
    assert evidence is not None
    assert (evidence.contribution, evidence.low, evidence.high) == (0.25, 0.25, 0.25)
    assert evidence.accuracy_difference == 1.0
    assert evidence.mcnemar_p < 1e-6


@pytest.mark.parametrize(
    ("only_left", "only_right", "p"), [(0, 0, 1.0), (5, 5, 1.0), (8, 0, 2 / 256), (9, 1, 22 / 1024)]
)
def test_mcnemars_p_is_the_exact_binomial_one(only_left: int, only_right: int, p: float) -> None:
    left = np.array([True] * only_left + [False] * only_right + [True] * 4)
    right = np.array([False] * only_left + [True] * only_right + [True] * 4)
    assert mcnemar(left, right) == pytest.approx(p)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_is_symmetric_and_a_probability(pairs: list[tuple[bool, bool]]) -> None:
    left, right = (np.array(side) for side in zip(*pairs, strict=True))
    assert mcnemar(left, right) == mcnemar(right, left)
    assert 0.0 < mcnemar(left, right) <= 1.0
