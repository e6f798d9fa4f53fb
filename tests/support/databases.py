"""Databases for tests: a shared one with a rollback per test, and one of its own for each test that commits.

Nothing is ever flushed: the audit tables refuse TRUNCATE, and the application role may not do it anyway.
"""

from collections.abc import Iterator

import pytest
from django.db import connections
from pytest_django import DjangoDbBlocker

from tests.support.stack import DATABASE, SERVERS, Servers

FLUSHING_FIXTURES = {"transactional_db", "live_server", "django_db_reset_sequences", "django_db_serialized_rollback"}


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config) -> Servers:
    """The PostgreSQL and the Valkeys of this session."""
    return pytestconfig.stash[SERVERS]


@pytest.fixture(scope="session")
def django_db_setup(
    servers: Servers, django_test_environment: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[None]:
    """In place of pytest-django's own: `db` works as the application role on a clone of the migrated template."""
    with servers.clone(DATABASE):
        yield
        with django_db_blocker.unblock():
            connections.close_all()


@pytest.fixture
def committed_db(
    request: pytest.FixtureRequest,
    servers: Servers,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[str]:
    """A database of this test's own, in which it really commits; other processes find it in the environment.

    Returns its name.
    """
    if "db" in request.fixturenames or request.node.get_closest_marker("django_db"):
        raise pytest.UsageError("A test uses either db (rolled back) or committed_db (its own database), not both.")
    shared = connections.settings["default"]["NAME"]
    with servers.clone() as name, django_db_blocker.unblock():
        for variable, value in servers.environment(name).items():
            monkeypatch.setenv(variable, value)
        _point_django_at(name)
        # What was signed last, in the trail of another test's database.
        (servers.home.root / "audit" / "last.note").unlink(missing_ok=True)
        try:
            yield name
        finally:
            _point_django_at(shared)


@pytest.fixture(autouse=True)
def _empty_redis(request: pytest.FixtureRequest) -> None:
    """Tests with a database begin with empty caches, counters and queues."""
    uses_database = "django_db_setup" in request.fixturenames or request.node.get_closest_marker("django_db")
    if uses_database:
        request.getfixturevalue("servers").empty_redis()
        _forget_bytes()


def _forget_bytes() -> None:
    """This process knows nothing of the kernels of the test before: other databases have others."""
    from apps.kernels.cache import accesses, bindings, tiers

    tiers.tiers.cache_clear()
    bindings.bindings.clear()
    accesses.forget()


def _point_django_at(name: str) -> None:
    connections.close_all()
    for connection in connections.all(initialized_only=True):
        if hasattr(connection, "close_pool"):
            connection.close_pool()
    connections.settings["default"]["NAME"] = name


def refuse_flushing(items: list[pytest.Item]) -> None:
    """Stop at a test that would TRUNCATE between tests.

    Raises:
        pytest.UsageError: there is one.
    """
    for item in items:
        marker = item.get_closest_marker("django_db")
        flushes = marker is not None and (marker.kwargs.get("transaction") or marker.kwargs.get("reset_sequences"))
        if flushes or FLUSHING_FIXTURES & set(getattr(item, "fixturenames", ())):
            raise pytest.UsageError(f"{item.nodeid} would flush the database. Use the fixture committed_db instead.")
