"""A whole run: what it grows, what it tells, and that settings and library alone decide it."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from apps.morphogenesis.contracts import SiteContract
from apps.morphogenesis.lifecycle import OPERATOR_PATHS, SeedState
from apps.morphogenesis.protocols import (
    Action,
    DecisionRecord,
    EpochRecord,
    GraftOutcome,
    KernelOffer,
    KernelUnavailable,
    TransitionRecord,
)
from apps.morphogenesis.trainer import RunState, Trainer
from tests.unit.morphogenesis.runs import RUNS, finished, run_of
from tests.unit.morphogenesis.support import Run, kernels, quick_settings

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("name", RUNS)
def test_the_same_settings_give_the_same_bits(name: str) -> None:
    first, outcome = finished(name)
    second = run_of(name)
    assert second().result == outcome.result
    assert second.events.events == first.events.events


def test_another_process_with_another_hash_seed_gives_the_same_digests() -> None:
    program = (
        "from tests.unit.morphogenesis.runs import run_of\n"
        "result = run_of('residual mlp')().result\n"
        "print(result.topology_digest, result.weights_digest)"
    )
    result = finished("residual mlp")[1].result
    assert result is not None
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env={"PYTHONHASHSEED": "123", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.split() == [result.topology_digest, result.weights_digest]


def test_another_seed_gives_other_weights() -> None:
    results = [Run(quick_settings(seed=seed, epochs=2))().result for seed in (1, 2)]
    assert results[0] is not None
    assert results[1] is not None
    assert results[0].weights_digest != results[1].weights_digest


def test_a_run_neither_reads_nor_moves_the_callers_random_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Run(quick_settings(epochs=3))().result
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(2)
    assert Run(quick_settings(epochs=3))().result == first


@pytest.mark.parametrize("name", RUNS)
def test_a_seed_walks_its_operators_path_and_leaves_it_only_by_the_table(name: str) -> None:
    run, _ = finished(name)
    moves = run.events.of(TransitionRecord)
    assert moves
    for number in {move.seed for move in moves}:
        walked = [move for move in moves if move.seed == number]
        assert walked[0].source is SeedState.DORMANT
        assert all(before.target is after.source for before, after in pairwise(walked))
        path = OPERATOR_PATHS[walked[0].operator]
        states = [move.target for move in walked if move.target in path[1:]]
        assert states == list(path[1 : len(states) + 1])


def test_a_widening_that_helps_becomes_a_fossil() -> None:
    run, outcome = finished("widen mlp")
    assert run.states(1) == ["GERMINATED", "STABILIZING", "EVALUATING", "FOSSILIZED"]
    assert outcome.result is not None
    assert outcome.result.topology["widths"] == [12, 12]
    assert (outcome.result.germinated, outcome.result.fossilized, outcome.result.culled) == (2, 2, 0)


def test_a_residual_seed_that_helps_becomes_a_fossil() -> None:
    run, outcome = finished("residual cnn")
    fossils = [seed for seed in (1, 2, 3) if run.states(seed)[-1:] == ["FOSSILIZED"]]
    assert fossils
    assert run.states(fossils[0]) == [str(state) for state in OPERATOR_PATHS["residual"][1:]]
    assert outcome.result is not None
    assert outcome.result.topology["branches"]


def test_a_seed_that_does_not_earn_its_rent_is_culled_and_its_slot_rests() -> None:
    run, outcome = finished("residual mlp")
    assert run.states(1)[-3:] == ["CULLED", "EMBARGOED", "DORMANT"]
    ended = {move.target: move.epoch for move in run.events.of(TransitionRecord) if move.seed == 1}
    assert ended[SeedState.DORMANT] - ended[SeedState.EMBARGOED] == run.settings.growth.embargo_epochs
    assert outcome.result is not None
    assert outcome.result.topology["branches"] == {}
    assert outcome.result.parameters == outcome.result.parameters_start


def test_a_grafted_seed_is_let_go_by_ramping_its_strength_down() -> None:
    run, _ = finished("residual mlp")
    decision = next(d for d in run.events.of(DecisionRecord) if d.action is Action.CULL)
    culled = next(m for m in run.events.of(TransitionRecord) if m.target is SeedState.CULLED)
    assert culled.epoch - decision.epoch == run.settings.growth.ramp_epochs
    assert culled.alpha == 0.0


def test_a_seed_culled_in_the_shadow_leaves_the_run_as_if_it_had_never_been() -> None:
    changes = {"growth": {"max_training_epochs": 2, "min_gradient_ratio": 1e6, "max_seeds": 1}}
    settings = quick_settings(**changes)
    run = Run(settings, library=kernels(settings, ["residual"]))
    shadowed = run().result
    plain = Run(quick_settings(growth={"enabled": False}))().result
    assert run.states(1)[:3] == ["GERMINATED", "TRAINING", "CULLED"]
    assert shadowed is not None
    assert plain is not None
    assert shadowed.weights_digest == plain.weights_digest
    assert shadowed.train_flops > plain.train_flops


@pytest.mark.parametrize("name", RUNS)
def test_events_are_numbered_without_gaps_and_are_json(name: str) -> None:
    run, _ = finished(name)
    events = run.events.events
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert json.dumps([asdict(event) for event in events], allow_nan=False)


def test_each_epoch_is_measured_once() -> None:
    run, _ = finished("widen mlp")
    records = run.events.of(EpochRecord)
    assert [record.epoch for record in records] == list(range(1, 25))
    assert [record.step for record in records] == list(range(6, 145, 6))
    flops = [record.train_flops for record in records]
    assert flops == sorted(flops)
    assert records[-1].train_loss < records[0].train_loss


def test_every_decision_says_why_in_a_sentence() -> None:
    for name in RUNS:
        run, _ = finished(name)
        for decision in run.events.of(DecisionRecord):
            assert decision.reason[0].isupper(), decision.reason
            assert decision.reason.endswith("."), decision.reason
            assert decision.rule


def test_every_germination_names_the_alternatives_that_it_refused() -> None:
    run = Run(quick_settings())
    run()
    germinations = [d for d in run.events.of(DecisionRecord) if d.action is Action.GERMINATE]
    assert germinations
    assert all(d.refused and all(refusal.reason for refusal in d.refused) for d in germinations)


def test_the_ledger_of_a_fossil_shows_gain_over_rent() -> None:
    run, _ = finished("widen mlp")
    ledger = run.events.of(GraftOutcome)[0]
    assert ledger.verdict is SeedState.FOSSILIZED
    assert ledger.contribution_low is not None
    assert ledger.contribution_low > ledger.rent > 0
    assert ledger.loss_after < ledger.loss_before
    assert ledger.train_flops > 0
    assert ledger.parameters == 6 * (64 + 1 + 6)


def test_a_static_control_has_the_grown_nets_shape_and_size() -> None:
    grown = finished("residual cnn")[1].result
    assert grown is not None
    control = Run(quick_settings(host="cnn", topology=grown.topology, growth={"enabled": False}))().result
    assert control is not None
    assert control.topology_digest == grown.topology_digest
    assert control.parameters == control.parameters_start == grown.parameters
    assert control.germinated == 0


def test_growth_stops_at_the_parameter_budget() -> None:
    run = Run(quick_settings(growth={"parameter_budget": 600}))
    outcome = run()
    assert outcome.result is not None
    assert outcome.result.parameters <= 600
    refusals = [refusal.reason for d in run.events.of(DecisionRecord) for refusal in d.refused]
    assert any("over the budget" in reason for reason in refusals)


def test_a_short_run_does_not_start_what_it_cannot_judge() -> None:
    run = Run(quick_settings(epochs=3))
    assert run().state is RunState.COMPLETED
    assert run.events.of(TransitionRecord) == []
    holds = [d for d in run.events.of(DecisionRecord) if d.action is Action.HOLD]
    assert any("epochs to judge" in refusal.reason for hold in holds for refusal in hold.refused)


def test_a_seed_still_unproven_at_the_end_is_culled() -> None:
    changes = {"epochs": 6, "growth": {"rent": 10.0, "max_eval_epochs": 100}}
    settings = quick_settings(**changes)
    run = Run(settings, library=kernels(settings, ["widen"]))
    outcome = run()
    culls = [d for d in run.events.of(DecisionRecord) if d.rule == "run_end"]
    assert len(culls) == 1
    assert outcome.result is not None
    assert outcome.result.culled == 1
    assert outcome.result.topology["widths"] == [6, 6]


def test_a_penalised_and_embargoed_site_gives_way_to_another() -> None:
    changes = {"growth": {"rent": 10.0, "max_eval_epochs": 1, "max_seeds": 2, "embargo_epochs": 50}}
    run = Run(quick_settings(**changes))
    run()
    sites = [d.site for d in run.events.of(DecisionRecord) if d.action is Action.GERMINATE]
    assert sites == ["layers.0.width", "layers.0.residual"]


class Tampered:
    """A library whose kernels are not what they claim."""

    def __init__(self, source: object, data: bytes | None, sites: Sequence[SiteContract] = ()) -> None:
        self._source = source
        self._data = data

    def offers(self) -> Sequence[KernelOffer]:
        return self._source.offers()  # type: ignore[attr-defined, no-any-return]

    def load(self, digest: str) -> bytes:
        if self._data is None:
            raise KernelUnavailable("it is in quarantine")
        return self._data


@pytest.mark.parametrize(
    ("data", "why"), [(None, "not available: it is in quarantine"), (b"not a kernel", "do not have its digest")]
)
def test_a_kernel_that_cannot_be_had_is_refused_once_and_the_run_goes_on(data: bytes | None, why: str) -> None:
    settings = quick_settings(growth={"max_seeds": 1})
    run = Run(settings, library=Tampered(kernels(settings), data))
    assert run().state is RunState.COMPLETED
    refused = [d for d in run.events.of(DecisionRecord) if d.rule == "gate_refused"]
    assert refused
    assert all(why in d.reason for d in refused)
    assert len({d.kernel for d in refused}) == len(refused)
    assert run.events.of(TransitionRecord) == []


def test_a_kernel_that_does_not_do_what_its_offer_says_is_refused() -> None:
    settings = quick_settings()
    honest = kernels(settings, ["widen"])
    first, *_, last = honest.offers()

    class Mislabelled:
        def offers(self) -> Sequence[KernelOffer]:
            return [replace(last, input_shape=first.input_shape, output_shape=first.output_shape)]

        def load(self, digest: str) -> bytes:
            return honest.load(digest)

    run = Run(settings, library=Mislabelled())
    assert run().state is RunState.COMPLETED
    reasons = [d.reason for d in run.events.of(DecisionRecord) if d.rule == "gate_refused"]
    assert any("shapes are not the site's" in reason for reason in reasons)


def test_a_trainer_that_has_not_run_has_no_host() -> None:
    run = run_of("widen mlp")
    run(until_epoch=1)
    assert run.trainer.host.slots
    fresh = Trainer(
        settings=run.settings,
        kernels=run.library,
        checkpoints=run.checkpoints,
        telemetry=run.events,
        decisions=run.events,
        control=None,  # type: ignore[arg-type]
    )
    with pytest.raises(RuntimeError, match="has not run yet"):
        _ = fresh.host
