"""Lineage: edges that never change and never close a cycle; walks that are bounded whatever they walk on."""

import random
import threading
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.blueprints.models import BlueprintVersion, VersionLineage
from apps.core.errors import Conflict, Invalid
from apps.core.lineage import MAX_DEPTH, MAX_RELATIVES, LineageKind, Relative, add_edge, ancestors, descendants, graph
from tests.support.factories import BlueprintFactory, BlueprintVersionFactory
from tests.support.waiting import wait_until


@pytest.fixture
def _undone(db: None) -> Iterator[None]:
    """Takes the rows back before they are checked as at a commit: the net would write two events for each of them."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def versions(count: int) -> list[BlueprintVersion]:
    """Rows of one blueprint, made quickly."""
    first = BlueprintVersionFactory(blueprint=BlueprintFactory(), number=1)
    same = {"blueprint": first.blueprint, "spec": first.spec, "operator": first.operator}
    rest = (
        BlueprintVersion(number=number, digest=f"{number:064x}", parameters=first.parameters, **same)
        for number in range(2, count + 1)
    )
    return [first, *BlueprintVersion.objects.bulk_create(rest)]


def link(pairs: Iterable[tuple[BlueprintVersion, BlueprintVersion]]) -> None:
    """(child, parent) edges, made quickly."""
    VersionLineage.objects.bulk_create(
        VersionLineage(child=child, parent=parent, kind=LineageKind.DERIVED) for child, parent in pairs
    )


def derive(child: BlueprintVersion, parent: BlueprintVersion) -> VersionLineage:
    return add_edge(VersionLineage, child=child, parent=parent, kind=LineageKind.DERIVED)


def depths(relatives: Iterable[Relative]) -> dict[UUID, int]:
    return {relative.id: relative.depth for relative in relatives}


@pytest.mark.django_db
class TestWhatTheTableRefuses:
    def test_an_edge_that_closes_a_cycle(self) -> None:
        a, b, c = versions(3)
        link([(b, a), (c, b)])

        with pytest.raises(Conflict) as caught:
            derive(a, c)

        assert (caught.value.code, caught.value.errors[0].pointer) == ("lineage_cycle", "/parent")
        assert f"{c} descends from {a} already" in caught.value.detail
        assert VersionLineage.objects.count() == 2

    def test_a_cycle_by_another_kind_of_edge(self) -> None:
        a, b = versions(2)
        link([(b, a)])

        with pytest.raises(Conflict):
            add_edge(VersionLineage, child=a, parent=b, kind=LineageKind.MERGED)

    def test_something_that_comes_from_itself(self) -> None:
        (a,) = versions(1)

        with pytest.raises(Invalid, match="itself"):
            derive(a, a)

    @pytest.mark.parametrize("weight", [0.0, -0.5, 1.5, float("nan")])
    def test_a_weight_that_is_no_share(self, weight: float) -> None:
        a, b = versions(2)

        with pytest.raises(Invalid) as caught:
            add_edge(VersionLineage, child=b, parent=a, kind=LineageKind.DERIVED, weight=weight)

        assert caught.value.errors[0].pointer == "/weight"

    def test_the_same_edge_twice(self) -> None:
        a, b = versions(2)
        derive(b, a)

        with pytest.raises(ValidationError):
            derive(b, a)

    @pytest.mark.parametrize("change", ["update", "delete"])
    def test_any_change_of_an_edge(self, change: str) -> None:
        a, b = versions(2)
        rows = VersionLineage.objects.filter(pk=derive(b, a).pk)
        attempt = {"update": lambda: rows.update(weight=0.5), "delete": rows.delete}[change]

        with pytest.raises(DatabaseError, match="Cannot"):
            attempt()

    def test_a_diamond_is_no_cycle(self) -> None:
        a, b, c, d = versions(4)
        for child, parent in ((b, a), (c, a), (d, b), (d, c)):
            derive(child, parent)

        assert depths(ancestors(VersionLineage, d.pk)) == {b.pk: 1, c.pk: 1, a.pk: 2}


@pytest.mark.usefixtures("committed_db")
def test_of_two_transactions_that_close_a_cycle_from_both_sides_one_is_refused() -> None:
    a, b = versions(2)
    refused: list[Conflict] = []

    def from_the_other_side() -> None:
        try:
            derive(a, b)
        except Conflict as error:
            refused.append(error)
        finally:
            connection.close()

    def is_waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
            return bool(cursor.fetchone()[0])

    other = threading.Thread(target=from_the_other_side)
    with transaction.atomic():
        derive(b, a)
        other.start()
        wait_until(is_waiting, seconds=30)
    other.join(30)

    assert [error.code for error in refused] == ["lineage_cycle"]
    assert [(edge.child_id, edge.parent_id) for edge in VersionLineage.objects.all()] == [(b.pk, a.pk)]


@pytest.mark.usefixtures("_undone")
class TestWalks:
    def test_the_depth_is_the_shortest_way(self) -> None:
        a, b, c = versions(3)
        link([(b, a), (c, b), (c, a)])

        assert depths(ancestors(VersionLineage, c.pk)) == {a.pk: 1, b.pk: 1}
        assert depths(descendants(VersionLineage, a.pk)) == {b.pk: 1, c.pk: 1}

    def test_a_chain_of_a_thousand_is_walked_as_far_as_asked_and_no_further_than_the_cap(self) -> None:
        chain = versions(1_000)
        link(zip(chain[1:], chain, strict=False))

        assert len(ancestors(VersionLineage, chain[-1].pk, depth=7)) == 7
        assert len(ancestors(VersionLineage, chain[-1].pk, depth=10_000)) == MAX_DEPTH
        with pytest.raises(Conflict):
            derive(chain[0], chain[-1])

    def test_a_dense_web_of_merges_touches_each_edge_a_bounded_number_of_times(self) -> None:
        """300 things, each from up to 8 of the 40 before it: the ways from end to end are beyond counting."""
        web, chance = versions(300), random.Random(4)
        link((web[i], parent) for i in range(1, 300) for parent in chance.sample(web[max(0, i - 40) : i], k=min(i, 8)))

        with CaptureQueriesContext(connection) as captured:
            found = ancestors(VersionLineage, web[-1].pk)

        assert len(found) > 290
        assert len(captured) == 1
        assert _rows_joined(captured[0]["sql"]) <= 8 * 300 * MAX_DEPTH

    def test_more_relatives_than_the_cap_are_cut_and_said_to_be(self) -> None:
        star = versions(MAX_RELATIVES + 2)
        link((child, star[0]) for child in star[1:])

        lineage = graph(VersionLineage, [star[0].pk])

        assert len(lineage.nodes) == MAX_RELATIVES + 1
        assert not lineage.complete

    def test_a_graph_has_both_directions_and_the_edges_between_them(self) -> None:
        a, b, c, d, stranger = versions(5)
        link([(b, a), (c, b), (d, c), (stranger, a)])

        lineage = graph(VersionLineage, [b.pk])

        assert depths(lineage.nodes) == {a.pk: -1, b.pk: 0, c.pk: 1, d.pk: 2}
        assert {(edge.child, edge.parent) for edge in lineage.edges} == {(b.pk, a.pk), (c.pk, b.pk), (d.pk, c.pk)}
        assert lineage.complete

    def test_a_graph_of_several_starts_takes_three_statements(self) -> None:
        a, b, c = versions(3)
        link([(b, a), (c, b)])

        with CaptureQueriesContext(connection) as captured:
            lineage = graph(VersionLineage, [a.pk, c.pk], depth=1)

        assert len(captured) == 3
        assert depths(lineage.nodes) == {a.pk: 0, b.pk: -1, c.pk: 0}


def _rows_joined(statement: str) -> int:
    """Rows that the recursive step of the walk produced, by EXPLAIN ANALYZE: the same on any machine."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}")
        plan = cursor.fetchone()[0][0]["Plan"]
    union = next(node for node in _nodes(plan) if node["Node Type"] == "Recursive Union")
    return int(sum(child["Actual Rows"] * child["Actual Loops"] for child in union["Plans"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
