"""Everything that writes kernels: their way from a blueprint to VALIDATED (``pipeline``), bytes that clients bring
(``uploads``), what runs tell of them (``outcomes``), and what people decide about them: one module for each subject."""

from apps.kernels.services.aliases import protect_alias, remove_alias, set_alias, unprotect_alias
from apps.kernels.services.cache import (
    CARRY_OUT_TASK,
    apply_cache_plan,
    cancel_cache_plan,
    carry_out_cache_plan,
    fail_cache_plan,
    plan_cache,
)
from apps.kernels.services.curation import update_kernel
from apps.kernels.services.grading import grade_kernels
from apps.kernels.services.lineage import link_kernels
from apps.kernels.services.outcomes import hold_kernels, record_field_report, release_kernels
from apps.kernels.services.pipeline import (
    COMPILE_TASK,
    DuplicateContract,
    deprecate_kernel,
    ensure_kernel,
    process_kernel,
    quarantine_kernel,
    register_kernel,
)
from apps.kernels.services.retention import (
    APPLY_TASK,
    apply_plan,
    approve_plan,
    create_policy,
    discard_plan,
    make_plan,
    update_policy,
)
from apps.kernels.services.retirement import purge_kernel, restore_kernel, retire_kernel
from apps.kernels.services.tag_keys import declare_tag, remove_tag, update_tag
from apps.kernels.services.tiers import change_tier
from apps.kernels.services.uploads import attach_blob, upload_binary
from apps.kernels.services.verification import verify_kernel

__all__ = [
    "APPLY_TASK",
    "CARRY_OUT_TASK",
    "COMPILE_TASK",
    "DuplicateContract",
    "apply_cache_plan",
    "apply_plan",
    "approve_plan",
    "attach_blob",
    "cancel_cache_plan",
    "carry_out_cache_plan",
    "change_tier",
    "create_policy",
    "declare_tag",
    "deprecate_kernel",
    "discard_plan",
    "ensure_kernel",
    "fail_cache_plan",
    "grade_kernels",
    "hold_kernels",
    "link_kernels",
    "make_plan",
    "plan_cache",
    "process_kernel",
    "protect_alias",
    "purge_kernel",
    "quarantine_kernel",
    "record_field_report",
    "register_kernel",
    "release_kernels",
    "remove_alias",
    "remove_tag",
    "restore_kernel",
    "retire_kernel",
    "set_alias",
    "unprotect_alias",
    "update_kernel",
    "update_policy",
    "update_tag",
    "upload_binary",
    "verify_kernel",
]
