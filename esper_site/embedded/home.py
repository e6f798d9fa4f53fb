"""Folders of one stack: everything that it writes lies under one home (ESPER_HOME, by default `.esper`)."""

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from esper_site.embedded.errors import StackError
from esper_site.embedded.privileges import Account

REPOSITORY = Path(__file__).resolve().parents[2]

# A fresh PostgreSQL takes about 60 MB with its first log segment; below this a start would fail half way.
FRESH_START_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True)
class Home:
    """The folder that holds one stack's data, logs and secrets."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        return cls(Path(os.environ.get("ESPER_HOME") or REPOSITORY / ".esper").expanduser().absolute())

    @property
    def state(self) -> Path:
        return self.root / "stack.json"

    @property
    def lock(self) -> Path:
        return self.root / "stack.lock"

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def metrics(self) -> Path:
        """Where the processes put what they count, while the stack runs."""
        return self.root / "metrics"

    def valkey(self, role: str) -> Path:
        return self.root / f"valkey-{role}"

    def create(self) -> None:
        """Make the folder itself, or say why it cannot be used.

        Raises:
            StackError: it cannot be made or written, or the disk is too full for a first start.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise StackError(explain(error, self.root)) from None
        free = shutil.disk_usage(self.root).free
        if not self.postgres.exists() and free < FRESH_START_BYTES:
            raise StackError(
                f"No space to start: {self.root} has {free // 2**20} MB free and a first start needs "
                f"{FRESH_START_BYTES // 2**20} MB. Free some, or set ESPER_HOME to a folder on another disk."
            )

    def give_to(self, account: Account | None) -> None:
        """Make the folders that child processes write, and hand them to the account that they run under."""
        folders = [
            self.logs,
            self.metrics,
            *(self.root / name for name in ("audit", "objects", "checkpoints", "static", "home")),
            *(self.valkey(role) for role in ("cache", "broker")),
        ]
        try:
            for folder in folders:
                folder.mkdir(mode=0o700, exist_ok=True)
                hand_over(folder, account)
        except OSError as error:
            raise StackError(explain(error, self.root)) from None

    def forget_counts(self) -> None:
        """Begin with counts at nothing: no process of an earlier start lives any more.

        Raises:
            StackError: the folder cannot be written.
        """
        try:
            for path in self.metrics.glob("*.db"):
                path.unlink()
        except OSError as error:
            raise StackError(explain(error, self.metrics)) from None


def explain(error: OSError, folder: Path) -> str:
    """Say in one sentence why `folder` cannot be used, with the remedy."""
    if error.errno == errno.ENOSPC:
        return f"No space left on the disk of {folder}. Free some, or set ESPER_HOME to a folder on another disk."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return (
            f"{folder} cannot be written ({error.strerror}). It may belong to another user, for example after a start "
            "as root: run as that user, hand the folder over with chown, or set ESPER_HOME to another folder."
        )
    return f"{folder} cannot be used: {error.strerror or error}. Set ESPER_HOME to another folder."


def hand_over(path: Path, account: Account | None) -> None:
    """Give `path` to `account`; nothing to do where no privileges are dropped."""
    if account is not None and path.stat().st_uid != account.uid:
        os.chown(path, account.uid, account.gid)


def write_private(path: Path, text: str, account: Account | None = None) -> None:
    """Replace the file in one step, readable only by its owner (0600).

    Raises:
        StackError: the folder cannot be written, or the disk is full.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        hand_over(draft, account)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StackError(explain(error, path.parent)) from None
