"""What came from what, over HTTP."""

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.blueprints.models import VersionLineage
from apps.core.lineage import LineageKind, add_edge
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage
from tests.api.conftest import Caller
from tests.support.factories import BlueprintVersionFactory, KernelFactory
from tests.support.problems import assert_problem


def path_of(kernel: Kernel) -> str:
    return f"/api/v1/kernels/{kernel.pk}/lineage"


def link(client: Caller, child: Kernel, parent: Kernel, kind: str = "distilled", **more: Any) -> Any:
    return client.post(path_of(child), {"parent": str(parent.pk), "kind": kind, **more})


@pytest.fixture
def three(db: None) -> list[Kernel]:
    return [KernelFactory(name=name, state=KernelState.VALIDATED) for name in ("old", "middle", "young")]


def test_a_lineage_has_ancestors_below_descendants_above_and_the_edges_between_them(
    admin: Caller, three: list[Kernel]
) -> None:
    old, middle, young = three
    link(admin, middle, old, "merged", weight=0.25)
    link(admin, young, middle)

    graph = admin.get(path_of(middle)).json()

    assert [(node["name"], node["depth"], node["state"]) for node in graph["nodes"]] == [
        ("old", -1, "VALIDATED"),
        ("middle", 0, "VALIDATED"),
        ("young", 1, "VALIDATED"),
    ]
    assert graph["nodes"][0]["version"] == old.blueprint_version.number
    assert [(edge["child"], edge["parent"], edge["kind"], edge["weight"]) for edge in graph["edges"]] == [
        (str(middle.pk), str(old.pk), "merged", 0.25),
        (str(young.pk), str(middle.pk), "distilled", 1.0),
    ]
    assert graph["complete"] is True


def test_depth_says_how_far_to_look(admin: Caller, three: list[Kernel]) -> None:
    old, middle, young = three
    link(admin, middle, old)
    link(admin, young, middle)

    assert [node["name"] for node in admin.get(f"{path_of(young)}?depth=1").json()["nodes"]] == ["middle", "young"]


@pytest.mark.parametrize("given", ["0", "33", "-1", "x", "²", "1e9", ""])
def test_a_depth_that_is_none_is_named(admin: Caller, three: list[Kernel], given: str) -> None:
    assert_problem(admin.get(f"{path_of(three[0])}?depth={given}"), 400, "", "/depth")


def test_the_version_that_it_was_compiled_from_shows_its_own_lineage(admin: Caller) -> None:
    parent, child = BlueprintVersionFactory(), BlueprintVersionFactory()
    add_edge(VersionLineage, child=child, parent=parent, kind=LineageKind.CLONED)

    source = admin.get(path_of(KernelFactory(blueprint_version=child))).json()["compiled_from"]

    assert source["version_id"] == str(child.pk)
    assert [(node["id"], node["depth"]) for node in source["nodes"]] == [(str(parent.pk), -1), (str(child.pk), 0)]
    assert [edge["kind"] for edge in source["edges"]] == ["cloned"]


def test_a_client_that_has_the_lineage_gets_304_until_there_is_a_new_edge(admin: Caller, three: list[Kernel]) -> None:
    etag = admin.get(path_of(three[0]))["ETag"]

    assert admin.get(path_of(three[0]), headers={"If-None-Match": etag}).status_code == 304
    link(admin, three[1], three[0])
    assert admin.get(path_of(three[0]), headers={"If-None-Match": etag}).status_code == 200


def test_an_edge_that_is_there_is_answered_as_it_is(admin: Caller, three: list[Kernel]) -> None:
    old, middle, _ = three
    first = link(admin, middle, old)
    events = AuditEvent.objects.count()

    again = link(admin, middle, old, weight=0.5)

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert AuditEvent.objects.count() == events


def test_a_cycle_is_a_conflict_and_writes_nothing(admin: Caller, three: list[Kernel]) -> None:
    old, middle, young = three
    link(admin, middle, old)
    link(admin, young, middle)

    assert_problem(link(admin, old, young), 409, "lineage_cycle")
    assert KernelLineage.objects.count() == 2


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"parent": "x"}, "/parent"),
        ({"parent": "01a20a62-0000-7000-8000-000000000000"}, "/parent"),
        ({"kind": "cousin"}, "/kind"),
        ({"weight": 0}, "/weight"),
        ({"weight": 1.5}, "/weight"),
        ({"weight": "much"}, "/weight"),
        ({"run_id": 7}, "/run_id"),
        ({"child": "x"}, "/child"),
    ],
)
def test_a_wrong_edge_names_its_field_and_writes_nothing(
    admin: Caller, three: list[Kernel], change: dict[str, Any], pointer: str
) -> None:
    body = {"parent": str(three[0].pk), "kind": "derived", **change}

    assert_problem(admin.post(path_of(three[1]), body), 400, "", pointer)
    assert not KernelLineage.objects.exists()


def test_nothing_comes_from_itself(admin: Caller, three: list[Kernel]) -> None:
    assert_problem(link(admin, three[0], three[0]), 400, "cycle", "/parent")


def test_the_lineage_of_an_unknown_kernel_is_404(admin: Caller) -> None:
    assert_problem(admin.get(path_of(Kernel())), 404)
    assert_problem(admin.post(path_of(Kernel()), {"parent": str(Kernel().pk), "kind": "derived"}), 404)
