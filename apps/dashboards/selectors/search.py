"""One box that finds runs and kernels, by part of a name, by id, or kernels by the start of their digest."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.accounts.roles import Scope
from apps.dashboards.selectors import library, runs
from apps.kernels.models import Kernel
from apps.training.models import TrainingRun

MAX_HITS = 20


@dataclass(frozen=True, slots=True)
class Hits:
    runs: Sequence[TrainingRun]
    kernels: Sequence[Kernel]

    @property
    def count(self) -> int:
        return len(self.runs) + len(self.kernels)


def find(text: str, *, scopes: frozenset[str]) -> Hits:
    """At most ``MAX_HITS`` of each kind that the viewer may read."""
    if not text:
        return Hits(runs=[], kernels=[])
    found_runs = TrainingRun.objects.filter(runs.text_matches(text)).defer(*runs.HEAVY)
    found_kernels = Kernel.objects.filter(library.text_matches(text)).defer("report")
    return Hits(
        runs=list(found_runs[:MAX_HITS]) if Scope.RUNS_READ in scopes else [],
        kernels=list(found_kernels[:MAX_HITS]) if Scope.LIBRARY_READ in scopes else [],
    )
