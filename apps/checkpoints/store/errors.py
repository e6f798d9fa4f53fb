"""What goes wrong with the files and trees of checkpoints, each in a sentence that a person can act on."""

from collections.abc import Collection
from uuid import UUID


class CorruptCheckpoint(Exception):
    """Bytes that are not what was once written, or that no writer of ours would write.

    ``part`` names the region: "manifest", "tree", "pack header", "pack index", "pack trailer", "object 1f0c6ad2e4b9".
    ``pack_id`` and ``digest`` say which pack and which object it was, where that is known.
    """

    def __init__(
        self, message: str, *, part: str = "checkpoint", pack_id: UUID | None = None, digest: str | None = None
    ) -> None:
        super().__init__(f"{part}: {message}")
        self.message = message
        self.part = part
        self.pack_id = pack_id
        self.digest = digest


class UnsupportedState(Exception):
    """A state holds something that no checkpoint can keep; ``path`` says where, such as "tolaria/model/weight"."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class MissingObjects(Exception):
    """A checkpoint references objects that are gone since they were looked up: they have to be written again."""

    def __init__(self, digests: Collection[str]) -> None:
        super().__init__(f"{len(digests)} objects that this checkpoint references are gone")
        self.digests = frozenset(digests)


class TooLarge(Exception):
    """A sound checkpoint asks for more memory than there is: it is not corrupt, and restores on a larger machine."""

    def __init__(self, needed: int, limit: int) -> None:
        super().__init__(f"The components to restore need {needed:,} bytes of memory; at most {limit:,} may be used.")
        self.needed = needed
        self.limit = limit
