"""The language of the search: two spellings of one syntax, and errors that say where."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.kernels.search import EVERYTHING, from_json, parse, to_json, to_text
from apps.kernels.search.nodes import (
    MAX_DEPTH,
    And,
    Compare,
    DescendsFrom,
    FitsContract,
    FitsSlot,
    Node,
    Not,
    Op,
    Or,
    terms,
)

ID = "01890000-0000-7000-8000-000000000001"

# --- Any search


def storable(**bounds: Any) -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), **bounds)


KEYS = st.one_of(st.sampled_from(["arch", "forward_us", "a-b", "a.b"]), storable(min_size=1, max_size=8))
NUMBERS = st.one_of(
    st.integers(-(2**63) + 1, 2**63 - 1), st.floats(-1e300, 1e300, allow_nan=False, allow_infinity=False)
)
TEXTS = storable(max_size=12)
TIMES = st.sampled_from(["now", "now-7d", "now+2h", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00.5+02:00"])
COMPARES = st.one_of(
    st.builds(Compare, KEYS.map("tags.{}".format), st.sampled_from([Op.EQ, Op.NE]), TEXTS | NUMBERS | st.booleans()),
    st.builds(Compare, KEYS.map("metrics.{}".format), st.sampled_from([Op.LT, Op.LTE, Op.GT, Op.GTE]), NUMBERS),
    st.builds(Compare, KEYS.map("tags.{}".format), st.just(Op.IN), st.lists(TEXTS, min_size=1, max_size=3).map(tuple)),
    st.builds(Compare, KEYS.map("tags.{}".format), st.just(Op.HAS)),
    st.builds(Compare, st.sampled_from(["name", "kernel_name"]), st.just(Op.LIKE), storable(max_size=5)),
    st.builds(Compare, st.sampled_from(["created_at", "last_used_at"]), st.just(Op.GT), TIMES),
    st.builds(Compare, st.just("legal_hold"), st.just(Op.EQ), st.booleans()),
)
SHAPES = st.lists(st.one_of(st.integers(1, 64), st.sampled_from(["N", "it's"])), min_size=1, max_size=3).map(tuple)
TERMS = st.one_of(
    COMPARES,
    st.builds(DescendsFrom, st.just(ID), st.integers(1, 32)),
    st.builds(FitsSlot, st.just(ID)),
    st.builds(FitsContract, st.just("residual"), SHAPES, SHAPES),
)


def groups(inner: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, inner), st.builds(And, several), st.builds(Or, several))


def depth(node: Node) -> int:
    inner = node.nodes if isinstance(node, And | Or) else (node.node,) if isinstance(node, Not) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


NODES: st.SearchStrategy[Node] = st.recursive(TERMS, groups, max_leaves=8).filter(lambda n: depth(n) <= MAX_DEPTH)


@given(NODES)
def test_the_text_of_any_search_is_read_as_that_search(node: Node) -> None:
    assert parse(to_text(node)) == node


@given(NODES)
def test_the_json_of_any_search_is_read_as_that_search(node: Node) -> None:
    assert from_json(to_json(node)) == node


WORDS = st.sampled_from(
    ["tags.arch", "=", "'a'", "(", ")", "and", "or", "not", "in", "has", "5", "-", ",", "size", "<", "now-7d", "now",
     "'", '"', "descends_from", "compatible_with", "depth", "<=", "like", "null", "1e999", "9" * 50,
     "é", "\0", "\ud800", "."]
)  # fmt: skip


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map(" ".join)))
def test_no_text_does_anything_but_parse_or_be_refused(text: str) -> None:
    try:
        node = parse(text)
    except Invalid as refused:
        error = refused
    else:
        assert parse(to_text(node)) == node
        return
    assert error.errors[0].pointer == "/q"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["tags.a", "eq", "size", "in", ID]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "and",
                    "or",
                    "not",
                    "field",
                    "op",
                    "value",
                    "descends_from",
                    "compatible_with",
                    "id",
                    "depth",
                    "slot",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(JSON)
def test_no_json_does_anything_but_parse_or_be_refused(value: Any) -> None:
    try:
        node = from_json(value)
    except Invalid as refused:
        error = refused
    else:
        assert from_json(to_json(node)) == node
        return
    assert error.errors[0].pointer.startswith("/filter")


# --- What it means


def test_the_example_of_the_design_is_read() -> None:
    node = parse(
        "tags.arch in ('conv','attn') and (metrics.forward_us < 5 or usage_count > 100) and not has(tags.deprecated) "
        f"and descends_from('{ID}', depth<=3) and created_at > now-7d"
    )

    assert node == And(
        (
            Compare("tags.arch", Op.IN, ("conv", "attn")),
            Or((Compare("metrics.forward_us", Op.LT, 5), Compare("usage_count", Op.GT, 100))),
            Not(Compare("tags.deprecated", Op.HAS)),
            DescendsFrom(ID, 3),
            Compare("created_at", Op.GT, "now-7d"),
        )
    )


def test_and_binds_closer_than_or_and_not_closest() -> None:
    assert parse("not size = 1 and size = 2 or size = 3") == parse("((not (size = 1)) and size = 2) or size = 3")


def test_a_list_of_conditions_means_that_all_hold() -> None:
    one, two = {"field": "size", "op": "gt", "value": 1}, {"field": "tags.a", "op": "has"}

    assert from_json([one, two]) == from_json({"and": [one, two]}) == parse("size > 1 and has(tags.a)")


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_an_empty_search_finds_everything(nothing: Any) -> None:
    assert from_json(nothing) == parse("  ") == EVERYTHING


def test_not_in_is_a_negation() -> None:
    assert parse("tags.a not in (1)") == Not(Compare("tags.a", Op.IN, (1,)))


# --- Errors


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("tags.a = ", "syntax", "position 10: expected a value"),
        ("tags.a = b", "syntax", "position 10: expected a value (text in quotes, a number, true, false, now-7d)"),
        ("sise > 5", "unknown_field", "position 1: 'sise' is no field; did you mean size?"),
        ("size > 'x'", "type", "position 1: size is compared with a whole number, not with 'x'"),
        ("size > 1 adn size < 3", "syntax", "expected and, or, or the end; did you mean and?, found 'adn'"),
        ("tags.a = 'x", "syntax", "position 10: the text that begins here has no closing '"),
        ("hsa(tags.a)", "syntax", "position 1: 'hsa' is no function; did you mean has?"),
        ("(size > 1", "syntax", "position 10: expected ')' to close the parenthesis, found the end"),
        ("state = 'VALID'", "choice", "did you mean VALIDATED?"),
        ("tags.a = null", "syntax", "has(field)"),
        ("size like 'a%'", "operator", "size is a whole number: it takes"),
        ("created_at > 'yesterday'", "type", "created_at is compared with a time, such as"),
        ("size = 99999999999999999999", "type", "size is compared with a whole number"),
        ("tags.a = 1e999", "type", "tags.a is compared with"),
        ("tags.a > true", "type", "no order"),
        ("descends_from('x')", "type", "takes an id"),
        (f"descends_from('{ID}', depth<=33)", "range", "from 1 to 32"),
        ("tags.a = 'a\0'", "syntax", "NUL"),
        ("tags.a = '\ud800'", "syntax", "surrogate"),
        ("(" * 40 + "size = 1" + ")" * 40, "too_deep", "deeper"),
        ("not " * 9 + "size = 1", "too_deep", "deeper than 8 levels"),
        (" or ".join(["size = 1"] * 33), "too_many", "more than 32 conditions"),
        ("tags.a in (" + ",".join(["1"] * 101) + ")", "too_many", "more than 100 values"),
        ("size = 1 " * 600, "too_long", "at most 4096"),
        ("name like '" + "%a" * 9 + "'", "range", "8 %"),
    ],
)  # fmt: skip
def test_an_error_says_where_and_what_was_expected(text: str, code: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(text)

    assert caught.value.code == code
    assert says in caught.value.detail
    assert caught.value.errors[0].pointer == "/q"


@pytest.mark.parametrize(
    ("value", "pointer", "code"),
    [
        ({"and": [{"field": "size", "op": "eq", "value": "x"}]}, "/filter/and/0/value", "type"),
        ({"not": {"field": "sise"}}, "/filter/not/field", "unknown_field"),
        ([{"field": "size", "op": "is", "value": 1}], "/filter/0/op", "operator"),
        ({"or": []}, "/filter/or", "type"),
        ({"field": "size", "value": 1, "more": 2}, "/filter/more", "unknown"),
        ({"and": [], "or": []}, "/filter/or", "unknown"),
        ({"descends_from": {"id": ID, "depth": True}}, "/filter/descends_from", "range"),
        ({"compatible_with": {"operator": "widen", "input": [], "output": [1]}}, "/filter/compatible_with", "type"),
        ("size = 1", "/filter", "type"),
        ({"field": "tags.a", "value": None}, "/filter/value", "type"),
        ({"field": "tags.a", "value": {"b": 1}}, "/filter/value", "type"),
        ({"field": "tags.\0", "value": 1}, "/filter/field", "unknown_field"),
    ],
)
def test_an_error_points_at_the_member(value: Any, pointer: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_json(value)

    assert (caught.value.errors[0].pointer, caught.value.code) == (pointer, code)


def test_terms_come_in_the_order_of_the_text() -> None:
    fields = [
        term.field for term in terms(parse("size > 1 and (version = 2 or not name = 'a')")) if isinstance(term, Compare)
    ]

    assert fields == ["size", "version", "name"]
