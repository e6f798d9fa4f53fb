"""Fixtures of all tests; the servers themselves come from the plugin `tests.support.stack`."""

from tests.support.databases import (
    _empty_redis,
    committed_db,
    django_db_setup,
    pytest_collection_modifyitems,
    servers,
)
from tests.support.programs import live_site, start_program, worker

__all__ = [
    "_empty_redis",
    "committed_db",
    "django_db_setup",
    "live_site",
    "pytest_collection_modifyitems",
    "servers",
    "start_program",
    "worker",
]
