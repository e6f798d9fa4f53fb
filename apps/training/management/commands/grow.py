"""`manage.py grow`: the main job, end to end, in one command, through the same services as the API and real workers."""

import json
import sys
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, close_old_connections

from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError
from apps.morphogenesis.catalogue import HOSTS, TASKS
from apps.training import selectors, services
from apps.training.console import GrowthDisplay, result_table
from apps.training.lifecycle import FINAL_RUN_STATES, RunState
from apps.training.models import LibrarySource, TrainingRun
from esper_site.embedded.stack import exec_inside

POLL_SECONDS = 0.25
DATABASE_PATIENCE_SECONDS = 60.0


class Command(BaseCommand):
    help = "Grow a network on a task, in a real worker, and keep only what held-out evidence supports."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--task", default="digits", help=f"what to learn: {', '.join(TASKS)}")
        parser.add_argument("--host", default="", help=f"the network that grows: {', '.join(HOSTS)}")
        parser.add_argument("--epochs", type=int, help="passes over the training data")
        parser.add_argument("--seed", type=int, help="of weights, data order and bootstrap")
        parser.add_argument(
            "--learned", action="store_true", help="offer every validated kernel, not just the starters"
        )
        parser.add_argument(
            "--no-control", action="store_true", help="do not train the static net of the same final size"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object as the last line of standard output")

    def handle(self, *args: Any, **options: Any) -> None:
        exec_inside(sys.argv[1:])
        started = time.monotonic()
        run = self._create(options)
        with GrowthDisplay(run) as display:
            try:
                run = self._watch(run, display)
                control = self._watch_control(run, display)
            except KeyboardInterrupt:
                services.stop_run(run=run, actor=SYSTEM, reason="interrupted at the terminal")
                raise CommandError(f"interrupted: run {run.pk} stops at its next step") from None
        summary = summarise(run, control, time.monotonic() - started)
        table = result_table(run, control, summary)
        (self.stderr if options["json"] else self.stdout).write(table)
        if options["json"]:
            self.stdout.write(json.dumps(summary))
        if run.state != RunState.COMPLETED:
            raise CommandError(f"the run is {run.state}: {run.failure or 'it did not complete'}")

    def _create(self, options: dict[str, Any]) -> TrainingRun:
        settings = {name: options[name] for name in ("epochs", "seed") if options[name] is not None}
        settings["task"] = options["task"]
        if options["host"]:
            settings["host"] = options["host"]
        try:
            return services.create_run(
                settings=settings,
                actor=SYSTEM,
                library_source=LibrarySource.LEARNED if options["learned"] else LibrarySource.STARTER,
                wants_control=not options["no_control"],
            )
        except ServiceError as error:
            field = f"{error.errors[0].pointer.removeprefix('/settings/')}: " if error.errors else ""
            raise CommandError(f"{field}{error.detail}") from error

    def _watch(self, run: TrainingRun, display: GrowthDisplay) -> TrainingRun:
        """Show the run until it has ended; a database that is away for a moment is waited for."""
        last_answer = time.monotonic()
        while True:
            try:
                run.refresh_from_db()
                display.update(run)
                last_answer = time.monotonic()
            except OperationalError as error:
                close_old_connections()
                display.say(f"the database does not answer ({str(error).splitlines()[0]}); waiting")
                if time.monotonic() - last_answer > DATABASE_PATIENCE_SECONDS:
                    raise CommandError("the database is away; the run resumes when it is back") from error
            if run.state in FINAL_RUN_STATES:
                return run
            display.wait(POLL_SECONDS)

    def _watch_control(self, run: TrainingRun, display: GrowthDisplay) -> TrainingRun | None:
        if run.state != RunState.COMPLETED or not run.wants_control:
            return None
        control = selectors.control_of(run)
        if control is None:
            return None
        display.follow(control)
        return self._watch(control, display)


def summarise(run: TrainingRun, control: TrainingRun | None, wall_seconds: float) -> dict[str, Any]:
    """The object that ``--json`` prints; numbers of a run that did not complete are null."""
    result = run.result
    return {
        "run": str(run.pk),
        "task": run.task,
        "host": run.host,
        "state": run.state,
        "seed": run.seed,
        "epochs": run.epochs,
        "test_accuracy": result.get("test_accuracy"),
        "parameters_start": result.get("parameters_start"),
        "parameters": result.get("parameters"),
        "train_flops": result.get("train_flops"),
        "wall_s": round(wall_seconds, 3),
        "seeds": {name: result.get(name) for name in ("germinated", "fossilized", "culled")},
        "decisions": result.get("decisions"),
        "topology_digest": result.get("topology_digest"),
        "weights_digest": result.get("weights_digest"),
        "control": None
        if control is None or control.state != RunState.COMPLETED
        else {name: control.result.get(name) for name in ("test_accuracy", "parameters", "train_flops")},
    }
