"""New blueprints are proposed from those that runs kept."""

import random
from collections import Counter

import pytest
from django.db import transaction

from apps.audit.models import AuditEvent
from apps.blueprints import services
from apps.blueprints.lifecycle import VersionState
from apps.blueprints.models import BlueprintVersion, VersionLineage
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.kernels.lifecycle import KernelState
from apps.kernels.proposals import candidates, propose, ranked
from apps.morphogenesis.lifecycle import SeedState
from tests.support.factories import BlueprintVersionFactory, FieldReportFactory, KernelFactory

pytestmark = pytest.mark.django_db


def reported(version: BlueprintVersion, *, kept: int, culled: int) -> None:
    kernel = KernelFactory(blueprint_version=version, state=KernelState.VALIDATED)
    for verdict, times in ((SeedState.FOSSILIZED, kept), (SeedState.CULLED, culled)):
        FieldReportFactory.create_batch(times, kernel=kernel, verdict=verdict)


@pytest.fixture
def library() -> dict[str, BlueprintVersion]:
    return {version.blueprint.name: version for version in services.load_core_library(actor=SYSTEM)}


def test_a_proposal_is_new_and_tells_what_it_came_from(library: dict[str, BlueprintVersion]) -> None:
    for seed in range(6):
        known = set(BlueprintVersion.objects.values_list("digest", flat=True))

        version = propose(seed=seed, actor=SYSTEM)

        assert version.digest not in known
        assert version.state == VersionState.SUBMITTED
        assert VersionLineage.objects.filter(child=version).count() in {1, 2}
        assert AuditEvent.objects.filter(type="blueprint.version_linked", subject_id=str(version.pk)).exists()


def test_what_runs_kept_leads_the_draw_far_more_often(library: dict[str, BlueprintVersion]) -> None:
    reported(library["residual_mlp"], kept=12, culled=2)
    reported(library["residual_conv"], kept=0, culled=10)

    found, chance = candidates(), random.Random(1)
    leads = Counter(ranked(found, chance)[0].blueprint.name for _ in range(200))

    assert leads["residual_mlp"] > 150
    assert leads["residual_conv"] < 5
    assert leads["widen_conv"] > 0, "what nobody tried gets its chance"


def test_outcomes_are_counted_by_version(library: dict[str, BlueprintVersion]) -> None:
    reported(library["residual_mlp"], kept=3, culled=1)

    (found,) = [candidate for candidate in candidates() if candidate.kept or candidate.culled]

    assert (found.version, found.kept, found.culled) == (library["residual_mlp"], 3, 1)


def test_equal_seeds_and_libraries_give_equal_proposals(library: dict[str, BlueprintVersion]) -> None:
    digests = []
    for _ in range(2):
        with transaction.atomic():
            digests.append(propose(seed=11, actor=SYSTEM).digest)
            transaction.set_rollback(True)

    assert digests[0] == digests[1]


def test_invalid_versions_are_no_parents() -> None:
    BlueprintVersionFactory(state=VersionState.INVALID)

    assert candidates() == []
    with pytest.raises(Conflict):
        propose(seed=1, actor=SYSTEM)
