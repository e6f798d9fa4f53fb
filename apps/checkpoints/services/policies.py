"""Policies: when runs save, and which of their checkpoints stay."""

from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import transaction

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.watched import image
from apps.checkpoints.models import CheckpointPolicy
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, field_errors

SETTABLE = frozenset(
    {
        "schedule", "interval_seconds", "keep_last", "keep_days", "keep_daily", "keep_weekly", "keep_monthly",
        "keep_best", "best_metric", "best_is_lowest", "archive_after_hours",
    }
)  # fmt: skip
BOUNDS = {
    "interval_seconds": (10, 7 * 86_400),
    "keep_last": (1, 10_000),
    "keep_days": (0, 36_500),
    "keep_daily": (0, 10_000),
    "keep_weekly": (0, 10_000),
    "keep_monthly": (0, 10_000),
    "keep_best": (0, 10_000),
    "archive_after_hours": (0, 24 * 36_500),
}
"""Column -> its least and greatest value. The newest one always stays; a save takes seconds of work."""


@transaction.atomic
def create_policy(
    *, run_id: UUID | None = None, workspace: Workspace | None = None, actor: Actor, reason: str = "", **settings: Any
) -> CheckpointPolicy:
    """The policy of one run, or (without ``run_id``) of all runs of the workspace that have none of their own.

    Raises:
        Invalid: a setting is wrong. Conflict: there is a policy of that run, or of all runs, already.
    """
    workspace_id = workspace.pk if workspace else default_workspace_id()
    policy = CheckpointPolicy(run_id=run_id, workspace_id=workspace_id, **_known(settings))
    if CheckpointPolicy.objects.filter(workspace=workspace_id, run_id=run_id).exists():
        whose = f"the run {run_id}" if run_id else "all runs"
        raise Conflict(f"there is a policy of {whose} already: change that one", pointer="/run", code="duplicate")
    _check(policy)
    policy.save(force_insert=True)
    audit.record(type="checkpoint_policy.created", subject=policy, actor=actor, reason=reason, after=image(policy))
    return policy


@transaction.atomic
def change_policy(*, policy: CheckpointPolicy, actor: Actor, reason: str = "", **changes: Any) -> CheckpointPolicy:
    """Change a policy; what it says then goes for the next save and the next round of retention.

    Raises:
        Invalid: a setting is wrong.
    """
    fresh = CheckpointPolicy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
    before = image(fresh)
    for name, value in _known(changes).items():
        setattr(fresh, name, value)
    _check(fresh)
    if image(fresh) == before:
        return fresh
    fresh.save()
    audit.record(
        type="checkpoint_policy.changed", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh)
    )
    return fresh


@transaction.atomic
def remove_policy(*, policy: CheckpointPolicy, actor: Actor, reason: str = "") -> None:
    """Remove a policy: its runs follow the one of all runs again, or the defaults."""
    fresh = CheckpointPolicy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
    audit.record(
        type="checkpoint_policy.removed", subject=fresh, actor=actor, reason=reason, before=image(fresh), after=None
    )
    fresh.delete()


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(settings) - SETTABLE:
        raise TypeError(f"a checkpoint policy has no {min(unknown)}")
    return settings


def _check(policy: CheckpointPolicy) -> None:
    """Raises Invalid, naming the field."""
    try:
        policy.clean_fields()
        for name, (least, most) in BOUNDS.items():
            value = getattr(policy, name)
            if value is not None and not least <= value <= most:
                raise Invalid(f"is between {least} and {most}", pointer=f"/{name}", code="out_of_range")
        policy.full_clean()
    except ValidationError as error:
        errors = field_errors(error)
        raise Invalid(errors[0].detail, errors=errors) from None
