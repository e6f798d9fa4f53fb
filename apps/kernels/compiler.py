"""Compiles blueprints into kernel artefacts (Tezzeret), in the sandbox. Thin: no torch, no database, no queue.

A blueprint at fault gives an outcome without an artefact, and the reason: never retry it. A machine at fault raises
InfrastructureFault: retry.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.blueprints.spec import SpecError, bind
from apps.kernels.sandbox import InfrastructureFault, Limits, Passed, Rejected, Sandbox, shared_sandbox
from apps.morphogenesis.artefact import KernelFormatError, read_kernel

__all__ = ["CompileJob", "CompileOutcome", "InfrastructureFault", "Limits", "compile", "compile_kernels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileJob:
    """A spec and the seed of its weights. The spec's symbols take the sizes that the spec gives them.

    ``pipeline`` is a key of ``effort.EFFORTS``: how often each check is repeated.
    """

    spec: Mapping[str, Any]
    seed: int = 0
    pipeline: str = "fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileOutcome:
    """An artefact, or why there is none.

    ``digest`` is the sha256 of ``artefact``. ``report["reference"]`` is what validation compares with. Without an
    artefact, ``reason`` is a sentence for people and ``stage`` the stage that failed; the report ends there.
    """

    artefact: bytes | None = None
    digest: str = ""
    reason: str = ""
    stage: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    exceeded: str = ""
    """The limit of the sandbox that it went over, if that was its fault."""


def compile(
    spec: Mapping[str, Any], *, seed: int = 0, pipeline: str = "fast", limits: Limits | None = None
) -> CompileOutcome:
    """Compile one blueprint, in this thread's sandbox (in one of its own when ``limits`` are given).

    Raises:
        InfrastructureFault: the sandbox failed, nothing is known about the blueprint.
    """
    job = CompileJob(spec=spec, seed=seed, pipeline=pipeline)
    return compile_kernels([job], limits=limits)[0] if limits else _compile(shared_sandbox(), job)


def compile_kernels(jobs: Iterable[CompileJob], *, limits: Limits | None = None) -> list[CompileOutcome]:
    """Compile many in one sandbox: one outcome per job, in the same order.

    A job that crashes or hangs the sandbox bears that outcome alone: the next one gets a fresh child.

    Raises:
        InfrastructureFault: the sandbox failed; compiling is deterministic, so all may simply be tried again.
    """
    with Sandbox(limits=limits) as sandbox:
        return [_compile(sandbox, job) for job in jobs]


def _compile(sandbox: Sandbox, job: CompileJob) -> CompileOutcome:
    try:
        spec = bind(job.spec)
    except SpecError as error:
        # Known without a sandbox, whose pipe carries valid JSON only.
        return CompileOutcome(reason=f"{error.pointer}: {error}" if error.pointer else str(error), stage="parse")
    outcome = sandbox.run({"kind": "compile", "spec": spec, "seed": job.seed, "pipeline": job.pipeline})
    if isinstance(outcome, Rejected):
        return CompileOutcome(
            reason=outcome.reason, stage=outcome.stage, report=outcome.report, exceeded=outcome.exceeded
        )
    return _verified(outcome, spec)


def _verified(outcome: Passed, spec: Mapping[str, Any]) -> CompileOutcome:
    """The artefact, if it is what was ordered: the sandbox's word alone does not count."""
    digest = hashlib.sha256(outcome.data).hexdigest()
    try:
        packed, _ = read_kernel(outcome.data)
    except KernelFormatError as error:
        return CompileOutcome(reason=f"the sandbox gave no kernel: {error}", stage="pack", report=outcome.report)
    if packed != spec or outcome.report.get("artefact", {}).get("digest") != digest:
        reason = "the sandbox gave another kernel than ordered"
        return CompileOutcome(reason=reason, stage="pack", report=outcome.report)
    return CompileOutcome(artefact=outcome.data, digest=digest, report=outcome.report)
