"""Which services run where, and how to get inside a stack that runs.

A service whose URL the environment gives (DATABASE_URL, REDIS_URL, BROKER_URL) is an outside server: it is checked,
used and left alone. Every other one is started here.
"""

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from esper_site.embedded import outside, ports, postgres, state, valkey
from esper_site.embedded.home import REPOSITORY, Home
from esper_site.embedded.privileges import Account, choose_account
from esper_site.embedded.process import Program

URLS = ("DATABASE_URL", "REDIS_URL", "BROKER_URL")
VALKEYS = {"REDIS_URL": "cache", "BROKER_URL": "broker"}


@dataclass(frozen=True)
class Service:
    """A program, how to see that it answers, and what to do once it does."""

    program: Program
    answers: Callable[[], bool]
    finish: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Stack:
    """Everything needed to start the services, and the environment for whoever uses them."""

    services: tuple[Service, ...]
    environment: dict[str, str]
    account: Account | None
    cluster: postgres.Cluster | None
    notes: tuple[str, ...] = field(default=())


def given_urls() -> dict[str, str]:
    """The URLs of outside servers that the environment names."""
    return {name: os.environ[name] for name in URLS if os.environ.get(name)}


def build(home: Home, memory: state.State, given: Mapping[str, str], *, durable: bool = True) -> Stack:
    """Make data folders and configurations for the services that are not given; start nothing.

    Remembers the chosen ports in `memory` and saves it.

    Raises:
        StackError: an outside server does not answer, a binary or the space is missing, a folder cannot be used.
    """
    outside.check(given)
    postgres_binaries = None if "DATABASE_URL" in given else postgres.find_binaries()
    valkey_binary = None if VALKEYS.keys() <= given.keys() else valkey.find_binary()
    account = choose_account(
        owners=(home.postgres, REPOSITORY),
        needs=[
            path
            for path in (
                REPOSITORY,
                home.root,
                Path(sys.executable),
                Path(os.__file__),
                postgres_binaries,
                valkey_binary,
            )
            if path is not None
        ],
    )
    home.give_to(account)
    environment = _environment(home, memory, account) | dict(given)
    services: list[Service] = []
    notes: list[str] = []
    for name, role in VALKEYS.items():
        if valkey_binary is not None and name not in given:
            port = _port(role, memory, notes)
            server = valkey.Server(role, valkey_binary, home.valkey(role), port, memory.passwords["valkey"], account)
            server.configure()
            services.append(Service(server.program(environment), server.answers))
            environment[name] = server.url
    cluster = None
    if postgres_binaries is not None:
        port = _port("postgres", memory, notes)
        cluster = postgres.Cluster(postgres_binaries, home.postgres, port, memory.passwords, account, durable)
        if cluster.initialise():
            memory.prepared = None
        services.append(Service(cluster.program(environment), cluster.answers, cluster.create_roles_and_database))
        environment |= {"DATABASE_URL": cluster.url("app"), "DATABASE_OWNER_URL": cluster.url("owner")}
    else:
        environment["DATABASE_OWNER_URL"] = os.environ.get("DATABASE_OWNER_URL") or given["DATABASE_URL"]
    memory.save(home)
    return Stack(tuple(services), environment, account, cluster, tuple(notes))


def _environment(home: Home, memory: state.State, account: Account | None) -> dict[str, str]:
    """Our own environment for children, without what belongs to root alone."""
    environment = dict(os.environ)
    environment["ESPER_HOME"] = str(home.root)
    environment["ESPER_SECRET_KEY"] = os.environ.get("ESPER_SECRET_KEY") or memory.secret_key
    if account is not None:
        environment |= {"HOME": str(home.root / "home"), "USER": account.name, "LOGNAME": account.name}
    return environment


def _port(name: str, memory: state.State, notes: list[str]) -> int:
    """The service's port, and a note where the remembered one was taken."""
    remembered = memory.ports.get(name)
    port = ports.private_port(remembered, avoid=memory.ports.values())
    if remembered is not None and port != remembered:
        notes.append(f"port {remembered} is taken by another program: {name} now listens on {port}")
    memory.ports[name] = port
    return port


def environment() -> dict[str, str]:
    """The environment of the stack that runs in this home, for a process that wants to use it; {} if none runs.

    Also {} where the environment already names any server: a person's own URLs are never mixed with ours.

    Raises:
        StackError: a stack runs, but its state cannot be read.
    """
    if given_urls():
        return {}
    alive = state.running(Home.from_environment())
    return dict(alive.environment) if alive else {}


def exec_inside(argv: Sequence[str]) -> None:
    """Return if a stack is at hand; else replace this process by `manage.py up --run` with the same command in it.

    With all three URLs in the environment the stack is taken to be at hand: its workers are then the caller's business
    (another machine's, say), and a command that waits for them has to say so when none answers.

    Args:
        argv: the management command with its arguments, such as `["grow", "--task", "digits"]`.
    """
    if given_urls().keys() == set(URLS) or environment():
        return
    manage = str(REPOSITORY / "manage.py")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, manage, "up", "--run", shlex.join(argv)])  # noqa: S606
