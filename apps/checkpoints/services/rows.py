"""The rows of a checkpoint, its packs and objects, as its manifest and their indexes tell them."""

from collections.abc import Collection, Iterable
from uuid import UUID

from django.db import connection
from django.db.models import Q

from apps.checkpoints.models import Checkpoint, ObjectReference, Pack, SaveReason, StoredObject
from apps.checkpoints.store.errors import MissingObjects
from apps.checkpoints.store.manifests import FORMAT, Manifest
from apps.checkpoints.store.packs import Entry

BATCH = 1000
LOCATION = ("pack", "offset", "stored_size", "raw_size", "encoding", "itemsize", "checksum", "broken_at")


def row_of(manifest: Manifest) -> Checkpoint:
    """The row of a checkpoint that is about to be stored, unsaved."""
    return Checkpoint(
        id=manifest.id,
        workspace_id=manifest.workspace_id,
        run_id=manifest.run_id,
        parent_id=manifest.parent_id,
        epoch=manifest.epoch,
        step=manifest.step,
        fencing_token=manifest.fencing_token,
        reason=SaveReason(manifest.reason),
        name=f"{manifest.run_id}/{manifest.step:012d}-{manifest.id}",
        format=FORMAT,
        digest=manifest.digest,
        metrics=dict(manifest.metrics),
        fingerprint=manifest.fingerprint,
        environment=dict(manifest.environment),
        size=sum(sizes["bytes"] for sizes in manifest.sizes().values()),
        components={name: dict(sizes) for name, sizes in manifest.sizes().items()},
    )


def add_objects(pack: Pack, entries: Iterable[Entry], workspace_id: UUID) -> int:
    """Rows of a pack's objects, in the caller's transaction; how many are new.

    One that is known already stays where it is, unless that is known to be broken: then it is here from now on.
    """
    rows = [
        StoredObject(
            workspace_id=workspace_id,
            pack=pack,
            digest=entry.digest,
            offset=entry.offset,
            stored_size=entry.stored_size,
            raw_size=entry.raw_size,
            encoding=entry.encoding,
            itemsize=entry.itemsize,
            checksum=entry.checksum,
        )
        for entry in entries
    ]
    by_digest = {row.digest: row for row in sorted(rows, key=lambda row: row.digest)}  # in one order: no deadlock
    known = StoredObject.objects.filter(workspace_id=workspace_id, digest__in=by_digest)
    broken = list(known.filter(broken_at__isnull=False).order_by("digest").select_for_update())
    for row in broken:
        for name in LOCATION:
            setattr(row, name, getattr(by_digest[row.digest], name))
    StoredObject.objects.bulk_update(broken, LOCATION, batch_size=BATCH)
    new = len(by_digest) - known.count()
    # Another saver may have been faster with some of them.
    StoredObject.objects.bulk_create(by_digest.values(), ignore_conflicts=True, batch_size=BATCH)
    return new


def add_references(checkpoint: Checkpoint, manifest: Manifest) -> None:
    """Have the checkpoint need its objects, in the caller's transaction: from its commit on none of them can go.

    Raises:
        MissingObjects: some are gone, or known to be broken.
    """
    wanted = set(manifest.objects())
    found = _locked(checkpoint.workspace.pk, wanted)
    if missing := wanted - found.keys():
        raise MissingObjects(missing)
    StoredObject.objects.filter(Q(pk__in=found.values()), unreferenced_at__isnull=False).update(unreferenced_at=None)
    references = [ObjectReference(checkpoint=checkpoint, object_id=key) for key in found.values()]
    ObjectReference.objects.bulk_create(references, batch_size=BATCH)


def _locked(workspace_id: UUID, digests: Collection[str]) -> dict[str, int]:
    """Ids of sound objects, locked against deletion only: savers do not wait for each other."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT digest, id FROM checkpoints_storedobject "
            "WHERE workspace_id = %s AND digest = ANY(%s) AND broken_at IS NULL ORDER BY id FOR KEY SHARE",
            [workspace_id, list(digests)],
        )
        return dict(cursor.fetchall())
