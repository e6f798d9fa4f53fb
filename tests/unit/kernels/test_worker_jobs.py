"""The stages of compiling and validating, run in this process: the sandbox around them has tests of its own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from apps.blueprints.spec import Graph, bind, parse
from apps.blueprints.starter import starter_library
from apps.kernels import sandbox_worker
from apps.kernels.sandbox_child import JobRejected
from apps.kernels.sandbox_worker import compile_job, validate_job
from apps.morphogenesis import checks
from apps.morphogenesis.operators import Branch, build, load_artefact, pack
from tests.unit.blueprints.specs import chain, residual, widen_conv

COMPILE_STAGES = [
    "parse",
    "build",
    "finite",
    "identity",
    "gradients",
    "determinism",
    "pack",
    "equivalence",
    "benchmark",
]
PAIR = ("fast", "standard")
VALIDATE_STAGES = ["digest", "format", "finite", "identity", "gradients", "equivalence", "benchmark"]


def ignore(stage: str) -> None:
    """Nobody listens to the stages here."""


def compiled(spec: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return compile_job({"spec": spec, "seed": 0}, b"", ignore)


def refused(job: Callable[[], object]) -> JobRejected:
    with pytest.raises(JobRejected) as caught:
        job()
    return caught.value


@pytest.mark.parametrize("name", sorted(starter_library()))
def test_every_starter_blueprint_compiles_and_its_artefact_validates(name: str) -> None:
    report, data = compiled(dict(starter_library()[name].spec))
    assert [stage["name"] for stage in report["stages"] if stage["passed"]] == COMPILE_STAGES
    job = {"digest": report["artefact"]["digest"], "reference": report["reference"]}
    validation, _ = validate_job(job, data, ignore)
    assert [stage["name"] for stage in validation["stages"] if stage["passed"]] == VALIDATE_STAGES


def test_a_report_tells_what_was_measured_and_by_what() -> None:
    report, data = compiled(residual())
    identity = next(stage for stage in report["stages"] if stage["name"] == "identity")
    assert identity["measured"] == {"largest_output": 0.0}
    assert identity["thresholds"] == {"largest_output": 1e-5}
    assert report["toolchain"]["torch"] == torch.__version__
    assert report["artefact"] == {"digest": checks.digest(data), "bytes": len(data)}
    assert report["parameters"] == parse(residual()).parameters
    assert report["metrics"].keys() >= {"forward_us", "training_us", "parameters", "flops", "bytes"}


def test_the_seed_decides_the_bytes() -> None:
    one, same, other = (compile_job({"spec": residual(), "seed": seed}, b"", ignore)[1] for seed in (1, 1, 2))
    assert one == same != other


def test_more_thorough_pipelines_make_the_same_checks_more_often() -> None:
    fast, standard = (compile_job({"spec": widen_conv(), "seed": 0, "pipeline": name}, b"", ignore)[0] for name in PAIR)

    assert [stage["name"] for stage in fast["stages"]] == [stage["name"] for stage in standard["stages"]]
    told = {stage["name"]: stage["measured"] for stage in standard["stages"]}
    assert (told["determinism"]["builds"], told["equivalence"]["probes"], told["benchmark"]["rounds"]) == (4, 4, 9)
    assert standard["reference"].keys() > fast["reference"].keys()
    assert standard["artefact"] == fast["artefact"]


def test_a_thorough_validation_sees_a_reference_that_differs_on_its_last_probe_only() -> None:
    report, data = compile_job({"spec": residual(), "seed": 0, "pipeline": "standard"}, b"", ignore)
    reference = {**report["reference"], "fc1@3": [1.0, 2.0, 3.0, 4.0, 5.0]}
    job = {"digest": checks.digest(data), "reference": reference, "pipeline": "standard"}

    assert refused(lambda: validate_job(job, data, ignore)).stage == "equivalence"


def test_a_build_that_asks_the_global_generator_is_not_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(graph: Graph, seed: int) -> Branch:
        branch = build(graph, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            branch.get_parameter("fc1.bias").normal_()
        return branch

    monkeypatch.setattr(sandbox_worker, "_built", careless)

    error = refused(lambda: compiled(residual()))

    assert (error.stage, str(error)) == ("determinism", "two builds from seed 0 gave different bytes")


def test_a_timing_comes_with_its_spread_and_as_cost_per_work() -> None:
    metrics = compiled(residual())[0]["metrics"]

    assert metrics["relative_low"] <= metrics["relative"] <= metrics["relative_high"]
    work = metrics["flops"] * 8 / 1e6  # of the probe's 8 samples
    assert metrics["relative_per_mflop"] == pytest.approx(metrics["relative"] / work)


def test_stages_are_announced_before_they_run() -> None:
    announced: list[str] = []
    compile_job({"spec": residual(), "seed": 0}, b"", announced.append)
    assert announced == COMPILE_STAGES


def test_an_invalid_spec_is_rejected_with_its_field() -> None:
    error = refused(lambda: compiled({**residual(), "output": "fc3"}))
    assert error.stage == "parse"
    assert str(error).startswith("/output: ")


def test_a_blueprint_that_could_never_learn_is_rejected() -> None:
    error = refused(lambda: compiled(chain("relu", first_init="zeros")))
    assert error.stage == "gradients"
    assert "first.weight" in str(error)
    assert error.report["stages"][-1]["passed"] is False


class TestValidation:
    """Each mutation keeps what it can: the digest is that of the mutated bytes, so only the later stages can object."""

    def mutated(self, spec: dict[str, Any], change: Callable[[Branch], object]) -> JobRejected:
        report, data = compiled(spec)
        branch = load_artefact(data)
        with torch.no_grad():
            change(branch)
        bad = pack(branch, bind(spec))
        job = {"digest": checks.digest(bad), "reference": report["reference"]}
        return refused(lambda: validate_job(job, bad, ignore))

    def test_other_bytes_than_promised(self) -> None:
        report, data = compiled(residual())
        job = {"digest": report["artefact"]["digest"], "reference": report["reference"]}
        assert refused(lambda: validate_job(job, data + b"x", ignore)).stage == "digest"

    def test_bytes_that_are_no_kernel(self) -> None:
        job = {"digest": checks.digest(b"x" * 100), "reference": {}}
        assert refused(lambda: validate_job(job, b"x" * 100, ignore)).stage == "format"

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_weight_that_is_no_number(self, value: float) -> None:
        error = self.mutated(residual(), lambda branch: branch.get_parameter("fc1.weight")[0, 0].fill_(value))
        assert (error.stage, str(error)) == ("finite", "tensors hold inf or nan: fc1.weight")

    def test_a_kernel_that_is_not_the_identity_at_birth(self) -> None:
        error = self.mutated(residual(), lambda branch: branch.get_parameter("fc2.bias").fill_(0.1))
        assert error.stage == "identity"
        assert "0.1, allowed 1e-05" in str(error)

    def test_a_weight_mutated_where_the_output_cannot_tell(self) -> None:
        error = self.mutated(residual(), lambda branch: branch.get_parameter("fc1.weight")[0, 0].add_(0.01))
        assert error.stage == "equivalence"

    def test_a_statistic_mutated_where_the_output_cannot_tell(self) -> None:
        error = self.mutated(widen_conv(), lambda branch: branch.get_buffer("norm.running_mean").fill_(0.01))
        assert error.stage == "equivalence"

    def test_a_variance_that_makes_the_norm_explode(self) -> None:
        error = self.mutated(widen_conv(), lambda branch: branch.get_buffer("norm.running_var").fill_(-1.0))
        assert error.stage == "identity"

    def test_layers_that_died(self) -> None:
        error = self.mutated(residual(), lambda branch: branch.get_parameter("fc1.bias").fill_(-1e6))
        assert error.stage == "gradients"

    def test_an_uploaded_kernel_brings_its_first_reference(self) -> None:
        report, data = compiled(residual())
        uploaded, _ = validate_job({"digest": checks.digest(data), "reference": {}}, data, ignore)
        assert uploaded["reference"] == report["reference"]
        assert "equivalence" not in [stage["name"] for stage in uploaded["stages"]]
