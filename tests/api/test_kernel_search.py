"""Searching kernels over the API: both spellings, pages, projections, facets, ranks, the past, and bad input."""

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.accounts.roles import Role, Scope
from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels import services
from apps.kernels.api.serializers import KernelRow
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, TagType
from apps.kernels.search import running
from apps.kernels.search.rows import DEFAULT
from apps.training.slot_contracts import slot_contract
from tests.api.conftest import Caller
from tests.support.factories import (
    BlueprintVersionFactory,
    FieldReportFactory,
    KernelFactory,
    RunFactory,
    SlotFactory,
    TokenFactory,
    UserFactory,
)
from tests.support.problems import assert_problem
from tests.unit.kernels.test_search_language import JSON, WORDS

PATH = "/api/v1/kernels/search"


def get(client: Caller, **query: Any) -> Any:
    return client.get(f"{PATH}?{urlencode(query)}")


def post(client: Caller, **body: Any) -> Any:
    return client.post(PATH, body, format="json")


def names(response: Any) -> list[str]:
    assert response.status_code == 200, response.content
    return [row["name"] for row in response.json()["results"]]


def walk(client: Caller, **body: Any) -> Iterator[dict[str, Any]]:
    cursor: dict[str, str] = {}
    while True:
        page = post(client, **body, **cursor).json()
        yield from page["results"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return
        cursor = {"cursor": page["next_cursor"]}


def kernels(count: int, **values: Any) -> list[Kernel]:
    version = BlueprintVersionFactory()
    return [
        KernelFactory(
            name=f"k{n}", blueprint_version=version, bindings={"n": n}, tags={"n": n, "even": n % 2 == 0}, **values
        )
        for n in range(count)
    ]


# --- Both spellings


def test_text_and_json_give_the_same_newest_first(admin: Caller) -> None:
    kernels(5)

    by_text = get(admin, q="tags.n >= 1 and tags.even = true")
    by_json = post(
        admin, filter=[{"field": "tags.n", "op": "gte", "value": 1}, {"field": "tags.even", "op": "eq", "value": True}]
    )

    assert names(by_text) == names(by_json) == ["k4", "k2"]
    assert by_text.json() == by_json.json()
    assert by_text.json()["has_more"] is False


def test_a_row_is_that_of_the_list_of_kernels(admin: Caller) -> None:
    kernels(1, metrics={"forward_us": 1.5})

    assert get(admin).json()["results"] == admin.get("/api/v1/kernels").json()["results"]
    assert KernelRow.Meta.fields == DEFAULT


def test_post_needs_the_scope_to_read_only(caller: Any) -> None:
    reader = caller(Role.VIEWER, scopes=[Scope.LIBRARY_READ])

    assert post(reader).status_code == 200
    assert_problem(post(caller(Role.ADMIN, scopes=[Scope.RUNS_READ])), 403)


def test_only_the_members_asked_for_are_shown(admin: Caller) -> None:
    kernels(1)

    row = get(admin, fields="id,version,tags.n,risk").json()["results"][0]

    assert set(row) == {"id", "version", "tags.n", "risk"}
    assert row["tags.n"] == 0


def test_facets_and_count_come_when_asked_for(admin: Caller) -> None:
    kernels(5)

    plain = get(admin, q="tags.n > 0").json()
    counted = get(admin, q="tags.n > 0", facets="tags.even,state", count="true", page_size=1).json()

    assert set(plain) == {"results", "next_cursor", "has_more"}
    assert counted["count"] == 4
    assert counted["facets"] == {
        "tags.even": [{"value": False, "count": 2}, {"value": True, "count": 2}],
        "state": [{"value": "REGISTERED", "count": 4}],
    }


def test_kernels_without_a_value_take_no_place_among_the_counted_values(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "FACET_VALUES", 2)
    for tags in ({"size": 1}, {"size": 2}, {"size": 3}, {}, {}):
        KernelFactory(tags=tags)

    assert [entry["value"] for entry in get(admin, facets="tags.size").json()["facets"]["tags.size"]] == [1, 2]


# --- Order and pages


def test_a_look_up_repeats_no_kernel_where_the_ids_do_not_tell_times_apart(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "WALK_IS_LONG", 0)
    version, first = BlueprintVersionFactory(), new_id().int
    for n in range(70):
        KernelFactory(
            id=UUID(int=first + n), name=f"k{n}", blueprint_version=version, bindings={"n": n}, tags={"rare": n < 2}
        )

    assert names(get(admin, q="tags.rare = true", page_size=20)) == ["k1", "k0"]


def test_a_walk_goes_on_behind_the_longest_text_that_a_tag_may_be(admin: Caller) -> None:
    letters = "".join(random.Random(0).choices([chr(code) for code in range(0x4E00, 0x9FFF)], k=3_990))
    for n in range(2):
        KernelFactory(name=f"k{n}", tags={"text": f"{n}{letters}"})

    assert [row["name"] for row in walk(admin, order_by=["tags.text"], page_size=1)] == ["k0", "k1"]


@pytest.mark.parametrize("order", ["-id", "id", "tags.size", "-tags.size", "risk", "-risk", "last_used_at", "-name"])
def test_a_walk_in_any_order_gives_every_row_once_with_missing_values_last(admin: Caller, order: str) -> None:
    for n, kernel in enumerate(kernels(7)):
        known = {"risk": (n % 3) / 7, "risk_confidence": 0.5, "last_used_at": timezone.now(), "tags": {"size": n % 2}}
        Kernel.objects.filter(pk=kernel.pk).update(**(known if n > 2 else {}))

    rows = list(walk(admin, order_by=[order], page_size=2, fields=["id", "risk", "tags.size"]))

    assert len({row["id"] for row in rows}) == len(rows) == 7
    field = order.removeprefix("-")
    values = [row[field] for row in rows if row.get(field) is not None]
    if field in {"risk", "tags.size"}:
        assert values == sorted(values, reverse=order.startswith("-"))
        assert all(row[field] is None for row in rows[len(values) :])


def test_orders_combine(admin: Caller) -> None:
    kernels(5)

    assert [row["name"] for row in walk(admin, order_by=["-tags.even", "tags.n"], page_size=2)] == [
        "k0", "k2", "k4", "k1", "k3",
    ]  # fmt: skip


def test_behind_the_id_an_order_decides_nothing(admin: Caller) -> None:
    kernels(3)

    assert [row["name"] for row in walk(admin, order_by=["id", "-tags.n"], page_size=1)] == ["k0", "k1", "k2"]


def test_a_cursor_belongs_to_its_search(admin: Caller) -> None:
    kernels(3)
    cursor = get(admin, q="tags.n >= 0", page_size=1).json()["next_cursor"]

    assert names(get(admin, q="tags.n >= 0", page_size=2, cursor=cursor)) == ["k1", "k0"]
    for query in ({"q": "tags.n >= 1"}, {"q": "tags.n >= 0", "order_by": "size"}):
        assert_problem(get(admin, cursor=cursor, **query), 400, "cursor", "/cursor")
    assert_problem(get(admin, cursor="x"), 400, "cursor", "/cursor")


def test_rows_committed_before_the_first_page_come_exactly_once_while_others_insert(committed_db: str) -> None:
    client = Caller(TokenFactory(user=UserFactory(role=Role.ADMIN)).secret)
    before = {str(kernel.pk) for kernel in kernels(60)}
    version, done, inserted = BlueprintVersionFactory(), threading.Event(), []

    def insert() -> None:
        with closing(connections["default"]):
            while not done.is_set() and len(inserted) < 500:
                inserted.append(
                    KernelFactory(blueprint_version=version, bindings={"m": len(inserted)}, tags={"even": True, "n": 0})
                )

    writer = threading.Thread(target=insert)
    writer.start()
    try:
        seen = [row["id"] for row in walk(client, filter={"field": "tags.n", "op": "has"}, page_size=5, fields=["id"])]
    finally:
        done.set()
        writer.join()

    assert inserted
    assert len(seen) == len(set(seen))
    assert before <= set(seen)


# --- Compatible kernels, ranked


def test_kernels_of_a_contract_are_ranked_by_the_shrunk_gain_of_their_reports(admin: Caller) -> None:
    shapes = {"operator": "widen", "input": ["N", 4], "output": ["N", 8]}
    once, often, none = kernels(3, state=KernelState.VALIDATED, compat=shapes)
    FieldReportFactory(kernel=once, contribution=0.4)
    for number in range(6):
        FieldReportFactory(kernel=often, contribution=0.3, seed_number=number)
    FieldReportFactory(kernel=none, contribution=None)

    rows = list(walk(admin, filter={"compatible_with": shapes}, page_size=1))

    assert [row["name"] for row in rows] == [often.name, once.name, none.name]
    assert rows[0]["rank"] == {"gain": pytest.approx(6 * 0.3 / (6 + 3)), "reports": 6}
    assert rows[1]["rank"] == {"gain": pytest.approx(0.4 / (1 + 3)), "reports": 1}
    assert rows[2]["rank"] == {"gain": 0.0, "reports": 0}


def test_a_slot_is_served_by_what_other_runs_measured(admin: Caller) -> None:
    slot = SlotFactory(run=RunFactory(), site="layers.0.width")
    found = slot_contract(slot.pk)
    assert found is not None
    shapes = {"operator": "widen", "input": list(found.contract.input), "output": list(found.contract.output)}
    here, elsewhere = kernels(2, state=KernelState.VALIDATED, compat=shapes)
    FieldReportFactory(kernel=here, contribution=0.9, run_id=slot.run_id)
    FieldReportFactory(kernel=elsewhere, contribution=0.1)

    rows = get(admin, q=f"compatible_with('{slot.pk}')").json()["results"]

    assert [(row["name"], row["rank"]["reports"]) for row in rows] == [(elsewhere.name, 1), (here.name, 0)]
    assert names(post(admin, filter={"compatible_with": {"slot": str(slot.pk)}}, order_by=["id"])) == ["k0", "k1"]


def test_a_slot_of_a_network_that_we_do_not_know_is_refused(admin: Caller) -> None:
    slot = SlotFactory(site="somewhere")

    assert_problem(get(admin, q=f"compatible_with('{slot.pk}')"), 422, "not_found", "/q")


# --- The past


def recorded(kernel: Kernel, **changes: Any) -> None:
    """Change a kernel as a service does."""
    before = image(kernel) if changes else None
    for name, value in changes.items():
        setattr(kernel, name, value)
    kernel.save()
    audit.record(type="kernel.modified", subject=kernel, actor=SYSTEM, before=before, after=image(kernel))


def test_as_of_searches_the_kernels_as_they_were(admin: Caller) -> None:
    first, second, third = kernels(3, metrics={"forward_us": 2.5})
    for kernel in (first, second, third):
        recorded(kernel)
    then = timezone.now()
    recorded(first, tags={"n": 100, "gain": 1.5})
    recorded(second, pinned_until=timezone.now() + timedelta(days=1))
    kernels(1)

    assert names(post(admin, filter={"field": "tags.n", "value": 0}, as_of=then.isoformat())) == ["k0"]
    assert names(post(admin, filter={"field": "tags.n", "value": 100}, as_of=then.isoformat())) == []
    assert names(get(admin, as_of=then.isoformat(), q="metrics.forward_us < 3 and not has(pinned_until)")) == [
        "k2",
        "k1",
        "k0",
    ]
    assert names(get(admin, q="tags.n = 100")) == ["k0"]
    assert_problem(get(admin, as_of="2999-01-01T00:00:00Z"), 400, "future", "/as_of")


def test_tags_that_are_declared_as_numbers_were_numbers(admin: Caller) -> None:
    services.declare_tag(name="width", type=TagType.NUMBER, actor=SYSTEM)
    kernel, large = KernelFactory(tags={"width": 2.5}), KernelFactory(tags={"width": 2**60})
    for each in (kernel, large):
        recorded(each)
    then = timezone.now()
    for each in (kernel, large):
        recorded(each, tags={})

    rows = post(admin, filter={"field": "tags.width", "op": "gt", "value": 2}, as_of=then.isoformat()).json()["results"]

    assert [row["tags"]["width"] for row in rows] == [2**60, 2.5]


# --- Bad input


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ({"q": "size >"}, "syntax", "/q"),
        ({"order_by": "sise"}, "unknown_field", "/order_by/0"),
        ({"order_by": "size,-size"}, "repeated", "/order_by/1"),
        ({"fields": "nothing"}, "unknown_field", "/fields/0"),
        ({"facets": "created_at"}, "operator", "/facets/0"),
        ({"page_size": "0"}, "range", "/page_size"),
        ({"count": "yes"}, "type", "/count"),
        ({"as_of": "today"}, "malformed", "/as_of"),
        ({"where": "size = 1"}, "unknown", "/where"),
    ],
)
def test_a_wrong_parameter_is_named(admin: Caller, query: dict[str, str], code: str, pointer: str) -> None:
    body = assert_problem(get(admin, **query), 400, "", pointer)
    assert body["errors"][0]["code"] == code


def test_an_unknown_member_of_the_body_is_named(admin: Caller) -> None:
    assert_problem(post(admin, where=1), 400, "invalid", "/where")
    assert_problem(post(admin, filter=[{"field": "size", "op": "gt", "value": "x"}]), 400, "type", "/filter/0/value")


def test_an_unknown_ancestor_is_told(admin: Caller) -> None:
    assert_problem(get(admin, q=f"descends_from('{new_id()}')"), 422, "not_found", "/q")


def test_a_search_that_would_look_at_too_much_names_the_condition_and_the_remedy(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MAX_WALK", 64)
    kernels(80)

    problem = assert_problem(get(admin, q="metrics.x > 5", page_size=1), 422, "too_expensive", "/q")

    assert "metrics.x > 5" in problem["detail"]
    assert "tag-keys" in problem["detail"]
    assert names(get(admin, q="metrics.x > 5 and tags.n = 3")) == []


def test_facets_and_counts_share_the_time_of_their_search(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "TIMEOUT_MS", 0)
    kernels(1)

    assert names(get(admin)) == ["k0"]
    for more in ({"facets": "state"}, {"count": "true"}):
        assert_problem(get(admin, **more), 422, "too_expensive", "/q")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    q=st.lists(WORDS, max_size=10).map(" ".join), value=JSON, order=st.sampled_from(["", "tags.a", "x", "-risk", "id,"])
)
def test_no_search_is_a_fault_of_ours(admin: Caller, q: str, value: Any, order: str) -> None:
    query = {"q": q.encode("utf-8", "replace").decode(), "order_by": order}

    assert get(admin, **query).status_code in {200, 400, 422}
    try:
        response = post(admin, filter=value)
    except ValueError:  # the client of the tests cannot spell it
        return
    assert response.status_code in {200, 400, 422}
