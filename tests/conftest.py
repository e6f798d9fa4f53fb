"""Fixtures and rules of all tests; the servers themselves come from the plugin `tests.support.stack`."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support import databases, tools
from tests.support.configuring import configure
from tests.support.databases import _empty_redis, committed_db, django_db_setup, servers
from tests.support.objects import either_storage, folder_storage, s3_client, s3_server, s3_storage
from tests.support.programs import live_site, start_program, worker
from tests.support.static_files import _index_static_files_once
from tests.support.tools import pytest_terminal_summary
from tests.support.up import home, prepared_home

__all__ = [
    "_empty_redis",
    "_index_static_files_once",
    "committed_db",
    "configure",
    "django_db_setup",
    "either_storage",
    "folder_storage",
    "home",
    "live_site",
    "prepared_home",
    "pytest_terminal_summary",
    "s3_client",
    "s3_server",
    "s3_storage",
    "servers",
    "start_program",
    "worker",
]

# The same examples at every run, and none fails because the machine is busy: the test's own timeout bounds it.
settings.register_profile("esper", derandomize=True, deadline=None)
settings.load_profile("esper")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is collected stays to the end: no search for garbage in it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    databases.refuse_flushing(items)
    tools.deselect(config, items)
