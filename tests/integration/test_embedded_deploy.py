"""`deploy/` says the same as the code: the processes of the units, and the rights of `roles.sql`."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from esper_site.embedded import ports, postgres, processes
from esper_site.embedded.home import REPOSITORY, hand_over
from esper_site.embedded.privileges import choose_account
from esper_site.embedded.process import Keeper, spawn, stop_all, wait_for

UNITS = REPOSITORY / "deploy" / "systemd"


def unit_arguments(unit: str, **values: str) -> list[str]:
    """The arguments of a unit's ExecStart, after the interpreter, with its variables filled in."""
    line = next(line for line in (UNITS / unit).read_text().splitlines() if line.startswith("ExecStart="))
    for name, value in values.items():
        line = line.replace(name, value)
    return line.split()[1:]


def test_the_web_unit_runs_what_up_runs() -> None:
    own = list(processes.web({}, 8000).command[1:])
    own[own.index("--workers") + 1] = "2"  # a server has cores to spare
    assert unit_arguments("esper-web.service") == own


def test_the_beat_unit_runs_what_up_runs() -> None:
    assert unit_arguments("esper-beat.service") == list(processes.beat({}).command[1:])


@pytest.mark.parametrize("queue", processes.WORKERS)
def test_the_worker_unit_runs_what_up_runs(queue: str) -> None:
    settings = (UNITS / "esper-worker@.service").read_text()
    override = UNITS / f"esper-worker@{queue}.service.d" / "pool.conf"
    if override.exists():
        settings = override.read_text()
    line = next(line for line in settings.splitlines() if line.startswith("Environment="))
    values = dict(pair.split("=") for pair in line.removeprefix("Environment=").split())
    arguments = unit_arguments(
        "esper-worker@.service",
        **{"%i": queue, "%H": "host", "${ESPER_POOL}": values["ESPER_POOL"]},
        **{"${ESPER_CONCURRENCY}": values["ESPER_CONCURRENCY"]},
    )
    assert sorted(arguments) == sorted(processes.worker(queue, {}, host="host").command[1:])


@pytest.fixture
def bare_cluster(tmp_path: Path) -> Iterator[postgres.Cluster]:
    """A PostgreSQL server with nothing in it."""
    account = choose_account(owners=(), needs=(tmp_path, REPOSITORY))
    hand_over(tmp_path, account)
    passwords = {"superuser": "one", "owner": "two", "app": "three"}
    cluster = postgres.Cluster(
        postgres.find_binaries(),
        tmp_path / "data",
        ports.private_port(None),
        passwords,
        account,
        durable=False,
    )
    cluster.initialise()
    keeper = Keeper()
    program = cluster.program(dict(os.environ))
    with (tmp_path / "log").open("wb") as log:
        process = spawn(program, account=account, keeper=keeper, output=log)
    assert wait_for(cluster.answers, seconds=20)
    yield cluster
    stop_all([(process, program)], keeper)
    keeper.close()


def rights(cluster: postgres.Cluster) -> list[tuple[object, ...]]:
    """Roles, owners and access lists that decide what each role may do."""
    queries = (
        "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname ~ '^esper' ORDER BY 1",
        "SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'public'",
        "SELECT defaclrole::regrole::text, defaclobjtype::text, defaclacl::text FROM pg_default_acl ORDER BY 2",
        "SELECT datname, datdba::regrole::text FROM pg_database WHERE datname = 'esper'",
        "SELECT extname FROM pg_extension ORDER BY 1",
    )
    with cluster.connect("esper") as connection:
        return [row for query in queries for row in connection.execute(query.encode())]


def test_the_sql_for_an_outside_server_gives_the_same_rights_as_the_embedded_one(
    bare_cluster: postgres.Cluster,
) -> None:
    psql = subprocess.run(
        [
            *(bare_cluster.binaries / "psql", "-X", "-q", "-d", bare_cluster.url("superuser", "postgres")),
            *("-v", "owner_password=two", "-v", "app_password=three", "-f", REPOSITORY / "deploy" / "roles.sql"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert psql.returncode == 0, psql.stderr
    by_hand = rights(bare_cluster)
    with bare_cluster.connect("postgres") as connection:
        connection.execute("DROP DATABASE esper")
    bare_cluster.create_roles_and_database()
    assert by_hand == rights(bare_cluster)
    with psycopg.connect(bare_cluster.url("app")) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("CREATE TABLE mine (a int)")
