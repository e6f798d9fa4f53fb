"""A PostgreSQL of the bench's own: durable as in production (fsync on), migrated, thrown away in the end."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
from django.conf import settings
from django.db import connection, connections
from django.test.utils import override_settings

from esper_site.embedded import ports, postgres, processes, state
from esper_site.embedded.home import REPOSITORY, Home
from esper_site.embedded.privileges import choose_account
from esper_site.embedded.process import Keeper, spawn, stop_all, wait_for

START_SECONDS = 60.0


@contextmanager
def own_database(say: Callable[[str], Any]) -> Iterator[postgres.Cluster]:
    """Point Django, and every process started from here, at a fresh migrated database; afterwards back again.

    Raises:
        StackError: PostgreSQL cannot be found or started.
    """
    home = Home(Path(tempfile.mkdtemp(prefix="esper-bench-")))
    home.root.chmod(0o755)  # the server may run under another account
    memory = state.load_or_create(home)
    binaries = postgres.find_binaries()
    account = choose_account(owners=(home.postgres, REPOSITORY), needs=[home.root, binaries])
    home.give_to(account)
    cluster = postgres.Cluster(binaries, home.postgres, ports.private_port(None, avoid=()), memory.passwords, account)
    keeper = Keeper()
    children = []
    before = dict(os.environ), dict(connections.settings["default"])
    try:
        say("starting a PostgreSQL of the bench's own ...")
        cluster.initialise()
        program = cluster.program(dict(os.environ))
        with (home.logs / "postgres.log").open("wb") as log:
            children.append((spawn(program, account=account, keeper=keeper, output=log), program))
        wait_for(cluster.answers, seconds=START_SECONDS, interval=0.05)
        cluster.create_roles_and_database()
        _use(cluster, home)
        command, environment = processes.manage(os.environ, "migrate", "--no-input", "--verbosity=0", "--skip-checks")
        subprocess.run(command, env=environment, check=True)
        with override_settings(ESPER_HOME=home.root, STORAGES=_storages(home)):
            yield cluster
    finally:
        connections.close_all()
        stop_all(children, keeper)
        keeper.close()
        os.environ.clear()
        os.environ.update(before[0])
        connections.settings["default"].update(before[1])
        shutil.rmtree(home.root, ignore_errors=True)


def _use(cluster: postgres.Cluster, home: Home) -> None:
    os.environ |= {
        "DATABASE_URL": cluster.url("app"),
        "DATABASE_OWNER_URL": cluster.url("owner"),
        "ESPER_HOME": str(home.root),
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "BROKER_URL": "redis://127.0.0.1:1/0",
    }
    connections.close_all()
    connections.settings["default"].update(
        NAME=postgres.DATABASE,
        USER=postgres.APP,
        PASSWORD=cluster.passwords["app"],
        HOST="127.0.0.1",
        PORT=cluster.port,
    )


def _storages(home: Home) -> dict[str, Any]:
    """Files beside the database, where processes started from here look for them too."""
    files = {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {"location": str(home.root / "objects")},
    }
    return {**settings.STORAGES, "default": files, "checkpoints": files}


def pages_read(ask: Callable[[], Any]) -> int:
    """The disk pages (shared hit + read) that all queries of ``ask`` touch, each planned as ``ask`` has it planned."""
    total = 0

    def explain(execute: Any, statement: str, values: Any, many: bool, context: Any) -> Any:
        nonlocal total
        if statement.lstrip().startswith(("SELECT", "WITH")):
            execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values, many, context)
            answer = context["cursor"].fetchone()[0]
            plan = (orjson.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
            total += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        return execute(statement, values, many, context)

    connection.ensure_connection()  # it asks for types of its own
    with connection.execute_wrapper(explain):
        ask()
    return total
