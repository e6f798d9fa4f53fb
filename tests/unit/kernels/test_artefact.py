"""The artefact's container: whatever is wrong with the bytes is found before anything is allocated from them."""

import json
import struct
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.blueprints.spec import bind, canonical_json, parse
from apps.morphogenesis.artefact import (
    MAX_ARTEFACT_BYTES,
    MAX_HEADER_BYTES,
    KernelFormatError,
    read_container,
    read_kernel,
)
from apps.morphogenesis.operators import build, load_artefact, load_kernel, pack, unpack
from tests.unit.blueprints.specs import residual, widen_conv

Header = dict[str, Any]


def artefact(spec: dict[str, Any] | None = None) -> bytes:
    bound = bind(spec or residual())
    return pack(build(parse(bound), generator=torch.Generator().manual_seed(0)), bound)


def split(data: bytes) -> tuple[Header, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join(header: Header | bytes, body: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def edited(edit: Callable[[Header], object]) -> bytes:
    header, body = split(artefact())
    edit(header)
    return join(header, body)


def refusal(data: bytes) -> str:
    """Why every reader refuses these bytes; the torch readers must refuse exactly what the pure one does."""
    with pytest.raises(KernelFormatError) as caught:
        read_kernel(data)
    for reader in (unpack, load_artefact):
        with pytest.raises(KernelFormatError):
            reader(data)
    return str(caught.value)


def test_an_artefact_reads_back_as_its_spec_and_graph() -> None:
    spec, graph = read_kernel(artefact())
    assert spec == bind(residual())
    assert graph == parse(bind(residual()))


class TestBounds:
    @pytest.mark.parametrize("data", [b"", b"1234567", bytes(8)])
    def test_too_few_bytes(self, data: bytes) -> None:
        refusal(data)

    @pytest.mark.parametrize("claim", [MAX_HEADER_BYTES + 1, 2**40, 2**64 - 1])
    def test_a_header_that_claims_too_much(self, claim: int) -> None:
        assert "over the limit" in refusal(struct.pack("<Q", claim) + b"{}")

    def test_a_header_longer_than_the_file(self) -> None:
        assert "only 2 follow" in refusal(struct.pack("<Q", 1000) + b"{}")

    def test_a_file_over_the_limit(self) -> None:
        assert "over the limit" in refusal(bytes(MAX_ARTEFACT_BYTES + 1))

    def test_a_truncated_file(self) -> None:
        assert "follow the header" in refusal(artefact()[:-1])

    def test_a_file_with_a_tail(self) -> None:
        assert "follow the header" in refusal(artefact() + b"\0")


class TestHeader:
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"[]",
            b"3",
            b"{",
            b"\xff\xfe",
            b"{}}",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b"9" * 5000,
            b'{"a":1,"a":2}',
        ],
        ids=range(10),
    )
    def test_broken_json(self, raw: bytes) -> None:
        refusal(join(raw, b""))

    def test_metadata_must_be_strings(self) -> None:
        assert "names to strings" in refusal(edited(lambda h: h["__metadata__"].update(esper_spec={})))

    def test_without_a_spec_it_is_no_kernel(self) -> None:
        assert "'esper_spec'" in refusal(edited(lambda h: h.pop("__metadata__")))

    def test_an_invalid_spec_is_named_with_its_field(self) -> None:
        spec = {**bind(residual()), "output": "fc3"}
        data = edited(lambda h: h["__metadata__"].update(esper_spec=json.dumps(spec)))
        assert "invalid at /output" in refusal(data)

    def test_a_spec_has_one_spelling_only(self) -> None:
        data = edited(lambda h: h["__metadata__"].update(esper_spec=json.dumps(bind(residual()), indent=1)))
        assert "canonical" in refusal(data)

    def test_a_spec_with_symbols_is_not_bound(self) -> None:
        data = edited(lambda h: h["__metadata__"].update(esper_spec=canonical_json(residual()).decode()))
        assert "not bound" in refusal(data)


class TestTensors:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("dtype", "F64"),
            ("dtype", 4),
            ("dtype", ["F32"]),
            ("shape", 4),
            ("shape", [-1]),
            ("shape", [True]),
            ("shape", [1] * 5),
            ("shape", [2**60]),
            ("data_offsets", []),
            ("data_offsets", [0, 0]),
            ("data_offsets", [0, 2**62]),
            ("data_offsets", [16, 0]),
        ],
    )
    def test_a_broken_entry_is_refused(self, field: str, value: Any) -> None:
        assert "tensor" in refusal(edited(lambda h: h["fc1.bias"].update({field: value})))

    def test_an_unknown_field_is_refused(self) -> None:
        assert "exactly" in refusal(edited(lambda h: h["fc1.bias"].update(code="import os")))

    def test_a_missing_tensor_is_named(self) -> None:
        header, body = split(artefact(widen_conv()))
        header["norm.extra"] = header.pop("norm.bias")
        assert refusal(join(header, body)) == "tensor 'norm.bias' is missing"

    def test_a_foreign_tensor_is_named(self) -> None:
        extra = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        assert "'spy' is not part" in refusal(edited(lambda h: h.update(spy=extra)))

    def test_a_wrong_shape_is_named(self) -> None:
        message = refusal(edited(lambda h: h["fc1.weight"].update(shape=[6, 4])))
        assert message == "tensor 'fc1.weight' must be F32 [4, 6], not F32 [6, 4]"

    def test_a_wrong_type_is_named(self) -> None:
        message = refusal(edited(lambda h: h["fc1.bias"].update(dtype="I64", shape=[2])))
        assert "must be F32 [4], not I64 [2]" in message

    def test_tensors_may_not_share_bytes(self) -> None:
        def overlap(header: Header) -> None:
            begin, _ = header["fc1.weight"]["data_offsets"]
            header["fc1.bias"]["data_offsets"] = [begin, begin + 16]

        assert "overlap" in refusal(edited(overlap))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, 1200))
def test_flipped_and_cut_bytes_never_escape(flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(artefact())
    for position, value in flips:
        data[position % len(data)] ^= value
    data = data[: len(data) - cut] if cut % 3 == 0 else data
    try:
        spec, tensors = unpack(bytes(data))
    except KernelFormatError:
        return
    wanted = parse(spec).tensors
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in wanted.items()
    }


@settings(max_examples=200)
@given(st.binary(max_size=64))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(KernelFormatError):
        read_container(data)


def test_load_kernel_holds_the_tensors_to_the_given_spec() -> None:
    other = bind(residual(), H=3)
    with pytest.raises(KernelFormatError, match=r"fc1\.\w+' must be F32 \[3"):
        load_kernel(other, artefact())


def test_load_kernel_refuses_an_invalid_spec() -> None:
    with pytest.raises(KernelFormatError, match="invalid at /version"):
        load_kernel({**residual(), "version": 9}, artefact())
