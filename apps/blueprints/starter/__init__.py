"""The curated starter library: one JSON file per blueprint beside this module, each {name, title, card, tags, spec}."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterBlueprint:
    """One curated blueprint. ``spec`` keeps its symbols, each with a default size."""

    name: str
    title: str
    card: Mapping[str, str]
    tags: Mapping[str, str]
    spec: Mapping[str, Any]


@cache
def starter_library() -> Mapping[str, StarterBlueprint]:
    """Every starter blueprint by name, in the order of their names."""
    entries = sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".json"))
    library = (StarterBlueprint(**json.loads((files(__name__) / name).read_text(encoding="utf-8"))) for name in entries)
    return {blueprint.name: blueprint for blueprint in library}
