"""What the condition of a rule may be told, as data: names, types, bounds, defaults. No Django."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from apps.core.errors import FieldError, Invalid

LARGEST = 1e300
"""Of numbers that people write: what is computed with them stays finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter: a choice if there are ``choices``, else a number, whole or not, from ``least`` to ``most``.

    Without a ``default`` it has to be given.
    """

    name: str
    help: str
    default: Any = None
    choices: tuple[str, ...] = ()
    whole: bool = False
    least: float = -LARGEST
    most: float = LARGEST

    def fault(self, value: Any) -> str:
        """What is wrong with ``value``; empty: nothing."""
        if self.choices:
            known = ", ".join(self.choices)
            return "" if isinstance(value, str) and value in self.choices else f"must be one of {known}"
        if type(value) not in ((int,) if self.whole else (int, float)):
            return "must be a whole number" if self.whole else "must be a number"
        if isinstance(value, float) and not math.isfinite(value):
            return "must be a finite number"
        if not self.least <= value <= self.most:
            return f"must be between {self.least:g} and {self.most:g}"
        return ""


def checked(known: Iterable[Parameter], given: Any, *, pointer: str = "/parameters") -> dict[str, Any]:
    """All parameters with their values: those that are given, and the defaults of the others.

    Raises:
        Invalid: naming each parameter that is unknown, missing or wrong.
    """
    if not isinstance(given, Mapping):
        raise Invalid("must be a JSON object", pointer=pointer, code="invalid")
    by_name = {parameter.name: parameter for parameter in known}
    errors = [
        FieldError(f"{pointer}/{name}", "unknown", f"unknown parameter; known: {', '.join(by_name)}")
        for name in given
        if name not in by_name
    ]
    values = {name: given.get(name, parameter.default) for name, parameter in by_name.items()}
    for name, value in values.items():
        if value is None and name not in given:
            errors.append(FieldError(f"{pointer}/{name}", "required", "is needed"))
        elif fault := by_name[name].fault(value):
            errors.append(FieldError(f"{pointer}/{name}", "invalid", fault))
    if errors:
        raise Invalid(errors[0].detail, code=errors[0].code, errors=errors)
    return values
