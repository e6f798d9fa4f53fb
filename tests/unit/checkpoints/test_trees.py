"""Nested states as JSON and numbered leaves: what goes in comes out, and what cannot be kept is named."""

import enum
import json
import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apps.checkpoints.store import canonical, tensors, trees
from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.leaves import ITEM_SIZES, Leaf

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=20), st.binary(max_size=20)
)
keys = st.one_of(st.text(max_size=8), st.sampled_from(["$leaf", "$tuple", "$", "kind"]), st.integers(), st.booleans())
states = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
    ),
    max_leaves=25,
)


class Reason(enum.IntEnum):
    INTERVAL = 1


class Point(NamedTuple):
    x: int


def round_trip(tree: Any) -> Any:
    skeleton, leaves = trees.flatten(tree, tensors.kind_of)
    written = canonical.loads(canonical.dumps(skeleton), part="tree")
    return trees.unflatten(written, leaves)


def spelled(tree: Any) -> str:
    """With the types of numbers, the sign of zero and the order of keys, which == does not see."""
    return repr(tree)


@given(states)
def test_a_state_comes_back_as_it_was(state: Any) -> None:
    assert spelled(round_trip(state)) == spelled(state)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0, 5e-324, 10**400, -(2**63), 2**63, "\ud800", b"\x00"])
def test_a_value_at_an_edge_comes_back_as_it_was(value: Any) -> None:
    assert spelled(round_trip({"a": value})) == spelled({"a": value})


def test_not_a_number_comes_back_as_not_a_number() -> None:
    assert math.isnan(round_trip([math.nan])[0])


def test_a_key_that_is_not_a_number_comes_back_too() -> None:
    assert math.isnan(next(iter(round_trip({math.nan: 1}))))


def test_the_order_of_keys_is_kept() -> None:
    assert list(round_trip(OrderedDict([("b", 1), ("a", 2), (3, 4)]))) == ["b", "a", 3]


def test_a_tensor_that_occurs_twice_is_one_leaf_and_shared_again() -> None:
    tensor = torch.ones(3)
    skeleton, leaves = trees.flatten({"a": tensor, "b": [tensor]}, tensors.kind_of)
    assert len(leaves) == 1
    made = trees.unflatten(skeleton, leaves, lambda leaf, kind: leaf.clone())
    assert made["a"] is made["b"][0]


def test_a_skeleton_says_which_leaves_are_arrays_and_scalars_of_numpy() -> None:
    skeleton, _ = trees.flatten([torch.ones(1), np.ones(1), np.float64(2.0)], tensors.kind_of)
    assert skeleton == [{"$leaf": 0}, {"$leaf": 1, "kind": "array"}, {"$leaf": 2, "kind": "scalar"}]


@pytest.mark.parametrize(
    ("value", "type_name"),
    [(object(), "builtins.object"), (Reason.INTERVAL, "Reason"), (Point(1), "Point"), ({1}, "builtins.set")],
)
def test_what_cannot_be_kept_is_named_by_its_place_and_type(value: object, type_name: str) -> None:
    with pytest.raises(UnsupportedState, match=type_name) as raised:
        trees.flatten({"model": [0, {"weight": value}]}, tensors.kind_of, "tolaria")
    assert raised.value.path == "tolaria/model/1/weight"


@pytest.mark.parametrize(
    "tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")], ids=["sparse", "without data"]
)
def test_a_tensor_whose_bytes_are_not_all_of_it_is_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UnsupportedState, match="tolaria/model"):
        tensors.leaf_of(tensor, "tolaria/model")


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()]), np.zeros(2, "longdouble")])
def test_an_array_of_anything_but_numbers_is_refused(array: "np.ndarray[Any, Any]") -> None:
    with pytest.raises(UnsupportedState, match="An array of the type"):
        tensors.leaf_of(array)


@pytest.mark.parametrize("name", ITEM_SIZES)
def test_a_tensor_of_each_type_comes_back_bit_for_bit(name: str) -> None:
    data = bytes(range(1, 1 + 2 * ITEM_SIZES[name])) if name != "bool" else b"\x00\x01"
    tensor = tensors.tensor_of(Leaf(name, (2,), data))
    assert (tensors.leaf_of(tensor).dtype, bytes(tensors.leaf_of(tensor).data)) == (name, data)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12).reshape(3, 4).t(),
        torch.tensor(3.5),
        torch.empty(0, 5),
        torch.ones(2, 3)[:, 1],
        torch.ones(3, dtype=torch.complex64).conj(),
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=["transposed", "no dimensions", "empty", "strided", "conjugated", "parameter"],
)
def test_a_tensor_however_it_lies_in_memory_comes_back(tensor: torch.Tensor) -> None:
    assert torch.equal(tensors.tensor_of(tensors.leaf_of(tensor)), tensor)


def test_an_array_in_the_other_byte_order_comes_back_in_the_machines() -> None:
    leaf = tensors.leaf_of(np.array([1.5, -2.0], dtype=">f8"))
    assert tensors.tensor_of(leaf).tolist() == [1.5, -2.0]


def test_a_state_of_200_levels_is_kept_and_one_of_201_is_refused() -> None:
    deep: Any = 0
    for _ in range(trees.MAX_DEPTH):
        deep = (deep,)
    assert round_trip(deep) == deep
    with pytest.raises(UnsupportedState, match="200 levels"):
        trees.flatten([deep], tensors.kind_of)


def test_a_container_in_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnsupportedState, match="a container in itself"):
        trees.flatten(loop, tensors.kind_of)


@pytest.mark.parametrize(
    "skeleton",
    [
        {"$leaf": 2},
        {"$leaf": -1},
        {"$leaf": True},
        {"$leaf": "0"},
        {"$leaf": 0, "kind": "pickle"},
        {"$leaf": 0, "more": 1},
        {"$tuple": 1},
        {"$tuple": [], "b": 1},
        {"$dict": [[1]]},
        {"$dict": [[1, 2], [1, 3]]},
        {"$dict": [[[1], 2]]},
        {"$bytes": "!"},
        {"$float": "1"},
        {"$int": "12"},
        {"$int": 12},
        {"$global": "os.system"},
    ],
    ids=json.dumps,
)
def test_a_skeleton_that_flatten_would_not_make_is_refused(skeleton: Any) -> None:
    with pytest.raises(CorruptCheckpoint, match="tree: "):
        trees.check(skeleton, 2)


def test_a_skeleton_of_more_levels_than_any_state_is_refused() -> None:
    deep: Any = 0
    for _ in range(trees.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(CorruptCheckpoint, match="200 levels"):
        trees.check(deep, 0)
