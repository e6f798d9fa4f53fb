"""Check an Esper audit trail without Esper: one file, no Django, no database. Copy it and run it.

    python verifier.py proof proof.json --key VERIFIER           an inclusion or a consistency proof of the API
    python verifier.py events events.jsonl --note note.txt --key VERIFIER    a whole export against a checkpoint note
    python verifier.py note note.txt --key VERIFIER              who signed this note
    python verifier.py report report.json --note report.note --key VERIFIER  a stored report against its signed note

VERIFIER is a public key as ``name+hash+key`` (C2SP signed-note); get it from somebody else than the server that you
check. Needs Python 3.11 and, for Ed25519, the package ``cryptography``. Exits with 0 if all is right, 1 if something is
not, 2 for wrong use. The platform's own commands call the same functions.

Sources: RFC 9162 (Merkle tree, sections 2.1.1 to 2.1.4), RFC 8785 (canonical JSON), RFC 8032 (Ed25519),
C2SP signed-note and tlog-checkpoint.
"""

import argparse
import base64
import binascii
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EMPTY_ROOT = hashlib.sha256(b"").digest()
SEPARATOR = "\n\n"
DASH = "\u2014 "
ED25519 = b"\x01"
NOT_IN_LEAF = frozenset({"index", "leaf"})
MAX_NOTE_BYTES = 1 << 20


class Wrong(Exception):
    """What is checked is not what it says it is. The message names it."""


# --- Canonical JSON and the leaves


def sorted_members(value: Any) -> Any:
    """``value`` with every object's members in the order of their UTF-16 code units (RFC 8785, section 3.2.3)."""
    if isinstance(value, Mapping):
        names = sorted(value) if all(map(str.isascii, value)) else sorted(value, key=_utf16)
        return {name: sorted_members(value[name]) for name in names}
    if isinstance(value, list | tuple):
        return [sorted_members(item) for item in value]
    return value


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def canonical_json(value: Any) -> bytes:
    """RFC 8785 of data without floats: strings, integers below 2^53, booleans, null, lists, objects."""
    return json.dumps(sorted_members(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def leaf_hash(data: bytes) -> bytes:
    """RFC 9162, section 2.1.1: SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162, section 2.1.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def event_leaf(event: Mapping[str, Any]) -> bytes:
    """The leaf of an exported event: every member but its place in the tree and the leaf itself.

    Raises:
        Wrong: a value has no canonical JSON (NaN, half of a surrogate pair, endless nesting).
    """
    members = {name: value for name, value in event.items() if name not in NOT_IN_LEAF}
    try:
        return leaf_hash(canonical_json(members))
    except (ValueError, RecursionError):
        raise Wrong(f"event {event.get('id')!r:.80} holds a value that no event can have") from None


# --- The tree


@dataclass(slots=True)
class Frontier:
    """The right edge of a Merkle tree: the roots of its perfect subtrees, largest first. Grows leaf by leaf."""

    size: int = 0
    subtrees: list[bytes] = field(default_factory=list)

    def append(self, leaf: bytes) -> None:
        digest, size = leaf, self.size
        while size & 1:
            digest = node_hash(self.subtrees.pop(), digest)
            size >>= 1
        self.subtrees.append(digest)
        self.size += 1

    def root(self) -> bytes:
        """The tree's root; of an empty tree, SHA-256 of nothing."""
        if not self.subtrees:
            return EMPTY_ROOT
        *left, digest = self.subtrees
        for subtree in reversed(left):
            digest = node_hash(subtree, digest)
        return digest


def check_inclusion(*, leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """RFC 9162, section 2.1.3.2. Raises Wrong unless ``path`` leads from the leaf at ``index`` to ``root``."""
    if not 0 <= index < size:
        raise Wrong(f"leaf {index} is not in a tree of {size} leaves")
    node, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise Wrong("the inclusion path is too long")
        if node & 1 or node == last:
            digest = node_hash(sibling, digest)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Wrong("the inclusion path is too short")
    if digest != root:
        raise Wrong(f"leaf {index} is not under this root")


def check_consistency(*, first: int, second: int, path: Sequence[bytes], first_root: bytes, second_root: bytes) -> None:
    """RFC 9162, section 2.1.4.2. Raises Wrong unless the first tree is the beginning of the second."""
    if not 0 <= first <= second:
        raise Wrong(f"a tree of {first} leaves cannot be the beginning of one of {second}")
    if first in (0, second):
        if path:
            raise Wrong("the consistency path must be empty here")
        if first and first_root != second_root:
            raise Wrong(f"two different roots for {first} leaves")
        return
    steps = [first_root, *path] if first & (first - 1) == 0 else list(path)
    if not steps:
        raise Wrong("the consistency path is empty")
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old = new = steps[0]
    for sibling in steps[1:]:
        if last == 0:
            raise Wrong("the consistency path is too long")
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise Wrong("the consistency path is too short")
    if old != first_root:
        raise Wrong(f"the first {first} leaves do not have this root: the trail was rewritten")
    if new != second_root:
        raise Wrong(f"the {second} leaves do not have this root")


# --- Signed notes


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key by which notes are checked: ``name+hash+key`` in text."""

    name: str
    id: bytes
    public: bytes

    @classmethod
    def of(cls, name: str, public: bytes) -> "Verifier":
        return cls(name=name, id=hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4], public=public)

    @classmethod
    def parse(cls, text: str) -> "Verifier":
        """Raises Wrong: the text is not a verifier."""
        name, _, rest = text.strip().partition("+")
        given, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
            found = cls.of(name, key[1:])
            if not name or key[:1] != ED25519 or len(key) != 33 or found.id != bytes.fromhex(given):
                raise ValueError
        except ValueError:
            raise Wrong(f"{text.strip()[:80]!r} is not a verifier (name+hash+key)") from None
        return found

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    def check(self, signature: bytes, text: str) -> bool:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


def open_note(note: str, verifiers: Iterable[Verifier]) -> tuple[str, list[Verifier]]:
    """The text of a signed note and which of ``verifiers`` signed it, at least one.

    Raises:
        Wrong: the note is malformed, a signature of a known key is false, or no known key signed it.
    """
    text, separator, signatures = note.rpartition(SEPARATOR)
    if not separator or not signatures.endswith("\n") or len(note) > MAX_NOTE_BYTES:
        raise Wrong("this is not a signed note")
    text += "\n"
    known = {(verifier.name, verifier.id): verifier for verifier in verifiers}
    signers = []
    for line in signatures.splitlines():
        name, signature = _signature(line)
        verifier = known.get((name, signature[:4]))
        if verifier is None:
            continue
        if not verifier.check(signature[4:], text):
            raise Wrong(f"the signature of {name} ({signature[:4].hex()}) is false")
        signers.append(verifier)
    if not signers:
        raise Wrong("no key that you trust signed this note")
    return text, signers


def _signature(line: str) -> tuple[str, bytes]:
    name, _, encoded = line.removeprefix(DASH).partition(" ")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        signature = b""
    if not line.startswith(DASH) or not name or len(signature) < 5:
        raise Wrong("a signature line of the note is malformed")
    return name, signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint note says: ``origin``, size and root, and further lines (the time)."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """Raises Wrong: the text is not a checkpoint."""
        origin, *lines = text.splitlines()
        try:
            size, encoded, *extensions = lines
            found = cls(origin, int(size), base64.b64decode(encoded, validate=True), tuple(extensions))
            if str(found.size) != size or found.size < 0 or len(found.root) != 32:
                raise ValueError
        except ValueError:
            raise Wrong("the note is not a checkpoint (origin, size, root)") from None
        return found

    @property
    def text(self) -> str:
        return "\n".join([self.origin, str(self.size), base64.b64encode(self.root).decode(), *self.extensions]) + "\n"


def open_checkpoint(note: str, verifiers: Iterable[Verifier]) -> Checkpoint:
    """Raises Wrong: the note is not a checkpoint that one of ``verifiers`` signed."""
    text, _ = open_note(note, verifiers)
    return Checkpoint.parse(text)


# --- Whole proofs, as the API gives them


def check_inclusion_proof(proof: Mapping[str, Any], verifiers: Sequence[Verifier]) -> str:
    """Raises Wrong. Returns what was proven, as a sentence."""
    checkpoint = open_checkpoint(proof["checkpoint"], verifiers)
    event = proof["event"]
    leaf = event_leaf(event)
    if leaf.hex() != event.get("leaf"):
        raise Wrong(f"event {event.get('id')} does not have its leaf: one of its values was changed")
    path = [bytes.fromhex(step) for step in proof["path"]]
    check_inclusion(leaf=leaf, index=proof["index"], size=checkpoint.size, path=path, root=checkpoint.root)
    return f"event {event['id']} is leaf {proof['index']} of the {checkpoint.size} under the signed root"


def check_consistency_proof(proof: Mapping[str, Any], verifiers: Sequence[Verifier]) -> str:
    """Raises Wrong. Returns what was proven, as a sentence."""
    first, second = (open_checkpoint(proof[name], verifiers) for name in ("from_checkpoint", "to_checkpoint"))
    check_consistency(
        first=first.size,
        second=second.size,
        path=[bytes.fromhex(step) for step in proof["path"]],
        first_root=first.root,
        second_root=second.root,
    )
    return f"the trail of {first.size} events is the unchanged beginning of that of {second.size}"


def check_events(lines: Iterable[str], checkpoint: Checkpoint) -> str:
    """A whole export, one event a line in the order of the tree, against a checkpoint.

    Raises:
        Wrong: an event does not have its leaf, one is missing or added, or the root is another one.
    """
    frontier = Frontier()
    for event in _events(lines):
        if event.get("index") != frontier.size:
            raise Wrong(f"event {frontier.size} is missing: the next line is {event.get('index')}")
        leaf = event_leaf(event)
        if leaf.hex() != event.get("leaf"):
            raise Wrong(f"event {event.get('id')} does not have its leaf: one of its values was changed")
        frontier.append(leaf)
        if frontier.size == checkpoint.size:
            break
    if frontier.size != checkpoint.size:
        raise Wrong(f"the export ends after {frontier.size} of {checkpoint.size} events")
    if frontier.root() != checkpoint.root:
        raise Wrong("the events do not have the signed root: at least one was replaced, with its leaf")
    return f"all {checkpoint.size} events are as they were signed"


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            event = None
        if not isinstance(event, dict):
            raise Wrong(f"line {number} is not an event")
        if "end" not in event:  # the last line of a whole export
            yield event


def check_report(content: bytes, note: str, verifiers: Sequence[Verifier]) -> str:
    """A stored report against its note, whose last line has the digest. Raises Wrong."""
    text, _ = open_note(note, verifiers)
    digest = hashlib.sha256(content).hexdigest()
    statement = _json(text.splitlines()[-1], "the last line of the note")
    if statement.get("sha256") != digest:
        raise Wrong(f"the report has sha256 {digest}, and {statement.get('sha256')} was signed")
    return f"the report {statement.get('kind')} is as it was signed, over {statement.get('size')} events"


# --- The command


def _json(text: str, what: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Wrong(f"{what} is not a JSON object")
    return found


def _run(arguments: argparse.Namespace) -> str:
    verifiers = [Verifier.parse(text) for text in arguments.key]
    if arguments.what == "note":
        _, signers = open_note(arguments.file.read_text(encoding="utf-8"), verifiers)
        return f"signed by {', '.join(map(str, signers))}"
    if arguments.what == "proof":
        proof = _json(arguments.file.read_text(encoding="utf-8"), str(arguments.file))
        check = check_consistency_proof if "from_checkpoint" in proof else check_inclusion_proof
        try:
            return check(proof, verifiers)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Wrong(f"this is not a proof: {error}") from None
    if arguments.note is None:
        raise Wrong("name the signed note: --note FILE")
    note = arguments.note.read_text(encoding="utf-8")
    if arguments.what == "report":
        return check_report(arguments.file.read_bytes(), note, verifiers)
    with arguments.file.open(encoding="utf-8") as lines:
        return check_events(lines, open_checkpoint(note, verifiers))


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="verifier.py", description="Check an Esper audit trail without Esper.")
    parser.add_argument("what", choices=["proof", "events", "note", "report"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", action="append", required=True, help="a verifier that you trust: name+hash+key")
    parser.add_argument("--note", type=Path, help="the signed note that events or a report are checked against")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    arguments = parser.parse_args(words)
    try:
        right, said = True, _run(arguments)
    except Wrong as error:
        right, said = False, str(error)
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read: {error}")
    if arguments.json:
        sys.stdout.write(json.dumps({"right": right, "said": said}) + "\n")
    else:
        sys.stdout.write(f"{'right' if right else 'WRONG'}: {said}\n")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
