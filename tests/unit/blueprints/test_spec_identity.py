"""Binding symbols, and the canonical form that gives a blueprint its identity."""

import copy
import hashlib
import json
from types import MappingProxyType
from typing import Any

import pytest
import rfc8785
from hypothesis import given

from apps.blueprints.spec import SpecError, bind, canonical_json, digest, parse
from tests.unit.blueprints.specs import residual, residual_specs


def test_binding_replaces_every_symbol_and_leaves_none() -> None:
    bound = bind(residual(), D=10, H=3)
    assert "symbols" not in bound
    assert bound["input"] == ["N", 10]
    assert [node.get("params", {}).get("out_features") for node in bound["nodes"]] == [3, None, 10]


def test_unnamed_symbols_take_their_defaults() -> None:
    assert bind(residual(), H=3) == bind(residual(), D=6, H=3)


def test_binding_adds_no_field_that_was_not_written() -> None:
    assert bind(residual())["nodes"][0] == {
        "id": "fc1",
        "op": "linear",
        "inputs": ["input"],
        "params": {"out_features": 4},
    }


def test_binding_leaves_its_argument_alone() -> None:
    spec = residual()
    before = copy.deepcopy(spec)
    bind(spec, D=8)["nodes"][0]["inputs"].append("x")
    assert spec == before


def test_a_bound_spec_binds_to_itself() -> None:
    bound = bind(residual(), D=10)
    assert bind(bound) == bound


@pytest.mark.parametrize(
    ("symbols", "pointer", "words"),
    [
        ({"E": 3}, "/symbols/E", "no symbol 'E'"),
        ({"d": 3}, "/symbols/d", "did you mean 'D'"),
        ({"D": 0}, "/symbols/D", "from 1 to"),
        ({"D": "3"}, "/symbols/D", "whole number"),
        ({"D": 65_536, "H": 65_536}, "/nodes", "parameters are over the limit"),
    ],
)
def test_a_wrong_binding_names_the_symbol(symbols: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        bind(residual(), **symbols)
    assert caught.value.pointer == pointer


@given(residual_specs())
def test_the_canonical_form_is_rfc_8785(spec: dict[str, Any]) -> None:
    assert canonical_json(spec) == rfc8785.dumps(spec)
    assert digest(spec) == hashlib.sha256(rfc8785.dumps(spec)).hexdigest()


@given(residual_specs())
def test_the_canonical_form_reads_back_as_the_same_graph(spec: dict[str, Any]) -> None:
    assert parse(json.loads(canonical_json(spec))) == parse(spec)


def test_the_order_of_keys_does_not_count() -> None:
    assert digest(dict(reversed(residual().items()))) == digest(residual())


def test_the_order_of_operands_counts() -> None:
    spec = residual()
    spec["nodes"] += [{"id": "out", "op": "mul", "inputs": ["fc2", "input"]}]
    spec["output"] = "out"
    swapped = copy.deepcopy(spec)
    swapped["nodes"][-1]["inputs"].reverse()
    assert digest(spec) != digest(swapped)


def test_any_mapping_has_the_identity_of_its_contents() -> None:
    assert digest(MappingProxyType(residual())) == digest(residual())


def test_an_invalid_spec_has_no_identity() -> None:
    with pytest.raises(SpecError):
        digest({**residual(), "output": "nowhere"})
