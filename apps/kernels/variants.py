"""Makes the variants of a kernel in the sandbox (pipeline aggressive). Thin: no torch, no database.

One job for each variant, so that one that fails (an operation that this CPU lacks in that dtype, too little memory)
fails alone: it is left out, with the reason, and the kernel stays as good as it was.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.kernels.sandbox import InfrastructureFault, Passed, Sandbox, shared_sandbox
from apps.morphogenesis.artefact import KernelFormatError, read_kernel, read_variant, variants_of

__all__ = ["InfrastructureFault", "VariantOutcome", "make_variants"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOutcome:
    """A variant's artefact and its sha256, or why there is none."""

    memory_format: str
    dtype: str
    artefact: bytes | None = None
    digest: str = ""
    reason: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)


def make_variants(data: bytes, *, digest: str, pipeline: str, is_upload: bool) -> list[VariantOutcome]:
    """Every variant of a validated artefact: what our compiler made in this thread's sandbox, an upload in its own.

    Raises:
        InfrastructureFault: the sandbox failed; all may simply be tried again.
    """
    spec, graph = read_kernel(data)
    if not is_upload:
        sandbox = shared_sandbox()
        return [_make(sandbox, data, spec, digest, pipeline, *variant) for variant in variants_of(graph)]
    with Sandbox() as sandbox:
        return [_make(sandbox, data, spec, digest, pipeline, *variant) for variant in variants_of(graph)]


def _make(
    sandbox: Sandbox, data: bytes, spec: Mapping[str, Any], digest: str, pipeline: str, memory_format: str, dtype: str
) -> VariantOutcome:
    job = {"digest": digest, "pipeline": pipeline, "memory_format": memory_format, "dtype": dtype}
    outcome = sandbox.run({"kind": "variant", **job}, data)
    reason = _refuse(outcome, spec, memory_format, dtype) if isinstance(outcome, Passed) else outcome.reason
    if reason or not isinstance(outcome, Passed):
        return VariantOutcome(memory_format=memory_format, dtype=dtype, reason=reason, report=outcome.report)
    return VariantOutcome(
        memory_format=memory_format,
        dtype=dtype,
        artefact=outcome.data,
        digest=hashlib.sha256(outcome.data).hexdigest(),
        report=outcome.report,
    )


def _refuse(outcome: Passed, spec: Mapping[str, Any], memory_format: str, dtype: str) -> str:
    """Why this is not what was ordered; empty if it is. The sandbox's word alone does not count."""
    try:
        header, _ = read_variant(outcome.data)
    except KernelFormatError as error:
        return f"the sandbox gave no variant: {error}"
    if (header.spec, header.memory_format, header.dtype) != (spec, memory_format, dtype):
        return "the sandbox gave another variant than ordered"
    return ""
