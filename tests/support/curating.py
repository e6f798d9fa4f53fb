"""A curator at the admin of assets."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.messages import get_messages
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.roles import Role
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from tests.support import factories

LIST = "/admin/kernels/kernel/"
YES = {"reason": "because", "confirmed": "1"}
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def curator(client: Client) -> User:
    user = factories.UserFactory(username="cleo", role=Role.CURATOR)
    client.force_login(user)
    return user


def url_of(row: Model, button: str = "change") -> str:
    opts = row._meta
    return reverse(f"admin:{opts.app_label}_{opts.model_name}_{button}", args=[str(row.pk)])


def kernel_in(state: str = KernelState.VALIDATED, **values: Any) -> Kernel:
    return factories.KernelFactory(state=state, **values)


def messages_of(answer: Any) -> set[str]:
    return {str(message) for message in get_messages(answer.wsgi_request)}
