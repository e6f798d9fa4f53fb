"""The one error of the embedded stack: a message for a person, never a traceback."""


class StackError(Exception):
    """The stack cannot start or go on; `str(error)` says what is wrong and what to do about it."""
