"""Notifications that are due are sent, tried again, and given up."""


def deliver() -> None:
    """Send what is due, each at most once at a time."""
    raise NotImplementedError
