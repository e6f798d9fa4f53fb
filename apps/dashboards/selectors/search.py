"""One box that finds runs, kernels, blueprints, checkpoints, alerts and rules, by part of a name, by id, or kernels and
checkpoints by the start of their digest.

By a whole id it also finds an event, and the events about what has the id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Q

from apps.accounts.roles import Scope
from apps.audit.models import AuditEvent
from apps.audit.search import Search, search
from apps.blueprints.models import Blueprint
from apps.checkpoints.models import Checkpoint
from apps.core.ids import parse_id
from apps.dashboards.selectors import library, runs, trail
from apps.kernels.models import Kernel
from apps.observability.models import Alert, AlertRule
from apps.training.models import TrainingRun

MAX_HITS = 20
SHORTEST = 6
"""Names of checkpoints are made of ids: fewer characters are part of them all."""


@dataclass(frozen=True, slots=True)
class Hits:
    runs: Sequence[TrainingRun]
    kernels: Sequence[Kernel]
    blueprints: Sequence[Blueprint] = ()
    checkpoints: Sequence[Checkpoint] = ()
    alerts: Sequence[Alert] = ()
    rules: Sequence[AlertRule] = ()
    events: Sequence[trail.Line] = ()
    """Those about the thing that has the id."""
    event: AuditEvent | None = None
    """The one that has the id itself."""

    @property
    def count(self) -> int:
        rows = (self.runs, self.kernels, self.blueprints, self.checkpoints, self.alerts, self.rules)
        return sum(map(len, rows))

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
    found_checkpoints = (
        Checkpoint.objects.filter(_checkpoint_matches(text)).defer("components", "environment").order_by("-id")
    )
    found_alerts = Alert.objects.filter(_named("rule_name", text)).defer("evidence").order_by("-id")
    found_rules = AlertRule.objects.filter(_named("name", text)).order_by("name")
    key = parse_id(text) if Scope.AUDIT_READ in scopes else None
    about = search(Search(subject_id=str(key)), size=MAX_HITS).events if key else []
    return Hits(
        events=trail.lines_of(about),
        event=AuditEvent.objects.filter(pk=key).first() if key else None,
        runs=list(found_runs[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        checkpoints=list(found_checkpoints[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        alerts=list(found_alerts[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        rules=list(found_rules[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        kernels=list(found_kernels[:MAX_HITS]) if Scope.LIBRARY_READ in scopes else [],
        blueprints=list(found_blueprints[:MAX_HITS]) if Scope.LIBRARY_READ in scopes else [],
    )


def _checkpoint_matches(text: str) -> Q:
    """Part of a name, a whole id, or the start of a digest; an id that is in a name finds the run that has it."""
    key = parse_id(text)
    if key:
        return Q(pk=key)
    return Q(name__icontains=text) | Q(digest__startswith=text.lower()) if len(text) >= SHORTEST else Q(pk__in=[])


def _named(field: str, text: str) -> Q:
    key = parse_id(text)
    return Q(pk=key) if key else Q(**{f"{field}__icontains": text})
