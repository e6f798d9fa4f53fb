"""Who refers to a blob: kernels and their variants, while they are not purged. Several may have the same bytes."""

from collections.abc import Iterable

from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.core.errors import Conflict, NotFound
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelBlob, KernelVariant, StorageTier

IN_DATABASE = frozenset({StorageTier.HOT, StorageTier.WARM})
"""The tiers whose bytes are in L3."""


def digests_of(kernel: Kernel) -> list[str]:
    """What a kernel and its variants refer to, in the order in which blobs are locked."""
    variants = KernelVariant.objects.filter(kernel_id=kernel.pk).values_list("digest", flat=True)
    return sorted({digest for digest in (kernel.digest, *variants) if digest})


def tiers_of(digests: Iterable[str]) -> dict[str, set[str]]:
    """Digest -> the tiers of all kernels that refer to it; empty: nobody does. Variants are where their kernel is."""
    found: dict[str, set[str]] = {digest: set() for digest in digests}
    live = Kernel.objects.exclude(state=KernelState.PURGED)
    own = live.filter(digest__in=list(found)).values_list("digest", "storage_tier")
    variants = KernelVariant.objects.filter(digest__in=list(found), kernel__in=live)
    for digest, tier in [*own, *variants.values_list("digest", "kernel__storage_tier")]:
        found[str(digest)].add(tier)
    return found


def no_such_bytes(digest: str) -> NotFound:
    return NotFound(f"there are no bytes with digest {digest}")


def require_readable(digest: str) -> None:
    """Raises Conflict: only archived kernels have these bytes, and L3 does not."""
    if tiers_of([digest])[digest] == {StorageTier.ARCHIVE}:
        raise Conflict(
            f"the bytes {digest} are archived: move a kernel that has them to another tier first "
            '(POST /api/v1/kernels/{id}/tier {"tier": "warm"})',
            code="archived",
        )


def stored_twice() -> QuerySet[KernelBlob, str]:
    """Digests of blobs that L3 has although L4 does too and no kernel needs them in L3."""
    both = KernelBlob.objects.filter(in_database=True, archived_at__isnull=False)
    return both.exclude(_needed()).order_by("pk").values_list("pk", flat=True)


def missed() -> QuerySet[KernelBlob, str]:
    """Digests of blobs that L3 lacks although a hot or warm kernel has them: it was given bytes that were here."""
    away = KernelBlob.objects.filter(in_database=False, freed_at=None)
    return away.filter(_needed()).order_by("pk").values_list("pk", flat=True)


def _needed() -> Q:
    near = Kernel.objects.exclude(state=KernelState.PURGED).filter(storage_tier__in=IN_DATABASE)
    variants = KernelVariant.objects.filter(digest=OuterRef("pk"), kernel__in=near)
    return Q(Exists(near.filter(digest=OuterRef("pk")))) | Q(Exists(variants))
