"""The buttons on kernels: for each thing that a person may do to one, what it promises and what it does not."""

from collections.abc import Mapping
from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin_steps import ReasonForm, Step
from apps.core.actors import Actor
from apps.core.admin_display import size
from apps.core.errors import Conflict
from apps.kernels import services
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import Kernel, KernelAlias, KernelUse, StorageTier
from apps.kernels.models.aliases import ALIAS_NAME

NEAR = (StorageTier.HOT, StorageTier.WARM)


def _may_become(state: KernelState) -> Any:
    return lambda kernel: KERNEL_LIFECYCLE.allows(kernel.state, state)


def _is_in_use(kernel: Kernel) -> bool:
    return kernel.state in {KernelState.VALIDATED, KernelState.DEPRECATED}


def _has_bytes(kernel: Kernel) -> bool:
    return kernel.digest is not None and kernel.state != KernelState.PURGED


def _require_bytes(kernel: Kernel) -> None:
    if not _has_bytes(kernel):
        raise Conflict(f"the kernel is {kernel.state} and has no bytes", code="no_binary")


DEPRECATE = Step(
    title="Deprecate",
    promises=(
        "New runs no longer get the kernel.",
        "Runs that hold it keep it, and it can still be downloaded.",
        "Its bytes, its report and its outcomes stay.",
    ),
    done="deprecated",
    call=lambda kernel, actor, data: services.deprecate_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    offered=_may_become(KernelState.DEPRECATED),
    icon="pause",
)
QUARANTINE = Step(
    title="Quarantine",
    promises=(
        "The kernel is out of use at once: no run gets it, nobody can download it.",
        "A run that asks for its bytes after this treats the germination as refused and goes on.",
        "There is no way back to use but through retirement.",
    ),
    done="quarantined",
    call=lambda kernel, actor, data: services.quarantine_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    offered=_may_become(KernelState.QUARANTINED),
    icon="block",
    is_destructive=True,
)
RETIRE = Step(
    title="Retire",
    promises=(
        "The kernel leaves the library: no run gets it, nobody can download it.",
        "It can be restored until its grace ends; after that its bytes are freed for good.",
        "A pin, a legal hold, an alias, a run that holds it or a kernel in use that came from it keeps it.",
        "Its report, its outcomes and its lineage stay.",
    ),
    done="retired",
    call=lambda kernel, actor, data: services.retire_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    offered=_is_in_use,
    icon="inventory_2",
    is_destructive=True,
)


def _foretell_restore(kernel: Kernel, data: Mapping[str, Any]) -> tuple[str, ...] | None:
    """A kernel in the object storage is not fetched for a preview."""
    if kernel.state != KernelState.RETIRED or kernel.storage_tier in NEAR:
        return None
    return (
        f"fetches {size(kernel.size)} from the object storage and checks it: storage_tier becomes warm",
        "restored the kernel, unless its bytes are lost or a newer one has its contract: state becomes VALIDATED",
    )


RESTORE = Step(
    title="Restore",
    promises=(
        "The kernel is back in the library: runs may get it again.",
        "Its bytes are checked first, and brought back into the database if they are elsewhere.",
        "It is refused when a newer kernel has its contract: retire that one first.",
    ),
    done="restored",
    call=lambda kernel, actor, data: services.restore_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    foretell=_foretell_restore,
    offered=lambda kernel: kernel.state == KernelState.RETIRED,
    icon="settings_backup_restore",
    is_primary=True,
)


class AliasForm(ReasonForm):
    name = forms.CharField(
        max_length=32,
        validators=[ALIAS_NAME],
        widget=UnfoldAdminTextInputWidget,
        help_text="For example prod or candidate. prod is protected from its birth.",
    )
    field_order = ["name", "reason"]


def _set_alias(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> KernelAlias:
    return services.set_alias(kernel=kernel, name=data["name"], reason=data["reason"], actor=actor)


ALIAS = Step(
    title="Set an alias",
    promises=(
        "Clients that ask the blueprint for this name get this kernel from now on.",
        "If the alias points at another kernel, it leaves that one; its history keeps from when to when.",
        "While an alias points at it, the kernel is never retired.",
        "Runs take no notice: they choose among validated kernels.",
    ),
    done="has the alias",
    call=_set_alias,
    form=AliasForm,
    offered=_is_in_use,
    icon="label",
    is_for_many=False,
)


class TierForm(ReasonForm):
    tier = forms.ChoiceField(
        choices=[
            (StorageTier.HOT, "hot: in the database, kept in memory where there is room"),
            (StorageTier.WARM, "warm: in the database"),
            (StorageTier.COLD, "cold: in the object storage, read from there on demand"),
            (StorageTier.ARCHIVE, "archive: in the object storage, read only after another move"),
        ],
        widget=UnfoldAdminSelectWidget,
    )
    field_order = ["tier", "reason"]


def _change_tier(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> Kernel:
    return services.change_tier(kernel=kernel, tier=StorageTier(data["tier"]), reason=data["reason"], actor=actor)


def _foretell_tier(kernel: Kernel, data: Mapping[str, Any]) -> tuple[str, ...]:
    _require_bytes(kernel)
    if data["tier"] == kernel.storage_tier:
        return ()
    if data["tier"] not in NEAR and KernelUse.objects.filter(kernel_id=kernel.pk, until=None).exists():
        raise Conflict("a run holds this kernel: its bytes stay in the database until it ends", code="in_use")
    return (f"moved the bytes of the kernel ({size(kernel.size)}): storage_tier becomes {data['tier']}",)


TIER = Step(
    title="Move tier",
    promises=(
        "The bytes of the kernel and of its variants are copied, read back and checked; only then the old copy goes.",
        "At every moment the bytes are whole in at least one place. A failure leaves the kernel where it was.",
        "What is in use does not change: states, aliases and runs stay as they are.",
    ),
    done="has been moved",
    call=_change_tier,
    form=TierForm,
    initial=lambda kernel: {"tier": kernel.storage_tier},
    foretell=_foretell_tier,
    offered=_has_bytes,
    icon="swap_vert",
)


def _foretell_verify(kernel: Kernel, data: Mapping[str, Any]) -> tuple[str, ...]:
    _require_bytes(kernel)
    return (
        f"reads {size(kernel.size)} of sha256 {(kernel.digest or '')[:12]}…; quarantines the kernel if they differ",
    )


VERIFY = Step(
    title="Verify the bytes",
    promises=(
        "Every byte of the kernel and of its variants is read and compared with its digest.",
        "Right ones change nothing. Wrong or missing ones quarantine the kernel at once.",
    ),
    done=lambda kernel: "its bytes are wrong: quarantined" if _is_quarantined(kernel) else "its bytes are right",
    call=lambda kernel, actor, data: services.verify_kernel(kernel=kernel, reason=data["reason"], actor=actor),
    foretell=_foretell_verify,
    offered=_has_bytes,
    icon="fact_check",
)


def _is_quarantined(kernel: Kernel) -> bool:
    return kernel.state == KernelState.QUARANTINED


STEPS = {
    "restore": RESTORE,
    "set_alias": ALIAS,
    "move_tier": TIER,
    "verify": VERIFY,
    "deprecate": DEPRECATE,
    "retire": RETIRE,
    "quarantine": QUARANTINE,
}
