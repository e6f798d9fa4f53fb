"""The curated starter library: one JSON file per blueprint beside this module, each {name, title, card, tags, spec}.

Those that are ``core`` are what runs grow by default, one for each operator and layer, compiled before a run; the
others are compiled on demand, and offered to runs that grow from everything that is validated.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from apps.blueprints.spec import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class StarterBlueprint:
    """One curated blueprint. ``spec`` keeps its symbols, each with a default size."""

    name: str
    title: str
    card: Mapping[str, str]
    tags: Mapping[str, str]
    spec: Mapping[str, Any]
    core: bool = False


@cache
def starter_library() -> Mapping[str, StarterBlueprint]:
    """Every starter blueprint by name: the core ones first, each part in the order of the names."""
    entries = sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".json"))
    library = (StarterBlueprint(**json.loads((files(__name__) / name).read_text(encoding="utf-8"))) for name in entries)
    return {blueprint.name: blueprint for blueprint in sorted(library, key=lambda blueprint: not blueprint.core)}


def core_library() -> Mapping[str, StarterBlueprint]:
    """The starter blueprints that runs grow by default: one for each operator and layer, by name."""
    return {name: blueprint for name, blueprint in starter_library().items() if blueprint.core}


@cache
def starter_digests() -> Mapping[str, str]:
    """Name -> digest of the spec."""
    return {name: digest(blueprint.spec) for name, blueprint in starter_library().items()}
