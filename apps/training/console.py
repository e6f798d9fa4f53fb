"""What a person sees of a run in a terminal: live progress on standard error, and the table at the end."""

import io
import threading
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from apps.kernels.selectors import pending
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.protocols import Action
from apps.training import selectors
from apps.training.lifecycle import RunState
from apps.training.models import Seed, TrainingRun

QUEUED_HINT_SECONDS = 20.0
SEED_STYLES = {
    SeedState.FOSSILIZED: "green",
    SeedState.CULLED: "red",
    SeedState.ROLLED_BACK: "red",
    SeedState.CANCELLED: "red",
    SeedState.EVALUATING: "yellow",
}


class GrowthDisplay:
    """Epoch, loss, accuracy, parameters and each seed's state, redrawn; decisions scroll by above as they fall."""

    def __init__(self, run: TrainingRun) -> None:
        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._pause = threading.Event()
        self.follow(run)

    def __enter__(self) -> "GrowthDisplay":
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self._console.print()  # off a terminal the last frame ends without a newline

    def follow(self, run: TrainingRun) -> None:
        """Start showing ``run`` (first the grown one, then its control)."""
        kind = "control (static)" if run.control_of_id else f"{run.task} on {run.host}"
        self._bar: TaskID = self._progress.add_task(kind, total=run.epochs)
        self._shown_decision = 0
        self._since = time.monotonic()
        self._hinted = False
        self._state = ""
        self.say(f"run {run.pk}: {kind}, {run.epochs} epochs, seed {run.seed}")

    def say(self, line: str) -> None:
        self._console.print(Text(line, style="dim"))

    def wait(self, seconds: float) -> None:
        self._pause.wait(seconds)

    def update(self, run: TrainingRun) -> None:
        """Redraw from the database."""
        if run.state != self._state:
            self._state = run.state
            self.say(f"{run.name}: {run.state.lower()}")
        self._say_decisions(run)
        if run.state == RunState.QUEUED:
            self._hint()
        measured: Any = selectors.runs().get(pk=run.pk)
        self._progress.update(self._bar, completed=measured.last_epoch or 0)
        lines = [self._progress.get_renderable()]
        if run.library is None and (waiting := pending().count()):
            lines.append(Text(f"  compiling and validating kernels: {waiting} to go"))
        if measured.last_epoch is not None:
            lines.append(
                Text(
                    f"  validation loss {measured.last_loss:.4f}  accuracy {measured.last_accuracy:.1%}  "
                    f"parameters {measured.first_parameters:,} -> {measured.last_parameters:,}"
                )
            )
        lines.extend(_seed_line(seed) for seed in selectors.seeds_of(run.pk))
        self._live.update(Group(*lines))

    def _say_decisions(self, run: TrainingRun) -> None:
        fresh = run.decisions.filter(sequence__gt=self._shown_decision).exclude(action=Action.HOLD)
        for decision in fresh:
            self._shown_decision = decision.sequence
            self._console.print(f"epoch {decision.epoch}: [bold]{decision.action.lower()}[/bold] {decision.reason}")

    def _hint(self) -> None:
        if self._hinted or time.monotonic() - self._since < QUEUED_HINT_SECONDS:
            return
        self._hinted = True
        self.say("still queued: is a worker running for the queue `train`? (`make serve` starts one)")


def _seed_line(seed: Seed) -> Text:
    text = f"  seed {seed.number} {seed.operator}@{seed.slot.site}: {seed.standing.lower()}"
    return Text(text, style=SEED_STYLES.get(SeedState(seed.standing), ""))


def result_table(run: TrainingRun, control: TrainingRun | None, summary: dict[str, object]) -> str:
    """The grown net beside its static control, as text."""
    table = Table(title=f"{run.name}: {run.state}", title_justify="left")
    table.add_column("")
    table.add_column("grown", justify="right")
    table.add_column("static, same final size", justify="right")
    beside = control.result if control is not None and control.state == RunState.COMPLETED else {}
    for label, key, form in (
        ("test accuracy", "test_accuracy", "{:.2%}"),
        ("parameters at the start", "parameters_start", "{:,}"),
        ("parameters", "parameters", "{:,}"),
        ("training FLOPs", "train_flops", "{:.3e}"),
    ):
        table.add_row(label, _cell(run.result.get(key), form), _cell(beside.get(key), form))
    for key in ("germinated", "fossilized", "culled"):
        table.add_row(f"seeds {key}", _cell(run.result.get(key), "{}"), "")
    output = io.StringIO()
    console = Console(file=output, width=100)
    console.print(table)
    console.print(f"{summary['wall_s']:.1f} s. In the browser: make serve, then /runs/{run.pk}")
    return output.getvalue()


def _cell(value: object, form: str) -> str:
    return "-" if value is None else form.format(value)
