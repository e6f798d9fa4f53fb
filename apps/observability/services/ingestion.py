"""Samples that clients send: every one is looked at before any is kept."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.core.errors import FieldError, Invalid
from apps.observability.contracts import Reading, Written
from apps.observability.models import SeriesKind, SeriesSource
from apps.observability.store import writing
from apps.observability.store.identity import LONGEST_UNIT, is_storable
from apps.observability.store.writing import SHOWN_FAULTS

MOST_SAMPLES = 5_000
OWN_PREFIX = "esper_"
MEMBERS = ("name", "value", "at", "labels", "kind", "unit")
NOT_NUMBERS = {"NaN": float("nan"), "+Inf": float("inf"), "-Inf": float("-inf")}
"""As Prometheus writes what JSON has no numbers for."""
KINDS = tuple(SeriesKind.values)
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
"""RFC 3339."""


class Fault(Exception):
    """What is wrong with a member of a sample."""

    def __init__(self, member: str, detail: str, code: str = "invalid") -> None:
        super().__init__(detail)
        self.member, self.detail, self.code = member, detail, code


def ingest(*, samples: Any, workspace_id: UUID | None = None) -> Written:
    """Keep a batch of samples as JSON has them: [{"name", "value", "at"} and, if wanted, "labels", "kind", "unit"].

    ``value`` is a number, "NaN", "+Inf" or "-Inf"; ``at`` a time as RFC 3339 has it, within the hot window. The kind
    and unit of a series are those of its first sample. A sample whose series and time are there already is known, and
    stays as it is: a batch can be sent again.

    Raises:
        Invalid: naming each sample that is wrong (at most 20): nothing is kept then. Or there would be too many series
            (code "too_many_series").
    """
    if not isinstance(samples, list) or not 1 <= len(samples) <= MOST_SAMPLES:
        raise Invalid(f"must be a list of 1 to {MOST_SAMPLES:,} samples", pointer="/samples", code="invalid")
    readings: list[Reading] = []
    errors: list[FieldError] = []
    for place, given in enumerate(samples):
        try:
            readings.append(_reading(given))
        except Fault as fault:
            errors.append(FieldError(f"/samples/{place}{fault.member}", fault.code, fault.detail))
            if len(errors) == SHOWN_FAULTS:
                break
    if errors:
        raise Invalid(errors[0].detail, code=errors[0].code, errors=errors)
    return writing.record(readings, source=SeriesSource.CLIENT, workspace_id=workspace_id)


def _reading(given: Any) -> Reading:
    """Raises Fault. Names and labels are looked at by the store."""
    if not isinstance(given, dict):
        raise Fault("", "must be a JSON object")
    if unknown := [name for name in given if name not in MEMBERS]:
        raise Fault("", f"has an unknown member {unknown[0][:60]!r}; known: {', '.join(MEMBERS)}", "unknown")
    if missing := [name for name in MEMBERS[:3] if name not in given]:
        raise Fault(f"/{missing[0]}", "is required", "required")
    name, labels = given["name"], given.get("labels", {})
    if isinstance(name, str) and name.startswith(OWN_PREFIX):
        raise Fault("/name", f"{OWN_PREFIX} is the platform's own prefix: choose another", "reserved")
    return Reading(
        name=name,
        value=_value(given["value"]),
        at=_moment(given["at"]),
        labels=labels,
        kind=_kind(given.get("kind", SeriesKind.GAUGE.value)),
        unit=_unit(given.get("unit", "")),
        run_id=_run(labels),
    )


def _value(given: Any) -> float:
    if isinstance(given, str) and given in NOT_NUMBERS:
        return NOT_NUMBERS[given]
    if type(given) not in (int, float):
        raise Fault("/value", f"must be a number, or one of {', '.join(NOT_NUMBERS)}")
    try:
        return float(given)
    except OverflowError:
        raise Fault("/value", "is too large for a number of 64 bits") from None


def _moment(given: Any) -> datetime:
    if isinstance(given, str) and MOMENT.fullmatch(given):
        try:
            return datetime.fromisoformat(given.upper())
        except ValueError:
            pass
    raise Fault("/at", "must be a time with its zone, such as 2026-03-01T12:00:00Z")


def _kind(given: Any) -> str:
    if not isinstance(given, str) or given not in KINDS:
        raise Fault("/kind", f"must be one of {', '.join(KINDS)}", "invalid_choice")
    return given


def _unit(given: Any) -> str:
    if not isinstance(given, str) or len(given) > LONGEST_UNIT or not is_storable(given):
        raise Fault("/unit", f"must be a text of at most {LONGEST_UNIT} characters")
    return given


def _run(labels: Any) -> UUID | None:
    """The run that the label ``run`` names, so that its page shows the series."""
    named = labels.get("run") if isinstance(labels, Mapping) else None
    try:
        return UUID(named) if isinstance(named, str) and len(named) == 36 else None
    except ValueError:
        return None
