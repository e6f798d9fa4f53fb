"""Cloned by root where nobody else may look: the unprivileged processes, and the sandbox in them, still work there."""

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from esper_site.embedded.home import REPOSITORY
from esper_site.embedded.privileges import choose_account, drop

COMPILE = """
import os
from apps.blueprints.starter import starter_library
from apps.kernels import compiler
assert os.getuid() != 0
outcome = compiler.compile(starter_library()["residual_mlp"].spec)
assert outcome.artefact, outcome.reason
"""


@pytest.mark.root
def test_the_sandbox_works_for_the_account_that_root_drops_to(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for name in ("apps", "esper_site"):
        shutil.copytree(REPOSITORY / name, closed / name, ignore=shutil.ignore_patterns("__pycache__"))
    account = choose_account(owners=(), needs=(closed,))
    assert account is not None
    assert account.reads_everything
    result = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=closed,
        env={"PATH": "/usr/bin:/bin", "HOME": "/"},
        preexec_fn=partial(drop, account),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
