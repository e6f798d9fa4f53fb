"""Silences: nobody is notified of alerts that match, for a time. The alerts themselves go on."""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.parsers import is_storable
from apps.observability import matchers as matching
from apps.observability.models import Alert, Silence

LONGEST = timedelta(days=366)
LONGEST_COMMENT = 4_000
PAST = timedelta(minutes=1)
"""Of clocks that differ."""


@transaction.atomic
def create_silence(
    *,
    matchers: Any,
    comment: str,
    ends_at: datetime | None = None,
    duration: timedelta | None = None,
    starts_at: datetime | None = None,
    workspace: Workspace | None = None,
    actor: Actor,
) -> Silence:
    """Silence alerts whose labels all ``matchers`` admit (JSON, as of a rule), from ``starts_at`` (now) until
    ``ends_at``, or for ``duration``.

    Raises:
        Invalid: no matcher, one that admits everything alone, no comment, or times that do not fit, naming the field.
    """
    now = timezone.now()
    given = starts_at
    starts_at = starts_at or now
    parsed = matching.parse(matchers)
    if all(each.admits({}) for each in parsed):
        detail = "at least one has to ask for something: these admit alerts without any label"
        raise Invalid(detail, pointer="/matchers", code="too_wide")
    if not isinstance(comment, str) or not comment.strip() or len(comment) > LONGEST_COMMENT:
        raise Invalid(f"say why, in at most {LONGEST_COMMENT} characters", pointer="/comment", code="required")
    if not is_storable(comment):
        raise Invalid("must not hold NUL characters or lone surrogates", pointer="/comment", code="invalid")
    if (ends_at is None) == (duration is None):
        raise Invalid("give either an end or a duration", pointer="/ends_at", code="required")
    if given is not None and given < now - PAST:
        raise Invalid("is in the past", pointer="/starts_at", code="out_of_range")
    ends_at = _end(starts_at, ends_at, duration)
    if ends_at <= max(starts_at, now):
        raise Invalid("must be after the start, and in the future", pointer="/ends_at", code="out_of_range")
    if ends_at - now > LONGEST:
        raise Invalid(f"must be within {LONGEST.days} days", pointer="/ends_at", code="out_of_range")
    silence = Silence(
        workspace_id=workspace.pk if workspace else default_workspace_id(),
        matchers=matching.told(parsed),
        starts_at=starts_at,
        ends_at=ends_at,
        comment=comment.strip(),
        created_by_id=actor.id,
    )
    silence.save(force_insert=True)
    audit.record(type="silence.created", subject=silence, actor=actor, reason=silence.comment, after=image(silence))
    return silence


def silence_alert(*, alert: Alert, duration: timedelta, comment: str, actor: Actor) -> Silence:
    """Silence exactly what has the labels of ``alert``: it, and its next episodes.

    Raises:
        Invalid: as ``create_silence``.
    """
    matchers = [{"label": name, "op": "=", "value": value} for name, value in sorted(alert.labels.items())]
    if len(matchers) > matching.MOST:
        raise Invalid(f"the alert has more than {matching.MOST} labels: silence it by some", code="too_many")
    return create_silence(matchers=matchers, duration=duration, comment=comment, workspace=alert.workspace, actor=actor)


@transaction.atomic
def end_silence(*, silence: Silence, actor: Actor, reason: str = "") -> Silence:
    """End a silence now, or call off one that has not begun.

    Raises:
        Conflict: it is over.
    """
    fresh = Silence.objects.select_for_update(of=("self",)).get(pk=silence.pk)
    now = timezone.now()
    if fresh.ends_at <= now:
        raise Conflict("the silence is over", code="over")
    before = image(fresh)
    fresh.starts_at, fresh.ends_at = min(fresh.starts_at, now), now
    fresh.save()
    audit.record(type="silence.ended", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh))
    return fresh


def _end(starts_at: datetime, ends_at: datetime | None, duration: timedelta | None) -> datetime:
    try:
        return ends_at if ends_at is not None else starts_at + (duration or timedelta())
    except OverflowError:
        raise Invalid("is too long", pointer="/duration", code="out_of_range") from None
