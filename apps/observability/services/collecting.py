"""What the collectors read becomes samples."""


def collect() -> None:
    """Read every collector once, and store what it says at one common time."""
    raise NotImplementedError
