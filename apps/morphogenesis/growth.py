"""Grows seeds in a host (Tamiyo decides, Kasmina carries out): germination, the gates on the way, and every end.

The training loop calls ``Growth`` after each step, at each check of the monitors and at the end of each epoch. At most
one seed is live in an attribution group; the group is the whole host.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from apps.morphogenesis import planting, widen
from apps.morphogenesis.alpha import AlphaRamp
from apps.morphogenesis.contracts import SiteContract, target_width
from apps.morphogenesis.evidence import Judged
from apps.morphogenesis.flops import TRAINING_FACTOR
from apps.morphogenesis.gates import Verdict, judge
from apps.morphogenesis.governor import Alarm, Governor
from apps.morphogenesis.journal import Journal
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.lifecycle import Gate, SeedState, gate_between, next_state
from apps.morphogenesis.measures import MEASURES, Observed
from apps.morphogenesis.monitors import Reading
from apps.morphogenesis.operators import Branch
from apps.morphogenesis.policy import Choice, Policy, Situation
from apps.morphogenesis.protocols import Action, KernelSource, Refusal, RunFailed
from apps.morphogenesis.seeds import MODES, Embargo, Seed, SlotBook
from apps.morphogenesis.settings import RunSettings

MAX_EPOCHS: Mapping[SeedState, str] = {
    SeedState.TRAINING: "max_training_epochs",
    SeedState.STABILIZING: "max_stabilize_epochs",
    SeedState.EVALUATING: "max_eval_epochs",
}
"""The setting that limits a seed's stay in a state: a gate not passed by then is a cull."""


class Growth:
    """The live seeds and slots of one run."""

    def __init__(
        self,
        *,
        settings: RunSettings,
        learner: Learner,
        journal: Journal,
        policy: Policy,
        governor: Governor,
        kernels: KernelSource,
    ) -> None:
        self._settings = settings
        self._learner = learner
        self._journal = journal
        self._policy = policy
        self._governor = governor
        self._kernels = kernels
        self._offers = tuple(kernels.offers()) if settings.growth.enabled else ()
        self._start_widths: dict[str, int] = learner.host.structure()["widths"]
        self._last_hold = ""
        self.seeds: list[Seed] = []
        self.book = SlotBook()

    # What the loop calls

    def after_step(self) -> None:
        """A training step is done: alpha moves on, the seed's ledger grows."""
        for seed in self.seeds:
            if seed.runs:
                seed.train_flops += TRAINING_FACTOR * seed.flops * self._learner.batch_size
            if seed.ramp:
                seed.ramp.advance()
                self._learner.host.slot(seed.site).alpha = seed.alpha

    def on_check(self, reading: Reading, history: Sequence[tuple[int, float]]) -> None:
        """The monitors were read: note what concerns the live seeds, and germinate when the policy wants to."""
        for seed in self.seeds:
            seed.note_losses(reading.losses)
            if reading.seed_gradient is not None and seed.state is SeedState.TRAINING:
                ratio = reading.seed_gradient / max(reading.host_gradient, 1e-12)
                seed.gradients.note(ratio, reading.seed_share)
        if not self.seeds and self._policy.wants_growth(reading, history):
            self._germinate()

    def end_epoch(self, held: Judged) -> None:
        """An epoch is over; ``held`` is its held-out pass. Embargoes end, live seeds meet their gate."""
        self._clear_embargoes()
        for seed in list(self.seeds):
            self._face_gate(seed, held)
        self._policy.end_epoch()

    def end_run(self, held: Judged) -> None:
        """The run is over: a seed that has not earned its place by now goes."""
        for seed in list(self.seeds):
            self._cull(seed, held, rule="run_end", reason="the run ended before the seed had proved its worth")

    def roll_back(self, alarm: Alarm, held_loss: float) -> bool:
        """The governor fired: every live seed ends, and its slot is locked. Was a seed attached that could be to blame?

        The caller restores the last good state, which holds no live seed.
        """
        blamed = [seed for seed in self.seeds if seed.operator == "widen" or seed.ramp is not None]
        for seed in self.seeds:
            self._journal.decide(
                Action.ROLLBACK,
                rule=alarm.rule,
                reason=f"Turned back because {alarm.reason}. The seed is removed and its slot locked.",
                seed=seed,
                observed=alarm.observed,
            )
            if seed.state is SeedState.GERMINATED:
                self._journal.move(seed, SeedState.CANCELLED, reason=f"the governor fired: {alarm.reason}")
                self._settle(seed, held_loss)
                self._embargo(seed)
                continue
            self._journal.move(seed, SeedState.ROLLED_BACK, reason=f"the governor fired: {alarm.reason}")
            self._settle(seed, held_loss)
            self.book.locked[seed.site] = f"a rollback in epoch {self._journal.epoch}"
        self.seeds = []
        return bool(blamed)

    @property
    def live_states(self) -> dict[str, str]:
        """Site -> state, for every slot that is not DORMANT."""
        return {
            **{site: str(SeedState.EMBARGOED) for site in self.book.embargoed},
            **{seed.site: str(seed.state) for seed in self.seeds},
        }

    def state(self) -> dict[str, Any]:
        """JSON types only."""
        return {
            "seeds": [seed.to_dict() for seed in self.seeds],
            "book": self.book.to_dict(),
            "start_widths": dict(self._start_widths),
            "last_hold": self._last_hold,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state`` gave, into a host that has just been restored. Raises RunFailed like ``attach``."""
        self.seeds = [Seed.from_dict(values) for values in state["seeds"]]
        self.book = SlotBook.from_dict(state["book"])
        self._start_widths = dict(state["start_widths"])
        self._last_hold = state["last_hold"]
        self.attach()

    def attach(self) -> None:
        """Let the live seeds run in a host that was restored without them.

        Raises:
            RunFailed: the host has no branch where a seed is to run.
        """
        for seed in self.seeds:
            if seed.operator == "widen":
                continue
            slot = self._learner.host.slot(seed.site)
            if not len(slot.branches):
                raise RunFailed(
                    f"seed {seed.number} has no branch at {seed.site}: restore tolaria and kasmina together, or neither"
                )
            slot.revive(MODES[seed.state], seed.alpha)
        self._learner.changed()

    # Germination

    def _germinate(self) -> None:
        choice, refused = self._policy.choose(self._situation())
        if choice is None:
            self._hold("no_candidate", "Growth is due, but no site can take a kernel.", refused)
            return
        fetched = planting.fetch(self._kernels, choice.offer)
        if isinstance(fetched, str):
            self._reject(choice, fetched, kernel_intact=False)
            return
        branch, spec = fetched
        fault = planting.contract_fault(self._learner, choice.site, branch)
        if fault:
            self._reject(choice, fault, kernel_intact=True, contract_fits=False)
            return
        self._plant(choice, branch, spec)

    def _plant(self, choice: Choice, branch: Branch, spec: dict[str, Any]) -> None:
        learner, split = self._learner, self._learner.data.validation
        before, flops = learner.logits(split), learner.forward_flops
        start, count = planting.plant(learner, choice.site, branch, spec)
        seed = Seed(
            number=self._policy.germinated + 1,
            site=choice.site.name,
            operator=choice.site.operator,
            kernel=choice.offer.digest,
            name=choice.offer.name,
            parameters=branch.graph.parameters,
            flops=0,
            loss_before=learner.judge_logits(before, split).loss,
            state=SeedState.DORMANT,
            state_step=self._journal.step,
            start=start,
            count=count,
        )
        measured = {
            "kernel_intact": True,
            "contract_fits": True,
            "slot_free": self.book.refusal(seed.site) is None,
            "group_free": not self.seeds,
            "parameters_after": learner.parameters,
            "birth_difference": float((planting.logits_at(learner, seed, split) - before).abs().max()),
        }
        verdict = self._judge(Gate.G0, measured)
        if not verdict.passed:
            planting.uproot(learner, seed)
            self._reject(choice, "; ".join(verdict.failures), **measured)
            return
        seed.flops = planting.running_flops(learner, seed) - flops
        self._accept(seed, choice, verdict)

    def _accept(self, seed: Seed, choice: Choice, verdict: Verdict) -> None:
        opening = self._policy.opening
        assert opening is not None
        self.seeds.append(seed)
        self._policy.germinated += 1
        self._last_hold = ""
        self._journal.decide(
            Action.GERMINATE,
            rule=opening.rule,
            reason=f"Growth is open because {opening.reason}. {choice.offer.name} goes to {seed.site}: "
            f"the best score ({choice.score:+.3f}) among the kernels that fit an open site.",
            seed=seed,
            observed={**opening.observed, "score": choice.score, "held_out_loss": seed.loss_before},
            refused=choice.refused,
        )
        self._journal.move(
            seed, SeedState.GERMINATED, reason="the kernel fits and the function is kept", verdict=verdict
        )
        if seed.operator == "widen":
            merged = self._judge(Gate.GW, verdict.measured)
            self._journal.move(seed, SeedState.STABILIZING, reason="the new units are merged", verdict=merged)

    def _reject(self, choice: Choice, fault: str, **measured: Any) -> None:
        """G0 was not passed: the kernel is not offered again in this run."""
        self._policy.bar(choice.offer.digest, fault)
        verdict = self._judge(Gate.G0, measured)
        self._journal.decide(
            Action.HOLD,
            rule="gate_refused",
            reason=f"{choice.offer.name} was not planted at {choice.site.name}: {fault}.",
            site=choice.site.name,
            kernel=choice.offer.digest,
            observed={"gate": str(verdict.gate), **verdict.measured},
            refused=choice.refused,
        )

    def _situation(self) -> Situation:
        contracts = self._learner.host.contracts()
        closed = {site.name: reason for site in contracts if (reason := self._closed(site))}
        growth = self._settings.growth
        stabilize = math.ceil(growth.stabilize_steps / self._learner.steps_per_epoch)
        widening = stabilize + max(growth.min_eval_epochs, 1)
        return Situation(
            sites=[site for site in contracts if site.name not in closed],
            closed=closed,
            offers=self._offers,
            parameters=self._learner.parameters,
            epochs_left=self._settings.epochs - self._journal.epoch,
            epochs_needed={"widen": widening, "residual": growth.min_training_epochs + growth.ramp_epochs + widening},
        )

    def _closed(self, site: SiteContract) -> str | None:
        """Why nothing may germinate at the site now, or None."""
        host = self._learner.host
        refusal = self.book.refusal(site.name)
        if refusal:
            return refusal
        if site.operator == "residual":
            return "the site already carries a branch" if len(host.slot(site.name).branches) else None
        pair = host.pairs[site.name]
        if pair.slot and len(host.slot(pair.slot).branches):
            return "the layer carries a residual branch of its present width"
        if widen.units(host, pair) >= target_width(self._start_widths[site.name], self._settings):
            return f"the layer has grown to {widen.units(host, pair)} units, its target"
        return None

    def _hold(self, rule: str, reason: str, refused: tuple[Refusal, ...]) -> None:
        """Record once that nothing was done, until something else happens."""
        signature = f"{rule} {[(refusal.site, refusal.kernel) for refusal in refused]}"
        if signature != self._last_hold:
            self._last_hold = signature
            self._journal.decide(Action.HOLD, rule=rule, reason=reason, refused=refused)

    # The way to the end

    def _face_gate(self, seed: Seed, held: Judged) -> None:
        if seed.doom:
            if seed.ramp is not None and seed.ramp.holding:
                self._end(seed, SeedState.CULLED, reason=seed.doom)
            return
        target = next_state(seed.operator, seed.state)
        gate = gate_between(seed.state, target)
        assert gate is not None
        observed = Observed(
            seed=seed,
            learner=self._learner,
            governor=self._governor,
            settings=self._settings,
            held=held,
            step=self._journal.step,
        )
        verdict = self._judge(gate, MEASURES[gate](observed), rent_due=observed.rent)
        if verdict.passed:
            self._advance(seed, target, verdict, held)
            return
        rule, reason = self._cull_rule(seed, observed.epochs)
        if rule:
            self._cull(seed, held, rule=rule, reason=f"{reason}: {'; '.join(verdict.failures)}", verdict=verdict)
            return
        self._journal.decide(
            Action.HOLD,
            rule=f"{gate}_waits",
            reason=f"The seed stays {seed.state}: {'; '.join(verdict.failures)}.",
            seed=seed,
            observed=verdict.measured,
        )

    def _advance(self, seed: Seed, target: SeedState, verdict: Verdict, held: Judged) -> None:
        last = target is SeedState.FOSSILIZED
        self._journal.decide(
            Action.FOSSILIZE if last else Action.ADVANCE,
            rule=f"{verdict.gate}_passed",
            reason=_earned(verdict.measured) if last else f"{verdict.gate} is passed: the seed goes on to {target}.",
            seed=seed,
            observed=verdict.measured,
        )
        if target is SeedState.GRAFTING:
            planting.rescale(self._learner, seed, verdict.measured["scale"])
            seed.ramp = self._ramp(0.0, 1.0)
        self._journal.move(seed, target, reason=f"{verdict.gate} is passed", verdict=verdict)
        if last:
            self.seeds.remove(seed)
            self._settle(seed, held.loss)
        self._apply(seed)

    def _apply(self, seed: Seed) -> None:
        """Run the seed in the host as its state says."""
        if seed.operator == "widen":
            return
        slot = self._learner.host.slot(seed.site)
        if seed.state is SeedState.FOSSILIZED:
            slot.fossilize()
        else:
            slot.mode, slot.alpha = MODES[seed.state], seed.alpha
        self._learner.changed()

    def _cull_rule(self, seed: Seed, epochs: int) -> tuple[str, str]:
        """The rule that ends the seed now and its reason, or two empty strings."""
        if not seed.gradients.finite:
            return "gradients_not_finite", "the seed's gradients are not finite"
        limit = MAX_EPOCHS.get(seed.state)
        if limit and epochs >= getattr(self._settings.growth, limit):
            return f"{seed.state.lower()}_deadline", f"{epochs} epochs in {seed.state} are enough"
        return "", ""

    def _cull(self, seed: Seed, held: Judged, *, rule: str, reason: str, verdict: Verdict | None = None) -> None:
        early = seed.state is SeedState.GERMINATED
        self._journal.decide(
            Action.CANCEL if early else Action.CULL,
            rule=rule,
            reason=f"The seed is {'cancelled' if early else 'culled'}: {reason}.",
            seed=seed,
            observed=verdict.measured if verdict else {},
        )
        if seed.ramp is not None and seed.ramp.holding and rule != "run_end":
            # The host has come to rely on the branch: let it go gently.
            seed.doom = reason
            seed.ramp.retarget(0.0, self._ramp(0.0, 1.0).steps)
            return
        self._end(seed, SeedState.CANCELLED if early else SeedState.CULLED, reason=reason)

    def _end(self, seed: Seed, target: SeedState, *, reason: str) -> None:
        planting.uproot(self._learner, seed)
        self._governor.restart()
        self._policy.note_cull(seed.name)
        self.seeds.remove(seed)
        self._journal.move(seed, target, reason=reason)
        self._settle(seed, self._learner.judge(self._learner.data.validation).loss)
        self._embargo(seed)

    def _embargo(self, seed: Seed) -> None:
        until = self._journal.epoch + self._settings.growth.embargo_epochs
        self._journal.move(seed, SeedState.EMBARGOED, reason=f"the slot rests until the end of epoch {until}")
        self.book.embargoed[seed.site] = Embargo(until=until, seed=seed)

    def _clear_embargoes(self) -> None:
        for site, embargo in sorted(self.book.embargoed.items()):
            if embargo.until <= self._journal.epoch:
                del self.book.embargoed[site]
                self._journal.move(embargo.seed, SeedState.DORMANT, reason="the embargo is over")

    def _settle(self, seed: Seed, loss_after: float) -> None:
        rent = self._settings.growth.rent * seed.parameters / 1000
        self._journal.settle(seed, loss_after=loss_after, rent=rent)

    def _judge(self, gate: Gate, measured: Mapping[str, Any], **thresholds: Any) -> Verdict:
        return judge(gate, measured, {**dataclasses.asdict(self._settings.growth), "rent_due": 0.0, **thresholds})

    def _ramp(self, start: float, target: float) -> AlphaRamp:
        growth = self._settings.growth
        steps = growth.ramp_epochs * self._learner.steps_per_epoch
        return AlphaRamp(curve=growth.ramp_curve, start=start, target=target, steps=steps)


def _earned(measured: Mapping[str, Any]) -> str:
    return (
        f"The seed stays for good: it lowers held-out loss by {measured['contribution']:.4f} nats per sample "
        f"(at least {measured['contribution_low']:.4f}), more than its rent."
    )
