"""One box that finds runs, kernels and blueprints, by part of a name, by id, or kernels by the start of their digest.

By a whole id it also finds an event, and the events about what has the id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.accounts.roles import Scope
from apps.audit.models import AuditEvent
from apps.audit.search import Search, search
from apps.blueprints.models import Blueprint
from apps.core.ids import parse_id
from apps.dashboards.selectors import library, runs, trail
from apps.kernels.models import Kernel
from apps.training.models import TrainingRun

MAX_HITS = 20


@dataclass(frozen=True, slots=True)
class Hits:
    runs: Sequence[TrainingRun]
    kernels: Sequence[Kernel]
    blueprints: Sequence[Blueprint] = ()
    events: Sequence[trail.Line] = ()
    """Those about the thing that has the id."""
    event: AuditEvent | None = None
    """The one that has the id itself."""

    @property
    def count(self) -> int:
        return len(self.runs) + len(self.kernels) + len(self.blueprints)

    @property
    def is_empty(self) -> bool:
        return not (self.count or self.events or self.event)


def find(text: str, *, scopes: frozenset[str]) -> Hits:
    """At most ``MAX_HITS`` of each kind that the viewer may read."""
    if not text:
        return Hits(runs=[], kernels=[])
    found_runs = TrainingRun.objects.filter(runs.text_matches(text)).defer(*runs.HEAVY)
    found_kernels = Kernel.objects.filter(library.text_matches(text)).defer("report")
    found_blueprints = Blueprint.objects.filter(library.blueprint_matches(text)).order_by("name")
    key = parse_id(text) if Scope.AUDIT_READ in scopes else None
    about = search(Search(subject_id=str(key)), size=MAX_HITS).events if key else []
    return Hits(
        events=trail.lines_of(about),
        event=AuditEvent.objects.filter(pk=key).first() if key else None,
        runs=list(found_runs[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        kernels=list(found_kernels[:MAX_HITS]) if Scope.LIBRARY_READ in scopes else [],
        blueprints=list(found_blueprints[:MAX_HITS]) if Scope.LIBRARY_READ in scopes else [],
    )
