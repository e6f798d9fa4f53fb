"""Who may import whom: the import-linter contracts of pyproject.toml hold, and each would notice an offender."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
OFFENDERS = {
    "apps/core/planted.py": ("import apps.kernels.models\n", "Layers: an app imports only downward"),
    "apps/morphogenesis/planted.py": ("import django.db\n", "The engine is a library"),
    "apps/dashboards/planted.py": ("def later():\n    import torch\n    return torch\n", "torch only in the engine"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to plant offenders in."""
    folder = tmp_path_factory.mktemp("layers")
    for package in ("apps", "esper_site"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


def test_the_contracts_hold_and_an_offender_of_each_is_found(copy: Path) -> None:
    clean = lint(copy)
    for name, (text, _) in OFFENDERS.items():
        (copy / name).write_text(text)
    planted = lint(copy)

    assert clean.returncode == 0, clean.stdout
    assert planted.returncode == 1
    broken = [line for line in planted.stdout.splitlines() if " BROKEN" in line]
    assert len(broken) == len(OFFENDERS), planted.stdout
    for _, contract in OFFENDERS.values():
        assert any(line.startswith(contract) for line in broken), planted.stdout
