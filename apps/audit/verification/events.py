"""Events against their leaves, and leaves against the stored nodes, in the order of the tree, a chunk at a time."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from django.db import connection

from apps.audit.archives import archived_events
from apps.audit.canonical import canonical_json
from apps.audit.merkle import TILE, new_nodes
from apps.audit.models import AuditArchive, AuditNode
from apps.audit.proofs import read_tile
from apps.audit.services.recording import DOCUMENTS, LEAF_COLUMNS
from apps.audit.verification.findings import Outcome
from apps.audit.verifier import Frontier, event_leaf, leaf_hash
from apps.core.objects import STORAGE_FAULTS

CHUNK = 20 * TILE
ERASURE = "access.person_erased"
ORDERED = sorted(LEAF_COLUMNS)
ACTOR, TYPE, SUBJECT, DIFF = (ORDERED.index(name) for name in ("actor_id", "type", "subject_id", "diff"))
COMMITTED = (("name", ORDERED.index("actor_digest")), ("address", ORDERED.index("address_digest")))
EVENTS = f"""
    SELECT leaf.index, leaf.event_id, leaf.at, leaf.digest, event.leaf, {", ".join(f"event.{name}" for name in ORDERED)}
    FROM audit_auditleaf AS leaf
    LEFT JOIN audit_auditevent AS event ON event.id = leaf.event_id AND event.at = leaf.at
    WHERE leaf.index >= %s AND leaf.index < %s ORDER BY leaf.index
"""  # noqa: S608 - names of our own columns
DAMAGED = (ValueError, EOFError, KeyError, TypeError, zlib.error, RecursionError)
"""What reading a damaged archive raises, beside the storage's own faults."""


@dataclass(slots=True)
class Walk:
    """One pass over the leaves. ``on_leaf`` is called after each of them, when ``tree`` has grown by it.

    On the way it collects what the side tables must answer for: ``commitments`` are the personal values that events
    commit to by (person or "", kind, digest), ``erased`` the pseudonyms whose erasure is an event.
    """

    outcome: Outcome
    tree: Frontier
    on_leaf: Callable[[], None]
    commitments: set[tuple[str, str, str]] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    archives: dict[str, AuditArchive | None] = field(default_factory=dict)
    """Partition -> its archive, or None when it cannot be read."""
    readers: dict[str, Iterator[dict[str, Any]]] = field(default_factory=dict)

    def check(self, start: int, end: int) -> None:
        """The leaves from ``start`` to ``end``: every one is there, with its event, and the nodes fit them."""
        digests: list[bytes] = []
        with connection.cursor() as cursor:
            cursor.execute(EVENTS, [start, end])
            for index, event_id, at, digest, stored, *values in cursor.fetchall():
                self._fill_up_to(index, start, digests)
                self._check_event(index, event_id, at, bytes(digest), stored, values)
                self._grow(bytes(digest), digests)
        self._fill_up_to(end, start, digests)
        self._check_nodes(start, digests)

    def _fill_up_to(self, index: int, start: int, digests: list[bytes]) -> None:
        while start + len(digests) < index:
            self.outcome.wrong("leaf", start + len(digests), "is missing from the tree")
            self._grow(b"", digests)

    def _grow(self, digest: bytes, digests: list[bytes]) -> None:
        self.tree.append(digest)
        digests.append(digest)
        self.on_leaf()

    def _check_event(
        self, index: int, event_id: Any, at: Any, digest: bytes, stored: Any, values: Sequence[Any]
    ) -> None:
        self.outcome.events += 1
        if stored is None:
            self._check_archived(index, event_id, at, digest)
            return
        leaf = leaf_of(values)
        if leaf == digest == bytes(stored):
            self._note(
                {"actor_id": values[ACTOR], "type": values[TYPE], "subject_id": values[SUBJECT], "diff": values[DIFF]},
                [(kind, values[place]) for kind, place in COMMITTED],
            )
        elif leaf == digest:
            self.outcome.wrong("event", event_id, "its stored leaf was changed; its values are as they were signed")
        elif leaf == bytes(stored):
            wrong = f"leaf {index} of the tree holds another digest: one of them was replaced"
            self.outcome.wrong("event", event_id, wrong)
        else:
            self.outcome.wrong("event", event_id, f"a value was changed: it does not have its leaf ({index})")

    def _note(self, event: dict[str, Any], commitments: list[tuple[str, str]]) -> None:
        person = str(event["actor_id"])
        self.commitments.update((person, kind, digest) for kind, digest in commitments if digest)
        if event["type"] == ERASURE:
            self.erased.add(event["subject_id"])
        if "hmac:" in event["diff"]:  # names that stand in a diff: of the user that it is about
            for change in orjson.loads(event["diff"]):
                value = change.get("value")
                if isinstance(value, str) and value.startswith("hmac:") and len(value) > len("hmac:"):
                    self.commitments.add(("", change["path"].removeprefix("/"), value.removeprefix("hmac:")))

    def _check_archived(self, index: int, event_id: Any, at: Any, digest: bytes) -> None:
        partition = f"audit_auditevent_{at:%Y_%m}"
        if partition not in self.archives:  # also one that was archived while this runs
            self.archives[partition] = AuditArchive.objects.filter(partition=partition).first()
            if self.archives[partition] is None:
                del self.archives[partition]
                wrong = f"is missing from the event store: leaf {index} is of it"
                self.outcome.wrong("event", event_id, wrong)
                return
        archive = self.archives[partition]
        if archive is None:
            return
        try:
            event = self._next_archived(archive, index)
            fits = event is not None and event.get("id") == str(event_id) and event_leaf(event) == digest
        except FileNotFoundError:
            self._give_up(partition)  # named by the check of the archives themselves
        except DAMAGED as error:
            self._give_up(partition)
            self.outcome.wrong("archive", partition, f"cannot be read from leaf {index} on: {error}")
        except STORAGE_FAULTS as error:
            self._give_up(partition)
            self.outcome.unchecked.append(f"the events of {partition}: {error}")
        else:
            self._judge_archived(event if fits else None, index, event_id, at, partition)

    def _judge_archived(self, event: dict[str, Any] | None, index: int, event_id: Any, at: Any, partition: str) -> None:
        if event is None:
            wrong = f"the archive of {partition} does not hold it as it was signed ({index})"
            self.outcome.wrong("event", event_id, wrong)
        elif event["at"] != at.isoformat():
            self.outcome.wrong("leaf", index, "its time is not that of its event")
        else:
            commitments = [("name", event["actor_digest"]), ("address", event["address_digest"])]
            self._note({**event, "diff": orjson.dumps(event["diff"]).decode()}, commitments)

    def _give_up(self, partition: str) -> None:
        self.archives[partition] = None
        self.readers.pop(partition, None)

    def _next_archived(self, archive: AuditArchive, index: int) -> dict[str, Any] | None:
        """The archived event of this leaf; each archive is read once, in the order of the tree."""
        reader = self.readers.setdefault(archive.partition, archived_events(archive))
        for event in reader:
            if event["index"] >= index:
                return event if event["index"] == index else None
        return None

    def _check_nodes(self, start: int, digests: Sequence[bytes]) -> None:
        try:
            nodes = new_nodes(start, digests, read_tile)
        except ValueError:  # a tile of a lower group lacks digests, which is told where it is checked
            return
        for group in {node.group for node in nodes}:
            indexes = [node.index for node in nodes if node.group == group]
            rows = AuditNode.objects.filter(group=group, index__gte=min(indexes), index__lte=max(indexes))
            stored = {row.index: bytes(row.digest) for row in rows}
            for node in nodes:
                if node.group == group and stored.get(node.index) != node.digest:
                    self.outcome.wrong("node", f"{group}/{node.index}", "does not have the root over its leaves")


def leaf_of(values: Sequence[Any]) -> bytes:
    """The leaf of an event's values, in the order of ORDERED; documents come as JSON text.

    Nothing when they cannot even be read: such values were never recorded by us.
    """
    event = dict(zip(ORDERED, values, strict=True))
    try:
        for name in DOCUMENTS:
            event[name] = orjson.loads(event[name])
        data = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
        # Names outside of ASCII sort by UTF-16 code units in RFC 8785, by code points here.
        return leaf_hash(data if data.isascii() else canonical_json(event))
    except (ValueError, TypeError, RecursionError):
        return b""
