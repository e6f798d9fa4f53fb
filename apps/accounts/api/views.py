"""`/tokens`: everybody's own. `/users`: for administrators."""

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.accounts import services
from apps.accounts.api.serializers import (
    DEFAULT_LIFETIME,
    IssuedTokenSerializer,
    NewToken,
    RoleChange,
    TokenSerializer,
    UserSerializer,
)
from apps.accounts.models import ApiToken, User
from apps.accounts.roles import Scope
from apps.audit.api.as_of import PastView
from apps.core.actors import actor_of
from apps.core.api import DetailView, ListView
from apps.core.errors import Forbidden
from apps.core.permissions import ANY, scopes_of


def caller(request: Request) -> User:
    """The user behind an authenticated request."""
    if not isinstance(request.user, User):
        raise TypeError("HasScope lets nobody in who is not a user")
    return request.user


def visible_tokens(request: Request) -> QuerySet[ApiToken]:
    """The caller's own; all of them for who manages accounts."""
    tokens = ApiToken.objects.select_related("user")
    return tokens if Scope.ACCOUNTS_MANAGE in scopes_of(request) else tokens.filter(user_id=request.user.pk)


class TokenListView(ListView):
    """Your tokens, newest first; all tokens for who manages accounts."""

    serializer_class = TokenSerializer
    scopes = {"GET": ANY, "POST": ANY}

    def get_queryset(self) -> QuerySet[ApiToken]:
        return visible_tokens(self.request)

    @extend_schema(request=NewToken, responses={201: IssuedTokenSerializer})
    def post(self, request: Request) -> Response:
        """Issue a token for yourself. Its secret is in this answer and nowhere else.

        A token can issue others only with `accounts:manage`, and never one that may do more than itself: whoever finds
        a lost token cannot make it last. No Idempotency-Key: the secret is not stored.
        """
        given = self.parse(NewToken)
        self._check_grant(given["scopes"])
        expiry = given.get("expiry")
        token, secret = services.issue_token(
            user=caller(request),
            name=given["name"],
            scopes=given["scopes"],
            lifetime=expiry - timezone.now() if expiry else DEFAULT_LIFETIME,
            actor=actor_of(request),
        )
        token.token = secret
        data = IssuedTokenSerializer(token).data
        headers = {"Location": f"/api/v1/tokens/{token.id}", "Cache-Control": "no-store"}
        return Response(data, status=status.HTTP_201_CREATED, headers=headers)

    def _check_grant(self, scopes: list[str]) -> None:
        granted = scopes_of(self.request)
        if isinstance(self.request.auth, ApiToken) and Scope.ACCOUNTS_MANAGE not in granted:
            raise Forbidden("a token needs accounts:manage to issue tokens; log in instead", code="token_issue")
        beyond = sorted(set(scopes) - granted)
        if beyond:
            raise Forbidden(f"you do not have: {', '.join(beyond)}", pointer="/scopes")


class TokenView(DetailView):
    """One token, without its secret."""

    serializer_class = TokenSerializer
    content_tagged = True
    scopes = {"GET": ANY, "DELETE": ANY}

    def get_queryset(self) -> QuerySet[ApiToken]:
        return visible_tokens(self.request)

    @extend_schema(responses={204: None})
    def delete(self, request: Request, id: Any) -> Response:
        """Revoke a token at once."""
        services.revoke_token(token=self.get_object(), actor=actor_of(request))
        return Response(status=status.HTTP_204_NO_CONTENT)


class UserListView(ListView):
    """Users with their roles."""

    serializer_class = UserSerializer
    sorts = ("username", "-username", "-id", "id")
    scopes = {"GET": "accounts:manage"}

    def get_queryset(self) -> QuerySet[User]:
        return User.objects.all()


class UserView(PastView):
    """One user."""

    serializer_class = UserSerializer
    content_tagged = True
    scopes = {"GET": "accounts:manage", "PATCH": "accounts:manage"}

    def get_queryset(self) -> QuerySet[User]:
        return User.objects.all()

    @extend_schema(request=RoleChange, responses=UserSerializer)
    @transaction.atomic
    def patch(self, request: Request, id: Any) -> Response:
        """Give a user another role."""
        given = self.parse(RoleChange)
        user = services.set_role(
            user=self.matched(), role=given["role"], reason=given["reason"], actor=actor_of(request)
        )
        return self.show(user, UserSerializer)
