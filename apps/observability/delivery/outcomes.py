"""What became of one try to deliver a message, and when the next one is due."""

import random
from dataclasses import dataclass

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 1800.0
"""Seconds between tries: each pause is twice the one before, a quarter more or less; over three hours in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """``status``: the HTTP status or SMTP code, None without an answer. ``problem``: what went wrong, for people.

    ``delivered``: everybody has it. ``final``: trying again is of no use. ``retry_after``: seconds that the other side
    asked to wait. ``waiting``: e-mail addresses that do not have it.
    """

    delivered: bool
    status: int | None = None
    problem: str = ""
    final: bool = False
    retry_after: float | None = None
    waiting: tuple[str, ...] = ()


def pause(attempts: int, asked: float | None = None, spread: float | None = None) -> float:
    """Seconds until the next try after so many; never less than the other side ``asked`` for.

    ``spread`` (0 to 1, by default random) keeps messages that failed together from coming back together.
    """
    spread = random.random() if spread is None else spread  # noqa: S311 - not a secret
    usual = min(FIRST_PAUSE * 2.0 ** max(0, attempts - 1), LONGEST_PAUSE)
    return max(usual * (0.75 + spread / 2), asked or 0.0)
