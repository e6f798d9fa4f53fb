"""The web process never imports torch: it costs 190 MiB and two CPU-seconds a process."""

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "esper_site.settings.test"
import esper_site.wsgi
from django.urls import URLResolver, get_resolver
for name in sys.argv[1:]:
    importlib.import_module(name)
def count(resolver):
    return sum(count(p) if isinstance(p, URLResolver) else 1 for p in resolver.url_patterns)
assert count(get_resolver()) > 60
heavy = sorted({"torch", "sklearn", "scipy"} & set(sys.modules))
print(" ".join(heavy))
sys.exit(bool(heavy))
"""


def resolve_everything(*modules: str) -> subprocess.CompletedProcess[str]:
    """The exit status and output of a fresh process that has set the site up and resolved all its addresses."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *modules], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_process_that_has_resolved_every_address_holds_no_torch() -> None:
    result = resolve_everything()

    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr


@pytest.mark.parametrize("module", ["torch", "apps.morphogenesis.operators"])
def test_an_import_of_torch_would_be_found(module: str) -> None:
    result = resolve_everything(module)

    assert result.returncode == 1, result.stderr
    assert "torch" in result.stdout.split()
