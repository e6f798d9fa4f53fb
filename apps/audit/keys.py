"""The keys that sign checkpoints: from the environment, or a file (0600) in the data folder made at the first sealing.

Text form: ``PRIVATE+KEY+name+hash+key`` (C2SP signed-note), the name being the log's own. A ring has the current key
and, while a rotation is under way, the previous one: the next checkpoint is then signed by both.
"""

import base64
import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings

from apps.audit.verifier import DASH, ED25519, SEPARATOR, Checkpoint, Verifier, Wrong
from apps.core.errors import Unavailable
from apps.core.files import hand_to_owner

log = structlog.get_logger(__name__)

MARK = "PRIVATE+KEY+"
CURRENT, PREVIOUS, LAST = "signing.key", "previous.key", "last.note"
SEED_BYTES = 32


class KeyFault(Unavailable):
    """There is no key to sign with, or it is not one. Events are still recorded; sealing waits."""

    code = "audit_key"


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """An Ed25519 key with the name of the log. Its text is a secret: it is never shown by ``repr``."""

    name: str
    seed: bytes

    @classmethod
    def make(cls, name: str = "") -> "SigningKey":
        return cls(name=name or f"esper-{secrets.token_hex(4)}", seed=secrets.token_bytes(SEED_BYTES))

    @classmethod
    def parse(cls, text: str, *, source: str) -> "SigningKey":
        """Raises KeyFault, which names the ``source`` but never its content."""
        name, _, rest = text.strip().removeprefix(MARK).partition("+")
        given, _, encoded = rest.partition("+")
        try:
            data = base64.b64decode(encoded, validate=True)
            key = cls(name=name, seed=data[1:])
            if not text.startswith(MARK) or data[:1] != ED25519 or len(key.seed) != SEED_BYTES or not name:
                raise ValueError
            if key.verifier.id.hex() != given:
                raise ValueError
        except ValueError:
            raise KeyFault(f"{source} does not hold a signing key ({MARK}name+hash+key)") from None
        return key

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    @property
    def text(self) -> str:
        return f"{MARK}{self.name}+{self.id}+{base64.b64encode(ED25519 + self.seed).decode()}"

    @property
    def verifier(self) -> Verifier:
        public = Ed25519PrivateKey.from_private_bytes(self.seed).public_key()
        return Verifier.of(self.name, public.public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def id(self) -> str:
        return self.verifier.id.hex()

    def signature_line(self, text: str) -> str:
        signature = Ed25519PrivateKey.from_private_bytes(self.seed).sign(text.encode())
        return f"{DASH}{self.name} {base64.b64encode(self.verifier.id + signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Ring:
    """``current`` signs; ``previous`` vouches for it until the first checkpoint that both have signed."""

    current: SigningKey
    previous: SigningKey | None = None


def sign_note(text: str, *signers: SigningKey) -> str:
    """A signed note. ``text`` ends with a newline."""
    return text + "\n" + "".join(key.signature_line(text) for key in signers)


def folder() -> Path:
    return Path(settings.ESPER_HOME) / "audit"


def is_from_environment() -> bool:
    return bool(settings.AUDIT_KEY)


def load() -> Ring | None:
    """The ring; None when nothing has been made yet.

    Raises:
        KeyFault: what should be a key is none, or it cannot be read.
    """
    if is_from_environment():
        previous = settings.AUDIT_KEY_PREVIOUS
        return Ring(
            current=SigningKey.parse(settings.AUDIT_KEY, source="ESPER_AUDIT_KEY"),
            previous=SigningKey.parse(previous, source="ESPER_AUDIT_KEY_PREVIOUS") if previous else None,
        )
    current = _read(CURRENT)
    return Ring(current=current, previous=_read(PREVIOUS)) if current else None


def _read(name: str) -> SigningKey | None:
    path = folder() / name
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFault(f"the audit key {path} can be read by others: chmod 600 it, or rotate it if they did")
        return SigningKey.parse(path.read_text(encoding="ascii"), source=str(path))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFault(f"the audit key {path} cannot be read: {error}") from None


def make_first() -> Ring:
    """Make the key file. Of several processes that try, one makes it and the others read it."""
    return _put(SigningKey.make(), replace=False)


def turn() -> Ring:
    """Make a new current key; the one that was current becomes the previous one. Safe to repeat after a crash."""
    ring = load()
    if ring is None:
        return make_first()
    if ring.previous is None:
        _keep_as_previous()
    elif ring.previous != ring.current:
        return ring
    return _put(SigningKey.make(ring.current.name), replace=True)


def _keep_as_previous() -> None:
    try:
        os.link(folder() / CURRENT, folder() / PREVIOUS)
    except FileExistsError:
        raise KeyFault("another process is rotating the audit key: look at the trail, then try again") from None
    except OSError as error:
        raise KeyFault(f"the audit key {folder() / PREVIOUS} cannot be written: {error}") from None


def forget_previous() -> None:
    """The previous key has vouched for the current one: nobody needs it any more."""
    if not is_from_environment():
        (folder() / PREVIOUS).unlink(missing_ok=True)


def last_signed() -> Checkpoint | None:
    """What was signed last from this folder: it lies outside of the database, whose owner cannot take it back."""
    try:
        text, _, _ = (folder() / LAST).read_text(encoding="utf-8").partition(SEPARATOR)
        return Checkpoint.parse(text + "\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, Wrong) as error:
        raise KeyFault(f"{folder() / LAST}, the note that was signed last, cannot be read: {error}") from None


def remember(note: str) -> None:
    """Keep what was signed last, in one step. A folder that cannot be written is told of and stops nothing."""
    path = folder() / LAST
    draft = path.with_name(f".{LAST}.{secrets.token_hex(4)}")
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(note, encoding="utf-8")
        hand_to_owner(draft, of=folder())
        draft.replace(path)
    except OSError as error:
        log.warning("audit_note_not_kept", path=str(path), error=str(error))


def forget_last_signed() -> None:
    (folder() / LAST).unlink(missing_ok=True)


def _put(key: SigningKey, *, replace: bool) -> Ring:
    """Write the current key durably, 0600 from its first byte; it appears whole or not at all."""
    path = folder() / CURRENT
    draft = path.with_name(f".{CURRENT}.{secrets.token_hex(4)}")
    try:
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(key.text + "\n")
            file.flush()
            os.fsync(file.fileno())
        hand_to_owner(draft, of=folder())
        if replace:
            draft.replace(path)
        else:
            _link(draft, path)
    except OSError as error:
        raise KeyFault(f"the audit key {path} cannot be written: {error}") from None
    ring = load()
    if ring is None:
        raise KeyFault(f"the audit key {path} was made and is gone again")
    return ring


def _link(draft: Path, path: Path) -> None:
    with contextlib.suppress(FileExistsError):  # another process was first: its key is the key
        os.link(draft, path)
    draft.unlink()
