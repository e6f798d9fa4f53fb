"""Everything that writes kernels: their way from a blueprint to VALIDATED (``pipeline``) and what runs tell of them
(``outcomes``)."""

from apps.kernels.services.aliases import protect_alias, remove_alias, set_alias, unprotect_alias
from apps.kernels.services.grading import grade_kernels
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
    "grade_kernels",
    "hold_kernels",
    "process_kernel",
    "protect_alias",
    "quarantine_kernel",
    "record_field_report",
    "register_kernel",
    "release_kernels",
    "remove_alias",
    "set_alias",
    "unprotect_alias",
    "upload_binary",
]
