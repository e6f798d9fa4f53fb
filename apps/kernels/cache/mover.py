"""The one mover of kernel bytes between L3 (PostgreSQL) and L4 (object storage), and what deletes them for good.

    move(kernel, to=StorageTier.COLD, actor=actor)

Down: the copy in L4 is stored, read back and checked; then one transaction writes that it is there and where the kernel
is now; the bytes in L3 go in a later one. Up: the bytes in L4 are checked chunk by chunk on their way into L3. So at
any instant at least one of the two has them, and every step can be repeated.

Kernels with the same bytes share them: they stay in L3 while any of the kernels is hot or warm.

Locks, in this order: the session's advisory locks of the digests (they span the slow steps outside of transactions),
the rows of the blobs by digest, the row of the kernel.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from functools import partial

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, ServiceError, Unavailable
from apps.core.locks import alone
from apps.kernels.cache import archive, chunks, outbox, stats
from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.references import IN_DATABASE, digests_of, missed, no_such_bytes, stored_twice, tiers_of
from apps.kernels.cache.segments import TierName
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, BlobAccess, Kernel, KernelBlob, KernelUse, StorageTier

log = structlog.get_logger(__name__)

TIER_OF: dict[str, TierName] = {
    StorageTier.HOT: TierName.L2,
    StorageTier.WARM: TierName.L3,
    StorageTier.COLD: TierName.L4,
    StorageTier.ARCHIVE: TierName.L4,
}
"""Storage tier -> the fastest tier that the bytes are wanted in."""


def move(kernel: Kernel, *, to: StorageTier, actor: Actor, reason: str = "") -> Kernel:
    """Bring the bytes of a kernel and of its variants to tier ``to``; the fresh row. There already: a no-op.

    Raises:
        Conflict: it has no bytes, is purged, is held by a run (down only), or is being moved by somebody else.
        NotFound: its bytes are gone. Unavailable: the object storage does not answer, or does not give back what it
        got; the kernel stays where it was. CorruptKernel: the bytes are not what their digest says.
    """
    digests = digests_of(kernel)
    _require_movable(kernel, to)
    with ExitStack() as held:
        for digest in digests:
            held.enter_context(_alone_with(digest))
            if to in IN_DATABASE:
                _copy_up(digest)
            else:
                _copy_down(digest)
        return _settle(kernel, digests, to, actor, reason)


def _require_movable(kernel: Kernel, to: StorageTier) -> None:
    if kernel.digest is None or kernel.state == KernelState.PURGED:
        raise Conflict(f"the kernel is {kernel.state} and has no bytes to move", code="no_binary")
    if to not in IN_DATABASE and KernelUse.objects.filter(kernel_id=kernel.pk, until=None).exists():
        raise Conflict("a run holds this kernel: its bytes stay in the database until it ends", code="in_use")


def _require_blob(digest: str) -> KernelBlob:
    blob = KernelBlob.objects.filter(pk=digest, freed_at=None).first()
    if blob is None:
        raise no_such_bytes(digest)
    return blob


def _copy_down(digest: str) -> None:
    """Have a checked copy in L4. It is read back every time: what is deleted next relies on it."""
    if _require_blob(digest).in_database:
        archive.store(digest, _stored(digest))
    else:
        _require_whole(digest)


def _require_whole(digest: str) -> None:
    """Raises Unavailable: the copy in L4 cannot be read, or is not what its name says."""
    with archive.faults_told("read the kernel"):
        if not archive.is_whole(digest):
            raise Unavailable(f"the copy of {digest} in the object storage is damaged", code="storage")


@transaction.atomic
def _copy_up(digest: str) -> None:
    """Have the bytes in L3, checked on the way."""
    blob = KernelBlob.objects.select_for_update().filter(pk=digest, freed_at=None, in_database=False).first()
    if blob is None:
        return
    chunks.write(digest, _stored(digest))
    blob.in_database = True
    blob.save()


def _stored(digest: str) -> Iterator[bytes]:
    """The blob from where it is, checked chunk by chunk and as a whole."""
    blob, found = _require_blob(digest), hashlib.sha256()
    with closing(archive.Reader(digest)) as archived:
        for chunk in chunks.read(digest, 0, -(-blob.size // CHUNK_BYTES)):
            piece = chunk.checked(digest, archived.chunk(chunk.index) if chunk.data is None else chunk.data)
            found.update(piece)
            yield piece
    if found.hexdigest() != digest:
        raise CorruptKernel(digest, -1)


@transaction.atomic
def _settle(kernel: Kernel, digests: list[str], to: StorageTier, actor: Actor, reason: str) -> Kernel:
    """Write where the bytes are and where the kernel is now."""
    blobs = {blob.digest: blob for blob in lock_blobs(digests) if blob.freed_at is None}
    fresh = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)
    if missing := set(digests) - set(blobs):
        raise no_such_bytes(min(missing))
    _require_movable(fresh, to)
    if digests_of(fresh) != digests:
        raise Conflict("the kernel got other bytes meanwhile", code="changed")
    for blob in blobs.values():
        if to not in IN_DATABASE and blob.archived_at is None:
            blob.archived_at = timezone.now()
            blob.save()
    if fresh.storage_tier != to:
        transaction.on_commit(partial(_count, fresh.storage_tier, to, fresh.size))
        before = image(fresh)
        fresh.storage_tier = to
        fresh.save()
        audit.record(
            type="kernel.tier_changed",
            subject=fresh,
            actor=actor,
            reason=reason,
            before=before,
            after=image(fresh),
            payload={"bytes": sum(blob.size for blob in blobs.values())},
        )
        if to == StorageTier.ARCHIVE:  # copies that were read while it was cold
            for digest in digests:
                outbox.owe_forgetting(digest)
    for digest in digests:
        transaction.on_commit(partial(release, digest))
    return fresh


def _count(source: str, target: str, size: int | None) -> None:
    """A move up is a promotion into the tier that it comes to, a move down a demotion out of the one that it leaves."""
    if TIER_OF[target] < TIER_OF[source]:
        stats.count(TIER_OF[target], "promotions", size=size)
    elif TIER_OF[target] > TIER_OF[source]:
        stats.count(TIER_OF[source], "demotions", size=size)


def lock_blobs(digests: Iterable[str]) -> list[KernelBlob]:
    """The rows, locked until the transaction ends, in the one order of locks."""
    return list(KernelBlob.objects.select_for_update().filter(pk__in=list(digests)).order_by("pk"))


# --- The bytes that are not needed where they are any more


def release(digest: str) -> bool:
    """Delete the bytes in L3 if no kernel needs them there and the copy in L4 is whole; whether they went.

    Called in a transaction of its own after a move down, and by ``settle`` for what a crash left.
    """
    try:
        with _alone_with(digest), transaction.atomic():
            blob = KernelBlob.objects.select_for_update().filter(pk=digest, in_database=True).first()
            if blob is None or blob.archived_at is None or tiers_of([digest])[digest] & IN_DATABASE:
                return False
            _require_whole(digest)
            chunks.empty(digest)
            blob.in_database = False
            blob.save()
            outbox.owe_forgetting(digest)
            return True
    except (ServiceError, DatabaseError, InterfaceError) as error:  # the move itself was committed
        log.warning("kernel_bytes_stay", digest=digest, reason=str(error))
        return False


def free(blob: KernelBlob) -> bool:
    """Delete the bytes in L3 if nothing refers to them any more, in the caller's transaction; whether they went.

    ``blob`` is locked, and the caller has taken its own reference away. The copy in L4 goes after the commit.
    """
    if tiers_of([blob.digest])[blob.digest]:
        return False
    blob.chunks.all().delete()
    blob.in_database, blob.freed_at = False, timezone.now()
    blob.save()
    outbox.owe_forgetting(blob.digest)
    transaction.on_commit(partial(sweep, blob.digest))
    return True


def sweep(digest: str) -> bool:
    """Delete the copy in L4 of a freed blob, then its row; whether it went. What fails is tried again by ``settle``."""
    try:
        with _alone_with(digest), transaction.atomic():
            # An upload of the same bytes waits for this lock, or takes the mark away first.
            blob = KernelBlob.objects.select_for_update().filter(pk=digest, freed_at__isnull=False).first()
            if blob is None:
                return False
            archive.delete(digest)
            blob.delete()
            BlobAccess.objects.filter(pk=digest).delete()
            return True
    except (ServiceError, DatabaseError, InterfaceError) as error:  # the purge itself was committed
        log.warning("kernel_bytes_stay", digest=digest, reason=str(error))
        return False


def recall(digest: str) -> bool:
    """Bring bytes back into L3 that a hot or warm kernel was given while only L4 had them; whether they came."""
    try:
        with _alone_with(digest):
            _copy_up(digest)
            return True
    except (ServiceError, CorruptKernel) as error:
        log.warning("kernel_bytes_stay", digest=digest, reason=str(error))
        return False


def copy(digest: str) -> bool:
    """Have a copy in L4 of bytes that are in L3; they stay there. Freed meanwhile, or copied already: nothing to do.

    Whether the storage was asked for it.

    Raises:
        Conflict: somebody else is moving them. Unavailable: the object storage. CorruptKernel: they are wrong in L3.
    """
    with _alone_with(digest):
        if not KernelBlob.objects.filter(pk=digest, freed_at=None, in_database=True, archived_at=None).exists():
            return False
        archive.store(digest, _stored(digest))
        stats.count(TierName.L4, "fills", size=None)
        with transaction.atomic():
            blob = KernelBlob.objects.select_for_update().filter(pk=digest, freed_at=None).first()
            if blob is not None:
                blob.archived_at = timezone.now()
                blob.save()
        return True


def heal(digest: str) -> bool:
    """Put the copy in L4 in the place of corrupt or missing chunks in L3; whether that was possible.

    The copy is checked as a whole before it is believed, so wrong digests of chunks are healed too.

    Raises:
        Conflict: somebody else is moving or healing them. Unavailable: the object storage does not answer.
    """
    with _alone_with(digest), transaction.atomic():
        blob = KernelBlob.objects.select_for_update().filter(pk=digest, freed_at=None, in_database=True).first()
        if blob is None or blob.archived_at is None or not _has_whole_copy(digest):
            return False
        reader = archive.Reader(digest)
        chunks.write(digest, (reader.chunk(index) for index in range(blob.chunk_count)))
        for kernel in Kernel.objects.filter(digest=digest):
            audit.record(type="kernel.healed", subject=kernel, actor=SYSTEM, reason="from its copy in L4")
        return True


def _has_whole_copy(digest: str) -> bool:
    """Raises Unavailable."""
    with archive.faults_told("read the kernel"):
        try:
            return archive.is_whole(digest)
        except FileNotFoundError:
            return False


def settle(*, most: int = 100) -> int:
    """Finish what a crash or an absent storage left half done: how many blobs were."""
    freed = KernelBlob.objects.filter(freed_at__isnull=False).order_by("freed_at").values_list("pk", flat=True)
    steps = ((sweep, freed), (release, stored_twice()), (recall, missed()))
    return sum(step(digest) for step, digests in steps for digest in list(digests[:most]))


def _alone_with(digest: str) -> AbstractContextManager[None]:
    """One mover of these bytes at a time, across transactions. Raises Conflict: there is another."""
    return alone(f"kernel bytes {digest}", busy=f"the bytes {digest} are being moved already", code="being_moved")
