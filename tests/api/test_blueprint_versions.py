"""Versions over HTTP: compared, cloned, mutated, crossed, and what they came from."""

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.blueprints import services
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from tests.api.conftest import Caller
from tests.support.factories import BlueprintFactory, residual_spec
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db


def gelu_spec(**sizes: int) -> dict[str, Any]:
    spec = residual_spec(**sizes)
    spec["nodes"][1]["op"] = "gelu"
    return spec


def submitted(name: str, *specs: dict[str, Any]) -> list[str]:
    """The paths of the versions of a new blueprint."""
    blueprint = services.create_blueprint(name=name, tags={"layer": "linear"}, actor=SYSTEM)
    found = [services.submit_version(blueprint=blueprint, spec=spec, actor=SYSTEM) for spec in specs]
    return [f"/api/v1/blueprints/{blueprint.pk}/versions/{version.number}" for version in found]


@pytest.fixture
def paths() -> list[str]:
    return submitted("mlp", residual_spec(), gelu_spec())


def id_at(caller: Caller, path: str) -> str:
    return str(caller.get(path).json()["id"])


class TestDiff:
    def test_a_version_is_compared_with_another_by_its_number_and_by_its_id(
        self, admin: Caller, paths: list[str]
    ) -> None:
        by_number = admin.get(f"{paths[1]}/diff?against=1")
        by_id = admin.get(f"{paths[1]}/diff?against={id_at(admin, paths[0])}")

        assert by_number.json() == by_id.json()
        (change,) = by_number.json()["changed"]
        assert change == {
            "id": "act",
            "op": {"name": "op", "before": "relu", "after": "gelu"},
            "inputs": None,
            "params": [],
        }
        assert by_number.json()["parameters"]["before"] == by_number.json()["parameters"]["after"]

    def test_who_has_it_already_is_told_so(self, admin: Caller, paths: list[str]) -> None:
        etag = admin.get(f"{paths[1]}/diff?against=1")["ETag"]

        assert admin.get(f"{paths[1]}/diff?against=1", headers={"If-None-Match": etag}).status_code == 304

    @pytest.mark.parametrize(
        ("query", "status", "pointers"),
        [
            ("", 400, ["/against"]),
            ("?against=", 400, ["/against"]),
            ("?against=x", 400, ["/against"]),
            ("?against=-1", 400, ["/against"]),
            ("?against=%00", 400, ["/against"]),
            ("?against=9", 404, []),
            (f"?against={new_id()}", 404, []),
        ],
    )
    def test_a_wrong_reference_is_named(
        self, admin: Caller, paths: list[str], query: str, status: int, pointers: list[str]
    ) -> None:
        assert_problem(admin.get(f"{paths[1]}/diff{query}"), status, "", *pointers)

    def test_of_an_unknown_version_there_is_none(self, admin: Caller, paths: list[str]) -> None:
        assert_problem(admin.get(f"{paths[0][:-1]}9/diff?against=1"), 404)


class TestClone:
    def test_a_clone_is_a_blueprint_with_the_spec_and_the_tags(self, admin: Caller, paths: list[str]) -> None:
        response = admin.post(f"{paths[1]}/clone", {"name": "mine", "title": "Mine"})

        assert response.status_code == 201
        blueprint = admin.get(response["Location"]).json()
        assert (blueprint["name"], blueprint["title"], blueprint["tags"]) == ("mine", "Mine", {"layer": "linear"})
        child = admin.get(f"{response['Location']}/versions/1").json()
        assert child["digest"] == admin.get(paths[1]).json()["digest"]
        edge = VersionLineage.objects.get()
        assert (str(edge.child_id), str(edge.parent_id), edge.kind) == (child["id"], id_at(admin, paths[1]), "cloned")

    def test_a_taken_name_is_a_conflict_and_nothing_is_written(self, admin: Caller, paths: list[str]) -> None:
        BlueprintFactory(name="mine")

        assert_problem(admin.post(f"{paths[1]}/clone", {"name": "mine"}), 409, "duplicate", "/name")
        assert Blueprint.objects.count() == 2


class TestMutate:
    def test_a_mutant_is_the_next_version_and_the_same_seed_finds_it_again(
        self, admin: Caller, paths: list[str]
    ) -> None:
        first = admin.post(f"{paths[1]}/mutate", {"seed": 7})
        again = admin.post(f"{paths[1]}/mutate", {"seed": 7})

        assert (first.status_code, first.json()["number"]) == (201, 3)
        assert admin.get(first["Location"]).json() == first.json()
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert VersionLineage.objects.count() == 1

    def test_without_a_seed_one_is_drawn_and_told(self, admin: Caller, paths: list[str]) -> None:
        assert admin.post(f"{paths[1]}/mutate", {}).status_code in {200, 201}
        linked = AuditEvent.objects.filter(type="blueprint.version_linked")
        assert all("seed" in event.reason for event in linked)

    @pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "7", None])
    def test_a_seed_is_a_whole_number(self, admin: Caller, paths: list[str], seed: Any) -> None:
        assert_problem(admin.post(f"{paths[1]}/mutate", {"seed": seed}), 400, "", "/seed")
        assert BlueprintVersion.objects.count() == 2


class TestCross:
    def test_a_crossing_is_the_next_version_of_the_first_and_comes_from_both(
        self, admin: Caller, paths: list[str]
    ) -> None:
        (other,) = submitted("other", gelu_spec(hidden=5))

        response = admin.post(f"{paths[0]}/cross", {"other": id_at(admin, other), "seed": 1})

        assert (response.status_code, response.json()["number"]) == (201, 3)
        kinds = VersionLineage.objects.filter(child=response.json()["id"]).values_list("kind", flat=True)
        assert list(kinds) == ["merged", "merged"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [({}, "/other"), ({"other": "x"}, "/other"), ({"other": 1}, "/other"), ({"other": str(new_id())}, "/other")],
    )
    def test_the_other_one_is_a_version(
        self, admin: Caller, paths: list[str], body: dict[str, Any], pointer: str
    ) -> None:
        assert_problem(admin.post(f"{paths[0]}/cross", body), 400, "", pointer)

    def test_itself_and_what_fits_other_slots_are_refused(self, admin: Caller, paths: list[str]) -> None:
        image = residual_spec()
        image["input"] = ["N", "D", "H", "W"]
        image["symbols"] = {"D": 8}
        image["nodes"] = [{"id": "s", "op": "layer_scale", "inputs": ["input"], "params": {"init": "zeros"}}]
        image["output"] = "s"
        (other,) = submitted("other", image)

        for path in (paths[0], other):
            response = admin.post(f"{paths[0]}/cross", {"other": id_at(admin, path)})
            assert_problem(response, 400, "", "/other")
        assert BlueprintVersion.objects.count() == 3


class TestLineage:
    def test_an_edge_is_written_once_and_answered_again(self, admin: Caller, paths: list[str]) -> None:
        body = {"parent": id_at(admin, paths[0]), "kind": "distilled", "weight": 0.5}

        first, again = (admin.post(f"{paths[1]}/lineage", body) for _ in range(2))

        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json() == again.json()
        assert (first.json()["weight"], first.json()["run_id"]) == (0.5, None)
        assert AuditEvent.objects.filter(type="blueprint.version_linked").count() == 1

    def test_a_graph_has_ancestors_below_and_descendants_above(self, admin: Caller, paths: list[str]) -> None:
        child = admin.post(f"{paths[0]}/mutate", {"seed": 1}).json()
        admin.post(f"{paths[0]}/lineage", {"parent": id_at(admin, paths[1]), "kind": "derived"})

        graph = admin.get(f"{paths[0]}/lineage").json()

        assert [(node["version"], node["depth"]) for node in graph["nodes"]] == [(2, -1), (1, 0), (3, 1)]
        assert {(edge["child"], edge["kind"]) for edge in graph["edges"]} == {
            (child["id"], "derived"),
            (id_at(admin, paths[0]), "derived"),
        }
        assert graph["complete"] is True

    def test_a_blueprint_shows_the_lineage_of_its_versions(self, admin: Caller, paths: list[str]) -> None:
        clone = admin.post(f"{paths[1]}/clone", {"name": "mine"})["Location"]

        graph = admin.get(f"{paths[0].partition('/versions')[0]}/lineage?depth=1").json()

        assert {(node["blueprint"], node["version"], node["depth"]) for node in graph["nodes"]} == {
            ("mlp", 1, 0),
            ("mlp", 2, 0),
            ("mine", 1, 1),
        }
        assert [node["blueprint"] for node in admin.get(f"{clone}/lineage").json()["nodes"]] == ["mlp", "mine"]

    def test_a_cycle_is_a_conflict_that_names_itself(self, admin: Caller, paths: list[str]) -> None:
        one, two = (id_at(admin, path) for path in paths)
        admin.post(f"{paths[1]}/lineage", {"parent": one, "kind": "derived"})

        problem = assert_problem(
            admin.post(f"{paths[0]}/lineage", {"parent": two, "kind": "merged"}), 409, "lineage_cycle", "/parent"
        )

        assert "mlp v2 descends from mlp v1 already" in problem["detail"]
        assert VersionLineage.objects.count() == 1

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"parent": str(new_id())}, "/parent"),
            ({"parent": "x"}, "/parent"),
            ({"kind": "stolen"}, "/kind"),
            ({"weight": 0}, "/weight"),
            ({"weight": 2}, "/weight"),
            ({"run_id": 5}, "/run_id"),
            ({"child": "x"}, "/child"),
        ],
    )
    def test_a_wrong_edge_names_its_field_and_writes_nothing(
        self, admin: Caller, paths: list[str], change: dict[str, Any], pointer: str
    ) -> None:
        body = {"parent": id_at(admin, paths[0]), "kind": "derived", **change}

        assert_problem(admin.post(f"{paths[1]}/lineage", body), 400, "", pointer)
        assert not VersionLineage.objects.exists()

    @pytest.mark.parametrize("depth", ["0", "33", "-1", "x", "1.5", "99999999999"])
    def test_a_depth_is_from_1_to_the_cap(self, admin: Caller, paths: list[str], depth: str) -> None:
        assert_problem(admin.get(f"{paths[0]}/lineage?depth={depth}"), 400, "range", "/depth")

    def test_a_blueprint_without_versions_has_an_empty_one(self, admin: Caller) -> None:
        graph = admin.get(f"/api/v1/blueprints/{BlueprintFactory().pk}/lineage").json()

        assert graph == {"nodes": [], "edges": [], "complete": True}

    def test_an_unknown_blueprint_has_no_lineage(self, admin: Caller) -> None:
        assert_problem(admin.get(f"/api/v1/blueprints/{new_id()}/lineage"), 404)


class TestProposals:
    def test_a_proposal_is_a_new_version(self, admin: Caller, paths: list[str]) -> None:
        response = admin.post("/api/v1/blueprints/propose", {"seed": 5})

        assert (response.status_code, response.json()["number"]) == (201, 3)
        assert admin.get(response["Location"]).json() == response.json()

    def test_of_nothing_nothing_is_proposed(self, admin: Caller) -> None:
        assert_problem(admin.post("/api/v1/blueprints/propose", {}), 409, "no_variation")
