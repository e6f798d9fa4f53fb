"""Verifying the whole trail: every event against its leaf, every leaf against the tree, every root against its note.

Streams in the order of the tree: one chunk of events is held at a time, whatever the trail's length. What an altered
byte breaks is named: the event, the leaf, the node, the checkpoint, the copy or the personal value.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
from django.core.files.storage import storages
from django.db import connection
from django.db.models import Exists, OuterRef

from apps.audit.archives import archived_events, sha256_of
from apps.audit.canonical import canonical_json
from apps.audit.merkle import TILE, Tree, new_nodes
from apps.audit.models import (
    AuditArchive,
    AuditCheckpoint,
    AuditCopy,
    AuditEvent,
    AuditKey,
    AuditLeaf,
    AuditNode,
    AuditPerson,
    AuditPersonalValue,
)
from apps.audit.proofs import read_tile
from apps.audit.pseudonyms import Pseudonym
from apps.audit.services.recording import DOCUMENTS, LEAF_COLUMNS
from apps.audit.services.sealing import copy_name, newest_copies
from apps.audit.verifier import Frontier, Verifier, Wrong, event_leaf, leaf_hash, open_checkpoint
from apps.core.errors import NotFound
from apps.core.objects import STORAGE_FAULTS, get

CHUNK = 20 * TILE
MAX_FINDINGS = 10_000
"""More are counted, not kept: a trail with so many has been rewritten."""
ORDERED = sorted(LEAF_COLUMNS)
ACTOR = ORDERED.index("actor_id")
COMMITTED = (("name", ORDERED.index("actor_digest")), ("address", ORDERED.index("address_digest")))
NOTHING = UUID(int=0)
EVENTS = f"""
    SELECT leaf.index, leaf.event_id, leaf.at, leaf.digest, event.leaf, {", ".join(f"event.{name}" for name in ORDERED)}
    FROM audit_auditleaf AS leaf
    LEFT JOIN audit_auditevent AS event ON event.id = leaf.event_id AND event.at = leaf.at
    WHERE leaf.index >= %s AND leaf.index < %s ORDER BY leaf.index
"""  # noqa: S608 - names of our own columns
UNSEALED = f"""
    SELECT pending.event_id, pending.leaf, event.leaf, {", ".join(f"event.{name}" for name in ORDERED)}
    FROM audit_auditpending AS pending
    LEFT JOIN audit_auditevent AS event ON event.id = pending.event_id AND event.at = pending.at
    WHERE pending.event_id > %s ORDER BY pending.event_id LIMIT %s
"""  # noqa: S608
STRAYS = """
    SELECT event.id, event.at FROM audit_auditevent AS event
    LEFT JOIN audit_auditleaf AS leaf ON leaf.event_id = event.id AND leaf.at = event.at
    LEFT JOIN audit_auditpending AS pending ON pending.event_id = event.id AND pending.at = event.at
    WHERE leaf.event_id IS NULL AND pending.event_id IS NULL ORDER BY event.id LIMIT %s
"""


ERASURE = "access.person_erased"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was signed: ``kind`` of thing, which one, and what is wrong with it."""

    kind: str
    id: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.kind} {self.id}: {self.wrong}"


@dataclass(slots=True)
class Outcome:
    """What a verification saw. ``unchecked`` is what could not be read, such as a copy in a storage that is away."""

    first: int
    size: int
    events: int = 0
    checkpoints: int = 0
    unsealed: int = 0
    findings_count: int = 0
    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_right(self) -> bool:
        return self.findings_count == 0

    def add(self, finding: Finding) -> None:
        self.findings_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)


def verify(
    *,
    since: int = 0,
    trusted: Sequence[Verifier] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Verify the trail from leaf ``since`` on (a checkpoint's size), with all side tables when that is 0.

    ``trusted`` are the keys that checkpoints must be signed by; without any, those that the database itself names.
    ``notes`` are checkpoint notes from elsewhere that the trail must agree with.

    Raises:
        NotFound: no checkpoint was signed at ``since`` leaves.
    """
    return _Verification(since=since, trusted=trusted, notes=notes, progress=progress).run()


@dataclass(slots=True, kw_only=True)
class _Verification:
    since: int
    trusted: Sequence[Verifier]
    notes: Sequence[str]
    progress: Callable[[int, int], None]
    outcome: Outcome = field(init=False)
    tree: Frontier = field(init=False)
    roots: dict[int, bytes] = field(default_factory=dict)
    wanted: set[int] = field(default_factory=set)
    archives: dict[str, AuditArchive] = field(default_factory=dict)
    readers: dict[str, Iterator[dict[str, Any]]] = field(default_factory=dict)
    commitments: set[tuple[Any, str, str]] = field(default_factory=set)
    """(person, kind, digest) that sealed events commit to."""
    people: dict[Any, Pseudonym | None] = field(default_factory=dict)

    def run(self) -> Outcome:
        started = time.monotonic()
        self.outcome = Outcome(first=self.since, size=leaf_count())
        if self.since and not AuditCheckpoint.objects.filter(size=self.since).exists():
            raise NotFound(f"no checkpoint was signed at {self.since} leaves")
        self._check_keys()
        self.tree = Frontier(self.since, Tree(read_tile).subtrees(self.since))
        self.archives = {archive.partition: archive for archive in AuditArchive.objects.all()}
        notes = self._notes_from_elsewhere()
        checkpoints = AuditCheckpoint.objects.filter(size__gte=self.since, size__lte=self.outcome.size)
        self.wanted = {*checkpoints.values_list("size", flat=True), *(size for size, _ in notes)}
        self._keep_root()
        for start in range(self.since, self.outcome.size, CHUNK):
            self._check_chunk(start, min(start + CHUNK, self.outcome.size))
            self.progress(self.tree.size, self.outcome.size)
        self._check_checkpoints(checkpoints)
        for size, root in notes:
            self._check_note_from_elsewhere(size, root)
        self._check_unsealed()
        if not self.since:
            self._check_strays()
            self._check_archives()
            self._check_personal_values()
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    def _wrong(self, kind: str, id: object, wrong: str) -> None:
        self.outcome.add(Finding(kind, str(id), wrong))

    # --- Events, leaves and nodes

    def _check_chunk(self, start: int, end: int) -> None:
        digests: list[bytes] = []
        expected = start
        with connection.cursor() as cursor:
            cursor.execute(EVENTS, [start, end])
            for index, event_id, at, digest, stored, *values in cursor.fetchall():
                while expected < index:
                    self._wrong("leaf", expected, "is missing from the tree")
                    expected += 1
                    self._grow(b"", digests)
                expected += 1
                self._check_event(index, event_id, at, bytes(digest), stored, values)
                self._grow(bytes(digest), digests)
        while expected < end:
            self._wrong("leaf", expected, "is missing from the tree")
            expected += 1
            self._grow(b"", digests)
        self._check_nodes(start, digests)

    def _grow(self, digest: bytes, digests: list[bytes]) -> None:
        self.tree.append(digest)
        digests.append(digest)
        self._keep_root()

    def _keep_root(self) -> None:
        if self.tree.size in self.wanted:
            self.roots[self.tree.size] = self.tree.root()

    def _check_event(
        self, index: int, event_id: Any, at: Any, digest: bytes, stored: Any, values: Sequence[Any]
    ) -> None:
        self.outcome.events += 1
        if stored is None:
            self._check_archived(index, event_id, at, digest)
            return
        leaf = _leaf(values)
        if leaf == digest == bytes(stored):
            self._note_commitments(values)
            return
        if leaf == digest:
            self._wrong("event", event_id, "its stored leaf was changed; its values are as they were signed")
        elif leaf == bytes(stored):
            self._wrong("event", event_id, f"leaf {index} of the tree holds another digest: one of them was replaced")
        else:
            self._wrong("event", event_id, f"a value was changed: it does not have its leaf ({index})")

    def _note_commitments(self, values: Sequence[Any]) -> None:
        person = values[ACTOR]
        for kind, place in COMMITTED:
            if values[place]:
                self.commitments.add((person, kind, values[place]))

    def _check_archived(self, index: int, event_id: Any, at: Any, digest: bytes) -> None:
        partition = f"audit_auditevent_{at:%Y_%m}"
        archive = self.archives.get(partition)
        if archive is None:
            self._wrong("event", event_id, f"is missing from the event store: leaf {index} is of it")
            return
        try:
            event = self._next_archived(archive, index)
        except (*STORAGE_FAULTS, ValueError, EOFError, KeyError, TypeError) as error:
            self.readers[partition] = iter(())
            self.archives.pop(partition)
            self._wrong("archive", partition, f"cannot be read from leaf {index} on: {error}")
            return
        if event is None or event.get("id") != str(event_id) or event_leaf(event) != digest:
            self._wrong("event", event_id, f"the archive of {partition} does not hold it as it was signed ({index})")

    def _next_archived(self, archive: AuditArchive, index: int) -> dict[str, Any] | None:
        """The archived event of this leaf; each archive is read once, in the order of the tree."""
        reader = self.readers.setdefault(archive.partition, archived_events(archive))
        for event in reader:
            if event["index"] >= index:
                return event if event["index"] == index else None
        return None

    def _check_nodes(self, start: int, digests: Sequence[bytes]) -> None:
        nodes = new_nodes(start, digests, read_tile)
        groups = {node.group for node in nodes}
        stored = {
            (node.group, node.index): bytes(node.digest)
            for group in groups
            for node in AuditNode.objects.filter(
                group=group,
                index__gte=min(node.index for node in nodes if node.group == group),
                index__lte=max(node.index for node in nodes if node.group == group),
            )
        }
        for node in nodes:
            if stored.get((node.group, node.index)) != node.digest:
                self._wrong("node", f"{node.group}/{node.index}", "does not have the root over its leaves")

    # --- Checkpoints, keys and copies

    def _check_keys(self) -> None:
        """The keys that the database names, when no others are trusted."""
        named = []
        for key in AuditKey.objects.order_by("admitted_at"):
            try:
                verifier = Verifier.parse(key.verifier)
            except Wrong as error:
                self._wrong("key", key.pk, str(error))
                continue
            if verifier.id.hex() != key.pk:
                self._wrong("key", key.pk, "its id is not that of its verifier")
            named.append(verifier)
        self.trusted = list(self.trusted) or named

    def _check_checkpoints(self, checkpoints: Any) -> None:
        newest = 0
        for checkpoint in checkpoints.select_related("copy").order_by("size").iterator(chunk_size=CHUNK):
            self.outcome.checkpoints += 1
            newest = checkpoint.size
            wrong = self._wrong_with(checkpoint)
            if wrong:
                self._wrong("checkpoint", checkpoint.size, wrong)
            self._check_copy(checkpoint)
        if self.outcome.size != newest and self.outcome.size:
            self._wrong("leaf", self.outcome.size - 1, f"the last signed checkpoint covers {newest} leaves only")
        self._check_nothing_was_cut_off()
        signed = AuditCheckpoint.objects.filter(pk=OuterRef("pk"))
        for copy in AuditCopy.objects.filter(~Exists(signed)):
            self._wrong("copy", copy.pk, "is of a checkpoint that is not there")
        last = AuditCopy.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
        for size in AuditCheckpoint.objects.filter(size__lt=last, copy=None).values_list("size", flat=True):
            self._wrong("copy", size, "is not there, although later ones are")

    def _check_nothing_was_cut_off(self) -> None:
        """Signed notes of a longer trail, here or in the object storage: its end was taken away."""
        signed = set(AuditCheckpoint.objects.order_by("-size").values_list("size", flat=True)[:1])
        try:
            signed |= newest_copies()
        except STORAGE_FAULTS as error:
            self.outcome.unchecked.append(f"the copies in the object storage: {error}")
        left = leaf_count()  # more may have been sealed meanwhile
        for size in sorted(signed):
            if size > left:
                self._wrong("checkpoint", size, f"only {left} leaves are left of those that it signed")

    def _wrong_with(self, checkpoint: AuditCheckpoint) -> str:
        try:
            said = open_checkpoint(checkpoint.note, self.trusted)
        except Wrong as error:
            return str(error)
        if (said.size, said.root) != (checkpoint.size, bytes(checkpoint.root)):
            return "its size or root is not what its note says"
        if said.extensions[:1] != (f"time {checkpoint.at.isoformat()}",):
            return "its time is not what its note says"
        if checkpoint.key_id not in {verifier.id.hex() for verifier in self.trusted}:
            return f"the key {checkpoint.key_id} is not a trusted one"
        if self.roots.get(checkpoint.size) != said.root:
            return "the leaves do not have the root that was signed: the tree was rewritten"
        return ""

    def _check_copy(self, checkpoint: AuditCheckpoint) -> None:
        copy = getattr(checkpoint, "copy", None)
        if copy is None:
            return
        if copy.name != copy_name(checkpoint.size):
            self._wrong("copy", checkpoint.size, f"its name was changed: {copy.name}")
            return
        try:
            content = get(storages["default"], copy.name)
        except FileNotFoundError:
            self._wrong("copy", checkpoint.size, f"{copy.name} is gone from the object storage")
        except STORAGE_FAULTS as error:
            self.outcome.unchecked.append(f"{copy.name}: {error}")
        else:
            if content != checkpoint.note.encode():
                self._wrong("copy", checkpoint.size, f"{copy.name} in the object storage is another note")

    def _notes_from_elsewhere(self) -> list[tuple[int, bytes]]:
        found = []
        for number, note in enumerate(self.notes, 1):
            try:
                said = open_checkpoint(note, self.trusted)
            except Wrong as error:
                self._wrong("note", number, str(error))
                continue
            if said.size < self.since:
                self.outcome.unchecked.append(f"note {number} is of {said.size} leaves, before {self.since}")
                continue
            found.append((said.size, said.root))
        return found

    def _check_note_from_elsewhere(self, size: int, root: bytes) -> None:
        if size > self.outcome.size:
            self._wrong("note", size, f"only {self.outcome.size} of its leaves are left")
        elif self.roots.get(size) != root:
            self._wrong("note", size, "the leaves do not have the root of this note: the trail was rewritten")

    # --- What is not sealed yet, and side tables

    def _check_unsealed(self) -> None:
        last = NOTHING
        while True:
            with connection.cursor() as cursor:
                cursor.execute(UNSEALED, [last, CHUNK])
                rows = cursor.fetchall()
            for event_id, queued, stored, *values in rows:
                self.outcome.unsealed += 1
                if stored is None:
                    self._wrong("event", event_id, "waits for its seal and is missing from the event store")
                elif not _leaf(values) == bytes(stored) == bytes(queued):
                    self._wrong("event", event_id, "was changed before it was sealed: it does not have its leaf")
            if len(rows) < CHUNK:
                return
            last = rows[-1][0]

    def _check_strays(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute(STRAYS, [MAX_FINDINGS])
            for event_id, at in cursor.fetchall():
                self._wrong("event", event_id, f"({at.isoformat()}) is neither sealed nor waiting for its seal")
        left = leaf_count()
        strays = AuditLeaf.objects.exclude(index__gte=0, index__lt=left).values_list("index", flat=True)
        for index in strays[:MAX_FINDINGS]:
            self._wrong("leaf", index, "stands outside of the tree")
        for node in AuditNode.objects.iterator(chunk_size=CHUNK):
            if node.group < 1 or (node.index + 1) * TILE**node.group > left:
                self._wrong("node", f"{node.group}/{node.index}", "stands over leaves that do not exist")

    def _check_archives(self) -> None:
        for archive in AuditArchive.objects.all():
            try:
                digest = sha256_of(archive.name)
            except FileNotFoundError:
                self._wrong("archive", archive.partition, f"{archive.name} is gone from the object storage")
            except STORAGE_FAULTS as error:
                self.outcome.unchecked.append(f"{archive.name}: {error}")
            else:
                if digest != archive.sha256:
                    self._wrong("archive", archive.partition, f"{archive.name} does not have its sha256")

    def _check_personal_values(self) -> None:
        """Names and addresses against the HMACs in the events; only an erasure, itself an event, takes one away."""
        erased = set(AuditEvent.objects.filter(type=ERASURE).order_by().values_list("subject_id", flat=True))
        for value in AuditPersonalValue.objects.select_related(None).iterator(chunk_size=CHUNK):
            self.commitments.discard((value.person_id, value.kind, value.digest))
            person = self._person(value.person_id)
            if person is None:
                self._wrong("value", value.pk, f"belongs to {value.person_id}, whom nobody knows")
            elif value.value is None or person.salt is None:
                if str(person.id) not in erased:
                    self._wrong("value", value.pk, f"of {person.id} is gone, and no event says that it was erased")
            elif person.digest(value.kind, value.value) != value.digest:
                self._wrong("value", value.pk, f"is not the {value.kind} that the events of {person.id} commit to")
        for person_id, kind, digest in sorted(self.commitments, key=str):
            self._wrong("value", digest, f"the {kind} of {person_id} that events commit to is gone")

    def _person(self, person_id: Any) -> Pseudonym | None:
        if person_id not in self.people:
            row = AuditPerson.objects.filter(pk=person_id).first()
            self.people[person_id] = (
                Pseudonym(id=row.pk, salt=bytes(row.salt) if row.salt is not None else None) if row else None
            )
        return self.people[person_id]


def leaf_count() -> int:
    """Up to the last leaf, but no further than there are leaves and findings: an altered index may be any number."""
    bound = AuditLeaf.objects.count() + MAX_FINDINGS
    within = AuditLeaf.objects.filter(index__gte=0, index__lt=bound).order_by("-index")
    last = within.values_list("index", flat=True).first()
    return 0 if last is None else int(last) + 1


def _leaf(values: Sequence[Any]) -> bytes:
    """The leaf of an event's values, in the order of ORDERED; documents come as JSON text."""
    event = dict(zip(ORDERED, values, strict=True))
    for name in DOCUMENTS:
        event[name] = orjson.loads(event[name])
    data = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    # Names outside of ASCII sort by UTF-16 code units in RFC 8785, by code points here.
    return leaf_hash(data if data.isascii() else canonical_json(event))
