"""What an eviction policy is told and asked."""

from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Protocol


class Entry:
    """One value in the cache. Readers note ``hits`` and ``read_at`` without a lock; the policy looks later."""

    __slots__ = (
        *("cost", "counted", "hits", "key", "lasting", "place", "read_at", "recent", "saved", "scored_at", "size"),
        "value",
    )

    def __init__(self, key: Hashable, value: Any, *, size: int, cost: float, read_at: int) -> None:
        self.key = key
        self.value = value
        self.size = size
        """Bytes."""
        self.cost = cost
        """Seconds to fetch it again."""
        self.hits = 0
        self.read_at = read_at
        """How many reads the cache had answered when this one was last read, or came."""
        self.counted = 0
        """How many of the hits the policy has looked at."""
        self.place = 0
        self.recent = self.lasting = self.saved = 0.0
        self.scored_at = 0
        """Five notes of the policy's own."""


class Policy(Protocol):
    """Decides who leaves. The cache calls it under its lock, apart from ``touch``."""

    name: ClassVar[str]

    @property
    def touch(self) -> Callable[[Entry], None] | None:
        """To be called at every hit, without the lock; None: the policy looks at ``Entry.hits`` when it decides."""

    def __init__(self, budget: int) -> None: ...

    def make_room(self, newcomer: Entry, needed: int) -> list[Entry]:
        """Who leaves so that ``needed`` bytes become free; none of them is known to the policy afterwards."""

    def insert(self, entry: Entry) -> None:
        """It is in the cache now."""

    def remove(self, entry: Entry) -> None:
        """It was taken out of the cache, not by the policy."""
