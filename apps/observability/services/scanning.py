"""The detector looks at new samples: one state a series, kept in the database."""


def scan() -> None:
    """Tell each series' detector of the samples since it was told last, and write down the anomalies."""
    raise NotImplementedError
