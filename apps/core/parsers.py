"""Request bodies: JSON that PostgreSQL can store, or an error that names the place."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError, ValidationError
from rest_framework.parsers import BaseParser, JSONParser
from rest_framework.settings import api_settings

from apps.core.problems import escape

MAX_DEPTH = 64
"""Levels of nesting: more than any document of ours needs, and far from the recursion limit."""


class StrictJSONParser(JSONParser):
    """JSON in UTF-8 without duplicate keys, NaN, infinities, NUL characters, lone surrogates or bottomless nesting."""

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            document = json.loads(
                stream.read().decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
            )
        except UnicodeDecodeError as error:
            raise ParseError(f"the body is not UTF-8: byte {error.start} does not fit") from None
        except json.JSONDecodeError as error:
            raise ParseError(
                f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
            ) from None
        except RecursionError:
            raise ParseError(f"the body is nested deeper than {MAX_DEPTH} levels") from None
        except ValueError as error:
            raise ParseError(f"the body is not JSON: {error}") from None
        check_storable(document)
        return document


class BinaryParser(BaseParser):
    """Declares that a view takes bytes. The view reads the stream itself, bounded."""

    media_type = "application/octet-stream"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        return stream


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the member {twice!r:.100} stands twice in one object")
    return values


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def check_storable(document: Any) -> None:
    """Refuse what JSON can spell and PostgreSQL cannot store.

    Raises:
        ValidationError: with the pointer of the first such value.
    """
    for pointer, value in _walk(document):
        if not is_storable(value):
            is_text = isinstance(value, str)
            fault = "must not hold NUL characters or lone surrogates" if is_text else "is too large for a number"
            raise _at(pointer, fault)


def is_storable(value: Any) -> bool:
    """Whether PostgreSQL can hold a text or number, and every reader of JSON can read it back."""
    try:
        if isinstance(value, str):
            value.encode()
            return "\0" not in value
        return value is None or math.isfinite(value)
    except (UnicodeEncodeError, OverflowError):
        return False


def _walk(document: Any) -> Iterator[tuple[str, Any]]:
    """Every string and number with its pointer, without recursion."""
    pending: list[tuple[str, Any, int]] = [("", document, 0)]
    while pending:
        pointer, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise ParseError(f"the body is nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            yield from ((pointer, name) for name in value)
            pending.extend((f"{pointer}/{escape(name)}", inner, depth + 1) for name, inner in value.items())
        elif isinstance(value, list):
            pending.extend((f"{pointer}/{index}", inner, depth + 1) for index, inner in enumerate(value))
        else:
            yield pointer, value


def _at(pointer: str, message: str) -> ValidationError:
    detail: Any = [message]
    for step in reversed(pointer.split("/")[1:]):
        detail = {step.replace("~1", "/").replace("~0", "~"): detail}
    return ValidationError(detail if pointer else {api_settings.NON_FIELD_ERRORS_KEY: detail})
