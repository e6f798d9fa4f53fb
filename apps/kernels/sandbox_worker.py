"""The jobs of the sandbox (Tezzeret compiles, Urabrask validates), as stages that each measure and demand.

Runs in the sealed child only: this module brings torch. A report holds every stage with its measured values, thresholds
and duration; the first stage whose demand fails rejects the job with the reason and the report so far.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from apps.blueprints.spec import Graph, SpecError, bind, canonical_json, digest, parse
from apps.kernels.effort import EFFORTS, Effort
from apps.kernels.sandbox_child import Announce, Handler, JobRejected
from apps.morphogenesis import checks, variants
from apps.morphogenesis.artefact import KernelFormatError, read_kernel, variants_of
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
    """{"spec": ..., "seed": int, "pipeline": name} -> (report, artefact). Symbols of the spec take their defaults."""
    report, effort = _begun("compile", job, announce)
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
    probes = _probes(graph, effort)
    _check_birth(report, branch, probes)
    artefact = pack(branch, spec)
    _check_determinism(report, artefact, effort, lambda: pack(_built(graph, seed), spec))
    with report.stage("pack") as stage:
        report.facts["artefact"] = {"digest": checks.digest(artefact), "bytes": len(artefact)}
        stage.measure(bytes=len(artefact))
    reference = checks.fingerprints(branch, probes)
    _check_equivalence(report, load_artefact(artefact), probes, reference)
    report.facts["reference"] = reference
    _measure_speed(report, branch, probes[0], effort)
    return report.as_dict(), artefact


def validate_job(job: Mapping[str, Any], data: bytes, announce: Announce) -> tuple[dict[str, Any], bytes]:
    """{"digest": hex, "reference": fingerprints or {}, "pipeline": name} + artefact -> report.

    A kernel that was uploaded has no reference yet: its report brings the first one.
    """
    report, effort = _begun("validate", job, announce)
    branch = _loaded(report, job["digest"], data)
    probes = _probes(branch.graph, effort)
    _check_birth(report, branch, probes)
    if job["reference"]:
        _check_equivalence(report, branch, probes, job["reference"])
    report.facts["reference"] = checks.fingerprints(branch, probes)
    _measure_speed(report, branch, probes[0], effort)
    return report.as_dict(), b""


def variant_job(job: Mapping[str, Any], data: bytes, announce: Announce) -> tuple[dict[str, Any], bytes]:
    """{"digest": hex, "memory_format": ..., "dtype": ..., "pipeline": name} + artefact -> (report, variant).

    What is checked is the variant as loaded from its own bytes, against the float32 kernel on every probe.
    """
    report, effort = _begun("variant", job, announce)
    kernel = _loaded(report, job["digest"], data)
    spec = report.facts["spec"]
    probes = _probes(kernel.graph, effort)
    with report.stage("pack") as stage:
        artefact = variants.pack_variant(kernel, spec, memory_format=job["memory_format"], dtype=job["dtype"])
        variant = variants.load_variant(artefact)
        report.facts["variant"] = {"digest": checks.digest(artefact), "bytes": len(artefact)}
        stage.measure(bytes=len(artefact), memory_format=job["memory_format"], dtype=job["dtype"])
    with report.stage("supported") as stage:
        unsupported = variant.refusal(probes[0])
        stage.demand(not unsupported, f"this CPU does not compute it: {unsupported}")
    with report.stage("finite") as stage:
        bad = checks.non_finite(variant.branch)
        stage.measure(non_finite=bad[:5])
        stage.demand(not bad, f"tensors hold inf or nan: {', '.join(bad[:5])}")
    with report.stage("equivalence") as stage:
        difference = checks.worst(variant.difference(kernel, h) for h in probes)
        stage.at_most("difference", difference, variants.TOLERANCE[job["dtype"]], "a node differs from the kernel's")
    with report.stage("gradients") as stage:
        norms = variant.gradient_norms(probes[0])
        exploded = [name for name, norm in norms.items() if not math.isfinite(norm)]
        stage.measure(after_one_step=math.hypot(*norms.values()), exploded=exploded)
        stage.demand(not exploded, f"gradients are not finite: {', '.join(exploded[:5])}")
    with report.stage("benchmark") as stage:
        ours = (variant.branch, variant.cast(probes[0]))
        theirs = (kernel, probes[0].clone().requires_grad_())  # as the variant's input has
        timings = checks.compare_speed(theirs, ours, rounds=effort.rounds, round_s=effort.round_s)
        stage.measure(**timings)
    report.facts["metrics"] = {**timings, "bytes": len(artefact)}
    return report.as_dict(), artefact


def warm_up() -> None:
    """Load what torch loads lazily, while files can still be opened."""
    checks.settle()
    for spec in _WARM_UP:
        job: dict[str, Any] = {"spec": spec, "seed": 0, "pipeline": "warm_up"}
        report, artefact = compile_job(job, b"", lambda stage: None)
        job |= {"digest": report["artefact"]["digest"], "reference": report["reference"]}
        validate_job(job, artefact, lambda stage: None)
        for memory_format, dtype in variants_of(parse(spec)):
            with contextlib.suppress(JobRejected):  # this CPU may lack it; whatever it opens is open now
                variant_job({**job, "memory_format": memory_format, "dtype": dtype}, artefact, lambda stage: None)


def _begun(kind: str, job: Mapping[str, Any], announce: Announce) -> tuple[Report, Effort]:
    pipeline: str = job.get("pipeline", "fast")
    report = Report(kind, announce)
    report.facts["pipeline"] = pipeline
    return report, EFFORTS[pipeline]


def _probes(graph: Graph, effort: Effort) -> list[torch.Tensor]:
    return [checks.probe(graph.input_shape, samples=samples, side=side) for samples, side in effort.probes]


def _loaded(report: Report, promised: str, data: bytes) -> Branch:
    """The branch of an artefact that has the promised digest."""
    with report.stage("digest") as stage:
        found = checks.digest(data)
        stage.measure(digest=found, bytes=len(data))
        stage.demand(found == promised, f"the bytes have the digest {found}, not {promised}")
        report.facts["artefact"] = {"digest": found, "bytes": len(data)}
    with report.stage("format") as stage:
        spec, graph = read_kernel(data)
        branch = load_artefact(data)
        report.describe(spec, graph)
        stage.measure(tensors=len(graph.tensors))
    return branch


def _built(graph: Graph, seed: int) -> Branch:
    return build(graph, generator=torch.Generator().manual_seed(seed))


def _check_birth(report: Report, branch: Branch, probes: Sequence[torch.Tensor]) -> None:
    """What must hold of any new kernel, just built or loaded: finite, the identity, able to learn."""
    with report.stage("finite") as stage:
        bad = checks.non_finite(branch)
        stage.measure(non_finite=bad[:5])
        stage.demand(not bad, f"tensors hold inf or nan: {', '.join(bad[:5])}")
    with report.stage("identity") as stage:
        largest = checks.worst(checks.largest_output(branch, h) for h in probes)
        stage.at_most("largest_output", largest, IDENTITY_TOLERANCE, "the branch is not zero at birth")
    with report.stage("gradients") as stage:
        _check_gradients(stage, branch, probes[0])


def _check_determinism(report: Report, artefact: bytes, effort: Effort, again: Callable[[], bytes]) -> None:
    """Builds from one seed give the same bytes, whatever state the global generator is in."""
    with report.stage("determinism") as stage:
        stage.measure(builds=1 + effort.builds, digest=checks.digest(artefact))
        for number in range(effort.builds):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                repeated = again()
            stage.measure(repeated=checks.digest(repeated))
            stage.demand(repeated == artefact, f"two builds from seed {report.facts['seed']} gave different bytes")


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


def _check_equivalence(
    report: Report, branch: Branch, probes: Sequence[torch.Tensor], reference: Mapping[str, list[float]]
) -> None:
    with report.stage("equivalence") as stage:
        difference = checks.deviation(checks.fingerprints(branch, probes), reference)
        stage.measure(probes=len(probes))
        stage.at_most("deviation", difference, EQUIVALENCE_TOLERANCE, "outputs differ from the reference")


def _measure_speed(report: Report, branch: Branch, h: torch.Tensor, effort: Effort) -> None:
    with report.stage("benchmark") as stage:
        timings = checks.benchmark(branch, h, rounds=effort.rounds, round_s=effort.round_s)
        stage.measure(**timings)
    flops: int = report.facts["flops"]
    report.facts["metrics"] = {
        **timings,
        "relative_per_mflop": timings["relative"] * 1e6 / max(flops * h.shape[0], 1),
        "parameters": branch.graph.parameters,
        "flops": flops,
        "bytes": report.facts["artefact"]["bytes"],
    }


HANDLERS: Mapping[str, Handler] = {"compile": compile_job, "validate": validate_job, "variant": variant_job}


def _warm_up_spec(
    layer: str, size: str, shape: list[int | str], steps: tuple[str, ...], gate: list[dict[str, Any]], join: list[str]
) -> dict[str, Any]:
    """A residual blueprint through one kind of layer, ``steps``, every activation, both joins and a ``gate``."""
    chain: list[dict[str, Any]] = [{"id": "first", "op": layer, "inputs": ["input"], "params": {size: 2}}]
    for index, op in enumerate((*steps, "relu", "gelu", "silu", "tanh", "sigmoid")):
        chain.append({"id": f"step{index}", "op": op, "inputs": [chain[-1]["id"]]})
    ending: list[dict[str, Any]] = [
        {"id": "sum", "op": "add", "inputs": [chain[-1]["id"], "input"]},
        {"id": "product", "op": "mul", "inputs": ["sum", "input"]},
        *gate,
        {"id": "last", "op": layer, "inputs": join, "params": {size: 2, "init": "zeros"}},
    ]
    return {"version": 1, "operator": "residual", "input": shape, "nodes": [*chain, *ending], "output": "last"}


_IMAGE_GATE: list[dict[str, Any]] = [
    {"id": "mixed", "op": "attention", "inputs": ["product", "sum", "input"]},
    {"id": "pooled", "op": "global_avg_pool", "inputs": ["mixed"]},
    {"id": "squeezed", "op": "linear", "inputs": ["pooled"], "params": {"out_features": 2}},
    {"id": "gated", "op": "channel_mul", "inputs": ["mixed", "squeezed"]},
]

_WARM_UP = (
    _warm_up_spec(
        "linear", "out_features", ["N", 2], ("batch_norm", "layer_norm", "rms_norm", "layer_scale"), [], ["product"]
    ),
    _warm_up_spec(
        "conv2d",
        "out_channels",
        ["N", 2, "H", "W"],
        ("batch_norm", "group_norm", "avg_pool", "layer_scale"),
        _IMAGE_GATE,
        ["gated"],
    ),
)
