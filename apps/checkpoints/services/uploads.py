"""Checkpoints that clients send, who train in a loop of their own: only the objects that are not here yet travel.

    begun = begin_upload(run_id=..., workspace_id=..., document={...})     # begun.missing: digests to send
    put_object(run_id=..., upload_id=begun.id, digest=..., data=...)       # each of them, in any order
    commit_upload(run_id=..., upload_id=begun.id, fencing_token=..., guard=...)

Until the commit no row knows of an upload: it lies in ``.uploads/<id>`` of the checkpoint folder, and goes if it is
left alone. The commit is one transaction with the guard of the run's lease.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.db import DatabaseError, InterfaceError, transaction
from django.utils import timezone

from apps.checkpoints import places
from apps.checkpoints.models import Checkpoint, SaveReason
from apps.checkpoints.selectors import latest_id
from apps.checkpoints.services.saving import RunRows
from apps.checkpoints.store import canonical, encodings
from apps.checkpoints.store.errors import CorruptCheckpoint, MissingObjects
from apps.checkpoints.store.index import Saved
from apps.checkpoints.store.leaves import ITEM_SIZES
from apps.checkpoints.store.manifests import FORMAT, Manifest, parse
from apps.checkpoints.store.packs import DIGEST, OBJECT_BYTES, PackIndex, PackWriter, digest_of
from apps.checkpoints.store.saving import Meta
from apps.core.actors import Actor
from apps.core.errors import Conflict, FieldError, Invalid, NotFound, PayloadTooLarge, Unavailable
from apps.core.files import hand_to_owner
from apps.core.ids import new_id, parse_id
from apps.core.locks import alone

log = structlog.get_logger(__name__)

FOLDER = ".uploads"
ABANDONED_SECONDS = 24 * 3600.0
MOST_OPEN = 4
"""Uploads of one run that are not committed."""
REQUIRED = ("epoch", "step", "components")
OPTIONAL: Mapping[str, Any] = {"metrics": {}, "fingerprint": "", "environment": {}, "labels": {}}
MAX_COUNT = 2**63 - 1
MAX_EPOCH = 2**31 - 1
NAMED = 3
"""Missing objects that an error names."""


@dataclass(frozen=True, slots=True)
class Upload:
    """``missing``: digests of the objects that have to be sent, in the order of the manifest."""

    id: UUID
    missing: tuple[str, ...]


# --- Begin


def begin_upload(*, run_id: UUID, workspace_id: UUID, document: Mapping[str, Any]) -> Upload:
    """Note what a checkpoint is to be, and tell which of its objects are missing.

    ``document`` has the members of a manifest that a client knows: epoch, step, components, and if it wants metrics,
    fingerprint, environment and labels.

    Raises:
        Invalid: it is no manifest; the pointer names the member. PayloadTooLarge: the folder has no room for it.
        Conflict: the run has too many uploads that are not committed. Unavailable: the folder is away.
    """
    known = _checked(document)
    upload_id = new_id()
    manifest = _manifest(known, upload_id, run_id, workspace_id, parent=None, fencing_token=0)
    missing = _missing(manifest, workspace_id, there=())
    with _told():
        root = _root()
        _require_room(root, sum(missing.values()))
        if sum(_run_of(path) == run_id for path in _folders(root)) >= MOST_OPEN:
            raise Conflict(
                f"the run has {MOST_OPEN} uploads that are not committed: commit them, or wait until they are removed",
                code="too_many_uploads",
            )
        _write_down(root, upload_id, run_id, known, manifest)
    return Upload(upload_id, tuple(missing))


@contextmanager
def _told() -> Iterator[None]:
    """Raises Unavailable in the place of OSError."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the checkpoint folder does not take it now: {error}", code="storage") from error


def _checked(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members that a client may give, all of them there. Raises Invalid."""
    names = (*REQUIRED, *OPTIONAL)
    errors = [
        FieldError(f"/manifest/{name}", "unknown", f"unknown field; known: {', '.join(names)}")
        for name in document
        if name not in names
    ]
    errors += [FieldError(f"/manifest/{name}", "required", "is required") for name in REQUIRED if name not in document]
    for name, most in (("epoch", MAX_EPOCH), ("step", MAX_COUNT)):
        if name in document and not (type(document[name]) is int and 0 <= document[name] <= most):
            errors.append(FieldError(f"/manifest/{name}", "type", f"must be a whole number from 0 to {most}"))
    if errors:
        raise Invalid(errors[0].detail, errors=errors)
    return {name: document.get(name, OPTIONAL.get(name)) for name in names}


def _manifest(
    document: Mapping[str, Any],
    upload_id: UUID,
    run_id: UUID,
    workspace_id: UUID,
    *,
    parent: UUID | None,
    fencing_token: int,
) -> Manifest:
    """The manifest of what the client told, with what the platform knows. Raises Invalid."""
    told = {
        "format": FORMAT,
        "id": str(upload_id),
        "run_id": str(run_id),
        "workspace_id": str(workspace_id),
        "parent_id": str(parent) if parent else None,
        "epoch": document["epoch"],
        "step": document["step"],
        "fencing_token": fencing_token,
        "reason": SaveReason.UPLOAD.value,
        "created_at": timezone.now().isoformat(),
        **{name: document[name] for name in ("metrics", "fingerprint", "environment", "labels")},
        "components": _spelled(document["components"]),
    }
    try:
        body = canonical.dumps(told)
        return parse(b"blake3 " + digest_of(body).encode() + b"\n" + body, upload_id)
    except (CorruptCheckpoint, ValueError) as error:
        raise Invalid(str(error), pointer="/manifest", code="manifest") from error


def _spelled(components: Any) -> Any:
    """The components with their members in the order in which manifests are written."""
    if not isinstance(components, dict):
        return components
    return {name: _ordered(component, "tree", "leaves") for name, component in components.items()}


def _ordered(value: Any, *names: str) -> Any:
    if not isinstance(value, dict) or set(value) != set(names):
        return value
    ordered = {name: value[name] for name in names}
    if isinstance(ordered.get("leaves"), list):
        ordered["leaves"] = [_ordered(leaf, "dtype", "shape", "parts") for leaf in ordered["leaves"]]
    return ordered


def _missing(manifest: Manifest, workspace_id: UUID, there: Iterable[str]) -> dict[str, int]:
    """Objects that are neither known nor ``there`` -> raw bytes that they need at least. Raises Invalid."""
    wanted = manifest.objects()
    with _told():
        store_id = places.folder().identity
    known = places.reachable_objects(workspace_id, wanted, store_id)
    for row in known:
        if row.raw_size < wanted[row.digest]:
            raise Invalid(
                f"the object {row.digest} has {row.raw_size} bytes, and is referenced beyond its end",
                pointer="/manifest/components",
                code="beyond_the_end",
            )
    here = {row.digest for row in known} | set(there)
    return {digest: size for digest, size in wanted.items() if digest not in here}


def _require_room(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if 2 * needed > free:  # staged, and then in a pack
        raise PayloadTooLarge(
            f"{needed:,} bytes would have to be sent, and the checkpoint folder has room for {free // 2:,}",
            code="no_room",
        )


# --- What lies in the folder of an upload


def _root() -> Path:
    folder = places.folder()
    folder.identity  # noqa: B018 - makes the folder
    root = folder.root / FOLDER
    if not root.is_dir():
        root.mkdir(exist_ok=True)
        hand_to_owner(root, of=folder.root)
    return root


def _folders(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]


def _run_of(path: Path) -> UUID | None:
    try:
        return UUID((path / "run").read_text())
    except (OSError, ValueError):  # it is being removed
        return None


def _write_down(root: Path, upload_id: UUID, run_id: UUID, document: Mapping[str, Any], manifest: Manifest) -> None:
    """Complete or not at all: made aside and then named."""
    part = root / f".{uuid4()}"
    (part / "objects").mkdir(parents=True)
    (part / "run").write_text(str(run_id))
    (part / "document.json").write_bytes(canonical.dumps(document))
    (part / "wanted.json").write_bytes(canonical.dumps(manifest.objects()))
    for path in (part / "run", part / "document.json", part / "wanted.json", part / "objects"):
        hand_to_owner(path, of=root.parent)
    part.rename(root / str(upload_id))


def _upload(run_id: UUID, upload_id: UUID) -> Path:
    """Raises NotFound."""
    path = _root() / str(upload_id)
    if not path.is_dir() or _run_of(path) != run_id:
        raise NotFound("the run has no such upload: it was committed, or collected after a day", code="no_upload")
    return path


def _staged(path: Path) -> list[str]:
    return [name for name in os.listdir(path / "objects") if DIGEST.fullmatch(name)]


# --- Send


def put_object(*, run_id: UUID, upload_id: UUID, digest: str, data: bytes) -> None:
    """Take one object of an upload. The same one again changes nothing.

    Raises:
        NotFound: there is no such upload, or it does not need the object. PayloadTooLarge: more than 8 MiB.
        Invalid: the bytes are not those of the digest, or fewer than are referenced. Unavailable: the folder is away.
    """
    with _told():
        _put_object(_upload(run_id, upload_id), digest, data)


def _put_object(path: Path, digest: str, data: bytes) -> None:
    if len(data) > OBJECT_BYTES:
        raise PayloadTooLarge(f"an object has at most {OBJECT_BYTES:,} bytes")
    needed = json.loads((path / "wanted.json").read_bytes()).get(digest)
    if needed is None:
        raise NotFound("the manifest of the upload does not reference this object", code="no_object")
    found = digest_of(data)
    if found != digest:
        raise Invalid(f"the body has the blake3 {found}, not {digest}", code="digest_mismatch")
    if len(data) < needed:
        raise Invalid(f"the object has {len(data)} bytes; the manifest references {needed}", code="too_short")
    _stage_object(path, digest, data)


def _stage_object(path: Path, digest: str, data: bytes) -> None:
    part = path / "objects" / f".{uuid4()}"
    try:
        part.write_bytes(data)
        hand_to_owner(part, of=path.parent.parent)
        part.rename(path / "objects" / digest)
    finally:
        part.unlink(missing_ok=True)


# --- Commit


def commit_upload(
    *,
    run_id: UUID,
    workspace_id: UUID,
    upload_id: UUID,
    fencing_token: int,
    guard: Callable[[], None],
    actor: Actor,
) -> Checkpoint:
    """Make what was sent the run's latest checkpoint. Done already: it is answered again.

    ``guard`` runs inside the committing transaction, and raises LeaseLost when the caller has lost the run.

    Raises:
        NotFound: there is no such upload. Conflict: objects are missing, or somebody else commits it now.
        LeaseLost: the fencing token is out of date. Unavailable: the storage does not take it.
    """
    made = Checkpoint.objects.filter(pk=upload_id, run_id=run_id).first()
    if made is not None:
        return made
    with _told():
        path = _upload(run_id, upload_id)
    with alone(f"checkpoint upload {upload_id}", busy="the upload is being committed"):
        _guard_now(guard)
        document = json.loads((path / "document.json").read_bytes())
        manifest = _manifest(
            document, upload_id, run_id, workspace_id, parent=latest_id(run_id), fencing_token=fencing_token
        )
        staged = _staged(path)
        _refuse_missing(_missing(manifest, workspace_id, there=staged))
        checkpoint = _stored(manifest, path, staged, guard, actor)
    transaction.on_commit(partial(shutil.rmtree, path, ignore_errors=True))
    return checkpoint


@transaction.atomic
def _guard_now(guard: Callable[[], None]) -> None:
    """Before anything is written: what would be refused in the end is refused at once."""
    guard()


def _refuse_missing(missing: Iterable[str]) -> None:
    digests = list(missing)
    if digests:
        some = ", ".join(digests[:NAMED]) + (", ..." if len(digests) > NAMED else "")
        raise Conflict(f"{len(digests)} objects have not been sent: {some}", code="missing_objects")


def _stored(manifest: Manifest, path: Path, staged: list[str], guard: Callable[[], None], actor: Actor) -> Checkpoint:
    """The files, durable, and then the rows in one transaction; where that fails, neither. Raises Unavailable."""
    folder = places.folder()
    rows = RunRows(manifest.run_id, manifest.workspace_id, guard, actor)
    known = rows.find(staged)
    new = [digest for digest in staged if digest not in known]
    pack_id, began = new_id(), time.perf_counter()
    try:
        pack = _write_pack(pack_id, path, new, manifest) if new else None
        folder.delete_manifest(manifest.id)  # what a crash in the middle of a commit left
        folder.write_manifest(manifest.id, manifest.to_bytes())
        saved = _saved(manifest, pack, time.perf_counter() - began)
        return _committed(rows, saved)
    except (DatabaseError, InterfaceError):  # it may be committed all the same: orphans are collected later
        raise
    except BaseException as error:
        with suppress(OSError):
            folder.delete_manifest(manifest.id)
            folder.delete_pack(pack_id)
        if isinstance(error, MissingObjects):
            _refuse_missing(sorted(error.digests))
        if isinstance(error, OSError):
            raise Unavailable(f"the checkpoint cannot be stored now: {error}", code="storage") from error
        raise


def _write_pack(pack_id: UUID, path: Path, digests: list[str], manifest: Manifest) -> PackIndex:
    sizes = _item_sizes(manifest)
    with places.folder().write_pack(pack_id) as file:
        writer = PackWriter(file, pack_id)
        for digest in digests:
            data, itemsize = (path / "objects" / digest).read_bytes(), sizes.get(digest, 1)
            if digest_of(data) != digest:
                raise OSError(f"the object {digest} is not what was sent")
            encoding = encodings.choose(data, itemsize)
            stored = encodings.encode(encoding, data, itemsize)
            writer.add(digest, stored, raw_size=len(data), encoding=encoding, itemsize=itemsize)
        return writer.close()


def _item_sizes(manifest: Manifest) -> dict[str, int]:
    """Object -> bytes per number: what the encoding goes by."""
    return {
        digest: ITEM_SIZES[leaf.dtype]
        for component in manifest.components.values()
        for leaf in component.leaves
        for digest, _, _ in leaf.parts
    }


def _saved(manifest: Manifest, pack: PackIndex | None, seconds: float) -> Saved:
    new = {entry.digest for entry in pack.entries} if pack else set()
    parts = [part for component in manifest.components.values() for leaf in component.leaves for part in leaf.parts]
    return Saved(
        manifest=manifest,
        packs=(pack,) if pack else (),
        new_bytes=sum(entry.stored_size for entry in pack.entries) if pack else 0,
        raw_bytes=sum(length for _, _, length in parts),
        shared_bytes=sum(length for digest, _, length in parts if digest not in new),
        seconds={"total": seconds},
    )


@transaction.atomic
def _committed(rows: RunRows, saved: Saved) -> Checkpoint:
    manifest = saved.manifest
    rows.stage(
        Meta(
            id=manifest.id,
            run_id=manifest.run_id,
            workspace_id=manifest.workspace_id,
            epoch=manifest.epoch,
            step=manifest.step,
            fencing_token=manifest.fencing_token,
            reason=manifest.reason,
        )
    )
    rows.commit(saved)
    return Checkpoint.objects.get(pk=manifest.id)


# --- Housekeeping


def collect_uploads(*, older_than: float = ABANDONED_SECONDS) -> int:
    """Remove uploads that nobody has touched for so many seconds, with the manifest that a crash in the middle of a
    commit left: it would look like that of a checkpoint whose row was lost. Returns how many. Raises OSError."""
    root, removed = _root(), 0
    for path in root.iterdir():
        with suppress(FileNotFoundError):
            touched = max(place.stat().st_mtime for place in (path, path / "objects"))
            if time.time() - touched >= older_than:
                _remove_uncommitted(path.name)
                shutil.rmtree(path)
                removed += 1
    return removed


def _remove_uncommitted(name: str) -> None:
    upload_id = parse_id(name)
    if upload_id is not None and not Checkpoint.objects.filter(pk=upload_id).exists():
        places.folder().delete_manifest(upload_id)
