"""Grades: tags that the platform gives by measurement, within a cohort of kernels that may be compared.

A cohort is the VALIDATED kernels of one hardware profile, one operator and one rank of input (vectors or images).
For people and search: no run decides by a grade, since timings differ from machine to machine and from day to day.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apps.core.errors import Invalid

SMALLEST_COHORT = 5
"""Of fewer kernels, a fifth says nothing: none is graded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """``tag: true`` for the lowest ``share`` of a cohort by ``metrics.<metric>``. Equals across the border get none."""

    tag: str
    metric: str
    share: float
    meaning: str


GRADES = (
    # Time alone would grade the smallest; per FLOP it grades how well the work is done. ``relative`` is the quotient to
    # a matmul of the same minute, so that a machine that was busy then does not count.
    Grade(
        tag="high_speed",
        metric="relative_per_mflop",
        share=0.2,
        meaning="fastest fifth: time of a training step, in units of the baseline, for a million forward FLOPs",
    ),
    Grade(tag="compact", metric="bytes", share=0.2, meaning="smallest fifth by bytes of the artefact"),
)
GRADE_TAGS = frozenset(grade.tag for grade in GRADES)


def given_tags(pointer: str, given: Mapping[str, Any], current: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The tags that a person gave, with the grades of ``current`` kept: only measurement gives and takes those.

    A grade may be repeated as it is, so that what was read can be sent back.

    Raises:
        Invalid: a grade was set or changed.
    """
    grades = {name: value for name, value in (current or {}).items() if name in GRADE_TAGS}
    for name in sorted(GRADE_TAGS & given.keys()):
        if name not in grades or given[name] != grades[name]:
            raise Invalid("is given by measurement only", pointer=f"{pointer}/{name}", code="reserved")
    return {**given, **grades}


def without_grades(tags: Mapping[str, Any]) -> dict[str, Any]:
    """What of a blueprint's tags its kernels inherit: a grade is never inherited."""
    return {name: value for name, value in tags.items() if name not in GRADE_TAGS}


def graded(tags: Mapping[str, Any], grades: Mapping[str, bool]) -> dict[str, Any]:
    """The tags with these grades given (true) or taken (false)."""
    kept = {name: value for name, value in tags.items() if grades.get(name) is not False}
    return {**kept, **{name: True for name, given in grades.items() if given}}
