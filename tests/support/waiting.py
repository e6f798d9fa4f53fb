"""Waiting for a condition, never for a time."""

from collections.abc import Callable

from esper_site.embedded.process import wait_for

__all__ = ["wait_until"]


def wait_until(condition: Callable[[], object], *, seconds: float) -> None:
    """Return as soon as ``condition`` holds.

    Raises:
        AssertionError: it did not within ``seconds``.
    """
    if not wait_for(lambda: bool(condition()), seconds=seconds):
        raise AssertionError(f"the condition did not hold within {seconds:g} seconds")
