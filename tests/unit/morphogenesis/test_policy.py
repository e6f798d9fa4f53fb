"""The default policy: when growth opens, what it chooses, and that every choice names what it refused."""

import dataclasses
import json
from typing import Any

import pytest

from apps.morphogenesis.contracts import SiteContract
from apps.morphogenesis.monitors import Reading
from apps.morphogenesis.policy import Policy, Situation
from apps.morphogenesis.protocols import KernelOffer
from apps.morphogenesis.settings import GrowthSettings

STEPS = 1000
WIDEN = SiteContract(
    name="layers.0.width", operator="widen", layer="linear", input_shape=("N", 8), output_shape=("N", 3)
)
RESIDUAL = SiteContract(
    name="layers.0.residual", operator="residual", layer="linear", input_shape=("N", 8), output_shape=("N", 8)
)


def policy(**settings: Any) -> Policy:
    return Policy(GrowthSettings(**settings), planned_steps=STEPS, preference=("widen", "residual"))


def reading(step: int, average: float = 1.0) -> Reading:
    return Reading(step=step, losses=(average,), average=average, host_gradient=1.0, seed_gradient=None)


def offer(site: SiteContract, digest: str, **changes: Any) -> KernelOffer:
    values = {
        "digest": digest,
        "name": f"{site.operator}_linear",
        "operator": site.operator,
        "input_shape": site.input_shape,
        "output_shape": site.output_shape,
        "parameters": 100,
    }
    return KernelOffer(**{**values, **changes})


def situation(offers: list[KernelOffer], **changes: Any) -> Situation:
    values: dict[str, Any] = {
        "sites": [WIDEN, RESIDUAL],
        "closed": {},
        "offers": offers,
        "parameters": 1000,
        "epochs_left": 20,
        "epochs_needed": {"widen": 2, "residual": 6},
    }
    return Situation(**{**values, **changes})


BOTH = [offer(RESIDUAL, "r"), offer(WIDEN, "w")]


def test_growth_opens_when_the_loss_has_levelled_off() -> None:
    tamiyo = policy()
    assert tamiyo.wants_growth(reading(200, 0.97), [(40, 1.0), (200, 0.97)])
    assert tamiyo.opening is not None
    assert tamiyo.opening.rule == "loss_plateau"
    assert "improved by 3.0% over 160 steps" in tamiyo.opening.reason


def test_growth_stays_closed_while_the_loss_falls() -> None:
    assert not policy().wants_growth(reading(200, 0.9), [(40, 1.0), (200, 0.9)])


def test_a_short_history_is_no_plateau() -> None:
    assert not policy().wants_growth(reading(200, 1.0), [(100, 1.0), (200, 1.0)])


def test_growth_is_forced_at_its_deadline() -> None:
    tamiyo = policy()
    assert tamiyo.wants_growth(reading(250, 0.1), [(40, 1.0), (250, 0.1)])
    assert tamiyo.opening is not None
    assert tamiyo.opening.rule == "forced_deadline"


@pytest.mark.parametrize("step", [99, 401])
def test_growth_keeps_to_its_window(step: int) -> None:
    assert not policy().wants_growth(reading(step), [(step - 150, 1.0), (step, 1.0)])


def test_once_open_growth_goes_on_until_the_deadline() -> None:
    tamiyo = policy()
    assert tamiyo.wants_growth(reading(250), [])
    assert tamiyo.wants_growth(reading(400, 0.01), [(100, 1.0), (400, 0.01)])


def test_no_more_seeds_than_allowed() -> None:
    tamiyo = policy(max_seeds=2)
    tamiyo.germinated = 2
    assert not tamiyo.wants_growth(reading(250), [])


def test_the_preferred_operator_wins_among_equals_and_the_other_is_named() -> None:
    choice, refused = policy().choose(situation(BOTH))
    assert choice is not None
    assert (choice.site.name, choice.offer.digest) == ("layers.0.width", "w")
    assert [(refusal.site, refusal.kernel) for refusal in refused] == [("layers.0.residual", "r")]
    assert "ranked lower" in refused[0].reason


def test_a_better_prior_beats_preference() -> None:
    choice, _ = policy().choose(situation([offer(RESIDUAL, "r", prior=0.05), offer(WIDEN, "w")]))
    assert choice is not None
    assert choice.offer.digest == "r"


def test_the_choice_does_not_depend_on_the_order_of_the_offers() -> None:
    more = [*BOTH, offer(WIDEN, "v"), offer(WIDEN, "x", name="another")]
    choices = [policy().choose(situation(offers))[0] for offers in (more, more[::-1])]
    assert choices[0] is not None
    assert choices[1] is not None
    assert choices[0].offer == choices[1].offer


def test_a_cull_costs_its_blueprint_two_halving_each_epoch() -> None:
    tamiyo = policy()
    tamiyo.note_cull("widen_linear")
    scores = []
    for _ in range(4):
        scores.append(tamiyo.score(BOTH[1]))
        tamiyo.end_epoch()
    assert scores == [-2.0, -1.0, -0.5, -0.25]
    assert tamiyo.score(BOTH[0]) == 0.0


def test_culls_of_a_blueprint_add_up() -> None:
    tamiyo = policy()
    tamiyo.note_cull("widen_linear")
    tamiyo.end_epoch()
    tamiyo.note_cull("widen_linear")
    assert tamiyo.score(BOTH[1]) == -3.0


def test_a_penalised_blueprint_yields_to_the_other_operator() -> None:
    tamiyo = policy()
    tamiyo.note_cull("widen_linear")
    choice, _ = tamiyo.choose(situation(BOTH))
    assert choice is not None
    assert choice.offer.digest == "r"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"parameters": 999_950}, "over the budget"),
        ({"epochs_left": 1}, "epochs to judge, and 1 are left"),
        ({"sites": [], "closed": {"layers.0.width": "the slot is locked: x"}}, "locked"),
        ({"offers": []}, "no kernel of the library fits widen [N, 8] -> [N, 3]"),
    ],
)
def test_when_nothing_can_be_done_each_refusal_says_why(changes: dict[str, Any], reason: str) -> None:
    choice, refused = policy().choose(dataclasses.replace(situation(BOTH), **changes))
    assert choice is None
    assert any(reason in refusal.reason for refusal in refused)


def test_a_barred_kernel_is_not_offered_again() -> None:
    tamiyo = policy()
    tamiyo.bar("w", "its bytes were wrong")
    choice, refused = tamiyo.choose(situation(BOTH))
    assert choice is not None
    assert choice.offer.digest == "r"
    assert "its bytes were wrong" in [refusal.reason for refusal in refused]


def test_the_policy_survives_a_snapshot() -> None:
    tamiyo, copy = policy(), policy()
    tamiyo.wants_growth(reading(250), [])
    tamiyo.note_cull("widen_linear")
    tamiyo.bar("r", "why not")
    tamiyo.germinated = 1
    copy.load(json.loads(json.dumps(tamiyo.state())))
    assert copy.state() == tamiyo.state()
    assert copy.choose(situation(BOTH)) == tamiyo.choose(situation(BOTH))


def test_shapes_that_came_through_json_fit_all_the_same() -> None:
    listed = dataclasses.replace(BOTH[1], input_shape=["N", 8], output_shape=["N", 3])  # type: ignore[arg-type]
    choice, _ = policy().choose(situation([listed]))
    assert choice is not None
