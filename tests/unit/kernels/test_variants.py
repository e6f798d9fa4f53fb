"""Variants of a kernel: the same weights in another dtype and memory format, checked against the kernel."""

import json
from typing import Any

import pytest
import torch

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.kernels.sandbox_child import JobRejected
from apps.kernels.sandbox_worker import compile_job, variant_job
from apps.morphogenesis import checks, variants
from apps.morphogenesis.artefact import VARIANT_KEY, KernelFormatError, read_kernel, read_variant, variants_of
from apps.morphogenesis.operators import Branch, load_artefact, pack
from tests.unit.blueprints.specs import residual, widen_conv

ALL = [("contiguous", "bfloat16"), ("contiguous", "float16")]
IMAGES = [*ALL, ("channels_last", "float32"), ("channels_last", "bfloat16"), ("channels_last", "float16")]


def ignore(stage: str) -> None:
    """Nobody listens to the stages here."""


def kernel(spec: dict[str, Any]) -> tuple[Branch, bytes]:
    _, data = compile_job({"spec": spec, "seed": 0, "pipeline": "warm_up"}, b"", ignore)
    return load_artefact(data), data


def made(spec: dict[str, Any], memory_format: str, dtype: str, data: bytes | None = None) -> tuple[Any, bytes]:
    data = kernel(spec)[1] if data is None else data
    job = {"digest": checks.digest(data), "memory_format": memory_format, "dtype": dtype, "pipeline": "warm_up"}
    return variant_job(job, data, ignore)


def test_vectors_have_one_layout_and_images_two() -> None:
    assert variants_of(parse(bind(residual()))) == ALL
    assert variants_of(parse(bind(widen_conv()))) == IMAGES


@pytest.mark.parametrize(("memory_format", "dtype"), IMAGES)
def test_a_variant_is_an_artefact_of_its_own_that_says_what_it_is(memory_format: str, dtype: str) -> None:
    report, data = made(widen_conv(), memory_format, dtype)

    header, graph = read_variant(data)
    assert (header.memory_format, header.dtype) == (memory_format, dtype)
    assert graph == parse(bind(widen_conv()))
    assert report["variant"] == {"digest": checks.digest(data), "bytes": len(data)}
    assert checks.digest(data) != report["artefact"]["digest"]


def test_making_a_variant_again_gives_the_same_bytes() -> None:
    assert made(widen_conv(), "channels_last", "bfloat16")[1] == made(widen_conv(), "channels_last", "bfloat16")[1]


def test_a_variant_is_checked_within_the_tolerance_of_its_dtype_and_timed_beside_the_kernel() -> None:
    report, _ = made(residual(), "contiguous", "bfloat16")

    stages = {stage["name"]: stage for stage in report["stages"]}
    assert stages["equivalence"]["thresholds"] == {"difference": 2.0**-4}
    assert 0 < stages["equivalence"]["measured"]["difference"] < 2.0**-6
    assert report["metrics"].keys() >= {"training_us", "kernel_training_us", "speedup", "speedup_low", "speedup_high"}


def test_another_layout_alone_changes_no_number() -> None:
    report, _ = made(widen_conv(), "channels_last", "float32")

    stage = next(stage for stage in report["stages"] if stage["name"] == "equivalence")
    assert stage["measured"]["difference"] <= 1e-6


def test_a_loaded_variant_computes_in_its_dtype_and_layout() -> None:
    variant = variants.load_variant(made(widen_conv(), "channels_last", "bfloat16")[1])

    h = variant.cast(checks.probe(variant.branch.graph.input_shape))

    assert (h.dtype, variant.branch(h).dtype) == (torch.bfloat16, torch.bfloat16)
    assert variant.branch.get_parameter("incoming.weight").is_contiguous(memory_format=torch.channels_last)


def test_weights_that_the_dtype_cannot_hold_are_refused() -> None:
    branch, _ = kernel(residual())
    with torch.no_grad():
        branch.get_parameter("fc1.weight").fill_(1e6)  # float16 ends at 65,504

    with pytest.raises(JobRejected) as caught:
        made(residual(), "contiguous", "float16", pack(branch, bind(residual())))

    assert caught.value.stage == "finite"


def test_a_variant_of_other_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = compile_job({"spec": residual(), "seed": 1}, b"", ignore)[1]
    genuine = variants.load_variant
    wrong = variants.pack_variant(load_artefact(other), bind(residual()), memory_format="contiguous", dtype="bfloat16")
    monkeypatch.setattr(variants, "load_variant", lambda data: genuine(wrong))

    with pytest.raises(JobRejected) as caught:
        made(residual(), "contiguous", "bfloat16")

    assert caught.value.stage == "equivalence"


def test_an_operation_that_the_machine_lacks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(self: Branch, h: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("\"gelu\" not implemented for 'Half'")

    variant = variants.load_variant(made(residual(), "contiguous", "float16")[1])
    monkeypatch.setattr(Branch, "forward", lacking)

    assert "not implemented" in variant.refusal(torch.zeros(2, 6))


def test_any_other_failure_of_a_variant_is_not_taken_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: Branch, h: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("cannot allocate memory")

    variant = variants.load_variant(made(residual(), "contiguous", "float16")[1])
    monkeypatch.setattr(Branch, "forward", failing)

    with pytest.raises(RuntimeError):
        variant.refusal(torch.zeros(2, 6))


def test_a_group_norm_learns_in_channels_last() -> None:
    """torch 2.13 crashes there when the input has no gradient."""
    report, _ = made(dict(starter_library()["attention_conv"].spec), "channels_last", "float32")

    assert report["stages"][-1]["passed"]


class TestFormat:
    def test_a_variant_is_no_kernel_and_a_kernel_no_variant(self) -> None:
        _, data = kernel(residual())

        with pytest.raises(KernelFormatError, match="not a variant"):
            read_variant(data)
        with pytest.raises(KernelFormatError, match="not a kernel"):
            read_kernel(made(residual(), "contiguous", "bfloat16")[1])

    @pytest.mark.parametrize(
        "change",
        [{"dtype": "float64"}, {"memory_format": "sparse"}, {"spec": {}}, {"dtype": "float16"}, {"more": 1}],
        ids=["dtype", "layout", "spec", "other dtype", "unknown key"],
    )
    def test_a_header_that_does_not_fit_is_refused(self, change: dict[str, Any]) -> None:
        data = made(residual(), "contiguous", "bfloat16")[1]
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        content = json.loads(header["__metadata__"][VARIANT_KEY]) | change
        header["__metadata__"][VARIANT_KEY] = json.dumps(content, sort_keys=True, separators=(",", ":"))
        raw = json.dumps(header).encode()

        with pytest.raises(KernelFormatError):
            read_variant(len(raw).to_bytes(8, "little") + raw + data[8 + length :])
