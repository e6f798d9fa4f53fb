"""Rules, applied to what was measured: alerts begin, fire and are resolved."""


def evaluate() -> None:
    """Apply every enabled rule once, then write down what is to be told (``notifying``)."""
    raise NotImplementedError
