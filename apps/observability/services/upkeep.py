"""House-keeping of samples: averages, packed history, partitions, retention."""


def roll_up() -> None:
    """Do what is due; what was done already is not done again."""
    raise NotImplementedError
