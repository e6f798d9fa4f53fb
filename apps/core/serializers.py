"""The base of what clients send: a member that nobody asked for is an error that names it, never ignored."""

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses unknown members beside every other error, so that a client sees all its mistakes at once."""

    default_error_messages: ClassVar[dict[str, Any]] = {"invalid": "must be a JSON object"}

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


class Text(serializers.CharField):
    """Text, and nothing that could be turned into it: a client that sends a number has made a mistake."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            raise ValidationError("must be text", code="type")
        if self.max_length is not None and len(data) > self.max_length:  # before blanks are cut off its ends
            raise ValidationError(f"has more than {self.max_length} characters", code="max_length")
        return str(super().to_internal_value(data))


class Whole(serializers.IntegerField):
    """A JSON number without a fraction."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            raise ValidationError("must be a whole number", code="type")
        return int(super().to_internal_value(data))


class Number(serializers.FloatField):
    """A JSON number."""

    def to_internal_value(self, data: Any) -> float:
        if type(data) not in (int, float):
            raise ValidationError("must be a number", code="type")
        return float(super().to_internal_value(data))


class Identifier(serializers.UUIDField):
    """The id of something, as text."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            raise ValidationError("must be text", code="type")
        return UUID(str(super().to_internal_value(data)))


class Flag(serializers.BooleanField):
    """true or false."""

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            raise ValidationError("must be true or false", code="type")
        return data


class Choice(serializers.ChoiceField):
    """One of a few texts. A refusal names them."""

    def to_internal_value(self, data: Any) -> Any:
        try:
            return super().to_internal_value(data)
        except ValidationError:
            known = ", ".join(str(choice) for choice in self.choices)
            raise ValidationError(f"must be one of {known}", code="invalid_choice") from None


class JSONObject(serializers.DictField):
    """A JSON object; what stands in it is checked by a service."""

    default_error_messages: ClassVar[dict[str, Any]] = {"not_a_dict": "must be a JSON object"}


class Integers(serializers.DictField):
    """A JSON object of whole numbers, e.g. the sizes that symbols are bound to."""

    child = Whole(min_value=0, max_value=2**31 - 1)
