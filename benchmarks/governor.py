"""The governor on recorded training: how often it fires on healthy runs, and how soon on runs that go wrong.

``governor_curves.npz`` holds 300 curves recorded from real runs on three tasks, with and without growth, over a range
of learning rates and widths (``python -m benchmarks.governor`` records them anew). A fixed shuffle halves them: the
thresholds of ``apps.morphogenesis.governor`` were set on the one half, every figure here is of the other.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.morphogenesis.governor import Alarm, Governor

CURVES = Path(__file__).with_name("governor_curves.npz")
RUNS_PER_TASK = 100
HALVES_SEED = 1
TASKS = {"digits": 297, "spirals": 400, "tabular": 300}
"""Task -> held-out samples."""
LOSS, ACCURACY, EPOCH, RESTART = range(4)
"""Kinds of event in a curve: mean training loss of a check, held-out accuracy of an epoch, end of an epoch, restart."""
GROWTH_FACTORS = (1.3, 1.6, 2.0, 4.0)
"""Factors by which the loss of a planted divergence grows from check to check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What one run's governor was told, in order: (kind, value)."""

    task: str
    events: tuple[tuple[int, float], ...]


class RecordingGovernor(Governor):
    """Writes down what it is told and never fires."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, float]] = []

    def check_loss(self, loss: float) -> Alarm | None:
        self.events.append((LOSS, loss))
        return None

    def check_accuracy(self, accuracy: float, samples: int) -> Alarm | None:
        self.events.append((ACCURACY, accuracy))
        return None

    def end_epoch(self) -> None:
        self.events.append((EPOCH, 0.0))

    def restart(self) -> None:
        self.events.append((RESTART, 0.0))


def replay(curve: Curve) -> tuple[int, Alarm] | None:
    """The first alarm of a fresh governor that is told the curve's events, with its position."""
    governor = Governor()
    for position, (kind, value) in enumerate(curve.events):
        alarm = None
        if kind == LOSS:
            alarm = governor.check_loss(value)
        elif kind == ACCURACY:
            alarm = governor.check_accuracy(value, TASKS[curve.task])
        elif kind == EPOCH:
            governor.end_epoch()
        else:
            governor.restart()
        if alarm:
            return position, alarm
    return None


def load_curves() -> list[Curve]:
    """The recorded curves, in the order of their numbers."""
    with np.load(CURVES) as data:
        kinds, values, lengths, tasks = (data[name] for name in ("kinds", "values", "lengths", "tasks"))
    ends = np.cumsum(lengths)
    return [
        Curve(
            task=list(TASKS)[task],
            events=tuple(zip(kinds[start:end].tolist(), values[start:end].astype(float).tolist(), strict=True)),
        )
        for task, start, end in zip(tasks, ends - lengths, ends, strict=True)
    ]


def halves() -> tuple[list[Curve], list[Curve]]:
    """The curves on which thresholds may be set, and those on which they are reported."""
    curves = load_curves()
    order = np.random.Generator(np.random.Philox(HALVES_SEED)).permutation(len(curves))
    tuned, reported = ([curves[index] for index in half] for half in np.array_split(order, 2))
    return tuned, reported


def planted(curve: Curve, factor: float, generator: np.random.Generator) -> tuple[int, Curve]:
    """The curve up to a random check in its second half, then a divergence; and the position where that starts."""
    checks = [position for position, (kind, _) in enumerate(curve.events) if kind == LOSS]
    start = checks[generator.integers(len(checks) // 2, len(checks))]
    loss = max(curve.events[start][1], 0.05)
    rising = tuple((LOSS, loss * factor**step) for step in range(1, 25))
    return start, Curve(task=curve.task, events=curve.events[:start] + rising)


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """False alarms over the odd curves by task, and detection of planted divergences by their growth factor."""
    curves = halves()[1]
    alarms = {task: [replay(curve) for curve in curves if curve.task == task] for task in TASKS}
    fired = {task: sum(alarm is not None for alarm in found) for task, found in alarms.items()}
    checks = sum(kind in (LOSS, ACCURACY) for curve in curves for kind, _ in curve.events)
    generator = np.random.Generator(np.random.Philox(2026))
    detection = {str(factor): _detect(curves, factor, generator) for factor in GROWTH_FACTORS}
    say(f"{len(curves)} curves, {checks} checks")
    return {
        "curves": len(curves),
        "checks": checks,
        "false_alarms": {task: {"runs": len(alarms[task]), "fired": fired[task]} for task in TASKS},
        "false_alarm_rate_per_run": sum(fired.values()) / len(curves),
        "detection": detection,
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = ["Governor on recorded curves (the half that its thresholds were not set on)", ""]
    for task, row in result["false_alarms"].items():
        lines.append(f"  {task:<10} {row['fired']:>3} of {row['runs']} healthy runs disturbed")
    lines.append(f"  {'all':<10} {result['false_alarm_rate_per_run']:.1%} of runs, {result['checks']:,} checks")
    lines += ["", "Planted divergences"]
    for factor, row in result["detection"].items():
        delay = "-" if row["median_delay"] is None else f"{row['median_delay']:g}"
        lines.append(f"  loss x {factor} per check: {row['detected']:.1%} noticed, after {delay} checks (median)")
    return "\n".join(lines) + "\n"


def _detect(curves: list[Curve], factor: float, generator: np.random.Generator) -> dict[str, Any]:
    delays = []
    for curve in curves:
        start, diverging = planted(curve, factor, generator)
        found = replay(diverging)
        if found and found[0] >= start:
            delays.append(found[0] - start + 1)
    return {
        "detected": len(delays) / len(curves),
        "median_delay": statistics.median(delays) if delays else None,
    }


def record() -> None:
    """Record the curves anew: about a quarter of an hour on one thread."""
    import torch

    torch.set_num_threads(1)
    curves = [(list(TASKS).index(task), _recorded(task, number)) for number in range(RUNS_PER_TASK) for task in TASKS]
    flat = [event for _, events in curves for event in events]
    np.savez_compressed(
        CURVES,
        kinds=np.array([kind for kind, _ in flat], dtype=np.uint8),
        values=np.array([value for _, value in flat], dtype=np.float16),
        lengths=np.array([len(events) for _, events in curves]),
        tasks=np.array([task for task, _ in curves], dtype=np.uint8),
    )


def _recorded(task: str, number: int) -> list[tuple[int, float]]:
    from apps.blueprints.starter import core_library
    from apps.morphogenesis import library
    from apps.morphogenesis.contracts import reachable_bindings, start_topology
    from apps.morphogenesis.datasets import make_dataset
    from apps.morphogenesis.hosts import build_host
    from apps.morphogenesis.settings import RunSettings
    from apps.morphogenesis.topology import Topology
    from apps.morphogenesis.trainer import Trainer

    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([20_250, list(TASKS).index(task), number])))
    settings = RunSettings.from_mapping(
        {
            "task": "digits" if task == "digits" else "spirals",
            "host": "cnn" if task == "digits" and number % 2 else "mlp",
            "seed": 5000 + number,
            "epochs": 25,
            "width": int(generator.choice([6, 8, 12, 16, 24])),
            "learning_rate": 10 ** generator.uniform(-3.0, -2.0),
            "growth": {"enabled": number % 4 < 2, "forced_at": float(generator.choice([0.15, 0.25]))},
        }
    )
    topology, host, data = start_topology(settings), None, None
    if task == "tabular":
        import torch
        from sklearn.datasets import make_classification

        inputs, targets = make_classification(
            1800, 20, n_informative=10, n_redundant=4, n_classes=8, n_clusters_per_class=2, random_state=7
        )
        data = make_dataset(inputs, targets, (1000, 300), axes=(0,))
        topology = Topology(host="mlp", input_shape=(20,), classes=8, widths=topology.widths)
        host = build_host(topology, torch.Generator().manual_seed(settings.seed))
    governor, events = RecordingGovernor(), library.EventList()
    Trainer(
        settings=settings,
        kernels=library.InMemoryKernels(core_library().values(), reachable_bindings(topology, settings)),
        checkpoints=library.InMemoryCheckpoints(),
        telemetry=events,
        decisions=events,
        control=library.NeverInterrupt(),
        host=host,
        data=data,
        governor=governor,
    ).run()
    assert all(math.isfinite(value) for _, value in governor.events)
    return governor.events


if __name__ == "__main__":
    record()
