"""The two jobs of the sandbox (Tezzeret compiles, Urabrask validates), as stages that each measure and demand.

Runs in the sealed child only: this module brings torch. A report holds every stage with its measured values, thresholds
and duration; the first stage whose demand fails rejects the job with the reason and the report so far.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from apps.blueprints.spec import Graph, SpecError, bind, canonical_json, digest, parse
from apps.kernels.sandbox_child import Announce, Handler, JobRejected
from apps.morphogenesis import checks
from apps.morphogenesis.artefact import KernelFormatError, read_kernel
from apps.morphogenesis.operators import Branch, build, load_artefact, pack

REPORT_VERSION = 1
IDENTITY_TOLERANCE = 1e-5
"""Largest output at birth: the threshold of the engine's gate G0."""
EQUIVALENCE_TOLERANCE = 1e-5
"""Largest relative difference to the reference outputs: rounding of another CPU passes, a changed weight does not."""


class Demand(Exception):
    """A stage's demand was not met."""


class Stage:
    """One stage's record. Measured values must survive JSON, so what is not finite becomes a string."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.measured: dict[str, Any] = {}
        self.thresholds: dict[str, Any] = {}
        self.passed = False
        self.duration_ms = 0.0

    def measure(self, **values: Any) -> None:
        self.measured |= {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }

    def at_most(self, name: str, value: float, threshold: float, reason: str) -> None:
        """Record a value that must not exceed its threshold; nan does not pass."""
        self.measure(**{name: value})
        self.thresholds[name] = threshold
        self.demand(value <= threshold, f"{reason}: {value:g}, allowed {threshold:g}")

    def demand(self, met: bool, reason: str) -> None:
        if not met:
            raise Demand(reason)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "passed": self.passed,
            "duration_ms": round(self.duration_ms, 3),
            "measured": self.measured,
            "thresholds": self.thresholds,
        }


class Report:
    """The growing report of one job."""

    def __init__(self, kind: str, announce: Announce) -> None:
        self.facts: dict[str, Any] = {"version": REPORT_VERSION, "kind": kind, "toolchain": checks.toolchain()}
        self._announce = announce
        self._stages: list[Stage] = []

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run a stage. Raises JobRejected when its demand fails or its subject is malformed."""
        self._announce(name)
        stage = Stage(name)
        self._stages.append(stage)
        begin = time.perf_counter()
        try:
            yield stage
            stage.passed = True
        except (Demand, SpecError, KernelFormatError) as error:
            where = f"{error.pointer}: " if isinstance(error, SpecError) and error.pointer else ""
            stage.duration_ms = (time.perf_counter() - begin) * 1e3
            raise JobRejected(f"{where}{error}", stage=name, report=self.as_dict()) from error
        stage.duration_ms = (time.perf_counter() - begin) * 1e3

    def describe(self, spec: Mapping[str, Any], graph: Graph) -> None:
        """What the kernel is, for its row."""
        side = (checks.PROBE_SIDE, checks.PROBE_SIDE)
        self.facts |= {
            "spec": dict(spec),
            "spec_digest": digest(spec),
            "operator": graph.operator,
            "input_shape": list(graph.input_shape),
            "output_shape": list(graph.output_shape),
            "parameters": graph.parameters,
            "flops": graph.flops(side),
            "flops_spatial": list(side) if graph.rank == 4 else [1, 1],
        }

    def as_dict(self) -> dict[str, Any]:
        return {**self.facts, "stages": [stage.as_dict() for stage in self._stages]}


def compile_job(job: Mapping[str, Any], data: bytes, announce: Announce) -> tuple[dict[str, Any], bytes]:
    """{"spec": ..., "seed": int} -> (report, artefact). Symbols of the spec take their defaults."""
    report = Report("compile", announce)
    seed: int = job["seed"]
    report.facts["seed"] = seed
    with report.stage("parse") as stage:
        spec = bind(job["spec"])
        graph = parse(spec)
        report.describe(spec, graph)
        stage.measure(nodes=len(graph.nodes), spec_bytes=len(canonical_json(spec)))
    with report.stage("build") as stage:
        branch = _built(graph, seed)
        wrong = checks.check_shapes(branch, graph)
        stage.measure(tensors=len(graph.tensors), parameters=graph.parameters)
        stage.demand(not wrong, f"tensors are not what the grammar says: {', '.join(wrong[:5])}")
    h = checks.probe(graph.input_shape)
    _check_birth(report, branch, h)
    with report.stage("determinism") as stage:
        artefact = pack(branch, spec)
        again = pack(_built(graph, seed), spec)
        stage.measure(digest=checks.digest(artefact), repeated=checks.digest(again))
        stage.demand(artefact == again, f"two builds from seed {seed} gave different bytes")
    with report.stage("pack") as stage:
        report.facts["artefact"] = {"digest": checks.digest(artefact), "bytes": len(artefact)}
        stage.measure(bytes=len(artefact))
    reference = checks.fingerprint(branch, h)
    _check_equivalence(report, load_artefact(artefact), h, reference)
    report.facts["reference"] = reference
    _measure_speed(report, branch, h)
    return report.as_dict(), artefact


def validate_job(job: Mapping[str, Any], data: bytes, announce: Announce) -> tuple[dict[str, Any], bytes]:
    """{"digest": hex, "reference": fingerprint or {}} + artefact -> report.

    A kernel that was uploaded has no reference yet: its report brings the first one.
    """
    report = Report("validate", announce)
    with report.stage("digest") as stage:
        found = checks.digest(data)
        stage.measure(digest=found, bytes=len(data))
        stage.demand(found == job["digest"], f"the bytes have the digest {found}, not {job['digest']}")
        report.facts["artefact"] = {"digest": found, "bytes": len(data)}
    with report.stage("format") as stage:
        spec, graph = read_kernel(data)
        branch = load_artefact(data)
        report.describe(spec, graph)
        stage.measure(tensors=len(graph.tensors))
    h = checks.probe(graph.input_shape)
    _check_birth(report, branch, h)
    if job["reference"]:
        _check_equivalence(report, branch, h, job["reference"])
    report.facts["reference"] = checks.fingerprint(branch, h)
    _measure_speed(report, branch, h)
    return report.as_dict(), b""


def warm_up() -> None:
    """Load what torch loads lazily, while files can still be opened."""
    checks.settle()
    for spec in _WARM_UP:
        report, artefact = compile_job({"spec": spec, "seed": 0}, b"", lambda stage: None)
        known = {"digest": report["artefact"]["digest"], "reference": report["reference"]}
        validate_job(known, artefact, lambda stage: None)


def _built(graph: Graph, seed: int) -> Branch:
    return build(graph, generator=torch.Generator().manual_seed(seed))


def _check_birth(report: Report, branch: Branch, h: torch.Tensor) -> None:
    """What must hold of any new kernel, just built or loaded: finite, the identity, able to learn."""
    with report.stage("finite") as stage:
        bad = checks.non_finite(branch)
        stage.measure(non_finite=bad[:5])
        stage.demand(not bad, f"tensors hold inf or nan: {', '.join(bad[:5])}")
    with report.stage("identity") as stage:
        largest = checks.largest_output(branch, h)
        stage.at_most("largest_output", largest, IDENTITY_TOLERANCE, "the branch is not zero at birth")
    with report.stage("gradients") as stage:
        _check_gradients(stage, branch, h)


def _check_gradients(stage: Stage, branch: Branch, h: torch.Tensor) -> None:
    born = checks.gradient_norms(branch, h, training=True)
    nudged = checks.gradient_norms_after_nudge(branch, h)
    exploded = [name for norms in (born, nudged) for name, norm in norms.items() if not math.isfinite(norm)]
    silent = [name for name, norm in nudged.items() if norm == 0]
    stage.measure(
        at_birth=math.hypot(*born.values()),
        after_one_step=math.hypot(*nudged.values()),
        exploded=exploded,
        silent=silent,
    )
    stage.demand(not exploded, f"gradients are not finite: {', '.join(exploded[:5])}")
    stage.demand(any(norm > 0 for norm in born.values()), "no parameter gets a gradient at birth: it could never learn")
    stage.demand(not silent, f"parameters get no gradient even after a step: {', '.join(silent[:5])}")


def _check_equivalence(report: Report, branch: Branch, h: torch.Tensor, reference: Mapping[str, list[float]]) -> None:
    with report.stage("equivalence") as stage:
        difference = checks.deviation(checks.fingerprint(branch, h), reference)
        stage.at_most("deviation", difference, EQUIVALENCE_TOLERANCE, "outputs differ from the reference")


def _measure_speed(report: Report, branch: Branch, h: torch.Tensor) -> None:
    with report.stage("benchmark") as stage:
        timings = checks.benchmark(branch, h)
        stage.measure(**timings)
    graph = branch.graph
    report.facts["metrics"] = {
        **timings,
        "parameters": graph.parameters,
        "flops": report.facts["flops"],
        "bytes": report.facts["artefact"]["bytes"],
    }


HANDLERS: Mapping[str, Handler] = {"compile": compile_job, "validate": validate_job}


def _warm_up_spec(layer: str, size: str, shape: list[int | str], norms: tuple[str, ...]) -> dict[str, Any]:
    """A residual blueprint through one kind of layer, its norms, every activation and both joins."""
    chain: list[dict[str, Any]] = [{"id": "first", "op": layer, "inputs": ["input"], "params": {size: 2}}]
    for index, op in enumerate((*norms, "relu", "gelu", "silu", "tanh", "sigmoid")):
        chain.append({"id": f"step{index}", "op": op, "inputs": [chain[-1]["id"]]})
    ending: list[dict[str, Any]] = [
        {"id": "sum", "op": "add", "inputs": [chain[-1]["id"], "input"]},
        {"id": "product", "op": "mul", "inputs": ["sum", "input"]},
        {"id": "last", "op": layer, "inputs": ["product"], "params": {size: 2, "init": "zeros"}},
    ]
    return {"version": 1, "operator": "residual", "input": shape, "nodes": [*chain, *ending], "output": "last"}


_WARM_UP = (
    _warm_up_spec("linear", "out_features", ["N", 2], ("batch_norm", "layer_norm")),
    _warm_up_spec("conv2d", "out_channels", ["N", 2, "H", "W"], ("batch_norm",)),
)
