"""What became of one try to deliver a message."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``status``: the HTTP status or SMTP code, None without an answer. ``problem``: what went wrong, for people.

    ``delivered``: somebody has it. ``final``: trying again is of no use. ``retry_after``: seconds that the other side
    asked to wait. ``waiting``: e-mail addresses that do not have it yet and may get it later.
    """

    delivered: bool
    status: int | None = None
    problem: str = ""
    final: bool = False
    retry_after: float | None = None
    waiting: tuple[str, ...] = ()
