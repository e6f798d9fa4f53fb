"""Validates kernel artefacts (Urabrask): those very bytes, in the sandbox, against what the compiler recorded.

Only a kernel whose validation passed may become VALIDATED, and only VALIDATED kernels reach a run. No torch here.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.kernels.sandbox import InfrastructureFault, Limits, Rejected, Sandbox, shared_sandbox
from apps.morphogenesis.artefact import KernelFormatError, read_kernel

__all__ = ["InfrastructureFault", "Limits", "ValidationJob", "ValidationOutcome", "validate", "validate_kernels"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationJob:
    """An artefact's bytes, the digest they must have, and the ``reference`` of their compile report.

    An uploaded kernel has no reference (empty): there is nothing to compare with yet, and the report brings the first.
    """

    data: bytes
    expected_digest: str
    reference: Mapping[str, Any]
    pipeline: str = "fast"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationOutcome:
    """The verdict. ``report["metrics"]`` holds the numbers worth searching; a refusal has ``reason`` and ``stage``."""

    valid: bool
    reason: str = ""
    stage: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    exceeded: str = ""
    """The limit of the sandbox that it went over, if that was its fault."""


def validate(
    data: bytes,
    *,
    expected_digest: str,
    reference: Mapping[str, Any],
    pipeline: str = "fast",
    limits: Limits | None = None,
) -> ValidationOutcome:
    """Validate one artefact: what our compiler made in this thread's sandbox, what was uploaded in one of its own.

    Raises:
        InfrastructureFault: the sandbox failed, nothing is known about the artefact.
    """
    job = ValidationJob(data=data, expected_digest=expected_digest, reference=reference, pipeline=pipeline)
    own = limits is not None or not reference
    return validate_kernels([job], limits=limits)[0] if own else _validate(shared_sandbox(), job)


def validate_kernels(jobs: Iterable[ValidationJob], *, limits: Limits | None = None) -> list[ValidationOutcome]:
    """Validate many in one sandbox: one outcome per job, in the same order.

    Raises:
        InfrastructureFault: the sandbox failed; all may simply be tried again.
    """
    with Sandbox(limits=limits) as sandbox:
        return [_validate(sandbox, job) for job in jobs]


def _validate(sandbox: Sandbox, job: ValidationJob) -> ValidationOutcome:
    refusal = _refuse(job)
    if refusal is not None:
        return refusal
    request = {
        "kind": "validate",
        "digest": job.expected_digest,
        "reference": dict(job.reference),
        "pipeline": job.pipeline,
    }
    outcome = sandbox.run(request, job.data)
    if isinstance(outcome, Rejected):
        return ValidationOutcome(
            valid=False, reason=outcome.reason, stage=outcome.stage, report=outcome.report, exceeded=outcome.exceeded
        )
    return ValidationOutcome(valid=True, report=outcome.report)


def _refuse(job: ValidationJob) -> ValidationOutcome | None:
    """What shows without torch, cheaper than a sandbox: a wrong digest, a broken container, wrong tensors."""
    found = hashlib.sha256(job.data).hexdigest()
    if found != job.expected_digest:
        reason = f"the bytes have the digest {found}, not {job.expected_digest}"
        return ValidationOutcome(valid=False, reason=reason, stage="digest")
    try:
        read_kernel(job.data)
    except KernelFormatError as error:
        return ValidationOutcome(valid=False, reason=str(error), stage="format")
    return None
