"""`manage.py bench <area>`: what the project claims, measured. Areas are the modules of ``benchmarks``."""

import json
from argparse import ArgumentParser
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from django.core.management.base import BaseCommand, CommandError

import benchmarks

HELPERS = {
    *("audit_rows", "audit_writers", "database", "search_rows", "targets", "web_site"),
    *("cache_faults", "cache_kill_roles", "cache_kills", "cache_l1", "cache_policies", "cache_site", "cache_tiers"),
    *("cache_replay", "cache_traces", "cache_workload"),
}


def areas() -> list[str]:
    """Every area that can be measured, by name."""
    return sorted(module.name for module in iter_modules(benchmarks.__path__) if module.name not in HELPERS)


class Command(BaseCommand):
    help = f"Measure one area: {', '.join(areas())}."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("area", help=f"one of: {', '.join(areas())}")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
        parser.add_argument("--quick", action="store_true", help="fewer cases, for a look")

    def handle(self, *args: Any, area: str, json: bool, quick: bool, **options: Any) -> None:
        if area not in areas():
            raise CommandError(f"there is no area {area!r}; areas: {', '.join(areas())}")
        module = import_module(f"benchmarks.{area}")
        result = module.run(quick=quick, say=self.stderr.write)
        self._print(module.table(result), result, json)

    def _print(self, table: str, result: dict[str, Any], as_json: bool) -> None:
        (self.stderr if as_json else self.stdout).write(table)
        if as_json:
            self.stdout.write(json.dumps(result))
