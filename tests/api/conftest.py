"""Clients of the API: one for each role, one for a token with chosen scopes, and one for nobody."""

from collections.abc import Callable
from typing import Any

import pytest
from rest_framework.test import APIClient

from apps.accounts.roles import Role
from tests.support.factories import TokenFactory, UserFactory


class Caller(APIClient):
    """An API client that turns faults into 500s, as the site does, instead of raising them into the test."""

    def __init__(self, secret: str = "", **kwargs: Any) -> None:
        super().__init__(raise_request_exception=False, **kwargs)
        if secret:
            self.credentials(HTTP_AUTHORIZATION=f"Bearer {secret}")


@pytest.fixture
def nobody() -> Caller:
    return Caller()


@pytest.fixture
def caller(db: None) -> Callable[..., Caller]:
    """`caller("viewer")`, or `caller("admin", scopes=["runs:read"])`."""

    def make(role: str = Role.ADMIN, scopes: list[str] | None = None) -> Caller:
        user = UserFactory(role=role)
        token = TokenFactory(user=user) if scopes is None else TokenFactory(user=user, scopes=scopes)
        client = Caller(token.secret)
        client.user, client.token = user, token
        return client

    return make


@pytest.fixture
def admin(caller: Callable[..., Caller]) -> Caller:
    return caller(Role.ADMIN)
