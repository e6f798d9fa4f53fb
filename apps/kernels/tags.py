"""Declared tags: a kernel's value of one has its type, and is one of its choices if it has any."""

from collections.abc import Callable, Mapping
from typing import Any

from apps.core.errors import FieldError, Invalid
from apps.core.problems import escape
from apps.kernels.models import TagKey, TagType

MAX_INDEXED_TEXT = 500
"""Characters of a declared tag: an entry of its index has at most 2,700 bytes."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


TYPES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    TagType.TEXT: (lambda value: isinstance(value, str), "text"),
    TagType.NUMBER: (_is_number, "a number"),
    TagType.BOOLEAN: (lambda value: isinstance(value, bool), "true or false"),
}


def check_tags(pointer: str, tags: Mapping[str, Any]) -> None:
    """Let tags of a kernel pass that are as they were declared; undeclared ones are free.

    Raises:
        Invalid: with the pointer of each value of another type, outside the choices, or too long for the index.
    """
    faults = _faults(tags).items()
    errors = [FieldError(f"{pointer}/{escape(name)}", code, detail) for name, (code, detail) in faults]
    if errors:
        raise Invalid(errors[0].detail, code=errors[0].code, errors=errors)


def as_declared(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Those that ``check_tags`` lets pass."""
    faults = _faults(tags)
    return {name: value for name, value in tags.items() if name not in faults}


def _faults(tags: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Tag -> code and detail of what is wrong with it."""
    declared = TagKey.objects.filter(name__in=list(tags))
    found = {key.name: _fault(key, tags[key.name]) for key in declared}
    return {name: fault for name, fault in found.items() if fault != ("", "")}


def _fault(key: TagKey, value: Any) -> tuple[str, str]:
    """Code and detail of what is wrong; empty if nothing is."""
    is_right, kind = TYPES[key.type]
    if not is_right(value):
        return "type", f"the tag {key.name} is declared as {kind}"
    if key.choices and value not in key.choices:
        return "choice", f"the tag {key.name} is one of: {', '.join(key.choices)}"
    if isinstance(value, str) and len(value) > MAX_INDEXED_TEXT:
        return "max_length", f"a declared tag has at most {MAX_INDEXED_TEXT} characters"
    return "", ""
