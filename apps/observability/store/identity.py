"""What a series is called: rules for names and labels, and the digest that makes each series one row."""

import hashlib
import json
import re
from collections.abc import Mapping
from uuid import UUID

from apps.core.errors import FieldError
from apps.observability.matchers import LABEL

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,119}")
MOST_LABELS = 16
LONGEST_VALUE = 200
LONGEST_UNIT = 24

Key = tuple[str, tuple[tuple[str, str], ...]]
"""Name and sorted labels."""


def key_of(name: str, labels: Mapping[str, str]) -> Key:
    return name, tuple(sorted(labels.items()))


def digest_of(workspace_id: UUID, key: Key) -> str:
    """sha256 of workspace, name and sorted labels, in JSON, which quotes: no two series run together."""
    return hashlib.sha256(json.dumps([str(workspace_id), *key], separators=(",", ":")).encode()).hexdigest()


def faults(name: object, labels: object, pointer: str) -> list[FieldError]:
    """What is wrong with the name or the labels of the sample at ``pointer``."""
    found = []
    if not isinstance(name, str) or not NAME.fullmatch(name):
        detail = "must be a metric's name: letters, digits, underscores and colons, at most 120, no digit first"
        found.append(FieldError(f"{pointer}/name", "invalid", detail))
    if not isinstance(labels, Mapping):
        return [*found, FieldError(f"{pointer}/labels", "invalid", "must be an object of texts")]
    if len(labels) > MOST_LABELS:
        detail = f"has {len(labels)} labels of at most {MOST_LABELS}: leave some out"
        return [*found, FieldError(f"{pointer}/labels", "too_many_labels", detail)]
    return found + [fault for label, value in labels.items() for fault in _label_faults(label, value, pointer)]


def _label_faults(label: object, value: object, pointer: str) -> list[FieldError]:
    if not isinstance(label, str) or not LABEL.fullmatch(label):
        detail = f"{str(label)[:60]!r} is no label's name: letters, digits, underscores, at most 60, no digit first"
        return [FieldError(f"{pointer}/labels", "invalid", detail)]
    if not isinstance(value, str) or len(value) > LONGEST_VALUE or not is_storable(value):
        detail = f"must be a text of at most {LONGEST_VALUE} characters, without NUL"
        return [FieldError(f"{pointer}/labels/{label}", "invalid", detail)]
    return []


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can keep the text: neither NUL nor half a surrogate pair."""
    try:
        return b"\x00" not in text.encode()
    except UnicodeEncodeError:
        return False
