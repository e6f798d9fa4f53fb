"""Checkpoints with the buttons that people have on them, policies that they write, work that was asked for, packs."""

from collections.abc import Callable, Mapping
from typing import Any

from django import forms
from django.contrib import admin
from django.core.validators import MaxValueValidator, MinValueValidator
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin_steps import ReasonedForm, ServiceFormAdmin, Step, StepAdmin
from apps.accounts.roles import Scope
from apps.checkpoints.lifecycle import OVER, CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, CheckpointPolicy, JobKind, Location, Pack
from apps.checkpoints.services import jobs, pinning, policies
from apps.core.actors import Actor
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link, link_to, number, short, size, state_column, whole

LABELS = {
    CheckpointState.STAGING: "info",
    CheckpointState.COMMITTED: "success",
    CheckpointState.ABANDONED: "warning",
    CheckpointState.QUARANTINED: "danger",
}
JOB_LABELS = {
    JobState.PENDING: "info",
    JobState.RUNNING: "warning",
    JobState.SUCCEEDED: "success",
    JobState.FAILED: "danger",
}


# --- Checkpoints


def _work(kind: JobKind) -> Callable[[Checkpoint, Actor, Mapping[str, Any]], CheckpointJob]:
    def ask(checkpoint: Checkpoint, actor: Actor, data: Mapping[str, Any]) -> CheckpointJob:
        return jobs.request_job(kind=kind, checkpoint=checkpoint, actor=actor, reason=data["reason"])

    return ask


def _is_complete(checkpoint: Checkpoint) -> bool:
    return checkpoint.state == CheckpointState.COMMITTED


VERIFY = Step(
    title="Verify",
    promises=(
        "A worker reads every byte of the checkpoint and compares it with its digest.",
        "If a byte is wrong it is quarantined: no run goes on from it, and the row says which part is broken.",
        "No run is touched, no byte is changed.",
    ),
    done="a worker verifies it",
    call=_work(JobKind.VERIFY),
    offered=lambda checkpoint: checkpoint.state in {CheckpointState.COMMITTED, CheckpointState.QUARANTINED},
    icon="fact_check",
    is_primary=True,
)
PIN = Step(
    title="Pin",
    promises=("The checkpoint stays until somebody unpins it, whatever the policy says.",),
    done="pinned",
    call=lambda checkpoint, actor, data: pinning.pin(checkpoint=checkpoint, actor=actor, reason=data["reason"]),
    offered=lambda checkpoint: _is_complete(checkpoint) and not checkpoint.pinned,
    icon="keep",
)
UNPIN = Step(
    title="Unpin",
    promises=(
        "The policy of the run decides again whether it stays; what it no longer keeps goes within the hour.",
        "Nothing is deleted by this step.",
    ),
    done="unpinned",
    call=lambda checkpoint, actor, data: pinning.unpin(checkpoint=checkpoint, actor=actor, reason=data["reason"]),
    offered=lambda checkpoint: checkpoint.pinned,
    icon="keep_off",
)
ARCHIVE = Step(
    title="Archive",
    promises=(
        "Its packs and its manifest are copied to the object storage and compared there.",
        "Then what no other checkpoint needs leaves the checkpoint folder. It is restored from there as well.",
    ),
    done="a worker moves its bytes",
    call=_work(JobKind.ARCHIVE),
    offered=lambda checkpoint: _is_complete(checkpoint) and checkpoint.location == Location.LOCAL,
    icon="archive",
)
RECALL = Step(
    title="Recall",
    promises=("Its bytes are brought back into the checkpoint folder and compared; the copy stays.",),
    done="a worker brings its bytes back",
    call=_work(JobKind.RECALL),
    offered=lambda checkpoint: _is_complete(checkpoint) and checkpoint.location == Location.ARCHIVED,
    icon="unarchive",
)


class OfRunAdmin(StepAdmin):
    """Rows that name the run that they are of."""

    read_scope = Scope.RUNS_READ
    write_scope = Scope.RUNS_WRITE

    @display(description="run")
    def run_link(self, row: Any) -> str | SafeString:
        return link_to("training.trainingrun", row.run_id, f"run …{str(row.run_id)[-6:]}")


@admin.register(Checkpoint)
class CheckpointAdmin(OfRunAdmin):
    subject_type = "checkpoint"
    page = "dashboards:checkpoint"
    steps = {"verify": VERIFY, "pin": PIN, "unpin": UNPIN, "archive": ARCHIVE, "recall": RECALL}

    list_display = [
        *("checkpoint", "run_link", "epoch", "state_label", "reason", "pinned"),
        *("whole_size", "new_size", "location", "verified_at", "created_at"),
    ]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("reason", ChoicesDropdownFilter),
        ("location", ChoicesDropdownFilter),
        "pinned",
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["run_id__exact", "digest__startswith", "id__exact"]
    fieldsets = [
        (None, {"fields": ["run_link", "epoch", "step", "state_label", "problem", "reason", "pinned", "verified_at"]}),
        ("Bytes", {"fields": ["whole_size", "new_size", "shared_size", "components_text", "location", "copied_at"]}),
        ("What it took", {"fields": ["stalled", "durable"]}),
        ("What it is known by", {"fields": ["digest_whole", "fingerprint_whole", "metrics", "environment"]}),
        ("Files", {"fields": ["name", "format", "store_id", "fencing_token", "parent_link"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(LABELS)

    @display(description="step", ordering="step")
    def checkpoint(self, checkpoint: Checkpoint) -> str:
        return f"{checkpoint.step:,}"

    @display(description="size", ordering="size")
    def whole_size(self, checkpoint: Checkpoint) -> str:
        return size(checkpoint.size)

    @display(description="stored", ordering="stored_bytes")
    def new_size(self, checkpoint: Checkpoint) -> str:
        return size(checkpoint.stored_bytes)

    @display(description="shared with others")
    def shared_size(self, checkpoint: Checkpoint) -> str:
        return size(checkpoint.shared_bytes)

    @display(description="components")
    def components_text(self, checkpoint: Checkpoint) -> str | SafeString:
        lines = [
            (name, facts.get("tensors", 0), size(facts.get("bytes", 0)), size(facts.get("stored", 0)))
            for name, facts in sorted(checkpoint.components.items())
        ]
        return format_html_join("", "<div>{}: {} tensors, {}, {} of them new</div>", lines) or EMPTY

    @display(description="training stood still (s)")
    def stalled(self, checkpoint: Checkpoint) -> str:
        return number(checkpoint.stall_seconds)

    @display(description="durable after (s)")
    def durable(self, checkpoint: Checkpoint) -> str:
        return number(checkpoint.save_seconds)

    @display(description="manifest")
    def digest_whole(self, checkpoint: Checkpoint) -> str | SafeString:
        return whole(checkpoint.digest)

    @display(description="forward pass")
    def fingerprint_whole(self, checkpoint: Checkpoint) -> str | SafeString:
        return whole(checkpoint.fingerprint)

    @display(description="after")
    def parent_link(self, checkpoint: Checkpoint) -> str | SafeString:
        return link_to("checkpoints.checkpoint", checkpoint.parent_id)


# --- Policies

SAVES = ("schedule", "interval_seconds")
KEEPS = ("keep_last", "keep_days", "keep_daily", "keep_weekly", "keep_monthly")
BEST = ("keep_best", "best_metric", "best_is_lowest")
POLICY_FIELDS = (*SAVES, *KEEPS, *BEST, "archive_after_hours")
POLICY_LABELS = {
    "schedule": "Saves",
    "interval_seconds": "Interval (seconds)",
    "keep_last": "The newest",
    "keep_days": "Younger than (days)",
    "keep_daily": "One a day, for so many days",
    "keep_weekly": "One a week, for so many weeks",
    "keep_monthly": "One a month, for so many months",
    "keep_best": "The best",
    "best_metric": "Best by",
    "best_is_lowest": "The lowest is the best",
    "archive_after_hours": "To the archive after (hours)",
}
POLICY_HELP = {
    "interval_seconds": "From the end of one save to the next; counted on a clock that nobody sets.",
    "keep_last": "At least 1: a run never loses its newest good one.",
    "keep_daily": "The newest of each of the last days that have any. Days, weeks and months are UTC.",
    "best_metric": "A key of the checkpoints' metrics. Those without it are never the best.",
    "archive_after_hours": "Empty: they stay in the checkpoint folder.",
}


class BoundedForm(ReasonedForm):
    """Says at the field what a number may be, before the database does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in policies.BOUNDS.keys() & self.fields.keys():
            least, most = policies.BOUNDS[name]
            self.fields[name].validators += [MinValueValidator(least), MaxValueValidator(most)]


class PolicyForm(BoundedForm):
    run = forms.UUIDField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        label="Run",
        help_text="The id of a run; empty: all runs that have no policy of their own.",
    )

    class Meta:
        model = CheckpointPolicy
        fields = [*POLICY_FIELDS]
        labels = POLICY_LABELS
        help_texts = POLICY_HELP

    def write(self) -> CheckpointPolicy:
        settings = {name: value for name, value in self.cleaned_data.items() if name != "run"}
        return policies.create_policy(run_id=self.cleaned_data.get("run"), **settings, actor=self.actor)


class PolicyChangeForm(BoundedForm):
    class Meta:
        model = CheckpointPolicy
        fields = [*POLICY_FIELDS]
        labels = POLICY_LABELS
        help_texts = POLICY_HELP

    def write(self) -> CheckpointPolicy:
        return policies.change_policy(policy=self.instance, **self.cleaned_data, actor=self.actor)


REMOVE = Step(
    title="Remove",
    promises=(
        "The policy is gone: its runs follow the one of all runs again, or the platform's defaults.",
        "No checkpoint is deleted by this step; the next round of retention goes by what holds then.",
    ),
    done="removed",
    call=lambda policy, actor, data: policies.remove_policy(policy=policy, actor=actor, reason=data["reason"]),
    icon="delete",
    is_destructive=True,
)
_KEPT = [
    ("What stays: whatever any of these keeps", {"fields": [*KEEPS]}),
    ("The best stay too", {"fields": [*BEST]}),
    ("The archive", {"fields": ["archive_after_hours"]}),
]


@admin.register(CheckpointPolicy)
class CheckpointPolicyAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "checkpoint_policy"
    add_form, change_form = PolicyForm, PolicyChangeForm
    steps = {"remove": REMOVE}

    list_display = ["policy", "schedule", "interval_seconds", "keep_last", "keep_days", "best_text", "updated_at"]
    list_filter = [("schedule", ChoicesDropdownFilter)]
    search_fields = ["run_id__exact", "id__exact"]
    fieldsets = [(None, {"fields": ["policy", *SAVES]}), *_KEPT]
    add_fieldsets = [(None, {"fields": ["run", *SAVES]}), *_KEPT, ("Why", {"fields": ["reason"]})]

    def get_readonly_fields(self, request: Any, obj: Any = None) -> list[Any]:
        return ["policy"] if self.has_write_permission(request) else super().get_readonly_fields(request, obj)

    @display(description="of", ordering="run_id")
    def policy(self, policy: CheckpointPolicy) -> str:
        return f"run {policy.run_id}" if policy.run_id else "all runs"

    @display(description="the best")
    def best_text(self, policy: CheckpointPolicy) -> str:
        way = "lowest" if policy.best_is_lowest else "highest"
        return f"{policy.keep_best} by {way} {policy.best_metric}" if policy.keep_best else EMPTY


# --- Work that was asked for

CANCEL = Step(
    title="Give it up",
    promises=("The work is over and stays on record.", "What is done stays done: nothing is undone."),
    done="given up",
    call=lambda job, actor, data: jobs.cancel_job(job=job, actor=actor, reason=data["reason"]),
    offered=lambda job: job.state not in OVER,
    icon="close",
)


@admin.register(CheckpointJob)
class CheckpointJobAdmin(OfRunAdmin):
    subject_type = "checkpoint_job"
    steps = {"cancel": CANCEL}

    list_display = ["kind", "state_label", "run_link", "checkpoint_link", "progress", "problem", "created_at"]
    list_filter = [
        ("kind", ChoicesDropdownFilter),
        ("state", ChoicesDropdownFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    list_select_related = ["checkpoint"]
    search_fields = ["run_id__exact", "checkpoint__id__exact", "id__exact"]
    fieldsets = [
        (None, {"fields": ["kind", "state_label", "run_link", "checkpoint_link", "parameters"]}),
        ("Progress", {"fields": ["progress", "heartbeat_at", "result", "problem"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(JOB_LABELS)

    @display(description="checkpoint")
    def checkpoint_link(self, job: CheckpointJob) -> str | SafeString:
        return link(job.checkpoint, f"step {job.checkpoint.step:,}" if job.checkpoint else None)

    @display(description="done")
    def progress(self, job: CheckpointJob) -> str:
        if not job.total:
            return EMPTY
        if job.kind == JobKind.REPLAY:
            return f"{job.done:,} of {job.total:,} steps"
        return f"{size(job.done)} of {size(job.total)}"


# --- Packs


@admin.register(Pack)
class PackAdmin(ScopedAdmin):
    """Files of objects, to be read: saves write them, retention and compaction let them go."""

    read_scope = Scope.RUNS_READ

    list_display = ["pack", "whole_size", "places", "digest_short", "copied_at", "emptied_at", "created_at"]
    list_filter = ["in_folder", ("created_at", RangeDateTimeFilter), ("emptied_at", RangeDateTimeFilter)]
    search_fields = ["id__exact", "digest__startswith"]
    fieldsets = [
        (None, {"fields": ["whole_size", "places", "copied_at", "emptied_at"]}),
        ("Files", {"fields": ["digest_whole", "store_id"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    @display(description="pack", ordering="-id")
    def pack(self, pack: Pack) -> str:
        return str(pack)

    @display(description="size", ordering="size")
    def whole_size(self, pack: Pack) -> str:
        return size(pack.size)

    @display(description="lies in")
    def places(self, pack: Pack) -> SafeString:
        words = [word for word, there in (("folder", pack.in_folder), ("archive", pack.copied_at)) if there]
        return chip(" and ".join(words) or "nowhere", "success" if words else "danger")

    @display(description="digest", ordering="digest")
    def digest_short(self, pack: Pack) -> str | SafeString:
        return short(pack.digest)

    @display(description="digest")
    def digest_whole(self, pack: Pack) -> str | SafeString:
        return whole(pack.digest)
