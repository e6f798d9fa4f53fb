"""Reads untrusted JSON values one field at a time; every fault is a SpecError that names the field and a remedy."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Self, TypeVar

from apps.blueprints.graph import SpecError

NODE_ID = re.compile(r"[a-z][a-z0-9_]{0,31}")
SYMBOL = re.compile(r"[A-Z][A-Z0-9_]{0,31}")

# fmt: off
RESERVED_IDS = frozenset({
    "input", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu",
    "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state",
    "get_parameter", "get_submodule", "graph", "half", "ipu", "load_state_dict", "modules", "mtia",
    "named_buffers", "named_children", "named_modules", "named_parameters", "parameters",
    "register_backward_hook", "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook", "register_module", "register_parameter",
    "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_", "set_extra_state",
    "set_submodule", "share_memory", "state_dict", "to", "to_empty", "train", "training", "type", "xpu",
    "zero_grad",
})
# fmt: on
"""A node becomes a submodule of that name, so it cannot be called as torch calls a part of every module."""

_LONGEST_SHOWN = 40

Choice = TypeVar("Choice", int, str)


def show(value: object) -> str:
    """A short, safe spelling of an untrusted value: bounded, never recursive, never a billion digits."""
    if isinstance(value, str):
        return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "...")
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a huge number"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else f"a {type(value).__name__[:_LONGEST_SHOWN]}"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """``; did you mean 'relu'?`` when a known word is close, else nothing."""
    if not isinstance(word, str) or len(word) > _LONGEST_SHOWN:
        return ""
    # Compared without case, so that a lower-case symbol still finds its capital.
    folded = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), folded, n=1)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def escape(key: object) -> str:
    """One step of a JSON pointer (RFC 6901)."""
    text = key if isinstance(key, str) else show(key)
    return text[:_LONGEST_SHOWN].replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True, slots=True)
class Reader:
    """One object or array of the document, with its pointer and the node that it belongs to."""

    value: Mapping[Any, Any] | Sequence[Any]
    pointer: str = ""
    node: str | None = None

    @classmethod
    def of(cls, document: object) -> Self:
        if not isinstance(document, Mapping):
            raise SpecError(f"a spec is a JSON object, not {show(document)}", code="type")
        return cls(document)

    def __len__(self) -> int:
        return len(self.value)

    def named(self, node: str) -> "Reader":
        return replace(self, node=node)

    def empty(self, key: str) -> "Reader":
        """Stands for an absent optional object."""
        return Reader({}, f"{self.pointer}/{key}", self.node)

    def error(self, key: str | int | None, message: str, *, code: str) -> SpecError:
        """The error at field ``key`` (None: at this very value); a node's id leads the message."""
        pointer = self.pointer if key is None else f"{self.pointer}/{escape(str(key))}"
        prefix = f"node {self.node!r}: " if self.node else ""
        name = f"{key}: " if isinstance(key, str) and len(key) <= _LONGEST_SHOWN and key.isidentifier() else ""
        return SpecError(f"{prefix}{name}{message}", pointer=pointer, node=self.node, code=code)

    def names(self) -> list[str]:
        return list(self.value)

    def has(self, key: str) -> bool:
        return key in self.value

    def raw(self, key: str | int) -> Any:
        if isinstance(self.value, Mapping) and key not in self.value:
            raise self.error(key, "is missing", code="required")
        return self.value[key]  # type: ignore[index]

    def only(self, fields: Sequence[str], *, optional: Sequence[str] = ()) -> None:
        """Every key is one of ``fields``, and none but the ``optional`` ones is missing."""
        for key in self.value:
            if key not in fields:
                hint = did_you_mean(key, fields) or f"; known fields: {', '.join(fields)}"
                raise self.error(
                    key if isinstance(key, str) else show(key), f"unknown field {show(key)}{hint}", code="unknown"
                )
        for field in fields:
            if field not in optional and field not in self.value:
                raise self.error(field, "is missing", code="required")

    def mapping(self, key: str, *, maximum: int) -> "Reader":
        value = self.raw(key)
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be an object, not {show(value)}", code="type")
        self._check_length(key, value, maximum)
        reader = Reader(value, f"{self.pointer}/{key}", self.node)
        for name in value:
            if not isinstance(name, str):
                raise reader.error(show(name), "names must be strings", code="type")
        return reader

    def sequence(self, key: str, *, maximum: int) -> "Reader":
        """A non-empty array."""
        value = self.raw(key)
        if not isinstance(value, list | tuple):
            raise self.error(key, f"must be an array, not {show(value)}", code="type")
        if not value:
            raise self.error(key, "must not be empty", code="empty")
        self._check_length(key, value, maximum)
        return Reader(value, f"{self.pointer}/{key}", self.node)

    def child(self, key: str | int) -> "Reader":
        value = self.value[key] if isinstance(key, int) or key in self.value else {}  # type: ignore[index]
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be an object, not {show(value)}", code="type")
        return Reader(value, f"{self.pointer}/{escape(str(key))}", self.node)

    def choice(self, key: str, choices: tuple[Choice, ...], *, what: str = "value") -> Choice:
        value = self.raw(key)
        for choice in choices:
            if type(value) is type(choice) and value == choice:
                return choice
        hint = did_you_mean(value, [str(choice) for choice in choices])
        known = f"; choose from: {', '.join(map(str, choices))}"
        raise self.error(key, f"unknown {what} {show(value)}{hint or known}", code="unknown")

    def reference(self, key: str | int, known: Iterable[str], what: str) -> str:
        value = self.raw(key)
        known = set(known)
        if not isinstance(value, str):
            raise self.error(key, f"must be the id of a {what}, not {show(value)}", code="type")
        if value not in known:
            raise self.error(key, f"no {what} {show(value)}{did_you_mean(value, sorted(known))}", code="unknown")
        return value

    def identifier(self, key: str, pattern: re.Pattern[str], rule: str) -> str:
        value = self.raw(key)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self.error(key, f"{rule}, not {show(value)}", code="name")
        return value

    def boolean(self, key: str) -> bool:
        value = self.raw(key)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, not {show(value)}", code="type")
        return value

    def check_integer(self, key: str | int, value: Any, minimum: int, maximum: int) -> int:
        if type(value) is not int:
            raise self.error(key, f"must be a whole number, not {show(value)}", code="type")
        if not minimum <= value <= maximum:
            raise self.error(key, f"must be from {minimum} to {maximum}, not {show(value)}", code="range")
        return value

    def _check_length(self, key: str, value: Any, maximum: int) -> None:
        if len(value) > maximum:
            raise self.error(key, f"has {len(value)} entries; at most {maximum} are allowed", code="too_many")
