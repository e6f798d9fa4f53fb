"""`manage.py bench <area>`: what the project claims, measured. Areas are the modules of ``benchmarks``."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from importlib import import_module
from itertools import islice
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from django.core.management.base import BaseCommand, CommandError

import benchmarks

HELPERS = {"database", "targets", "web_site"}
"""Modules that several areas use; those that one area uses are named after it: ``cache_traces``."""
OPTIONS = {
    "cache": ("trace", "capacity", "policy", "hits", "seeds"),
    "checkpoints": ("megabytes",),
    "anomalies": ("corpus",),
}
"""Those that only one area has."""
MOST_SEEDS = 100


def seeds(text: str) -> list[int]:
    """``1001-1005`` or ``1,2,7``. Raises ArgumentTypeError."""
    first, dash, last = text.partition("-")
    try:
        found = (
            list(islice(range(int(first), int(last) + 1), MOST_SEEDS + 1)) if dash else list(map(int, text.split(",")))
        )
    except ValueError:
        found = []
    if not 0 < len(found) <= MOST_SEEDS or len(set(found)) < len(found) or min(found) < 0:
        raise ArgumentTypeError(f"{text!r} is no range like 1001-1005 and no list like 1,2,7, of at most {MOST_SEEDS}")
    return found


def areas() -> list[str]:
    """Every area that can be measured, by name."""
    names = {module.name for module in iter_modules(benchmarks.__path__)} - HELPERS
    return sorted(name for name in names if name.partition("_")[0] not in names - {name})


def _module(area: str) -> ModuleType:
    """Raises CommandError: a package that the area is compared with is missing."""
    try:
        return import_module(f"benchmarks.{area}")
    except ModuleNotFoundError as error:
        raise CommandError(f"the area {area} needs {error.name}: install the extra 'bench' of this project") from error


class Command(BaseCommand):
    help = f"Measure one area: {', '.join(areas())}."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("area", help=f"one of: {', '.join(areas())}")
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")
        parser.add_argument("--quick", action="store_true", help="fewer cases, for a look")
        parser.add_argument(
            "--trace",
            type=Path,
            help="cache: only replay this CSV (i,op,key,size,worker); one cache serves all its workers",
        )
        parser.add_argument("--capacity", type=int, help="cache: bytes of the cache that --trace is replayed over")
        parser.add_argument("--policy", help="cache: of --trace (default: each)")
        parser.add_argument(
            "--hits",
            type=Path,
            help="cache: write 0 or 1 a line for each GET of --trace, in order, by --policy (default: the shipped one)",
        )
        parser.add_argument(
            "--seeds", type=seeds, help="cache: of the traces that policies are compared on: 1001-1005, or 1,2,7"
        )
        parser.add_argument(
            "--megabytes", type=float, help="checkpoints: of the float32 state, at least 1 (default: 130)"
        )
        parser.add_argument(
            "--corpus", type=Path, help="anomalies: a folder in the layout of the Numenta Anomaly Benchmark (NAB)"
        )

    def handle(self, *args: Any, area: str, json: bool, quick: bool, **options: Any) -> None:
        if area not in areas():
            raise CommandError(f"there is no area {area!r}; areas: {', '.join(areas())}")
        for other, names in OPTIONS.items():
            if given := [name for name in names if options[name] is not None and area != other]:
                raise CommandError(f"--{given[0]} is for the area {other}")
        if options["megabytes"] is not None and not options["megabytes"] >= 1:
            raise CommandError("--megabytes must be at least 1")
        if options["trace"]:
            self._replay(json, **options)
            return
        if given := [name for name in ("capacity", "policy", "hits") if options[name] is not None]:
            raise CommandError(f"--{given[0]} needs --trace")
        module = _module(area)
        chosen = {name: options[name] for name in ("seeds", "megabytes", "corpus") if options[name]}
        result = module.run(quick=quick, say=self.stderr.write, **chosen)
        self._print(module.table(result), result, json)

    def _replay(
        self,
        as_json: bool,
        *,
        trace: Path,
        capacity: int | None,
        policy: str | None,
        hits: Path | None,
        **options: Any,
    ) -> None:
        """Hit ratios of one policy or of each; ``hits`` are of the one, by default the shipped one."""
        if capacity is None or capacity <= 0:
            raise CommandError("--trace needs --capacity, above 0")
        traces = import_module("benchmarks.cache_traces")
        try:
            policies, requests = traces.chosen(policy), traces.read(trace)
            found = {name: traces.replay(requests, capacity=capacity, policy=name) for name in policies}
            if hits:
                hits.write_text("".join(f"{hit:d}\n" for hit in found[policies[0]].hits))
        except (traces.BadTrace, OSError) as error:
            raise CommandError(str(error)) from error
        ratios = {name: outcome.ratios() for name, outcome in found.items()}
        rows = [
            f"{name:<12}{row['objects']:.4f} of reads, {row['bytes']:.4f} of bytes, {row['latency']:.4f} of their time"
            for name, row in ratios.items()
        ]
        self._print("\n".join(rows) + "\n", {"bench": "cache", "hit_ratios": ratios}, as_json)

    def _print(self, table: str, result: dict[str, Any], as_json: bool) -> None:
        (self.stderr if as_json else self.stdout).write(table)
        if as_json:
            self.stdout.write(json.dumps(result))
