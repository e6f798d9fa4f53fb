"""The buttons on kernels: for each thing that a person may do to one, what it promises and what it does not."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any

from django import forms
from django.db import transaction
from django.utils import timezone
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin_steps import PrettyJSONField, ReasonForm, Step, Together
from apps.audit.models import AuditEvent
from apps.core.actors import Actor
from apps.core.admin_display import size
from apps.core.errors import Conflict, Unavailable
from apps.kernels import services
from apps.kernels.cache import CorruptKernel, filling
from apps.kernels.cache.config import config
from apps.kernels.cache.segments import TierAway
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import Kernel, KernelAlias, KernelUse, RetentionPlan, RetentionPolicy, StorageTier
from apps.kernels.models.aliases import ALIAS_NAME

NEAR = (StorageTier.HOT, StorageTier.WARM)


def _may_become(state: KernelState) -> Any:
    return lambda kernel: KERNEL_LIFECYCLE.allows(kernel.state, state)


def _is_in_use(kernel: Kernel) -> bool:
    return kernel.state in {KernelState.VALIDATED, KernelState.DEPRECATED}


def _may_be_retired(kernel: Kernel) -> bool:
    return _is_in_use(kernel) or kernel.state == KernelState.QUARANTINED


def _has_bytes(kernel: Kernel) -> bool:
    return kernel.digest is not None and kernel.state != KernelState.PURGED


def _require_bytes(kernel: Kernel) -> None:
    if not _has_bytes(kernel):
        raise Conflict(f"the kernel is {kernel.state} and has no bytes", code="no_binary")


def told_plan(events: list[AuditEvent]) -> tuple[str, ...]:
    """What a plan that was made has, and what it leaves out."""
    plan = {change["path"].lstrip("/"): change.get("value") for change in events[0].diff}
    told = f"lists {plan['item_count']} kernels to retire; their purge would free {size(plan['byte_count'])}"
    kept = (f"leaves out {count}: {rule.replace('_', ' ')}" for rule, count in (plan.get("kept") or {}).items())
    return (told, *kept)


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
    offered=_may_be_retired,
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
    now=lambda kernel: ", ".join(kernel.aliases.values_list("name", flat=True)) or "no alias points at it",
    offered=_is_in_use,
    icon="label",
    is_for_many=False,
)


class TagsForm(ReasonForm):
    tags = PrettyJSONField(
        required=False,
        initial=dict,
        help_text='Tags to set, as a flat JSON object: {"arch": "conv", "rank": 4}. Others stay as they are.',
    )
    remove = forms.CharField(
        required=False,
        max_length=1000,
        widget=UnfoldAdminTextInputWidget,
        label="Tags to take away",
        help_text="Keys, separated by commas. Keys that a kernel does not have are passed over.",
    )
    field_order = ["tags", "remove", "reason"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["tags"].widget.attrs["rows"] = 5

    def clean_tags(self) -> dict[str, Any]:
        tags = self.cleaned_data["tags"] or {}
        if not isinstance(tags, dict):
            raise forms.ValidationError('must be an object: {"key": value}')
        return tags

    def clean_remove(self) -> tuple[str, ...]:
        return tuple(key.strip() for key in self.cleaned_data["remove"].split(",") if key.strip())

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if not self.errors and not data["tags"] and not data["remove"]:
            self.add_error("tags", "Say at least one tag to set or to take away.")
        if both := set(data.get("tags") or ()) & set(data.get("remove") or ()):
            self.add_error("remove", f"{min(both)} cannot be set and taken away at once.")
        return data


@transaction.atomic
def _change_tags(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> Kernel:
    """Locked first: the service takes all tags at once, and nobody else's may be lost."""
    fresh = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)
    kept = {key: value for key, value in fresh.tags.items() if key not in data["remove"]}
    return services.update_kernel(kernel=fresh, tags={**kept, **data["tags"]}, reason=data["reason"], actor=actor)


TAG = Step(
    title="Change tags",
    promises=(
        "Searches and policies see the new tags at once.",
        "Only the keys that you name change. A declared tag takes values of its type only.",
        "The blueprint and its other kernels keep their tags.",
    ),
    done="has the tags",
    call=_change_tags,
    form=TagsForm,
    now=lambda kernel: json.dumps(kernel.tags, ensure_ascii=False, sort_keys=True),
    offered=lambda kernel: kernel.state != KernelState.PURGED,
    icon="sell",
)


class PinForm(ReasonForm):
    pinned_until = forms.DateField(
        label="Pinned until",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="Until that day begins, UTC. At most five years ahead; what must stay longer is a legal hold.",
    )
    field_order = ["pinned_until", "reason"]


def _pin(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> Kernel:
    until = datetime.combine(data["pinned_until"], time.min, UTC)
    return services.update_kernel(kernel=kernel, pinned_until=until, reason=data["reason"], actor=actor)


PIN = Step(
    title="Pin",
    promises=(
        "Until that day the kernel is neither retired nor purged, by whatever policy or person.",
        "It can still be deprecated and quarantined, and its bytes can be moved.",
    ),
    done="pinned",
    call=_pin,
    form=PinForm,
    now=lambda kernel: (
        f"pinned until {kernel.pinned_until:%Y-%m-%d %H:%M} UTC" if kernel.pinned_until else "not pinned"
    ),
    initial=lambda kernel: {"pinned_until": (kernel.pinned_until or timezone.now() + timedelta(days=90)).date()},
    offered=lambda kernel: kernel.state != KernelState.PURGED,
    icon="keep",
)
UNPIN = Step(
    title="Unpin",
    promises=("Policies may retire the kernel again, as far as nothing else keeps it.", "Nothing is retired now."),
    done="not pinned any more",
    call=lambda kernel, actor, data: services.update_kernel(
        kernel=kernel, pinned_until=None, reason=data["reason"], actor=actor
    ),
    offered=lambda kernel: kernel.pinned_until is not None and kernel.state != KernelState.PURGED,
    icon="keep_off",
)
HOLD = Step(
    title="Put under legal hold",
    promises=(
        "The kernel is neither retired nor purged until the hold is lifted.",
        "It can still be deprecated and quarantined, and its bytes can be moved.",
    ),
    done="under legal hold",
    call=lambda kernel, actor, data: services.update_kernel(
        kernel=kernel, legal_hold=True, reason=data["reason"], actor=actor
    ),
    offered=lambda kernel: not kernel.legal_hold and kernel.state != KernelState.PURGED,
    icon="gavel",
)
LIFT = Step(
    title="Lift the legal hold",
    promises=("Policies may retire the kernel again, as far as nothing else keeps it.", "Nothing is retired now."),
    done="the hold is lifted",
    call=lambda kernel, actor, data: services.update_kernel(
        kernel=kernel, legal_hold=False, reason=data["reason"], actor=actor
    ),
    offered=lambda kernel: kernel.legal_hold,
    icon="lock_open",
)


class SuccessorForm(ReasonForm):
    successor = forms.ModelChoiceField(
        Kernel.objects.all(),
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="The id of a VALIDATED kernel of the same contract; empty takes the successor away.",
        error_messages={"invalid_choice": "There is no kernel with this id."},
    )
    field_order = ["successor", "reason"]


def _name_successor(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> Kernel:
    return services.update_kernel(kernel=kernel, successor=data["successor"], reason=data["reason"], actor=actor)


SUCCESSOR = Step(
    title="Name the successor",
    promises=(
        "People and clients are told which kernel to use in the place of this one.",
        "The successor is not retired while it is named as one.",
        "Nothing moves by itself: aliases and runs stay as they are.",
    ),
    done="has the successor",
    call=_name_successor,
    form=SuccessorForm,
    now=lambda kernel: f"{kernel.successor}" if kernel.successor else "it has no successor",
    initial=lambda kernel: {"successor": kernel.successor_id},
    offered=lambda kernel: kernel.state != KernelState.PURGED,
    icon="arrow_forward",
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
    now=lambda kernel: f"{kernel.storage_tier}, {size(kernel.size)}",
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


class PlanForm(ReasonForm):
    policy = forms.ModelChoiceField(
        RetentionPolicy.objects.order_by("name"),
        widget=UnfoldAdminSelectWidget,
        help_text="Its criteria say which of those selected may go, its guards how many.",
    )
    field_order = ["policy", "reason"]


def _plan(kernels: Together, actor: Actor, data: Mapping[str, Any]) -> RetentionPlan:
    among = [kernel.pk for kernel in kernels]
    return services.make_plan(policy=data["policy"], among=among, reason=data["reason"], actor=actor)


PLAN = Step(
    title="Plan retirement",
    promises=(
        "What the policy would retire of those selected is written down as a plan: no kernel is touched.",
        "Nothing is retired before somebody approves the plan and somebody applies it.",
        "A selected kernel that the policy does not condemn, or that something protects, is left out and counted.",
    ),
    done=lambda plan: f"{plan} lists {plan.item_count} of them",
    call=_plan,
    form=PlanForm,
    tell=told_plan,
    is_of_all=True,
)


def _foretell_warm(kernel: Kernel, data: Mapping[str, Any]) -> tuple[str, ...]:
    """L2 is no part of the transaction that a preview rolls back."""
    _require_bytes(kernel)
    if kernel.storage_tier not in NEAR:
        raise Conflict(f"it is {kernel.storage_tier}: L2 is filled from the database; move it there first", code="far")
    if (kernel.size or 0) > config().l2_largest:
        raise Conflict(f"{size(kernel.size)} are more than L2 keeps of one kernel", code="too_large")
    return (f"puts {size(kernel.size)} into L2, unless they are there",)


def _warm(kernel: Kernel, actor: Actor, data: Mapping[str, Any]) -> int:
    _foretell_warm(kernel, data)
    try:
        return filling.fill(kernel.digest or "")
    except TierAway as error:
        raise Unavailable(f"L2 does not answer: {error}", code="l2_away") from error
    except CorruptKernel as error:
        raise Conflict(str(error), code="corrupt_kernel") from error


WARM = Step(
    title="Warm",
    promises=(
        "The bytes are put into L2: the next read of any process finds them there.",
        "Tier, state, pins and holds stay; L2 drops it again when others need the room.",
        "A copy is made, nothing is changed: the audit trail gets no event.",
    ),
    done=lambda written: f"{size(written)} are in L2 now" if written else "was in L2 already",
    call=_warm,
    form=forms.Form,
    foretell=_foretell_warm,
    offered=lambda kernel: _has_bytes(kernel) and kernel.storage_tier in NEAR,
    icon="local_fire_department",
)
STEPS = {
    "restore": RESTORE,
    "set_alias": ALIAS,
    "tag": TAG,
    "pin": PIN,
    "unpin": UNPIN,
    "hold": HOLD,
    "lift_hold": LIFT,
    "name_successor": SUCCESSOR,
    "move_tier": TIER,
    "warm": WARM,
    "verify": VERIFY,
    "plan_retirement": PLAN,
    "deprecate": DEPRECATE,
    "retire": RETIRE,
    "quarantine": QUARANTINE,
}
