"""New blueprints from those that did well: parents by what runs reported of their kernels, children by mutation and
crossing.

Parents are drawn by Thompson sampling (Thompson, 1933): each version gets a draw from the Beta distribution of its kept
rate, kept grafts against those that were culled, and the highest draws are the parents. So what did well is varied
often, and what is little known now and then.
"""

import random
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Count, Q

from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion
from apps.blueprints.services import Submission, cross_versions, mutate_version
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.kernels.models import FieldReport
from apps.morphogenesis.lifecycle import SeedState

PRIOR = (1.0, 3.0)
"""Kept and culled grafts that every version starts with: one in four, about what an untried design deserves."""
CROSSED = 0.4
"""Share of proposals that cross two parents; the others mutate one."""
MOST_CANDIDATES = 500
"""The newest so many versions may become parents, and all that have reports."""
ATTEMPTS = 32
USABLE = (VersionState.SUBMITTED, VersionState.COMPILING, VersionState.CHARACTERIZED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that may become a parent, and what became of the grafts of its kernels."""

    version: BlueprintVersion
    kept: int
    culled: int


@transaction.atomic
def propose(*, seed: int, actor: Actor) -> BlueprintVersion:
    """A version that did not exist before, made from versions that runs kept. Equal libraries and seeds: equal specs.

    Raises:
        Conflict: there is nothing to make it from, or no attempt led to anything new.
    """
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    found = candidates()
    for _ in range(ATTEMPTS if found else 0):
        made = _child(ranked(found, chance), chance, actor)
        if made is not None and made.created:
            return made.version
    raise Conflict("no new blueprint could be made from those that there are", code="no_variation")


def candidates() -> list[Candidate]:
    """Every possible parent with its outcomes, in the order of their ids. Two statements."""
    rows = FieldReport.objects.filter(kernel__blueprint_version__state__in=USABLE)
    kept = Count("pk", filter=Q(verdict=SeedState.FOSSILIZED))
    counted = rows.values_list("kernel__blueprint_version").annotate(kept=kept, all=Count("pk"))
    outcomes = {version: (kept, total - kept) for version, kept, total in counted}
    newest = BlueprintVersion.objects.filter(state__in=USABLE).order_by("-id").values("pk")[:MOST_CANDIDATES]
    versions = BlueprintVersion.objects.select_related("blueprint").filter(Q(pk__in=newest) | Q(pk__in=outcomes))
    return [Candidate(version, *outcomes.get(version.pk, (0, 0))) for version in versions.order_by("id")]


def ranked(found: list[Candidate], chance: random.Random) -> list[BlueprintVersion]:
    """One draw for each from Beta(kept, culled), with the prior; the highest first."""
    draws = [
        (chance.betavariate(PRIOR[0] + candidate.kept, PRIOR[1] + candidate.culled), index)
        for index, candidate in enumerate(found)
    ]
    return [found[index].version for _, index in sorted(draws, reverse=True)]


def _child(parents: list[BlueprintVersion], chance: random.Random, actor: Actor) -> Submission | None:
    """Of the best parent and the best that fits the same slots, or of the best alone; None where that leads nowhere."""
    crossed, seed = chance.random() < CROSSED, chance.randrange(2**31)
    first = parents[0]
    try:
        if crossed:
            for mate in parents[1:]:
                try:
                    return cross_versions(left=first, right=mate, seed=seed, actor=actor)
                except Invalid:
                    continue  # for other slots
        return mutate_version(version=first, seed=seed, actor=actor)
    except Conflict:
        return None  # too alike, or too near a limit
