"""Compiling and validating through the real sandbox: what is good comes out, what is bad costs only itself."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from apps.blueprints.spec import bind, parse
from apps.blueprints.starter import starter_library
from apps.kernels import compiler, validator
from apps.kernels.compiler import CompileJob, CompileOutcome, Limits
from apps.kernels.sandbox import ROOT
from apps.morphogenesis.artefact import read_kernel

MEBIBYTE = 1 << 20


def depthwise(channels: int) -> dict[str, Any]:
    """Legal, and very slow for its size: each channel has its own 15x15 kernel."""
    sizes = {"out_channels": channels, "kernel_size": 15, "groups": channels}
    return {
        "version": 1,
        "operator": "residual",
        "input": ["N", channels, "H", "W"],
        "nodes": [
            {"id": "first", "op": "conv2d", "inputs": ["input"], "params": sizes},
            {"id": "last", "op": "conv2d", "inputs": ["first"], "params": {**sizes, "init": "zeros"}},
        ],
        "output": "last",
    }


HEAVY = depthwise(16_384)


@pytest.fixture(scope="module")
def starters() -> dict[str, CompileOutcome]:
    """Every starter blueprint, compiled in one sandbox."""
    library = starter_library()
    outcomes = compiler.compile_kernels(CompileJob(spec=blueprint.spec) for blueprint in library.values())
    return dict(zip(library, outcomes, strict=True))


@pytest.mark.parametrize("name", sorted(starter_library()))
def test_every_starter_blueprint_becomes_a_validated_kernel(starters: dict[str, CompileOutcome], name: str) -> None:
    outcome = starters[name]
    assert outcome.artefact is not None, outcome.reason
    spec, graph = read_kernel(outcome.artefact)
    assert spec == bind(starter_library()[name].spec)
    assert outcome.report["parameters"] == graph.parameters
    verdict = validator.validate(
        outcome.artefact, expected_digest=outcome.digest, reference=outcome.report["reference"]
    )
    assert verdict.valid, verdict.reason


def test_compiling_again_gives_the_same_artefact(starters: dict[str, CompileOutcome]) -> None:
    again = compiler.compile(starter_library()["residual_mlp"].spec)
    assert again.digest == starters["residual_mlp"].digest


def test_the_report_says_how_the_sandbox_was_closed(starters: dict[str, CompileOutcome]) -> None:
    isolation = starters["residual_mlp"].report["isolation"]
    assert isolation["descriptors"] == "no new ones"


def test_an_invalid_blueprint_is_refused_with_its_field() -> None:
    outcome = compiler.compile({**HEAVY, "output": "lost"})
    assert (outcome.artefact, outcome.stage) == (None, "parse")
    assert outcome.reason.startswith("/output: ")


def test_jobs_of_one_batch_fail_alone() -> None:
    good = starter_library()["residual_mlp"].spec
    jobs = [CompileJob(spec=good), CompileJob(spec=HEAVY), CompileJob(spec=good, seed=1)]
    outcomes = compiler.compile_kernels(jobs, limits=Limits(wall_s=1.5))
    assert [outcome.artefact is not None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].reason == "did not finish within 1.5 seconds"
    assert outcomes[1].stage != "start"


def test_an_endless_build_runs_out_of_cpu_time() -> None:
    outcome = compiler.compile(HEAVY, limits=Limits(cpu_s=1))
    assert outcome.reason == "used more than 1 seconds of CPU time"


def test_a_memory_bomb_is_refused() -> None:
    outcome = compiler.compile(HEAVY, limits=Limits(memory_bytes=96 * MEBIBYTE))
    assert outcome.artefact is None
    assert outcome.reason == "needs more memory than the sandbox allows"


def refusal(data: bytes, outcome: CompileOutcome, reference: Mapping[str, Any] | None = None) -> tuple[str, str]:
    """(stage, reason) of a validation of ``data`` under the digest that it really has."""
    from hashlib import sha256

    reference = outcome.report["reference"] if reference is None else reference
    verdict = validator.validate(data, expected_digest=sha256(data).hexdigest(), reference=reference)
    assert not verdict.valid
    return verdict.stage, verdict.reason


def test_an_artefact_with_one_flipped_bit_is_refused_by_its_digest(starters: dict[str, CompileOutcome]) -> None:
    outcome = starters["residual_mlp"]
    data = bytearray(outcome.artefact or b"")
    data[-1] ^= 1
    verdict = validator.validate(bytes(data), expected_digest=outcome.digest, reference=outcome.report["reference"])
    assert (verdict.valid, verdict.stage) == (False, "digest")


def with_weight(outcome: CompileOutcome, raw: bytes) -> bytes:
    """The artefact with its last float32 (of an inner layer: the file is sorted by name) replaced."""
    data = outcome.artefact or b""
    return data[:-4] + raw


@pytest.mark.parametrize(
    ("raw", "stage"),
    [(b"\x00\x00\xc0\x7f", "finite"), (b"\x00\x00\x80\x3f", "identity")],
    ids=["nan", "one"],
)
def test_a_mutated_weight_is_refused_even_under_its_own_digest(
    starters: dict[str, CompileOutcome], raw: bytes, stage: str
) -> None:
    outcome = starters["residual_mlp"]
    assert refusal(with_weight(outcome, raw), outcome)[0] == stage


def test_an_artefact_of_another_blueprint_is_refused_by_the_reference(starters: dict[str, CompileOutcome]) -> None:
    mlp, conv = starters["residual_mlp"], starters["residual_conv"]
    assert refusal(conv.artefact or b"", mlp)[0] == "equivalence"


def test_a_header_bomb_is_refused_without_a_sandbox(starters: dict[str, CompileOutcome]) -> None:
    stage, reason = refusal((2**62).to_bytes(8, "little") + b"{}", starters["residual_mlp"])
    assert stage == "format"
    assert "over the limit" in reason


def test_an_uploaded_kernel_is_validated_without_a_reference(starters: dict[str, CompileOutcome]) -> None:
    outcome = starters["widen_linear"]
    verdict = validator.validate(outcome.artefact or b"", expected_digest=outcome.digest, reference={})
    assert verdict.valid
    assert verdict.report["reference"] == outcome.report["reference"]


def test_the_largest_legal_kernel_fits_the_default_limits() -> None:
    spec = bind(starter_library()["residual_mlp"].spec, D=4000, H=1999)
    assert parse(spec).parameters > 15_900_000
    outcome = compiler.compile(spec)
    assert outcome.artefact is not None, outcome.reason
    verdict = validator.validate(
        outcome.artefact, expected_digest=outcome.digest, reference=outcome.report["reference"]
    )
    assert verdict.valid, verdict.reason


def test_the_parent_never_imports_torch() -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from apps.kernels import compiler, validator\n"
        "from apps.blueprints.starter import starter_library\n"
        "outcome = compiler.compile(starter_library()['widen_linear'].spec)\n"
        "assert outcome.artefact, outcome\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
