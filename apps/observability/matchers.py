"""Label matchers, as Prometheus and Alertmanager have them: what selects series, alerts, silences and routes.

    matchers = parse([{"label": "run", "op": "=~", "value": "0192.*"}])
    matches(matchers, {"run": "0192..."})

A label that is not there has the empty value. Regular expressions match the whole value.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.core.errors import Invalid
from apps.observability import patterns

OPERATORS = ("=", "!=", "=~", "!~")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,59}")
TEXT = re.compile(r"(?P<label>[^\s=!~]+)\s*(?P<op>=~|!~|!=|=)\s*(?P<value>.*)", re.DOTALL)
MOST = 20
LONGEST = 200


@dataclass(frozen=True, slots=True)
class Matcher:
    label: str
    op: str
    value: str

    def admits(self, labels: Mapping[str, str]) -> bool:
        found = str(labels.get(self.label, ""))
        if self.op == "=":
            return found == self.value
        if self.op == "!=":
            return found != self.value
        return (re.fullmatch(self.value, found) is not None) == (self.op == "=~")

    def __str__(self) -> str:
        return f'{self.label}{self.op}"{self.value}"'


def matches(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    """Whether every matcher admits the labels; no matchers admit everything."""
    return all(matcher.admits(labels) for matcher in matchers)


def parse(given: Any, *, pointer: str = "/matchers") -> tuple[Matcher, ...]:
    """Matchers from JSON: a list of {"label", "op", "value"}.

    Raises:
        Invalid: something else, naming the place.
    """
    if not isinstance(given, list) or len(given) > MOST:
        raise Invalid(f"must be a list of at most {MOST} matchers", pointer=pointer, code="invalid")
    return tuple(_parsed(entry, f"{pointer}/{place}") for place, entry in enumerate(given))


def from_text(texts: Iterable[str], *, pointer: str = "/label") -> tuple[Matcher, ...]:
    """Matchers as people and query strings write them: ``run=0192``, ``disk!="/"``, ``queue=~"train|compile"``.

    Raises:
        Invalid: something else.
    """
    given = []
    for text in texts:
        found = TEXT.fullmatch(text.strip())
        if found is None:
            raise Invalid('is written label="value", with =, !=, =~ or !~', pointer=pointer, code="invalid")
        value = found["value"]
        if len(value) > 1 and value.startswith('"') and value.endswith('"'):
            value = value[1:-1]
        given.append({"label": found["label"], "op": found["op"], "value": value})
    try:
        return parse(given, pointer=pointer)
    except Invalid as error:
        raise Invalid(error.detail, pointer=pointer, code=error.code) from None


def told(matchers: Sequence[Matcher]) -> list[dict[str, str]]:
    """Matchers as JSON has them."""
    return [{"label": matcher.label, "op": matcher.op, "value": matcher.value} for matcher in matchers]


def _parsed(entry: Any, pointer: str) -> Matcher:
    if not isinstance(entry, dict) or set(entry) != {"label", "op", "value"}:
        raise Invalid('must be {"label": ..., "op": ..., "value": ...}', pointer=pointer, code="invalid")
    label, op, value = entry["label"], entry["op"], entry["value"]
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        raise Invalid("must be a label name: letters, digits, underscores", pointer=f"{pointer}/label", code="invalid")
    if op not in OPERATORS:
        raise Invalid(f"must be one of {', '.join(OPERATORS)}", pointer=f"{pointer}/op", code="invalid")
    if not isinstance(value, str) or len(value) > LONGEST or "\x00" in value:
        raise Invalid(f"must be a text of at most {LONGEST} characters", pointer=f"{pointer}/value", code="invalid")
    if op in ("=~", "!~"):
        _check_pattern(value, f"{pointer}/value")
    return Matcher(label, op, value)


def _check_pattern(pattern: str, pointer: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise Invalid(f"is not a regular expression: {error}", pointer=pointer, code="invalid") from None
    if fault := patterns.fault_of(pattern):
        raise Invalid(f"{fault}: it could take forever; write it simpler", pointer=pointer, code="invalid")
