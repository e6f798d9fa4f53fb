"""What a policy would retire now, within its guards; nothing is written here."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Sum

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelVariant, RetentionPolicy
from apps.kernels.retention import facts
from apps.kernels.retention.rules import RETIRABLE, Verdict, verdict

COLUMNS = (
    "id", "row_version", "created_at", "last_used_at", "risk", "size", "digest", "pinned_until", "legal_hold",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """``bytes``: what its purge would free that no item before it does."""

    kernel_id: UUID
    row_version: int
    reason: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Draft:
    items: list[Item] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    """Rule or guard -> how many condemned kernels it keeps."""


def draft(policy: RetentionPolicy, now: datetime, among: Collection[UUID] | None = None) -> Draft:
    """What ``policy`` would retire at ``now``, the least recently used first; of ``among`` only, if they are given.

    Ranks and caps are those among all that match. What is not condemned is counted for ``among`` only.

    Raises:
        Invalid: its ``match`` does not parse.
    """
    known = facts.of_policy(policy)
    chosen: list[tuple[Kernel, Verdict]] = []
    kept: Counter[str] = Counter()
    kernels = facts.population(policy).order_by().only(*COLUMNS)
    if among is not None:
        kernels = kernels.filter(pk__in=among)
        kept["not_condemned"] = len(among)
    for kernel in kernels.iterator(chunk_size=2_000):
        if kernel.pk not in known:
            continue  # it came while this was read
        found = verdict(kernel, policy, known[kernel.pk], now)
        if among is not None and found.is_condemned:
            kept["not_condemned"] -= 1
        if found.goes:
            chosen.append((kernel, found))
        elif found.is_condemned:
            kept.update({finding.rule for finding in found.kept_by})
    chosen.sort(key=lambda pair: (pair[0].last_used_at or pair[0].created_at, pair[0].pk))
    return _drafted(list(_guarded(policy, chosen, kept)), +kept)


def _guarded(
    policy: RetentionPolicy, chosen: list[tuple[Kernel, Verdict]], kept: Counter[str]
) -> Iterator[tuple[Kernel, Verdict]]:
    """As many as one plan may retire; the others are counted in ``kept``."""
    in_use = Kernel.objects.filter(workspace=policy.workspace, state__in=RETIRABLE).count()
    room, room_bytes = int(policy.max_share * in_use), policy.max_bytes
    variants = dict(
        KernelVariant.objects.filter(kernel__workspace=policy.workspace, kernel__state__in=RETIRABLE)
        .order_by()
        .values_list("kernel_id")
        .annotate(Sum("size"))
    )
    for kernel, found in chosen:
        size = (kernel.size or 0) + variants.get(kernel.pk, 0)
        if room < 1:
            kept["max_share"] += 1
        elif room_bytes is not None and size > room_bytes:
            kept["max_bytes"] += 1
        else:
            room -= 1
            room_bytes = None if room_bytes is None else room_bytes - size
            yield kernel, found


def _drafted(chosen: list[tuple[Kernel, Verdict]], kept: Counter[str]) -> Draft:
    freed = freed_bytes([kernel.pk for kernel, _ in chosen])
    items = [
        Item(
            kernel_id=kernel.pk,
            row_version=kernel.row_version,
            reason="; ".join(finding.detail for finding in found.condemned_by)[:300],
            bytes=freed[kernel.pk],
        )
        for kernel, found in chosen
    ]
    return Draft(items, kept)


def freed_bytes(ids: Iterable[UUID]) -> dict[UUID, int]:
    """Kernel -> bytes that go when all of ``ids`` are purged: of blobs that nothing else refers to, each once."""
    freed = dict.fromkeys(ids, 0)
    own, variants = _references(Q(pk__in=list(freed)))
    held_of, held_variants = _references(~Q(state=KernelState.PURGED) & ~Q(pk__in=list(freed)))
    sizes = [*own.values_list("pk", "digest", "size"), *variants.values_list("kernel_id", "digest", "size")]
    digests = [digest for _, digest, _ in sizes]
    counted = {
        *held_of.filter(digest__in=digests).values_list("digest", flat=True),
        *held_variants.filter(digest__in=digests).values_list("digest", flat=True),
    }
    for key, digest, size in sizes:
        if digest not in counted:
            counted.add(digest)
            freed[key] += size or 0
    return freed


def _references(kernels: Q) -> tuple[QuerySet[Kernel], QuerySet[KernelVariant]]:
    rows = Kernel.objects.filter(kernels, digest__isnull=False).order_by()
    return rows, KernelVariant.objects.filter(kernel__in=rows).order_by()
