"""One run of the stack, in order: services, database, processes; then wait, or run one command inside."""

import compileall
import hashlib
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from esper_site.embedded import ports, processes, stack, state
from esper_site.embedded.console import Console
from esper_site.embedded.errors import StackError
from esper_site.embedded.home import REPOSITORY, Home
from esper_site.embedded.privileges import Account, child_setup
from esper_site.embedded.process import Keeper, Program, spawn
from esper_site.embedded.supervisor import TICK, Supervisor

SERVICES_SECONDS = 60.0
PROCESSES_SECONDS = 90.0
FOREGROUND_PATIENCE = 20.0
# What a command needs to attach to the running stack; the rest of our environment is nobody else's business.
ATTACH = ("ESPER_HOME", "ESPER_SECRET_KEY", "ESPER_WEB_PORT", "DATABASE_OWNER_URL", *stack.URLS)


class Session:
    """Starts what one `up` was asked for, and stops all of it at the end, whatever the end is."""

    def __init__(
        self, home: Home, lock: state.Lock, console: Console, *, only: Sequence[str], web_port: int | None
    ) -> None:
        self._started = time.monotonic()
        self._home, self._console, self._only = home, console, only
        self._memory = state.load_or_create(home)
        self._memory.running = None
        self._stack = stack.build(home, self._memory, stack.given_urls())
        home.forget_counts()
        self._environment = {**self._stack.environment, "ESPER_METRICS_DIR": str(home.metrics)}
        self._web_port: int | None = None
        if "web" in only:
            self._web_port = ports.web_port(web_port, self._memory.ports.get("web"))
            self._memory.ports["web"] = self._web_port
            self._environment["ESPER_WEB_PORT"] = str(self._web_port)
        self._lock = lock

    @property
    def url(self) -> str | None:
        return f"http://127.0.0.1:{self._web_port}/" if self._web_port else None

    def run(self, foreground: list[str] | None) -> int:
        """Start everything and stay; returns the exit code.

        Raises:
            StopAsked: a signal arrived (everything is stopped by then).
            StackError: something could not start or kept dying.
        """
        for note in (*self._stack.notes, *_account_notes(self._stack.account)):
            self._console.say(note)
        if self._stack.account is not None:
            _compile_sources()
        keeper = Keeper(inherit=[self._lock.descriptor])
        try:
            with Supervisor(
                account=self._stack.account, keeper=keeper, console=self._console, logs=self._home.logs
            ) as supervisor:
                self._start_services(supervisor)
                self._prepare_database(supervisor, keeper)
                self._publish()
                self._start_processes(supervisor)
                if foreground is not None:
                    return self._run_inside(supervisor, foreground)
                self._say_ready()
                supervisor.run()
        finally:
            keeper.close()
            self._memory.running = None
            self._memory.save(self._home)
        return 0

    def _start_services(self, supervisor: Supervisor) -> None:
        services = self._stack.services
        names = [service.program.name for service in services]
        self._console.say(f"starting {', '.join(names)}" if names else "using the servers given by the environment")
        for service in services:
            supervisor.start(service.program)
        for service in services:
            supervisor.wait_for(service.answers, seconds=SERVICES_SECONDS, what=service.program.name)
            service.finish()

    def _prepare_database(self, supervisor: Supervisor, keeper: Keeper) -> None:
        """Migrate, and make the first administrator; skipped where our own database has seen these migrations."""
        # Also once a month: the audit trail needs a partition for each.
        fingerprint = f"{migrations_fingerprint()} {datetime.now(UTC):%Y-%m}"
        if self._stack.cluster is not None and self._memory.prepared == fingerprint:
            return
        self._console.say("preparing the database")
        output = self._setup_command(supervisor, keeper, "migrate", "--no-input")
        (self._home.logs / "setup.log").write_text(output)
        # Shown and not logged: the first time it names a generated password.
        for line in self._setup_command(supervisor, keeper, "bootstrap").splitlines():
            self._console.say(line)
        self._memory.prepared = fingerprint

    def _setup_command(self, supervisor: Supervisor, keeper: Keeper, *arguments: str) -> str:
        """Run a manage.py command to its end while the services are watched; returns its output."""
        command, environment = processes.manage(self._environment, *arguments)
        program = Program(name="setup", command=command, environment=environment, folder=REPOSITORY)
        with tempfile.TemporaryFile() as output:
            process = spawn(program, account=self._stack.account, keeper=keeper, output=output)
            try:
                supervisor.run(until=lambda: process.poll() is not None)
            finally:
                process.kill()
                process.wait()
                keeper.remove(process.pid)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if process.returncode != 0:
            raise StackError(f"manage.py {' '.join(arguments)} failed:\n{text.rstrip()}")
        return text

    def _publish(self) -> None:
        """Tell others how to attach."""
        environment = {name: self._environment[name] for name in ATTACH if name in self._environment}
        self._memory.running = state.Running(pid=os.getpid(), environment=environment, url=self.url)
        self._memory.save(self._home)

    def _start_processes(self, supervisor: Supervisor) -> None:
        workers = [name for name in self._only if name in processes.WORKERS]
        if self._web_port is not None:
            supervisor.start(processes.web(self._environment, self._web_port))
        for name in workers:
            supervisor.start(processes.worker(name, self._environment))
        if "beat" in self._only:
            supervisor.start(processes.beat(self._environment))
        if self._only:
            self._console.say(f"starting {', '.join(self._only)}")
        supervisor.wait_for(
            lambda: supervisor.ready(workers), seconds=PROCESSES_SECONDS, what=f"A worker ({', '.join(workers)})"
        )
        port = self._web_port
        if port is not None:
            supervisor.wait_for(lambda: _web_answers(port), seconds=PROCESSES_SECONDS, what=f"{self.url}healthz")

    def _say_ready(self) -> None:
        place = f" at {self.url}" if self.url else " (without a web process)"
        took = time.monotonic() - self._started
        self._console.say(f"ready{place} after {took:.1f} s; Ctrl-C stops everything")

    def _run_inside(self, supervisor: Supervisor, foreground: list[str]) -> int:
        """Run the command with our own terminal; it also gets the Ctrl-C that the terminal sends to us both."""
        command, environment = processes.manage(self._environment, *foreground)
        process = subprocess.Popen(command, env=environment, preexec_fn=child_setup(None, signal.SIGTERM))  # noqa: PLW1509
        kill_at: float | None = None
        try:
            while process.poll() is None:
                for number in supervisor.pump(TICK):
                    if number != signal.SIGINT or not sys.stdin.isatty():
                        process.send_signal(number)
                    kill_at = kill_at or time.monotonic() + FOREGROUND_PATIENCE
                if kill_at is not None and time.monotonic() > kill_at:
                    process.kill()
        finally:
            process.kill()
            process.wait()
        return process.returncode if process.returncode >= 0 else 128 - process.returncode


def migrations_fingerprint() -> str:
    """Changes whenever a migration or the version of a dependency does."""
    digest = hashlib.sha256()
    for path in (*sorted(REPOSITORY.glob("apps/*/migrations/*.py")), REPOSITORY / "constraints.txt"):
        digest.update(str(path.relative_to(REPOSITORY)).encode() + b"\0")
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()


def _account_notes(account: Account | None) -> list[str]:
    if account is None:
        return []
    note = f"started by root: all processes run as '{account.name}'"
    if account.reads_everything:
        note += ", with leave to read everything, as the checkout or its Python is closed to other users"
    return [note]


def _compile_sources() -> None:
    """Compile our modules once as root: the unprivileged processes may not write `__pycache__` into the checkout."""
    for folder in ("apps", "esper_site"):
        compileall.compile_dir(REPOSITORY / folder, quiet=2)


def _web_answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
