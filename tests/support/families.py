"""What a collector tells, as a test reads it."""

from collections.abc import Iterable

from prometheus_client.core import Metric


def told(families: Iterable[Metric]) -> dict[str, float]:
    """Name{label=value} of each sample, labels sorted -> its value."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
