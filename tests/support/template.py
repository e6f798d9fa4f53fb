"""The migrated database that all databases of tests are copies of: made by the migrations once, then kept as a dump.

Migrating takes some twelve processor seconds, loading the dump one. A dump serves as long as the migrations, what they
import, the packages and the day are the same (some migrations make partitions from today on).
"""

import ast
import fcntl
import hashlib
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from esper_site.embedded.errors import StackError

ROOT = Path(__file__).parents[2]
SECONDS = 120.0


class Template:
    """``folder`` keeps the dumps, ``binaries`` are PostgreSQL's programs."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder = folder
        self._binaries = binaries

    def fill(self, url: str, migrate: Callable[[], None]) -> None:
        """Give the empty database at ``url`` (a superuser's) the schema: of the dump, or else by ``migrate``.

        Raises:
            StackError: the dump can be neither written nor loaded. What ``migrate`` raises.
        """
        if not all((self._binaries / program).exists() for program in ("pg_dump", "psql")):
            migrate()
            return
        dump = self._folder / f"{key()}.sql"
        with self._alone():
            if not dump.exists():
                migrate()
                self._keep(url, dump)
                return
        self._run("psql", "--quiet", "--no-psqlrc", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-f", dump, url)

    def _keep(self, url: str, dump: Path) -> None:
        for old in self._folder.glob("*.sql*"):
            old.unlink()
        draft = dump.with_suffix(".sql.new")
        self._run("pg_dump", "--no-sync", "-f", draft, url)
        draft.rename(dump)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
        if result.returncode != 0:
            raise StackError(f"{program} failed on the template of the tests: {result.stderr.strip()[-2000:]}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of sessions that begin together, one migrates and the others load what it has kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def key() -> str:
    """Names the schema: a digest of all that it is made from."""
    found = hashlib.sha256(f"{datetime.now(UTC):%Y-%m-%d}".encode())
    for path in sorted(_sources()):
        found.update(str(path.relative_to(ROOT)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()[:32]


def _sources() -> set[Path]:
    """Migrations with the modules of ours that they import, models (Django makes rows of them), and packages."""
    migrations = set(ROOT.glob("apps/*/migrations/*.py"))
    models = set(ROOT.glob("apps/*/models.py")) | set(ROOT.glob("apps/*/apps.py"))
    imported = {path for migration in migrations for path in _imports(migration)}
    return migrations | models | imported | {ROOT / "constraints.txt", ROOT / "esper_site/settings/base.py"}


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [f"{node.module}.{name.name}" for name in node.names] if isinstance(node, ast.ImportFrom) else []
        names += [name.name for name in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("apps."):
                yield from _files(name)


def _files(name: str) -> Iterator[Path]:
    """The module of that name, or the one that it is a part of."""
    path = ROOT / name.replace(".", "/")
    for candidate in (path.with_suffix(".py"), path / "__init__.py", path.parent.with_suffix(".py")):
        if candidate.exists():
            yield candidate
