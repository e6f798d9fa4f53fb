"""Manifests: what was said is read back, and neither a changed bit nor a crafted document is believed."""

import dataclasses
import json
import math
import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.checkpoints.store import canonical
from apps.checkpoints.store.errors import CorruptCheckpoint, UnsupportedState
from apps.checkpoints.store.leaves import ITEM_SIZES
from apps.checkpoints.store.manifests import Component, LeafRef, Manifest, parse
from apps.checkpoints.store.packs import OBJECT_BYTES, digest_of
from tests.unit.checkpoints.making import CHECKPOINT_ID, manifest_of, signed

A, B = digest_of(b"a"), digest_of(b"b")
LARGE = LeafRef("float32", (2, OBJECT_BYTES // 4), ((A, 0, OBJECT_BYTES), (B, 0, OBJECT_BYTES)))
SMALL = LeafRef("bfloat16", (3,), ((B, 100, 6),))
EMPTY = LeafRef("int64", (0, 7), ())
TREE = {"w": {"$leaf": 0}, "b": {"$tuple": [{"$leaf": 1}, {"$leaf": 2}]}}
MANIFEST = manifest_of(
    {"tolaria": Component(TREE, (LARGE, SMALL, EMPTY)), "tamiyo": Component({"arm": 3}, ())},
    parent_id=UUID(int=0xC0),
    metrics={"loss": math.inf, "accuracy": 0.5},
    environment={"torch": "2.13", "threads": 2, "versions": (1, 2)},
    labels={"key": "epoch ü"},
    fingerprint="ab" * 32,
)
DATA = MANIFEST.to_bytes()


def document() -> dict[str, Any]:
    value: dict[str, Any] = json.loads(manifest_of({"tolaria": Component(TREE, (LARGE, SMALL, EMPTY))}).to_bytes()[72:])
    return value


def test_a_manifest_reads_back_as_it_was() -> None:
    assert parse(DATA, CHECKPOINT_ID) == MANIFEST
    assert parse(DATA).to_bytes() == DATA


shapes = st.lists(st.integers(0, 3), max_size=4)


@given(
    st.dictionaries(
        st.sampled_from(["tolaria", "tamiyo", "kasmina", "urza"]), st.lists(shapes, max_size=3), max_size=4
    ),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
    st.sampled_from(sorted(ITEM_SIZES)),
)
def test_any_state_reads_back(state: dict[str, list[list[int]]], metrics: dict[str, float], dtype: str) -> None:
    def leaf(shape: list[int]) -> LeafRef:
        size = math.prod(shape) * ITEM_SIZES[dtype]
        return LeafRef(dtype, tuple(shape), ((A, 0, size),) if size else ())

    components = {
        name: Component([{"$leaf": number} for number in range(len(leaves))], tuple(map(leaf, leaves)))
        for name, leaves in state.items()
    }
    manifest = manifest_of(components, metrics=metrics)
    assert parse(manifest.to_bytes()) == manifest


def test_a_loss_that_is_not_a_number_is_kept() -> None:
    assert math.isnan(parse(manifest_of({}, metrics={"loss": math.nan}).to_bytes()).metrics["loss"])


def test_the_objects_of_a_manifest_are_each_as_large_as_its_furthest_reference() -> None:
    assert MANIFEST.objects() == {A: OBJECT_BYTES, B: OBJECT_BYTES}
    assert manifest_of({"urza": Component({"$leaf": 0}, (SMALL,))}).objects() == {B: 106}


def test_sizes_are_told_per_component() -> None:
    assert MANIFEST.sizes() == {
        "tolaria": {"tensors": 3, "bytes": 2 * OBJECT_BYTES + 6},
        "tamiyo": {"tensors": 0, "bytes": 0},
    }


def test_every_flipped_bit_is_detected() -> None:
    for place in range(len(DATA)):
        for bit in range(8):
            changed = bytearray(DATA)
            changed[place] ^= 1 << bit
            with pytest.raises(CorruptCheckpoint, match="manifest: "):
                parse(bytes(changed))


def test_a_manifest_cut_anywhere_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(CorruptCheckpoint):
            parse(DATA[:length])


@given(st.binary(min_size=1, max_size=100))
def test_a_manifest_with_more_bytes_behind_it_is_refused(more: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        parse(DATA + more)


def test_a_manifest_in_the_place_of_another_is_refused() -> None:
    with pytest.raises(CorruptCheckpoint, match="in the place of"):
        parse(DATA, UUID(int=1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("format", "esper-checkpoint/2"),
        ("id", "../../../etc/passwd"),
        ("id", "00000000-0000-0000-0000-0000000000C1"),
        ("id", "{00000000-0000-0000-0000-0000000000c}"),
        ("run_id", 7),
        ("workspace_id", None),
        ("parent_id", ".."),
        ("epoch", -1),
        ("step", 1.5),
        ("step", 2**63),
        ("fencing_token", True),
        ("reason", "x" * 501),
        ("created_at", "yesterday"),
        ("metrics", {"loss": "low"}),
        ("metrics", []),
        ("metrics", {"$leaf": 0}),
        ("environment", {"x": {"$leaf": 0}}),
        ("environment", {"$tuple": []}),
        ("labels", {"key": 1}),
        ("components", {"../tolaria": {"tree": None, "leaves": []}}),
        ("components", {"Tolaria": {"tree": None, "leaves": []}}),
        ("components", {"": {"tree": None, "leaves": []}}),
        ("components", {"tolaria": {"leaves": [], "tree": None}}),
        ("components", {"tolaria": {"tree": None, "leaves": None}}),
        ("components", {"tolaria": {"tree": {"$leaf": 0}, "leaves": []}}),
        ("components", []),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_crafted_field_is_refused(field: str, value: Any) -> None:
    with pytest.raises(CorruptCheckpoint):
        parse(signed({**document(), field: value}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "object"}, "a type that is not known"),
        ({"dtype": ["float32"]}, "a type that is not known"),
        ({"shape": [4]}, "not what its shape asks for"),
        ({"shape": [10**9] * 8}, "not what its shape asks for"),
        ({"shape": [-3, -1]}, "a shape that is none"),
        ({"shape": [3.0]}, "a shape that is none"),
        ({"shape": [1] * 65}, "a shape that is none"),
        ({"shape": [2**63]}, "a shape that is none"),
        ({"parts": [[B, 0, 12]]}, "not what its shape asks for"),
        ({"parts": []}, "not what its shape asks for"),
        ({"parts": {}}, "no list of parts"),
        ({"parts": [[B, 0, 6], [B, 0, 0]]}, "outside of any object"),
        ({"parts": [[B, OBJECT_BYTES - 5, 6]]}, "outside of any object"),
        ({"parts": [[B, -6, 6]]}, "not made as parts are"),
        ({"parts": [[B, 0, 6, 0]]}, "not made as parts are"),
        ({"parts": [[B, 0, True]]}, "not made as parts are"),
        ({"parts": [["../secret", 0, 6]]}, "has no digest"),
        ({"more": 1}, "not made as leaves are"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_crafted_leaf_is_refused(changes: dict[str, Any], message: str) -> None:
    crafted = document()
    crafted["components"]["tolaria"]["leaves"][1].update(changes)
    with pytest.raises(CorruptCheckpoint, match=message):
        parse(signed(crafted))


@pytest.mark.parametrize(
    "body",
    [
        b"null",
        b"[]",
        b"\xff",
        canonical.dumps(document()) + b" ",
        canonical.dumps(document()).replace(b'"step":1200', b'"step":1200,"step":1200'),
        canonical.dumps(document()).replace(b'"step":1200', b'"step":NaN'),
        canonical.dumps(document()).replace(b'"step":1200', b'"step":1200.0'),
        canonical.dumps(document()).replace(b'"metrics":{}', b'"metrics":{"loss":1e999}'),
        canonical.dumps(document()).replace(b'"step":1200', b'"step":' + b"9" * 10_000),
        canonical.dumps(dict(reversed(document().items()))),
        b'{"format":' * 50_000,
    ],
    ids=lambda body: body[:30].decode("latin-1") + f" ({len(body)})",
)
def test_a_document_in_another_spelling_is_refused(body: bytes) -> None:
    with pytest.raises(CorruptCheckpoint):
        parse(signed(body))


@pytest.mark.parametrize("filling", [b"[],", b"{},", b'{"":0},'], ids=str)
def test_a_document_of_very_many_values_is_refused_before_they_are_made(filling: bytes) -> None:
    data = signed(b"[" + filling * (canonical.MAX_MARKS // 2) + b"0]")
    tracemalloc.start()
    try:
        with pytest.raises(CorruptCheckpoint, match="More than 2,000,000 values"):
            parse(data)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "x" * 501},
        {"components": {"Model": Component(None, ())}},
        {"epoch": -1},
        {"metrics": {"loss": "low"}},
    ],
    ids=str,
)
def test_a_manifest_that_no_reader_would_take_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedState, match="could not be read again"):
        dataclasses.replace(MANIFEST, **changes).to_bytes()


def test_a_state_of_too_many_values_is_refused_when_it_is_saved() -> None:
    values: list[float] = [0] * canonical.MAX_MARKS
    with pytest.raises(UnsupportedState, match="keep long lists of numbers as arrays"):
        manifest_of({"tamiyo": Component(values, ())}).to_bytes()


def test_a_digest_names_what_a_manifest_says() -> None:
    assert MANIFEST.digest == DATA[7:71].decode() == digest_of(DATA[72:])
    other: Manifest = dataclasses.replace(MANIFEST, step=1201)
    assert other.digest != MANIFEST.digest
