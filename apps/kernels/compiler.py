"""Compiles blueprints into kernel artefacts (Tezzeret), in the sandbox. Thin: no torch, no database, no queue.

match compile(spec, seed=0):
    case Compiled(digest=digest, data=data, report=report): ...   # store the bytes, then validate them
    case Rejected(reason=reason, stage=stage): ...                # the blueprint is at fault: never retry
    case Fault(error=error): ...                                  # the machine is at fault: retry
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.blueprints.spec import SpecError, bind
from apps.kernels.sandbox import Fault, Limits, Passed, Rejected, Sandbox
from apps.morphogenesis.artefact import KernelFormatError, read_kernel

__all__ = [
    "CompileJob",
    "CompileOutcome",
    "Compiled",
    "Fault",
    "Limits",
    "Rejected",
    "compile",
    "compile_in",
    "compile_kernels",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileJob:
    """A spec and the seed of its weights. The spec's symbols take their defaults: ``bind`` first for other sizes."""

    spec: Mapping[str, Any]
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """An artefact. ``digest`` is the sha256 of ``data``; ``report["reference"]`` is what validation compares with."""

    digest: str
    data: bytes
    report: Mapping[str, Any]


CompileOutcome = Compiled | Rejected | Fault


def compile(spec: Mapping[str, Any], *, seed: int = 0, limits: Limits | None = None) -> CompileOutcome:
    """Compile one blueprint in a sandbox of its own (about two seconds, nearly all of it the start)."""
    return compile_kernels([CompileJob(spec=spec, seed=seed)], limits=limits)[0]


def compile_kernels(jobs: Iterable[CompileJob], *, limits: Limits | None = None) -> list[CompileOutcome]:
    """Compile many, one outcome per job in the same order, sharing one sandbox.

    A job that crashes or hangs the sandbox bears that outcome alone: the next one gets a fresh sandbox.
    """
    with Sandbox(limits=limits) as sandbox:
        return [compile_in(sandbox, job) for job in jobs]


def compile_in(sandbox: Sandbox, job: CompileJob) -> CompileOutcome:
    """Compile one blueprint in a sandbox that the caller keeps for more."""
    try:
        spec = bind(job.spec)
    except SpecError as error:
        # Known without a sandbox; and the sandbox's pipe carries valid JSON only.
        return Rejected(reason=f"{error.pointer}: {error}" if error.pointer else str(error), stage="parse")
    outcome = sandbox.run({"kind": "compile", "spec": spec, "seed": job.seed})
    if not isinstance(outcome, Passed):
        return outcome
    return _verified(outcome, spec)


def _verified(outcome: Passed, spec: Mapping[str, Any]) -> CompileOutcome:
    """The artefact, if it is what was ordered: the child saw untrusted input, so its word alone does not count."""
    digest = hashlib.sha256(outcome.data).hexdigest()
    try:
        packed, _ = read_kernel(outcome.data)
    except KernelFormatError as error:
        return Rejected(reason=f"the sandbox gave no kernel: {error}", stage="pack", report=outcome.report)
    if packed != spec or outcome.report.get("artefact", {}).get("digest") != digest:
        return Rejected(reason="the sandbox gave another kernel than ordered", stage="pack", report=outcome.report)
    return Compiled(digest=digest, data=outcome.data, report=outcome.report)
