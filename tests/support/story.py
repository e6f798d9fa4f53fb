"""Do the events of a call tell exactly what it did to the watched rows? The fold of their diffs must give the rows."""

from collections.abc import Iterable
from typing import Any

from apps.audit.canonical import plain
from apps.audit.models import AuditEvent
from apps.audit.projections import patched
from apps.audit.services.recording import told
from apps.audit.watched import image, watched_models

Subject = tuple[str, str]
ERASED = "hmac:"
"""What stands for the name of a person without a salt: it cannot be compared any more."""


def snapshot() -> dict[Subject, dict[str, Any]]:
    """Every watched row as events would tell it: (kind, id) -> columns."""
    return {
        (watch.subject, str(row.id)): plain(told(image(row)))
        for model, watch in watched_models().items()
        if watch.is_subject
        for row in model._default_manager.all()
    }


def untold(
    before: dict[Subject, dict[str, Any]], after: dict[Subject, dict[str, Any]], events: Iterable[AuditEvent]
) -> list[str]:
    """What events between two snapshots leave out, or tell otherwise than it is: empty when they tell it all."""
    folded = {subject: dict(state) for subject, state in before.items()}
    for event in events:
        subject = event.subject_type, event.subject_id
        folded[subject] = patched(folded.get(subject, {}), event.diff)
    return [
        f"{kind} {key}: {name} is {now.get(name)!r}, and its events say {said.get(name)!r}"
        for (kind, key) in sorted(before.keys() | after.keys())
        for now, said in [(after.get((kind, key), {}), folded.get((kind, key), {}))]
        for name in sorted(now.keys() | said.keys())
        if now.get(name) != ERASED and (now.get(name) != said.get(name) or (name in now) != (name in said))
    ]
