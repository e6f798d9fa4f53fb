"""Regular expressions of matchers: what people need is taken, what could take forever is not."""

import re
import time
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.observability.matchers import matches, parse
from apps.observability.patterns import fault_of

FOREVER = [
    "(a+)+b", "((a+))+b", "(a|a)*b", "(a|aa)+b", "(a*a*)*b", "(a?){30}b", "(a|a){40}b", "((a|b)c?)*d", "(a{1,9}){1,9}b",
    "([)]+)+b", r"(\)+)+b", "([^]]+)+b", ".*.*.*.*b", "a?" * 30 + "a" * 30, "(a|a)" * 20 + "b", r"(a)\1+", "(?:a+)+",
    "(?=a)b", "(?P<x>a)",
]  # fmt: skip


@pytest.mark.parametrize("pattern", FOREVER)
def test_what_could_take_forever_is_refused(pattern: str) -> None:
    with pytest.raises(Invalid, match="write it simpler"):
        parse([{"label": "host", "op": "=~", "value": pattern}])


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("warning|critical", "critical"),
        ("gpu-[0-9]+", "gpu-12"),
        (".*loss.*", "train_loss_mean"),
        ("|".join(f"host-{n}" for n in range(20)), "host-19"),
        ("(a|b|c)-node", "b-node"),
        ("(eu|us)-.*-[a-z]{2}[0-9]{1,3}", "eu-west-ab12"),
        (r"10\.0\.[0-9]+\.[0-9]+", "10.0.3.4"),
        (r"\(x\)\+", "(x)+"),
        ("[(+*]{3}", "(+*"),
        ("(ab){2}", "abab"),
        (r"a?b\{2}", "ab{2}"),
        ("", ""),
    ],
)
def test_what_people_write_is_taken_and_matches_the_whole_value(pattern: str, text: str) -> None:
    matchers = parse([{"label": "host", "op": "=~", "value": pattern}])

    assert matches(matchers, {"host": text})
    assert not matches(matchers, {"host": f"{text}\n"})


@given(st.text(alphabet="ab()|*+?{}1,[]\\^.", max_size=24))
def test_whatever_is_taken_ends_soon(pattern: str) -> None:
    try:
        with warnings.catch_warnings(action="ignore"):
            compiled = re.compile(pattern)
    except (re.error, OverflowError):
        return
    if fault_of(pattern):
        return
    began = time.process_time()
    for text in ("a" * 200, "ab" * 100, "a" * 199 + "!"):
        compiled.fullmatch(text)
    assert time.process_time() - began < 5
