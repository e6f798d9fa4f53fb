"""Which regular expressions people may write: those whose search ends soon, whatever the text (CWE-1333).

Python's engine goes back on every choice. So the ways through a pattern are counted: alternatives add up, what follows
each other multiplies. A repetition of what has several ways itself has no bound that one could wait for.
"""

import re

MOST_WAYS = 1_000_000
"""A search through all of them takes a few hundredths of a second."""
WAYS_OF_A_REPETITION = 100
"""In a text of 200 characters; three in a row have 200³/6 ways."""
TOKEN = re.compile(
    r"\\(?P<escaped>.)|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<count>\{\d*,?\d*\})|(?P<sign>[()|*+?])|.",
    re.DOTALL,
)
EXACT = re.compile(r"\{\d+\}")


def fault_of(pattern: str) -> str:
    """Why the pattern is not taken; empty: it is.

    ``pattern`` is one that ``re`` can compile.
    """
    branches, ways = [0], [1]
    """Of each group that is open: the ways of its alternatives so far, and of the one that it is in."""
    before = 1
    """Ways of the token before."""
    last = ""
    for token in TOKEN.finditer(pattern):
        sign, count, escaped = token["sign"], token["count"], token["escaped"]
        if escaped and escaped in "123456789":
            return "uses a back reference"
        if sign == "?" and last == "(":
            return "uses (?"
        of_this = 1
        if sign == "(":
            branches.append(0)
            ways.append(1)
        elif sign == "|":
            branches[-1] += ways[-1]
            ways[-1] = 1
        elif sign == ")":
            of_this = branches.pop() + ways.pop()
            ways[-1] *= of_this
        elif sign == "?":
            ways[-1] *= 2
        elif sign or count:
            if before > 1:
                return "repeats a group that repeats or has alternatives"
            ways[-1] *= 1 if count and EXACT.fullmatch(count) else WAYS_OF_A_REPETITION
        before, last = of_this, sign or ""
    return "has too many repetitions and alternatives" if branches[0] + ways[0] > MOST_WAYS else ""
