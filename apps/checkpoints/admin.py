"""Checkpoints of runs, to be read: runs and retention write them."""

from django.contrib import admin
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display

from apps.accounts.roles import Scope
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import link_to, short, size, state_column

LABELS = {
    CheckpointState.STAGING: "info",
    CheckpointState.COMMITTED: "success",
    CheckpointState.ABANDONED: "warning",
    CheckpointState.QUARANTINED: "danger",
}


@admin.register(Checkpoint)
class CheckpointAdmin(ScopedAdmin):
    read_scope = Scope.RUNS_READ
    subject_type = "checkpoint"

    list_display = ["created_at", "run_link", "epoch", "step", "state_label", "stored_size", "location", "digest_short"]
    list_filter = [("state", ChoicesDropdownFilter), "location", "pinned", ("created_at", RangeDateTimeFilter)]
    search_fields = ["run_id__exact", "digest__startswith", "id__exact"]
    fieldsets = [
        (None, {"fields": ["run_link", "epoch", "step", "state_label", "verified_at", "pinned"]}),
        ("Files", {"fields": ["name", "format", "digest", "stored_size", "location", "fencing_token"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(LABELS)

    @display(description="run")
    def run_link(self, checkpoint: Checkpoint) -> str:
        return link_to("training.trainingrun", checkpoint.run_id, f"run …{str(checkpoint.run_id)[-6:]}")

    @display(description="size", ordering="size")
    def stored_size(self, checkpoint: Checkpoint) -> str:
        return size(checkpoint.size)

    @display(description="digest", ordering="digest")
    def digest_short(self, checkpoint: Checkpoint) -> str:
        return short(checkpoint.digest)
