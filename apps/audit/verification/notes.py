"""Signed notes against the tree: the checkpoints' own, their copies in the object storage, and those kept elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from django.core.files.storage import storages

from apps.audit.models import AuditCheckpoint, AuditKey
from apps.audit.services.sealing import COPIES, copy_name
from apps.audit.verification.findings import Outcome
from apps.audit.verifier import Checkpoint, Frontier, Verifier, Wrong, open_checkpoint, open_note
from apps.core.objects import STORAGE_FAULTS, get, listed

BATCH = 1_000
KEY = "key "
"""Begins the line of a checkpoint by which a trusted key vouches for the next one."""


@dataclass(slots=True)
class Notes:
    """The checkpoints from ``since`` on, each checked when the tree has just its size.

    ``trusted`` grows along the trail: a checkpoint that a trusted key signed may name the next key.
    """

    outcome: Outcome
    tree: Frontier
    trusted: list[Verifier]
    elsewhere: dict[int, bytes] = field(default_factory=dict)
    """Size -> root of notes that were kept elsewhere."""
    last_copied: int = 0
    folders: dict[str, set[str]] = field(default_factory=dict)
    """The newest folder of copies -> the notes in it that no checkpoint has claimed yet."""
    _checkpoints: Iterator[AuditCheckpoint] = field(init=False)
    _next: AuditCheckpoint | None = field(init=False)

    def __post_init__(self) -> None:
        rows = AuditCheckpoint.objects.filter(size__gte=self.tree.size, size__lte=self.outcome.size)
        self._checkpoints = rows.select_related("copy").order_by("size").iterator(chunk_size=BATCH)
        self._next = next(self._checkpoints, None)

    def at_this_size(self) -> None:
        """To be called whenever the tree has grown."""
        if self._next is not None and self._next.size == self.tree.size:
            self._check(self._next, self.tree.root())
            self._next = next(self._checkpoints, None)
        if self.tree.size in self.elsewhere and self.elsewhere.pop(self.tree.size) != self.tree.root():
            wrong = "the leaves do not have the root of this note: the trail was rewritten"
            self.outcome.wrong("note", self.tree.size, wrong)

    def finish(self, leaves: int, newest: int) -> None:
        """What the walk did not come to. ``newest`` is the size of the last checkpoint that there is now."""
        for size in self.elsewhere:
            self.outcome.wrong("note", size, f"only {self.outcome.size} of its leaves are left")
        covered = AuditCheckpoint.objects.filter(size__lte=self.outcome.size).order_by("-size").first()
        if self.outcome.size != (covered.size if covered else 0):
            wrong = f"the last signed checkpoint covers {covered.size if covered else 0} leaves only"
            self.outcome.wrong("leaf", self.outcome.size - 1, wrong)
        if newest > leaves:
            self.outcome.wrong("checkpoint", newest, f"only {leaves} leaves are left of those that it signed")
        self._check_unclaimed(newest)

    # --- One checkpoint

    def _check(self, checkpoint: AuditCheckpoint, root: bytes) -> None:
        self.outcome.checkpoints += 1
        wrong = self._wrong_with(checkpoint, root)
        if wrong:
            self.outcome.wrong("checkpoint", checkpoint.size, wrong)
        self._check_copy(checkpoint)

    def _wrong_with(self, checkpoint: AuditCheckpoint, root: bytes) -> str:
        try:
            said = open_checkpoint(checkpoint.note, self.trusted)
            self._trust_further(said)
            _, signers = open_note(checkpoint.note, self.trusted)  # with the key that it may have vouched for
        except Wrong as error:
            return str(error)
        if (said.size, said.root) != (checkpoint.size, bytes(checkpoint.root)):
            return "its size or root is not what its note says"
        if said.extensions[:1] != (f"time {checkpoint.at.isoformat()}",):
            return "its time is not what its note says"
        if checkpoint.key_id not in {verifier.id.hex() for verifier in signers}:
            return f"the key {checkpoint.key_id} did not sign it"
        if root != said.root:
            return "the leaves do not have the root that was signed: the tree was rewritten"
        return ""

    def _trust_further(self, said: Checkpoint) -> None:
        """A key that a trusted one vouches for in a checkpoint is trusted from there on."""
        self.trusted += [key for key in _keys_in(said) if key not in self.trusted]

    # --- Copies

    def _check_copy(self, checkpoint: AuditCheckpoint) -> None:
        name = copy_name(checkpoint.size)
        copy = getattr(checkpoint, "copy", None)
        if copy is not None and copy.name != name:
            self.outcome.wrong("copy", checkpoint.size, f"its name was changed: {copy.name}")
        elif copy is None and checkpoint.size < self.last_copied:
            self.outcome.wrong("copy", checkpoint.size, "is not noted, although later ones are")
        if not self._claim(name) and copy is None:
            return
        try:
            content = get(storages["default"], name)
        except FileNotFoundError:
            self.outcome.wrong("copy", checkpoint.size, f"{name} is gone from the object storage")
        except STORAGE_FAULTS as error:
            self.outcome.unchecked.append(f"{name}: {error}")
        else:
            if content != checkpoint.note.encode():
                self.outcome.wrong("copy", checkpoint.size, f"{name} in the object storage is another note")

    def _claim(self, name: str) -> bool:
        """Whether the object storage has this note. What no checkpoint claims is told when the folder is done."""
        folder, _, note = name.rpartition("/")
        if folder not in self.folders:
            self._tell_unclaimed()
            self.folders = {folder: _names_in(folder, self.outcome)}
        if note in self.folders[folder]:
            self.folders[folder].remove(note)
            return True
        return False

    def _check_unclaimed(self, newest: int) -> None:
        """Notes of a longer trail, or of checkpoints that are no longer there: the trail was cut or rewritten."""
        folder = copy_name(self.outcome.size).rpartition("/")[0]
        self.folders = self.folders or {folder: _names_in(folder, self.outcome)}
        self._tell_unclaimed(newest)
        later = sorted(name for name in _folders(self.outcome) if f"{COPIES}/{name}" > max(self.folders))
        for name in later:
            for note in sorted(_names_in(f"{COPIES}/{name}", self.outcome)):
                self._tell_note(note, newest)

    def _tell_unclaimed(self, newest: int = 0) -> None:
        for names in self.folders.values():
            for note in sorted(names):
                self._tell_note(note, newest)

    def _tell_note(self, note: str, newest: int) -> None:
        """A note that no checkpoint of this walk claimed: older ones are behind it, new ones are still being made."""
        size = int(note.removesuffix(".note")) if note.removesuffix(".note").isdigit() else -1
        is_behind = 0 <= size < self.outcome.first
        is_new = self.outcome.size < size <= newest
        if not is_behind and not is_new:
            wrong = "the object storage holds its signed note, and the trail has no such checkpoint: it was rewritten"
            self.outcome.wrong("checkpoint", size if size >= 0 else note, wrong)


def keys_of_the_database(outcome: Outcome) -> list[Verifier]:
    """The keys that the database names, when no others are trusted."""
    named = []
    for key in AuditKey.objects.order_by("admitted_at"):
        try:
            verifier = Verifier.parse(key.verifier)
        except Wrong as error:
            outcome.wrong("key", key.pk, str(error))
            continue
        if verifier.id.hex() != key.pk:
            outcome.wrong("key", key.pk, "its id is not that of its verifier")
        named.append(verifier)
    return named


def from_elsewhere(notes: Sequence[str], trusted: Sequence[Verifier], outcome: Outcome) -> dict[int, bytes]:
    """Size -> root of the notes that somebody kept."""
    found = {}
    for number, note in enumerate(notes, 1):
        try:
            said = open_checkpoint(note, trusted)
        except Wrong as error:
            outcome.wrong("note", number, str(error))
            continue
        if said.size < outcome.first:
            outcome.unchecked.append(f"note {number} is of {said.size} leaves, before {outcome.first}")
            continue
        found[said.size] = said.root
    return found


def _keys_in(said: Checkpoint) -> list[Verifier]:
    return [Verifier.parse(line.removeprefix(KEY)) for line in said.extensions if line.startswith(KEY)]


def _names_in(folder: str, outcome: Outcome) -> set[str]:
    try:
        return set(listed(storages["default"], folder)[1])
    except STORAGE_FAULTS as error:
        outcome.unchecked.append(f"the notes in {folder}: {error}")
        return set()


def _folders(outcome: Outcome) -> list[str]:
    try:
        return [name for name in listed(storages["default"], COPIES)[0] if name.isdigit()]
    except STORAGE_FAULTS as error:
        outcome.unchecked.append(f"the notes in {COPIES}: {error}")
        return []
