"""No document, however hostile, gets anything out of the parser but a Graph or a SpecError, and never a slow answer."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.blueprints.spec import MAX_PARAMETERS, Graph, SpecError, bind, canonical_json, parse
from tests.unit.blueprints.specs import residual, residual_specs, widen_conv

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**4000, -(10**4000), 2**63, 65_536, 0])
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["N", "D", "H", "W", "input", "fc1", "relu", "add", "\ud800", "~/", "\x00"])
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.integers() | st.none(), inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "op", "inputs", "params", "out_features", "D"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """A valid spec with up to four wounds: a value replaced, removed, doubled or moved."""
    spec = draw(residual_specs() | st.builds(residual) | st.builds(widen_conv))
    for _ in range(draw(st.integers(1, 4))):
        container, key = draw(st.sampled_from(_places(spec)))
        wound = draw(st.sampled_from(["replace", "remove", "double", "steal"]))
        if wound == "replace":
            container[key] = draw(ANYTHING)
        elif wound == "remove":
            del container[key]
        elif wound == "double" and isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
        elif wound == "steal":
            source, name = draw(st.sampled_from(_places(spec)))
            container[key] = copy.deepcopy(source[name])
        if not _places(spec):
            break
    return spec


def _places(value: Any) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in list(items) for place in ((value, key), *_places(inner))]


def _judge(document: Any, function: Callable[[Any], Any] = parse) -> Any:
    try:
        return function(document)
    except SpecError as error:
        return error


def _is_clear(error: SpecError) -> bool:
    return 0 < len(str(error)) < 600 and (error.pointer == "" or error.pointer.startswith("/")) and error.code != ""


@settings(max_examples=400)
@given(mutants())
def test_a_wounded_spec_gives_a_graph_or_a_clear_error(document: Any) -> None:
    verdict = _judge(document)
    assert verdict.parameters <= MAX_PARAMETERS if isinstance(verdict, Graph) else _is_clear(verdict)


@settings(max_examples=400)
@given(ANYTHING)
def test_anything_at_all_gives_a_clear_error(document: Any) -> None:
    verdict = _judge(document)
    assert isinstance(verdict, SpecError)
    assert _is_clear(verdict)


@settings(max_examples=100)
@given(mutants())
def test_binding_and_identity_raise_nothing_else(document: Any) -> None:
    for function in (bind, canonical_json):
        verdict = _judge(document, function)
        assert not isinstance(verdict, SpecError) or _is_clear(verdict)


def _nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


HUGE: dict[str, Any] = {
    "nodes": {**residual(), "nodes": residual()["nodes"] * 300_000},
    "fields": {f"field{i}": i for i in range(300_000)},
    "name": {**residual(), "a" * 10_000_000: 1},
    "text": {**residual(), "output": "fc" * 5_000_000},
    "operation": {**residual(), "nodes": [{"id": "a", "op": "r" * 10_000_000, "inputs": ["input"]}]},
    "digits": {**residual(), "input": ["N", 10**1_000_000]},
    "nesting": {**residual(), "input": ["N", _nested(100_000)]},
    "symbols": {**residual(), "symbols": {f"S{i}": i for i in range(300_000)}},
    "inputs": {**residual(), "nodes": [{"id": "a", "op": "relu", "inputs": ["input"] * 1_000_000}]},
}


@pytest.mark.parametrize("document", HUGE.values(), ids=HUGE.keys())
def test_a_huge_document_is_refused_at_once(document: Any) -> None:
    begin = time.perf_counter()
    verdict = _judge(document)
    elapsed = time.perf_counter() - begin
    assert isinstance(verdict, SpecError)
    assert _is_clear(verdict)
    assert elapsed < 1.0
