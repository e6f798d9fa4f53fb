"""How long each stage of a recovery took, as one bar; all bars of a page on one scale."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 400, 14
TARGET_SECONDS = 30.0
"""Within which a run is to be back."""


@dataclass(frozen=True, slots=True)
class Part:
    stage: str
    x: float
    width: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Stack:
    """In viewBox units. ``target`` is where TARGET_SECONDS are; None: beyond the scale."""

    parts: Sequence[Part]
    target: float | None
    width: int = WIDTH
    height: int = HEIGHT


def stack(seconds: Mapping[str, float | None], *, longest: float) -> Stack:
    """``seconds`` by stage in their order, None: not reached. ``longest``: what fills the width, in seconds."""
    scale = WIDTH / longest if longest > 0 else 0.0
    parts: list[Part] = []
    at = 0.0
    for stage, took in seconds.items():
        if not took:
            continue
        parts.append(Part(stage=stage, x=round(at, 2), width=round(max(took * scale, 1.0), 2), seconds=took))
        at += took * scale
    target = TARGET_SECONDS * scale
    return Stack(parts=parts, target=round(target, 2) if 0 < target <= WIDTH else None)
