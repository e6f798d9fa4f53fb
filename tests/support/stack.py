"""pytest plugin: a throw-away PostgreSQL and two Valkeys for one test session.

Loaded by `-p tests.support.stack`, so that the servers' URLs are in the environment before Django's settings load. The
servers start while pytest collects. Servers that the environment names (DATABASE_URL, REDIS_URL, BROKER_URL) are used
instead; give tests servers of their own, because they create databases there and empty the Redis databases.
"""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import redis
from psycopg import sql

from esper_site.embedded import processes, stack, state
from esper_site.embedded.errors import StackError
from esper_site.embedded.home import Home
from esper_site.embedded.process import Keeper, Program, spawn, stop_all, wait_for
from tests.support.template import Template

TEMPLATE, DATABASE = "esper_template", "esper_test"
START_SECONDS = 60.0
MEMORY, MEMORY_BYTES = "/dev/shm", 4 << 30
INFORMATION_OPTIONS = (
    "collectonly",
    "help",
    "version",
    "markers",
    "showfixtures",
    "show_fixtures_per_test",
    "setupplan",
)


@dataclass
class Servers:
    """The servers of one session, and the databases on them."""

    home: Home
    stack: stack.Stack
    keeper: Keeper
    children: list[tuple[subprocess.Popen[bytes], Program]]
    prefix: str
    migrated: bool = False
    databases: int = 0
    dumps: Path | None = None
    """Where the migrated template is kept for the next session."""

    def await_answers(self) -> None:
        """Wait until all servers answer.

        Raises:
            StackError: one does not within a minute; with the end of its log.
        """
        for service in self.stack.services:
            name = service.program.name
            if not wait_for(service.answers, seconds=START_SECONDS, interval=0.02):
                raise StackError(f"{name} does not answer:\n{(self.home.logs / f'{name}.log').read_text()[-2000:]}")
            service.finish()

    def url(self, role: str, database: str) -> str:
        """The URL of a database for role `app`, `owner` or `admin` (who may create databases)."""
        if self.stack.cluster is not None:
            return self.stack.cluster.url("superuser" if role == "admin" else role, database)
        given = self.stack.environment["DATABASE_URL" if role == "app" else "DATABASE_OWNER_URL"]
        return urlunsplit(urlsplit(given)._replace(path=f"/{database}"))

    def environment(self, database: str) -> dict[str, str]:
        """What a process has to find in its environment to work on this database."""
        names = ("ESPER_HOME", "ESPER_SECRET_KEY", "REDIS_URL", "BROKER_URL")
        return {name: self.stack.environment[name] for name in names} | {
            "DATABASE_URL": self.url("app", database),
            "DATABASE_OWNER_URL": self.url("owner", database),
        }

    def name(self, database: str) -> str:
        """The real name; on servers of others, one that no other session uses."""
        return database if self.stack.cluster is not None else f"{database}_{self.prefix}"

    def ensure_template(self) -> None:
        """Create the template database with the schema that `manage.py up` would give it, once a session."""
        if self.migrated:
            return
        name = self.name(TEMPLATE)
        self._create(name, template="template1")
        cluster = self.stack.cluster
        if cluster is None or self.dumps is None:
            self._migrate()
        else:
            Template(self.dumps, cluster.binaries).fill(cluster.url("superuser", name), self._migrate)
        self.migrated = True

    def _migrate(self) -> None:
        """Raises StackError."""
        command, environment = processes.manage(
            os.environ | self.environment(self.name(TEMPLATE)),
            "migrate",
            "--no-input",
            "--verbosity=0",
            "--skip-checks",
        )
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            raise StackError(f"The migrations failed:\n{result.stdout}{result.stderr}")

    @contextmanager
    def clone(self, database: str | None = None) -> Iterator[str]:
        """A fresh copy of the migrated template; dropped in the end, whoever is still connected."""
        self.ensure_template()
        self.databases += 1
        name = self.name(database or f"{DATABASE}_{self.databases}")
        self._create(name, template=self.name(TEMPLATE))
        try:
            yield name
        finally:
            self._drop(name)

    def empty_redis(self) -> None:
        """Forget cache entries and queued messages, but not the exchange bindings: clients declare those only once."""
        for name in ("REDIS_URL", "BROKER_URL"):
            with redis.Redis.from_url(self.stack.environment[name]) as client:
                keys = [key for key in client.scan_iter(count=1000) if not key.startswith(b"_kombu.binding.")]
                if keys:
                    client.delete(*keys)

    def close(self) -> None:
        if self.stack.cluster is None and self.migrated:
            self._drop(self.name(TEMPLATE))
        stop_all(self.children, self.keeper)
        self.keeper.close()
        shutil.rmtree(self.home.root, ignore_errors=True)

    def _create(self, name: str, *, template: str) -> None:
        owner = urlsplit(self.url("owner", name)).username or ""
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY {}").format(
            sql.Identifier(name), sql.Identifier(owner), sql.Identifier(template), sql.Identifier("file_copy")
        )
        self._administer(statement)

    def _drop(self, name: str) -> None:
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _administer(self, statement: sql.Composed) -> None:
        given = urlsplit(self.stack.environment["DATABASE_URL"]).path.lstrip("/")
        maintenance = "postgres" if self.stack.cluster is not None else given
        try:
            with psycopg.connect(self.url("admin", maintenance), autocommit=True, connect_timeout=5) as connection:
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            raise StackError(f"Tests create databases: DATABASE_OWNER_URL needs CREATEDB ({error}).") from None


def start() -> Servers:
    """Start the servers that the environment does not name, in a folder of their own; do not wait for them."""
    home = Home(Path(tempfile.mkdtemp(prefix="esper-test-", dir=_memory())))
    home.root.chmod(0o755)  # the servers may run under another account
    memory = state.load_or_create(home)
    built = stack.build(home, memory, stack.given_urls(), durable=False)
    keeper = Keeper()
    servers = Servers(home, built, keeper, [], prefix=secrets.token_hex(4))
    for service in built.services:
        with (home.logs / f"{service.program.name}.log").open("wb") as log:
            process = spawn(service.program, account=built.account, keeper=keeper, output=log)
        servers.children.append((process, service.program))
    return servers


def _memory() -> str | None:
    """A folder in memory with room for the databases of several sessions; None, the usual one, where there is none.

    A database is a copy of some 700 files: a disk's file system takes up to twenty times the processor time for them.
    """
    if "TMPDIR" in os.environ or not os.access(MEMORY, os.W_OK | os.X_OK):
        return None
    return MEMORY if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES else None


SERVERS = pytest.StashKey[Servers]()


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Iterator[None]:
    """Before pytest-django loads the settings in the same hook."""
    if not any(getattr(early_config.known_args_namespace, option, False) for option in INFORMATION_OPTIONS):
        try:
            servers = early_config.stash[SERVERS] = start()
        except StackError as error:
            raise pytest.UsageError(str(error)) from None
        os.environ.update(servers.environment(servers.name(DATABASE)))
    return (yield)


def pytest_collection_finish(session: pytest.Session) -> None:
    servers = session.config.stash.get(SERVERS, None)
    if servers is not None and session.items:
        cache = session.config.cache
        servers.dumps = cache.mkdir("esper-template") if cache is not None else None
        try:
            servers.await_answers()
        except StackError as error:
            raise pytest.UsageError(str(error)) from None


def pytest_unconfigure(config: pytest.Config) -> None:
    servers = config.stash.get(SERVERS, None)
    if servers is not None:
        servers.close()
