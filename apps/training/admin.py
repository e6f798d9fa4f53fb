"""Runs, with the buttons that people have on them, and all that a run wrote down: to be read."""

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.accounts.admin_steps import Step, StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link, link_to, number, short, state_column
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action, Command
from apps.training import selectors, services
from apps.training.lifecycle import FINAL_RUN_STATES, RecoveryState, RunState
from apps.training.models import Decision, EpochMetric, RecoveryEvent, Seed, SeedSlot, SeedTransition, TrainingRun

RUN_LABELS: dict[str, str] = {
    RunState.RUNNING: "info",
    RunState.PAUSED: "warning",
    RunState.RECOVERING: "warning",
    RunState.COMPLETED: "success",
    RunState.FAILED: "danger",
}
SEED_LABELS: dict[str, str] = {
    SeedState.GERMINATED: "info",
    SeedState.TRAINING: "info",
    SeedState.GRAFTING: "primary",
    SeedState.STABILIZING: "primary",
    SeedState.EVALUATING: "warning",
    SeedState.FOSSILIZED: "success",
    SeedState.CULLED: "danger",
    SeedState.ROLLED_BACK: "danger",
}
RECOVERY_LABELS: dict[str, str] = {
    RecoveryState.OPEN: "warning",
    RecoveryState.RESUMED: "success",
    RecoveryState.FAILED: "danger",
}
STAGES = ("detect", "load", "restore", "validate", "resume")
ACTION_LABELS: dict[str, str] = {
    Action.GERMINATE: "info",
    Action.FOSSILIZE: "success",
    Action.CULL: "danger",
    Action.ROLLBACK: "danger",
    Action.CANCEL: "warning",
}


def _is_pausing(run: TrainingRun) -> bool:
    return run.state == RunState.RUNNING and run.command == Command.PAUSE


PAUSE = Step(
    title="Pause",
    promises=(
        "The run stops at its next step boundary, within a second, and frees its worker.",
        "Nothing that it learned is lost: it can be resumed and ends with the same result.",
    ),
    done="asked to pause",
    call=lambda run, actor, data: services.pause_run(run=run, reason=data["reason"], actor=actor),
    offered=lambda run: run.state == RunState.RUNNING and run.command == Command.CONTINUE,
    icon="pause",
)
RESUME = Step(
    title="Resume",
    promises=("The run goes on from the step where it paused, as soon as a worker is free.",),
    done="asked to go on",
    call=lambda run, actor, data: services.resume_run(run=run, reason=data["reason"], actor=actor),
    offered=lambda run: run.state == RunState.PAUSED or _is_pausing(run),
    icon="play_arrow",
    is_primary=True,
)
STOP = Step(
    title="Stop for good",
    promises=(
        "The run ends as CANCELLED: at its next step boundary if it runs, at once if it does not.",
        "It cannot be resumed. To come back to it, pause it instead.",
        "What it wrote stays: measurements, seeds, decisions, checkpoints, audit events.",
    ),
    done="asked to stop",
    call=lambda run, actor, data: services.stop_run(run=run, reason=data["reason"], actor=actor),
    offered=lambda run: run.state not in FINAL_RUN_STATES and run.command != Command.STOP,
    icon="stop",
    is_destructive=True,
)


@admin.register(TrainingRun)
class TrainingRunAdmin(StepAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type, page = "run", "dashboards:run"
    neighbours = (
        ("checkpoints.checkpoint", "run_id", "id"),
        ("checkpoints.checkpointjob", "run_id", "id"),
        ("kernels.fieldreport", "run_id", "id"),
    )
    steps = {"resume": RESUME, "pause": PAUSE, "stop": STOP}

    list_display = [
        *("name", "state_label", "task", "host", "short_kind"),
        *("progress", "accuracy", "size_now", "owner_link", "created_at"),
    ]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("kind", ChoicesDropdownFilter),
        "task",
        "host",
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["name", "id__exact", "owner__username"]
    fieldsets = [
        (None, {"fields": ["name", "state_label", "asked", "failure", "kind", "control_link", "owner_link"]}),
        ("Job", {"fields": ["task", "host", "seed", "progress", "accuracy", "size_now", "started_at", "ended_at"]}),
        ("Result", {"fields": ["result"]}),
        ("Worker", {"fields": ["holder", "fencing_token", "heartbeat_at", "recoveries"]}),
        ("Decides everything", {"fields": ["settings", "library_source", "library", "environment"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at", "last_sequence", "wants_control"]}),
    ]

    state_label = state_column(RUN_LABELS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TrainingRun]:
        return selectors.runs().select_related("lease").order_by("-id")

    @display(description="asked to")
    def asked(self, run: TrainingRun) -> str:
        return run.command.lower()

    @display(description="kind", ordering="kind")
    def short_kind(self, run: TrainingRun) -> str:
        return run.kind

    @display(description="epoch")
    def progress(self, run: Any) -> str:
        return f"{run.last_epoch or 0}/{run.epochs}"

    @display(description="validation accuracy")
    def accuracy(self, run: Any) -> str:
        return EMPTY if run.last_accuracy is None else f"{run.last_accuracy:.1%}"

    @display(description="parameters")
    def size_now(self, run: Any) -> str:
        if run.last_parameters is None:
            return EMPTY
        grown = run.last_parameters - (run.first_parameters or run.last_parameters)
        return f"{run.last_parameters:,d}" + (f" (+{grown:,d})" if grown else "")

    @display(description="owner", ordering="owner__username")
    def owner_link(self, run: TrainingRun) -> str:
        return link(run.owner)

    @display(description="control of")
    def control_link(self, run: TrainingRun) -> str:
        return link(run.control_of)

    @display(description="held by")
    def holder(self, run: TrainingRun) -> str:
        return _lease(run, "holder")

    @display(description="fencing token")
    def fencing_token(self, run: TrainingRun) -> str:
        return _lease(run, "fencing_token")

    @display(description="last sign of life")
    def heartbeat_at(self, run: TrainingRun) -> str:
        return _lease(run, "heartbeat_at")

    @display(description="takeovers since the last snapshot")
    def recoveries(self, run: TrainingRun) -> str:
        return _lease(run, "recoveries")


def _lease(run: TrainingRun, field: str) -> str:
    lease = getattr(run, "lease", None)
    value = getattr(lease, field, None)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return EMPTY if value in (None, "") else str(value)


class OfRunAdmin(ScopedAdmin):
    """Rows that belong to one run."""

    read_scope = Scope.RUNS_READ
    list_select_related = ["run"]

    @display(description="run", ordering="run__name")
    def run_link(self, row: Any) -> str:
        return link(row.run)


@admin.register(SeedSlot)
class SeedSlotAdmin(OfRunAdmin):
    list_display = ["site", "run_link", "locked", "embargoed_until_epoch", "created_at"]
    list_filter = ["locked"]
    search_fields = ["site", "run__name", "run__id__exact"]
    fields = ["run_link", "site", "locked", "embargoed_until_epoch", "id", "created_at", "updated_at"]


@admin.register(Seed)
class SeedAdmin(OfRunAdmin):
    subject_type = "seed"

    list_display = ["seed", "state_label", "run_link", "kernel_link", "germinated_epoch", "ended_epoch", "contribution"]
    list_filter = [("state", ChoicesDropdownFilter), "operator", ("created_at", RangeDateTimeFilter)]
    list_select_related = ["run", "slot"]
    search_fields = ["run__name", "run__id__exact", "slot__site", "kernel_digest__startswith", "id__exact"]
    ordering = ["-id"]
    fieldsets = [
        (None, {"fields": ["run_link", "number", "slot_link", "state_label", "operator", "strength"]}),
        ("Kernel", {"fields": ["kernel_link", "kernel_digest"]}),
        ("Outcome", {"fields": ["germinated_epoch", "ended_epoch", "contribution", "outcome"]}),
        ("Row", {"fields": ["id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(SEED_LABELS)

    @display(description="seed", ordering="number")
    def seed(self, seed: Seed) -> str:
        return str(seed)

    @display(description="slot", ordering="slot__site")
    def slot_link(self, seed: Seed) -> str:
        return link(seed.slot)

    @display(description="kernel")
    def kernel_link(self, seed: Seed) -> str:
        if seed.kernel_id is None:
            return short(seed.kernel_digest)
        return link_to("kernels.kernel", seed.kernel_id, seed.kernel_name or seed.kernel_digest[:12])

    @display(description="strength (alpha)")
    def strength(self, seed: Seed) -> str:
        return number(seed.alpha, ".3f")

    @display(description="gain (nats)")
    def contribution(self, seed: Seed) -> str:
        return number(seed.outcome.get("contribution"), "+.4f")


@admin.register(SeedTransition)
class SeedTransitionAdmin(OfRunAdmin):
    list_display = ["at", "run_link", "seed_link", "epoch", "move", "gate", "reason"]
    list_filter = ["gate", "target", ("at", RangeDateTimeFilter)]
    list_select_related = ["run", "seed__slot"]
    search_fields = ["run__name", "run__id__exact", "reason"]
    ordering = ["-id"]
    paginator = InfinitePaginator
    fieldsets = [
        (None, {"fields": ["run_link", "seed_link", "move", "gate", "reason", "epoch", "step"]}),
        ("Evidence", {"fields": ["measured", "thresholds"]}),
        ("Row", {"fields": ["id", "sequence", "at"]}),
    ]

    @display(description="seed")
    def seed_link(self, transition: SeedTransition) -> str:
        return link(transition.seed)

    @display(description="move", ordering="target")
    def move(self, transition: SeedTransition) -> str:
        return chip(transition, SEED_LABELS.get(transition.target, ""))


@admin.register(Decision)
class DecisionAdmin(OfRunAdmin):
    list_display = ["at", "run_link", "epoch", "action_label", "site", "reason", "rule"]
    list_filter = [("action", ChoicesDropdownFilter), "rule", ("at", RangeDateTimeFilter)]
    search_fields = ["run__name", "run__id__exact", "site", "reason"]
    ordering = ["-id"]
    paginator = InfinitePaginator
    fieldsets = [
        (None, {"fields": ["run_link", "action_label", "reason", "rule", "site", "seed_number", "epoch", "step"]}),
        ("Evidence", {"fields": ["observed", "refused", "kernel_digest"]}),
        ("Row", {"fields": ["id", "sequence", "at"]}),
    ]

    action_label = state_column(ACTION_LABELS, "action")


@admin.register(EpochMetric)
class EpochMetricAdmin(OfRunAdmin):
    list_display = ["run_link", "epoch", "loss", "held_out_loss", "accuracy", "parameters", "train_flops", "at"]
    search_fields = ["run__name", "run__id__exact"]
    ordering = ["-id"]
    paginator = InfinitePaginator
    fieldsets = [
        (None, {"fields": ["run_link", "epoch", "step", "loss", "held_out_loss", "accuracy"]}),
        ("Cost", {"fields": ["parameters", "train_flops", "learning_rate", "live_seeds", "at"]}),
    ]

    @display(description="training loss (nats)", ordering="train_loss")
    def loss(self, metric: EpochMetric) -> str:
        return number(metric.train_loss)

    @display(description="held-out loss (nats)", ordering="validation_loss")
    def held_out_loss(self, metric: EpochMetric) -> str:
        return number(metric.validation_loss)

    @display(description="held-out accuracy", ordering="validation_accuracy")
    def accuracy(self, metric: EpochMetric) -> str:
        return EMPTY if metric.validation_accuracy is None else f"{metric.validation_accuracy:.1%}"


@admin.register(RecoveryEvent)
class RecoveryEventAdmin(OfRunAdmin):
    """How runs came back, to be read."""

    subject_type = "recovery"

    list_display = ["created_at", "run_link", "cause", "state_label", "checkpoint_link", "seconds_text", "problem"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("cause", ChoicesDropdownFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    list_select_related = ["run", "checkpoint"]
    search_fields = ["run__name", "run__id__exact", "id__exact"]
    ordering = ["-id"]
    fieldsets = [
        (None, {"fields": ["run_link", "cause", "state_label", "problem", "checkpoint_link", "skipped_text"]}),
        ("Who", {"fields": ["lost_holder", "holder", "fencing_token"]}),
        ("When", {"fields": ["silent_since", "seconds_text", "ended_at"]}),
        ("Compared", {"fields": ["report"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(RECOVERY_LABELS)

    @display(description="from")
    def checkpoint_link(self, recovery: RecoveryEvent) -> str:
        return link(recovery.checkpoint, f"step {recovery.checkpoint.step:,}" if recovery.checkpoint else None)

    @display(description="seconds")
    def seconds_text(self, recovery: RecoveryEvent) -> str:
        known = [(stage, getattr(recovery, f"{stage}_seconds")) for stage in STAGES]
        return ", ".join(f"{stage} {number(took, ',.3g')}" for stage, took in known if took is not None) or EMPTY

    @display(description="passed over")
    def skipped_text(self, recovery: RecoveryEvent) -> str | SafeString:
        lines = [(each.get("step", "?"), each.get("problem", "")) for each in recovery.skipped]
        return format_html_join("", "<div>step {}: {}</div>", lines) or EMPTY
