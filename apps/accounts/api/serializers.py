"""Users and tokens as the API shows and takes them."""

from datetime import timedelta
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Role, Scope
from apps.core.serializers import Choice, StrictSerializer, Text

DEFAULT_LIFETIME = timedelta(days=30)
MAX_LIFETIME = timedelta(days=3650)


class TokenSerializer(serializers.ModelSerializer[ApiToken]):
    user = serializers.CharField(source="user.username", read_only=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=list(Scope)), read_only=True)
    created_at = serializers.DateTimeField(source="created", read_only=True)
    expired = serializers.BooleanField(source="is_expired", read_only=True)

    class Meta:
        model = ApiToken
        fields = ("id", "name", "user", "scopes", "created_at", "expiry", "expired", "last_used_at")
        read_only_fields = fields


class IssuedTokenSerializer(TokenSerializer):
    """``token`` is the secret, shown this once: send it as ``Authorization: Bearer``."""

    token = serializers.CharField(read_only=True)

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class NewToken(StrictSerializer):
    name = Text(max_length=100)
    scopes = serializers.ListField(child=Choice(choices=list(Scope)), allow_empty=False, max_length=len(Scope))
    expiry = serializers.DateTimeField(required=False, help_text="30 days from now by default; at most ten years")

    def validate_expiry(self, value: Any) -> Any:
        if value > timezone.now() + MAX_LIFETIME:
            raise serializers.ValidationError(f"must be within {MAX_LIFETIME.days} days", code="range")
        return value


class UserSerializer(serializers.ModelSerializer[User]):
    role = serializers.ChoiceField(choices=list(Role), read_only=True)
    email = serializers.CharField(read_only=True)
    scopes = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = ("id", "username", "email", "role", "scopes", "is_active")
        read_only_fields = fields

    def get_scopes(self, user: User) -> list[str]:
        return sorted(user.scopes)


class RoleChange(StrictSerializer):
    role = Choice(choices=list(Role))
    reason = Text(max_length=4000, help_text="kept in the audit trail")
