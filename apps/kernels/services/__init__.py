"""Everything that writes kernels: their way from a blueprint to VALIDATED (``pipeline``) and what runs tell of them
(``outcomes``)."""

from apps.kernels.services.outcomes import hold_kernels, record_field_report, release_kernels
from apps.kernels.services.pipeline import (
    COMPILE_TASK,
    DuplicateContract,
    deprecate_kernel,
    ensure_kernel,
    process_kernel,
    quarantine_kernel,
    register_kernel,
    upload_binary,
)

__all__ = [
    "COMPILE_TASK",
    "DuplicateContract",
    "deprecate_kernel",
    "ensure_kernel",
    "hold_kernels",
    "process_kernel",
    "quarantine_kernel",
    "record_field_report",
    "register_kernel",
    "release_kernels",
    "upload_binary",
]
