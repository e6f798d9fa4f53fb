"""The story of a run: what was decided and why, what each seed cost and earned, how it compares with its control."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from apps.audit import selectors as audit
from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.dashboards.drawing import Interval, intervals
from apps.dashboards.numbers import fixed, nats
from apps.morphogenesis.lifecycle import LIVE_STATES, SeedState
from apps.morphogenesis.protocols import Action
from apps.training.lifecycle import FINAL_RUN_STATES
from apps.training.models import Decision, Seed, SeedTransition, TrainingRun

MAX_DECISIONS = 300
MAX_CHECKPOINTS = 20
LEDGER_WIDTH = 200

VERBS: dict[str, str] = {
    Action.GERMINATE: "germinated",
    Action.ADVANCE: "advanced",
    Action.FOSSILIZE: "fossilised",
    Action.CULL: "culled",
    Action.CANCEL: "cancelled",
    Action.ROLLBACK: "rolled back",
    Action.HOLD: "held",
}
VERB_STEMS: dict[str, str] = {
    Action.GERMINATE: "germination",
    Action.ADVANCE: "the next stage",
    Action.FOSSILIZE: "fossilisation",
    Action.CULL: "a cull",
    Action.CANCEL: "a cancellation",
    Action.ROLLBACK: "a rollback",
    Action.HOLD: "holding",
}
TONES: dict[str, str] = {
    Action.GERMINATE: SeedState.GERMINATED,
    Action.ADVANCE: SeedState.TRAINING,
    Action.FOSSILIZE: SeedState.FOSSILIZED,
    Action.CULL: SeedState.CULLED,
    Action.CANCEL: SeedState.CANCELLED,
    Action.ROLLBACK: SeedState.ROLLED_BACK,
    Action.HOLD: SeedState.DORMANT,
}


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """An alternative that was not taken: ``what`` it was, and why not."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """One decision, or several holds in a row told as one. ``newest`` is the last of them."""

    decisions: Sequence[Decision]
    kernel: str
    refused: Sequence[RefusedLine]

    @property
    def newest(self) -> Decision:
        return self.decisions[-1]

    @property
    def verb(self) -> str:
        return VERBS.get(self.newest.action, self.newest.action.lower())

    @property
    def state(self) -> str:
        """The seed state whose colour and symbol the decision takes."""
        return TONES.get(self.newest.action, SeedState.DORMANT)

    @property
    def epochs(self) -> str:
        first, last = self.decisions[0].epoch, self.newest.epoch
        return f"epoch {first}" if first == last else f"epochs {first}\u2013{last}"

    @property
    def object(self) -> str:
        """What it was done to: ``widen_linear@layers.0.width``, or nothing for a hold."""
        kernel = self.kernel or (f"seed {self.newest.seed_number}" if self.newest.seed_number else "")
        return _at(kernel, self.newest.site)

    @property
    def reason(self) -> str:
        return _stopped(self.newest.reason)


def decisions_of(run: TrainingRun, kernels: Mapping[str, str]) -> tuple[list[Sentence], int]:
    """The newest decisions as sentences, newest first, and how many older ones are left out."""
    newest = list(Decision.objects.filter(run=run).order_by("-sequence")[: MAX_DECISIONS + 1])
    left_out = max(0, run.decisions.count() - MAX_DECISIONS) if len(newest) > MAX_DECISIONS else 0
    ordered = newest[:MAX_DECISIONS][::-1]
    groups = (list(group) for _, group in groupby(ordered, key=_hold_key))
    return [_sentence(group, kernels) for group in groups][::-1], left_out


def _sentence(group: Sequence[Decision], kernels: Mapping[str, str]) -> Sentence:
    newest = group[-1]
    refused = [refusal for refusal in newest.refused if isinstance(refusal, dict)]
    return Sentence(
        decisions=group,
        kernel=kernels.get(newest.kernel_digest, ""),
        refused=[
            RefusedLine(what=_refused(refusal, kernels), reason=_stopped(refusal.get("reason", "")))
            for refusal in refused
        ],
    )


def _refused(refusal: Mapping[str, Any], kernels: Mapping[str, str]) -> str:
    digest = str(refusal.get("kernel", ""))
    kernel = kernels.get(digest, short_name(digest)[:40])
    return _at(kernel or VERB_STEMS.get(refusal.get("action", ""), "something"), str(refusal.get("site", "")))


def _at(kernel: str, site: str) -> str:
    return f"{kernel}@{site}" if kernel and site else kernel or site


def _stopped(sentence: str) -> str:
    """The sentence with a capital letter and one full stop."""
    text = sentence.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _hold_key(decision: Decision) -> tuple[Any, ...]:
    """Holds in a row by the same rule are one sentence; every other decision is its own."""
    if decision.action == Action.HOLD:
        return (decision.action, decision.rule)
    return (decision.action, decision.sequence)


def kernel_names(run: TrainingRun, seeds: Iterable[Seed]) -> dict[str, str]:
    """Digest -> the blueprint's name that people know it by."""
    names = {offer["digest"]: short_name(offer.get("name", "")) for offer in _offers(run) if "digest" in offer}
    return names | {seed.kernel_digest: short_name(seed.kernel_name) for seed in seeds if seed.kernel_name}


def _offers(run: TrainingRun) -> list[dict[str, Any]]:
    return run.library if isinstance(run.library, list) else []


def short_name(kernel: str) -> str:
    """'widen_linear-v1-fan_in64-units32' -> 'widen_linear': the sizes stand in the ledger."""
    return kernel.split("-v", 1)[0]


@dataclass(frozen=True, slots=True)
class Account:
    """One seed in the ledger: what it is, its moves, and rent against gain. In nats per held-out sample."""

    seed: Seed
    name: str
    fate: str
    parameters: int | None
    moves: Sequence[SeedTransition]
    drawing: Interval | None
    why: str
    """What opened growth for it: the first sentence of the decision that germinated it."""
    outcome: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        return self.fate in LIVE_STATES

    @property
    def earns(self) -> bool | None:
        """Whether the lower bound of the gain is above the rent; None when it was not measured."""
        low = self.outcome.get("contribution_low")
        return None if low is None else low > self.outcome.get("rent", 0.0)

    @property
    def sentence(self) -> str:
        """Its fate with the evidence, for the first screen."""
        gain, rent = self.outcome.get("contribution"), self.outcome.get("rent")
        if gain is None or rent is None:
            told = next((move for move in reversed(self.moves) if move.target == self.fate), None)
            return told.reason if told else ""
        low, high = self.outcome.get("contribution_low"), self.outcome.get("contribution_high")
        interval = "" if low is None or high is None else f", interval {fixed(low)} to {fixed(high)}"
        return f"gain {nats(gain)}{interval}; rent {fixed(rent)}"


def ledger_of(run: TrainingRun) -> list[Account]:
    """Every seed of the run with its account. Three queries."""
    seeds = list(run.seeds.select_related("slot").order_by("number"))
    moves: dict[UUID, list[SeedTransition]] = {}
    for move in SeedTransition.objects.filter(run=run).order_by("sequence"):
        moves.setdefault(move.seed_id, []).append(move)
    germinations = Decision.objects.filter(run=run, action=Action.GERMINATE, seed_number__isnull=False)
    reasons = dict(germinations.values_list("seed_number", "reason"))
    sizes = {offer.get("digest"): offer.get("parameters") for offer in _offers(run)}
    drawings = intervals([_interval(seed.outcome) for seed in seeds], width=LEDGER_WIDTH)
    return [
        Account(
            seed=seed,
            name=short_name(seed.kernel_name) or seed.operator,
            fate=seed.standing,
            parameters=seed.outcome.get("parameters", sizes.get(seed.kernel_digest)),
            moves=moves.get(seed.pk, []),
            drawing=drawing,
            why=_first_sentence(reasons.get(seed.number, "")),
            outcome=seed.outcome,
        )
        for seed, drawing in zip(seeds, drawings, strict=True)
    ]


def _first_sentence(text: str) -> str:
    return _stopped(re.split(r"(?<=[^.])\.\s", text, maxsplit=1)[0])


def _interval(outcome: Mapping[str, Any]) -> tuple[float | None, float | None, float | None, float]:
    low, gain, high = (outcome.get(name) for name in ("contribution_low", "contribution", "contribution_high"))
    return low, gain, high, outcome.get("rent") or 0.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """The grown net beside the static net of the same final size; differences are grown minus static."""

    grown: Mapping[str, Any]
    static: Mapping[str, Any]
    control: TrainingRun

    @property
    def is_complete(self) -> bool:
        return "test_accuracy" in self.grown and "test_accuracy" in self.static

    @property
    def accuracy_difference(self) -> float:
        return float(self.grown["test_accuracy"] - self.static["test_accuracy"])

    @property
    def flops_share(self) -> float | None:
        whole = self.static.get("train_flops")
        return self.grown["train_flops"] / whole if whole and "train_flops" in self.grown else None

    @property
    def sentence(self) -> str:
        """What the pair says, whichever way it went."""
        points = self.accuracy_difference * 100
        size = "as accurate as" if abs(points) < 0.05 else f"{abs(points):.1f} pp {'above' if points > 0 else 'below'}"
        cost = f", for {self.flops_share * 100:.0f} % of its training FLOPs" if self.flops_share is not None else ""
        return f"On the test set this run is {size} the static net of the same final size{cost}."


def comparison_of(run: TrainingRun) -> Comparison | None:
    control = run.controls.order_by("-id").first()
    return Comparison(grown=run.result, static=control.result, control=control) if control else None


@dataclass(frozen=True, slots=True)
class Since:
    """When the run came into its state, by whom, and why."""

    at: datetime
    by: str
    reason: str


def since(run: TrainingRun) -> Since:
    """From the audit trail; two queries."""
    event = (
        audit.events_of(subject_type="run", subject_id=str(run.pk))
        .filter(type__in=["run.transition", "run.created"])
        .first()
    )
    if event is None:
        return Since(at=run.created_at, by="", reason="")
    return Since(at=event.at, by=_actor(event), reason=event.reason)


def last_command(run: TrainingRun) -> Since | None:
    """Who asked last for a pause, a resume or a stop, and why."""
    event = audit.events_of(subject_type="run", subject_id=str(run.pk)).filter(type="run.command").first()
    return Since(at=event.at, by=_actor(event), reason=event.reason) if event else None


def _actor(event: AuditEvent) -> str:
    names = audit.actor_names([event.actor_id])
    return names.get(event.actor_id, "somebody") if event.actor_id else f"the {event.actor_kind}"


def checkpoints_of(run: TrainingRun) -> tuple[list[Checkpoint], int]:
    """The newest checkpoints, and how many there are."""
    rows = Checkpoint.objects.filter(run_id=run.pk).order_by("-id")
    return list(rows[:MAX_CHECKPOINTS]), rows.count()


def latest_snapshot(run: TrainingRun) -> Checkpoint | None:
    """What the run would go on from."""
    return Checkpoint.objects.filter(run_id=run.pk, state=CheckpointState.COMMITTED).order_by("-step", "-id").first()


def is_final(run: TrainingRun) -> bool:
    return run.state in FINAL_RUN_STATES
