"""`manage.py up` and the services under it: starting twice, ports, roles, eviction policies, outside servers."""

import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from esper_site.embedded import stack
from tests.support.stack import Servers
from tests.support.up import FOREIGN, Up, copy_home, manage


@pytest.fixture(scope="module")
def running(prepared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Services only, shared by the tests that look and do not touch."""
    with Up(copy_home(prepared_home, tmp_path_factory.mktemp("running")), "--only", "none") as up:
        yield up.wait_until_ready()


@pytest.fixture
def attached(running: Up, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a command in this home finds out about the running stack."""
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ESPER_HOME", str(running.home))
    return stack.environment()


def test_a_second_up_says_that_one_is_running_and_succeeds(running: Up) -> None:
    second = manage(running.home, "up")
    assert second.returncode == 0
    assert "already running" in second.stdout


def test_a_command_attaches_to_the_running_stack_by_itself(running: Up) -> None:
    shown = manage(running.home, "showmigrations", "accounts")
    assert shown.returncode == 0, shown.stderr
    assert "[X] 0001_initial" in shown.stdout


def test_up_run_joins_the_running_stack_and_returns_the_exit_code(running: Up) -> None:
    assert manage(running.home, "up", "--run", "check").returncode == 0
    assert manage(running.home, "up", "--run", "no-such-command").returncode == 1
    assert running.process.poll() is None


def test_urls_of_ones_own_are_never_mixed_with_the_running_stack(
    attached: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attached.keys() >= {"DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "BROKER_URL", "ESPER_SECRET_KEY"}
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/esper")
    assert stack.environment() == {}


def test_nobody_else_can_read_the_secrets(running: Up, attached: dict[str, str]) -> None:
    assert stat.S_IMODE((running.home / "stack.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((running.home / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((running.home / "valkey-broker" / "valkey.conf").stat().st_mode) == 0o600
    commands = " ".join(running.survivors().values())
    logs = "".join(path.read_text(errors="replace") for path in (running.home / "logs").iterdir())
    for password in running.state.passwords.values():
        assert password not in commands + logs + running.output


def test_servers_listen_on_loopback_and_not_on_the_usual_ports(attached: dict[str, str], running: Up) -> None:
    assert not {5432, 6379} & set(running.state.ports.values())
    with psycopg.connect(attached["DATABASE_URL"]) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW fsync").fetchone() == ("on",)


@pytest.mark.parametrize("database", ["esper", "postgres"])
def test_a_wrong_password_is_refused(attached: dict[str, str], database: str) -> None:
    url = re.sub(r":[^:@/]+@", ":wrong@", attached["DATABASE_URL"]).rpartition("/")[0] + f"/{database}"
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "DROP TABLE accounts_user",
        "ALTER TABLE accounts_user ADD COLUMN more int",
        "TRUNCATE accounts_user",
        "ALTER TABLE accounts_user DISABLE TRIGGER ALL",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "SET ROLE esper_owner",
    ],
)
def test_the_application_role_may_not(attached: dict[str, str], statement: str) -> None:
    with (
        psycopg.connect(attached["DATABASE_URL"], autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_the_owner_owns_every_table_and_is_no_superuser(attached: dict[str, str]) -> None:
    with psycopg.connect(attached["DATABASE_OWNER_URL"]) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
        roles = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname ~ '^esper' AND (rolsuper OR rolcreatedb OR rolcreaterole)"
        ).fetchall()
    assert owners == [("esper_owner",)]
    assert roles == []


def test_the_extensions_are_there_for_the_application(attached: dict[str, str]) -> None:
    with psycopg.connect(attached["DATABASE_URL"]) as connection:
        names = {row[0] for row in connection.execute("SELECT extname FROM pg_extension")}
    assert names >= {"pg_trgm", "btree_gin"}


@pytest.mark.parametrize(
    ("variable", "policy", "appendonly"),
    [("REDIS_URL", "allkeys-lru", "no"), ("BROKER_URL", "noeviction", "yes")],
)
def test_the_cache_evicts_and_the_broker_does_not(
    attached: dict[str, str], variable: str, policy: str, appendonly: str
) -> None:
    with redis.Redis.from_url(attached[variable], decode_responses=True) as client:
        settings = client.config_get("maxmemory*", "appendonly")
    assert settings["maxmemory-policy"] == policy
    assert settings["appendonly"] == appendonly
    assert int(settings["maxmemory"]) > 0


def test_a_restart_keeps_ports_and_data_and_moves_off_a_taken_port(home: Path) -> None:
    with Up(home, "--only", "none") as first:
        first.wait_until_ready()
        ports = first.state.ports
        broker = redis.Redis.from_url(first.state.running.environment["BROKER_URL"])  # type: ignore[union-attr]
        broker.lpush("queue", "task")
        assert first.interrupt() == 0
    with socket.create_server(("127.0.0.1", ports["postgres"])), Up(home, "--only", "none") as second:
        second.wait_until_ready()
        assert f"port {ports['postgres']} is taken by another program: postgres now listens on" in second.output
        assert second.state.ports["postgres"] != ports["postgres"]
        assert second.state.ports["broker"] == ports["broker"]
        assert "preparing the database" not in second.output
        broker = redis.Redis.from_url(second.state.running.environment["BROKER_URL"])  # type: ignore[union-attr]
        assert broker.lrange("queue", 0, -1) == [b"task"]


def test_up_run_brings_its_own_stack_and_leaves_nothing_behind(tmp_path: Path) -> None:
    up = Up(tmp_path / "home", "--only", "none", "--run", "showmigrations accounts")
    assert up.process.wait(timeout=60) == 0, up.output
    assert "[X] 0001_initial" in up.output
    assert up.survivors() == {}


def test_servers_of_ones_own_are_used_and_left_alone(tmp_path: Path, servers: Servers) -> None:
    with servers.clone() as database:
        given = servers.environment(database)
        urls = {name: given[name] for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL", "BROKER_URL")}
        done = manage(tmp_path / "home", "up", "--only", "none", "--run", "check --database default", **urls)
        assert done.returncode == 0, done.stderr
        assert "using the servers given by the environment" in done.stderr
        assert not (tmp_path / "home" / "postgres").exists()
        with psycopg.connect(given["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize(
    ("variable", "url", "expected"),
    [
        ("DATABASE_URL", "postgresql://esper:secret@127.0.0.1:1/esper", "PostgreSQL at 127.0.0.1:1 does not answer"),
        ("REDIS_URL", "redis://:secret@127.0.0.1:1/0", "Valkey at 127.0.0.1:1 does not answer"),
        ("BROKER_URL", "http://127.0.0.1", "has to begin with redis://"),
        ("DATABASE_URL", "sqlite:///file.db", "has to begin with postgresql://"),
        ("ESPER_POSTGRES_BIN", "/nowhere", "ESPER_POSTGRES_BIN=/nowhere has no initdb and postgres in it"),
        ("ESPER_VALKEY_SERVER", "/nowhere", "ESPER_VALKEY_SERVER=/nowhere is not a program"),
    ],
)
def test_what_cannot_work_is_said_at_once_and_plainly(tmp_path: Path, variable: str, url: str, expected: str) -> None:
    result = manage(tmp_path / "home", "up", "--only", "none", timeout=15, **{variable: url})
    assert result.returncode == 1
    assert expected in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "secret" not in result.stdout


def test_a_taken_web_port_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = manage(tmp_path / "home", "up", "--web-port", str(port))
    assert result.returncode == 1
    assert f"Port {port} is taken by another program" in result.stdout


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text("{")
    result = manage(tmp_path, "up", "--only", "none")
    assert result.returncode == 1
    assert f"{tmp_path / 'stack.json'} is damaged" in result.stdout


def test_data_of_another_major_version_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")
    result = manage(tmp_path, "up", "--only", "none")
    assert result.returncode == 1
    assert "was made by PostgreSQL 9" in result.stdout


def test_unknown_processes_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    result = manage(tmp_path, "up", "--only", "web,nonsense")
    assert result.returncode == 2
    assert "unknown: nonsense. Known: web, default, train, compile, beat" in result.stderr


def test_exec_inside_becomes_up_run_where_no_stack_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ESPER_HOME", str(tmp_path))
    monkeypatch.setattr(os, "execv", lambda program, argv: calls.append(argv))
    stack.exec_inside(["grow", "--task", "digits and more"])
    assert calls[0][-3:] == ["up", "--run", "grow --task 'digits and more'"]


def test_exec_inside_stays_where_all_servers_are_given(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, argv: calls.append(argv))
    stack.exec_inside(["grow"])
    assert calls == []


def test_the_state_file_is_json_that_a_person_can_read(running: Up) -> None:
    content = json.loads((running.home / "stack.json").read_text())
    assert content["running"]["pid"] == running.process.pid
