"""The base of what clients send: a member that nobody asked for is an error that names it, never ignored."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses unknown members beside every other error, so that a client sees all its mistakes at once."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return super().to_internal_value(data)
        unknown = [name for name in data if name not in self.fields]
        if not unknown:
            return super().to_internal_value(data)
        known = ", ".join(name for name, field in self.fields.items() if not field.read_only)
        errors: dict[str, Any] = {
            str(name): [ErrorDetail(f"unknown field; known: {known}", code="unknown")] for name in unknown
        }
        try:
            super().to_internal_value(data)
        except ValidationError as error:
            errors.update(error.detail if isinstance(error.detail, dict) else {})
        raise ValidationError(errors)


class JSONObjectField(serializers.DictField):
    """A JSON object whose members are checked by a service."""
