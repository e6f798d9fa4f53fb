"""What saving costs a training: steps beside a save in flight, against as many steps without one, in pairs.

A pair is a save, with the steps that were made until it was durable, then as many steps alone. The difference is what
one checkpoint costs; per interval of the default schedule that is the slow-down.
"""

import shutil
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.checkpoints_processes import Work, serving
from benchmarks.targets import Measurement

INTERVAL_SECONDS = 30 * 60
"""The default schedule of a run."""


class Steps:
    """Ours, and a training with as many threads as torch takes by itself."""

    def pairs(self, work: Work, repeats: int) -> list[dict[str, float]]:
        import torch

        from apps.checkpoints.adapter import System
        from benchmarks.checkpoints_training import Size, Training

        training = Training(Size.of(work.megabytes), work.precision)
        training.load(torch.load(work.state))
        root = work.folder / "steps"
        system = System(root)
        pairs = []
        for number in range(repeats + 1):
            training.step()
            begun = time.perf_counter()
            handle = system.begin(training.state(), f"step-{number}")
            steps = 0
            while not handle.done():
                training.step()
                steps += 1
            beside = time.perf_counter() - begun
            system.finish(handle)
            begun = time.perf_counter()
            for _ in range(steps):
                training.step()
            alone = time.perf_counter() - begun
            pairs.append({"steps": steps, "beside_s": beside, "alone_s": alone, "stall_s": handle.stall_seconds})
        system.close()
        shutil.rmtree(root)
        return pairs[1:]  # the first save reserves memory


def measure(work: Work, *, repeats: int) -> dict[str, Any]:
    with serving(Steps) as peer:
        return {"pairs": peer.ask("pairs", work, repeats)}


def measurements(found: Mapping[str, Any]) -> dict[str, Measurement]:
    costs = [100 * _cost(pair) / INTERVAL_SECONDS for pair in found["pairs"]]
    return {"training_slowdown_default_interval": Measurement.of(costs)}


def lines(found: Mapping[str, Any]) -> list[str]:
    pairs = found["pairs"]
    cost = Measurement.of([_cost(pair) for pair in pairs])
    while_saving = Measurement.of([100 * _cost(pair) / pair["alone_s"] for pair in pairs])
    stall = Measurement.of([pair["stall_s"] * 1e3 for pair in pairs])
    return [
        f"  one checkpoint costs {cost.value:.3f} s of training (spread {cost.spread:.3f}, n {cost.n}), "
        f"of which it waits {stall.value:.1f} ms",
        f"  while a save is in flight, steps take {while_saving.value:.0f} % longer (spread {while_saving.spread:.0f})",
    ]


def _cost(pair: Mapping[str, float]) -> float:
    return pair["beside_s"] - pair["alone_s"]
