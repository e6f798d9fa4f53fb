"""Validates kernel artefacts (Urabrask): those very bytes, in the sandbox, against what the compiler recorded.

Only a kernel whose validation ``Passed`` may become VALIDATED, and only VALIDATED kernels reach a run.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.kernels.sandbox import Fault, Limits, Passed, Rejected, Sandbox
from apps.morphogenesis.artefact import KernelFormatError, read_kernel

__all__ = [
    "Fault",
    "Limits",
    "Passed",
    "Rejected",
    "ValidationJob",
    "ValidationOutcome",
    "validate",
    "validate_in",
    "validate_kernels",
]

ValidationOutcome = Passed | Rejected | Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationJob:
    """An artefact's bytes, the digest they must have, and the ``reference`` of the compile report.

    ``reference`` is None for an uploaded kernel: nothing to compare with yet; its validation report brings the first.
    """

    data: bytes
    expected_digest: str
    reference: Mapping[str, Any] | None


def validate(
    data: bytes, *, expected_digest: str, reference: Mapping[str, Any] | None, limits: Limits | None = None
) -> ValidationOutcome:
    """Validate one artefact in a sandbox of its own."""
    job = ValidationJob(data=data, expected_digest=expected_digest, reference=reference)
    return validate_kernels([job], limits=limits)[0]


def validate_kernels(jobs: Iterable[ValidationJob], *, limits: Limits | None = None) -> list[ValidationOutcome]:
    """Validate many, one outcome per job in the same order, sharing one sandbox."""
    with Sandbox(limits=limits) as sandbox:
        return [validate_in(sandbox, job) for job in jobs]


def validate_in(sandbox: Sandbox, job: ValidationJob) -> ValidationOutcome:
    """Validate one artefact in a sandbox that the caller keeps for more."""
    refusal = _refuse(job)
    if refusal is not None:
        return refusal
    request = {"kind": "validate", "digest": job.expected_digest, "reference": job.reference}
    return sandbox.run(request, job.data)


def _refuse(job: ValidationJob) -> Rejected | None:
    """What shows without torch: wrong digest, broken container, wrong tensors. Cheaper than a sandbox."""
    found = hashlib.sha256(job.data).hexdigest()
    if found != job.expected_digest:
        return Rejected(reason=f"the bytes have the digest {found}, not {job.expected_digest}", stage="digest")
    try:
        read_kernel(job.data)
    except KernelFormatError as error:
        return Rejected(reason=str(error), stage="format")
    return None
