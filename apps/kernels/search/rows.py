"""What a page of results shows of each kernel: plain values by name, only the columns that were asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.db import connection

from apps.core.errors import Invalid
from apps.kernels.search.compiler import BLUEPRINTS, VERSIONS, Sql
from apps.kernels.search.fields import field_named

COLUMNS = (
    "id", "name", "state", "operator", "bindings", "parameters", "compat", "digest", "size",
    "awaits_upload", "rejection", "tags", "metrics", "storage_tier", "usage_count", "last_used_at", "created_at",
    "updated_at", "pipeline", "compile_ms", "risk", "risk_confidence", "pinned_until", "legal_hold", "retired_at",
    "purge_after",
)  # fmt: skip
DOCUMENTS = frozenset({"bindings", "compat", "tags", "metrics"})
OF_VERSION = ("blueprint", "blueprint_id", "version")
DEFAULT = (
    "id", "name", *OF_VERSION, "state", "pipeline", "operator", "bindings", "parameters", "compat", "digest", "size",
    "awaits_upload", "rejection", "tags", "metrics", "risk", "risk_confidence", "storage_tier", "usage_count",
    "last_used_at", "created_at", "updated_at",
)  # fmt: skip
MAX_FIELDS = 40
OF_ROWS = (
    f"SELECT v.id, b.name, v.blueprint_id, v.number FROM {VERSIONS} AS v "  # noqa: S608 - names of our own
    f"JOIN {BLUEPRINTS} AS b ON b.id = v.blueprint_id WHERE v.id = ANY (%s)"
)


@dataclass(frozen=True, slots=True)
class Projection:
    """Members of a row. ``selected`` are the expressions over ``k``; ``shaped`` makes a row of their values."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> "Projection":
        """Raises Invalid: one is no member of a kernel's row."""
        if len(names) > MAX_FIELDS:
            raise Invalid(f"at most {MAX_FIELDS}", pointer="/fields", code="too_many")
        for index, name in enumerate(names):
            if name in COLUMNS or name in OF_VERSION:
                continue
            pointer = f"/fields/{index}"
            if not name.startswith(("tags.", "metrics.")):
                known = ", ".join((*COLUMNS, *OF_VERSION, "tags.<key>", "metrics.<key>"))
                detail = f"{name!r:.80} is no member of a row; known: {known}"
                raise Invalid(detail, pointer=pointer, code="unknown_field")
            field_named(name, pointer=pointer)
        return cls(tuple(dict.fromkeys(names)) or DEFAULT)

    @property
    def selected(self) -> Sql:
        """The id first, whether it is shown or not."""
        parts, values = ["k.id"], []
        for name in self.names:
            if name in COLUMNS:
                parts.append(f"k.{name}")
            elif "." in name:
                base, _, key = name.partition(".")
                parts.append(f"k.{base} -> %s")
                values.append(key)
        if any(name in OF_VERSION for name in self.names):
            parts.append("k.blueprint_version_id")
        return Sql(", ".join(parts), tuple(values))

    def shaped(self, found: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Rows of the statement (the columns of ``selected``, then others) as the client sees them."""
        plain = [name for name in self.names if name not in OF_VERSION]
        of_version = [(name, OF_VERSION.index(name)) for name in self.names if name in OF_VERSION]
        loaders: list[tuple[str, Callable[[Any], Any] | None]] = [
            (name, document if name in DOCUMENTS or "." in name else None) for name in plain
        ]
        versions = _versions({values[len(plain) + 1] for values in found}) if of_version and found else {}
        rows = []
        for values in found:
            row = dict.fromkeys(self.names)
            for (name, load), value in zip(loaders, values[1:], strict=False):
                row[name] = load(value) if load else value
            if of_version:
                version = versions[values[len(plain) + 1]]
                row.update({name: version[index] for name, index in of_version})
            rows.append(row)
        return rows

    @property
    def width(self) -> int:
        """How many columns ``selected`` has."""
        return 1 + sum(name not in OF_VERSION for name in self.names) + any(name in OF_VERSION for name in self.names)


def _versions(ids: set[UUID]) -> dict[UUID, Sequence[Any]]:
    """Version -> name and id of its blueprint, and its number: once for a page, whose kernels share few."""
    with connection.cursor() as cursor:
        cursor.execute(OF_ROWS, [list(ids)])
        return {row[0]: row[1:] for row in cursor.fetchall()}


def document(value: Any) -> Any:
    """A jsonb value as the driver gives it: text, or NULL."""
    return orjson.loads(value) if isinstance(value, str | bytes) else value
