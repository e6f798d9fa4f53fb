"""Lists `up` among the commands. `manage.py` itself answers it before Django loads; this is for `call_command`."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand

from esper_site.embedded import up


class Command(BaseCommand):
    """Start services, web, workers and beat in one terminal."""

    help = "Start the whole platform in one terminal: services, migrations, web, workers and beat."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        up.add_arguments(parser)

    def handle(self, *args: Any, run: str | None, only: tuple[str, ...], web_port: int | None, **options: Any) -> None:
        raise SystemExit(up.up(run=run, only=only, web_port=web_port))
