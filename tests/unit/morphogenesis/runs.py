"""Four small runs that between them take a seed through every state; shared, because a run is the same every time."""

import copy
from functools import cache

from apps.morphogenesis.trainer import Outcome
from tests.unit.morphogenesis.support import Run, kernels, quick_settings

RESIDUAL = {"host": "cnn", "growth": {"max_training_epochs": 10, "min_gradient_ratio": 0.0, "max_seeds": 3}}
RUNS = {
    "widen mlp": ({"host": "mlp"}, ["widen"]),
    "widen cnn": ({"host": "cnn", "epochs": 14}, ["widen"]),
    "residual cnn": (RESIDUAL, ["residual"]),
    "residual mlp": ({"host": "mlp"}, ["residual"]),
}


def run_of(name: str) -> Run:
    """One of ``RUNS``, not run yet."""
    changes, operators = RUNS[name]
    settings = quick_settings(**copy.deepcopy(changes))
    return Run(settings, library=kernels(settings, operators))


@cache
def finished(name: str) -> tuple[Run, Outcome]:
    """One of ``RUNS``, uninterrupted. Read it, do not run it again."""
    run = run_of(name)
    return run, run()
