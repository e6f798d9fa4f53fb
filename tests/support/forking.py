"""Something done in a forked child of the test."""

import os
from collections.abc import Callable


def in_another_process(act: Callable[[], object]) -> None:
    """Do it there, to its end. Raises AssertionError: it failed."""
    child = os.fork()
    if child == 0:
        try:
            act()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
