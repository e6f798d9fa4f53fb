"""Versions are numbered without a gap, written once for each spec, and made from others: cloned, mutated, crossed."""

import json
import threading
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.audit.models import AuditEvent
from apps.blueprints import services, tasks
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.blueprints.starter import core_library, starter_library
from apps.blueprints.variation import design
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.core.lineage import LineageKind
from apps.kernels.models import Kernel
from apps.morphogenesis.contracts import wanted_bindings
from apps.morphogenesis.settings import RunSettings
from apps.training import services as training
from tests.support.factories import residual_spec


def submitted(name: str, spec: dict[str, Any]) -> BlueprintVersion:
    blueprint = services.create_blueprint(name=name, actor=SYSTEM)
    return services.submit_version(blueprint=blueprint, spec=spec, actor=SYSTEM)


def starter(name: str) -> BlueprintVersion:
    return submitted(name, dict(starter_library()[name].spec))


def edges(child: BlueprintVersion) -> list[tuple[Any, str, float]]:
    rows = VersionLineage.objects.filter(child=child).order_by("id")
    return list(rows.values_list("parent_id", "kind", "weight"))


@pytest.mark.usefixtures("committed_db")
def test_sixteen_writers_at_once_get_sixteen_contiguous_numbers() -> None:
    blueprint = services.create_blueprint(name="busy", actor=SYSTEM)
    start, numbers = threading.Barrier(16), []

    def write(index: int) -> None:
        start.wait(30)
        spec = residual_spec(hidden=16 + index)
        numbers.append(services.submit_version(blueprint=blueprint, spec=spec, actor=SYSTEM).number)
        connection.close()

    writers = [threading.Thread(target=write, args=(index,)) for index in range(16)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert sorted(numbers) == list(range(1, 17))
    assert Blueprint.objects.get(pk=blueprint.pk).next_number == 17


@pytest.mark.usefixtures("committed_db")
def test_of_eight_writers_of_one_spec_one_writes_it_and_no_number_is_lost() -> None:
    blueprint = services.create_blueprint(name="busy", actor=SYSTEM)
    start, made = threading.Barrier(8), []

    def write() -> None:
        start.wait(30)
        made.append(services.find_or_submit_version(blueprint=blueprint, spec=residual_spec(), actor=SYSTEM))
        connection.close()

    writers = [threading.Thread(target=write) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert sorted(submission.created for submission in made) == [False] * 7 + [True]
    assert {submission.version.number for submission in made} == {1}
    assert Blueprint.objects.get(pk=blueprint.pk).next_number == 2


@pytest.mark.django_db
class TestTheLibrary:
    def test_a_default_run_compiles_the_core_blueprints_and_no_other(self) -> None:
        settings = RunSettings.from_mapping({"task": "digits"})
        by_fit = {
            (blueprint.tags["operator"], blueprint.tags["layer"]): name for name, blueprint in core_library().items()
        }

        training.ensure_library(settings=settings, actor=SYSTEM)

        found = Kernel.objects.values_list("blueprint_version__blueprint__name", "bindings")
        wanted = [(by_fit[wish.operator, wish.layer], dict(wish.symbols)) for wish in wanted_bindings(settings)]
        assert sorted(map(_text, found)) == sorted(map(_text, wanted))
        assert len(wanted) == len({repr(wish) for wish in wanted}) > 0

    def test_every_starter_is_a_version_that_can_be_compiled_on_demand(self) -> None:
        versions = services.load_starter_library(actor=SYSTEM)

        assert [version.blueprint.name for version in versions] == list(starter_library())
        assert {version.state for version in versions} == {"SUBMITTED"}

    def test_loading_it_again_takes_one_statement_and_writes_nothing(self) -> None:
        first = services.load_starter_library(actor=SYSTEM)
        events = AuditEvent.objects.count()

        with CaptureQueriesContext(connection) as captured:
            again = services.load_starter_library(actor=SYSTEM)

        assert [version.pk for version in again] == [version.pk for version in first]
        assert len(captured) <= 2  # with that of the workspace
        assert AuditEvent.objects.count() == events

    def test_the_beat_loads_what_the_runs_do_not_need(self) -> None:
        training.ensure_library(settings=RunSettings.from_mapping({"task": "digits"}), actor=SYSTEM)

        tasks.load_library()

        assert set(Blueprint.objects.values_list("name", flat=True)) == set(starter_library())


def _text(contract: object) -> str:
    return json.dumps(contract, sort_keys=True)


@pytest.mark.django_db
class TestClones:
    def test_a_clone_starts_with_the_spec_and_tells_where_it_came_from(self) -> None:
        source = starter("swiglu_mlp")

        blueprint = services.clone_blueprint(version=source, name="mine", actor=SYSTEM)

        child = blueprint.versions.get()
        assert (child.number, child.spec, child.digest) == (1, source.spec, source.digest)
        assert edges(child) == [(source.pk, "cloned", 1.0)]
        event = AuditEvent.objects.get(type="blueprint.version_linked")
        assert (event.subject_id, event.payload["parent"]) == (str(child.pk), str(source.pk))


@pytest.mark.django_db
class TestMutants:
    def test_a_mutant_is_the_next_version_and_derived_from_its_parent(self) -> None:
        source = starter("squeeze_excite_conv")

        version, created = services.mutate_version(version=source, seed=3, actor=SYSTEM)

        assert created
        assert (version.blueprint_id, version.number, version.state) == (source.blueprint_id, 2, "SUBMITTED")
        assert design(version.spec) != design(source.spec)
        assert edges(version) == [(source.pk, "derived", 1.0)]
        assert AuditEvent.objects.get(type="blueprint.version_linked").reason.endswith("(seed 3)")

    def test_the_same_seed_again_gives_the_same_version_and_writes_nothing(self) -> None:
        source = starter("prenorm_mlp")
        first = services.mutate_version(version=source, seed=3, actor=SYSTEM)
        events = AuditEvent.objects.count()

        again = services.mutate_version(version=source, seed=3, actor=SYSTEM)

        assert (again.version.pk, again.created) == (first.version.pk, False)
        assert AuditEvent.objects.count() == events


@pytest.mark.django_db
class TestCrossings:
    def test_a_crossing_is_merged_from_both_by_their_shares(self) -> None:
        left, right = starter("depthwise_separable_conv"), starter("attention_conv")

        version, created = services.cross_versions(left=left, right=right, seed=1, actor=SYSTEM)

        assert created
        assert version.blueprint_id == left.blueprint_id
        (one, one_kind, share), (other, other_kind, rest) = edges(version)
        assert [(one, one_kind), (other, other_kind)] == [(left.pk, "merged"), (right.pk, "merged")]
        assert 0 < share < 1
        assert share + rest == pytest.approx(1)

    def test_versions_for_other_slots_are_refused(self) -> None:
        with pytest.raises(Invalid) as caught:
            services.cross_versions(left=starter("pool_mixer"), right=starter("prenorm_mlp"), seed=1, actor=SYSTEM)

        assert (caught.value.code, caught.value.errors[0].pointer) == ("contract", "/other")
        assert not VersionLineage.objects.exists()

    def test_a_version_is_not_crossed_with_itself(self) -> None:
        version = starter("pool_mixer")

        with pytest.raises(Invalid, match="another"):
            services.cross_versions(left=version, right=version, seed=1, actor=SYSTEM)


@pytest.mark.django_db
def test_a_child_cannot_become_its_parents_parent() -> None:
    source = starter("low_rank_linear")
    child = services.mutate_version(version=source, seed=1, actor=SYSTEM).version

    with pytest.raises(Conflict) as caught:
        services.link_versions(child=source, parent=child, kind=LineageKind.DERIVED, actor=SYSTEM)

    assert caught.value.code == "lineage_cycle"
    assert edges(source) == []
