"""Checkpoints beside other ways to keep a training state: `manage.py bench checkpoints [--megabytes N] [--quick]`.

A transformer is trained with AdamW, in float32 and in bfloat16. Each system then keeps that state in a process of its
own: whole, five times in a new folder; then five successive states, in which a training step has changed everything;
then five with two thirds frozen. The systems take turns, so that each ratio is of two saves made one after the other.
A row takes the worse of both precisions.
"""

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import checkpoints_flips, checkpoints_steps, targets
from benchmarks.checkpoints_processes import Keepers, NamedFrozen, Peer, Trainer, Work, serving
from benchmarks.targets import Measurement, rows, spread

MEGABYTES, QUICK_MEGABYTES = 130.0, 8.0
ROUNDS, QUICK_ROUNDS = 5, 2
TRAINING_STEPS, QUICK_TRAINING_STEPS = 60, 3
PRECISIONS = ("fp32", "bf16")
SYSTEMS = ("ours", "torch.save", "torch.save+gzip", "safetensors", "dcp", "dcp async")
SLOW = frozenset({"torch.save+gzip"})
"""Writes everything each time, at a tenth of the others' rate: it is measured on whole states only."""
CASES = ("full", "changed", "frozen")
CASE_NAMES = "/".join(CASES)

Figures = dict[str, float]
Samples = dict[str, dict[str, list[Figures]]]
"""System -> case -> what each round measured."""


def run(quick: bool = False, say: Callable[[str], Any] = print, megabytes: float | None = None) -> dict[str, Any]:
    """Every figure of the area, and how it came about, as JSON types."""
    megabytes = megabytes or (QUICK_MEGABYTES if quick else MEGABYTES)
    rounds, steps = (QUICK_ROUNDS, QUICK_TRAINING_STEPS) if quick else (ROUNDS, TRAINING_STEPS)
    flips = checkpoints_flips.RANDOM_FLIPS // (20 if quick else 1)
    with tempfile.TemporaryDirectory(prefix="esper-bench-") as folder:
        works = {name: Work(megabytes, name, Path(folder) / f"{name}.pt", Path(folder)) for name in PRECISIONS}
        small = Work(checkpoints_flips.MEGABYTES, "fp32", Path(folder) / "small.pt", Path(folder))
        say(f"training what is kept, {steps} steps in each precision ...")
        with serving(Trainer) as trainer:
            losses = {name: trainer.ask("train", work, steps) for name, work in works.items()}
            trainer.ask("train", small, 5)
        with ExitStack() as stack:
            peers = {system: stack.enter_context(serving(Keepers, system, works)) for system in SYSTEMS}
            samples = {name: _compare(peers, name, rounds, say) for name in works}
        named = {name: _named(work, rounds) for name, work in works.items()}
        say("a training beside its saves ...")
        slowdown = checkpoints_steps.measure(works["fp32"], repeats=rounds)
        say("flipping bits ...")
        found = checkpoints_flips.measure(small, flips=flips)
    measured = {
        **_ratios(samples),
        **checkpoints_steps.measurements(slowdown),
        **checkpoints_flips.measurements(found),
    }
    return {
        "bench": "checkpoints",
        "quick": quick,
        "megabytes": megabytes,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "training": losses,
        "systems": {name: _medians(of_precision) for name, of_precision in samples.items()},
        "stall_with_frozen_named_ms_per_100mb": named,
        "slowdown": slowdown,
        "flips": found,
        "targets": rows("checkpoints", measured),
    }


def _compare(peers: Mapping[str, Peer], precision: str, rounds: int, say: Callable[[str], Any]) -> Samples:
    samples: Samples = {system: {} for system in SYSTEMS}

    def ask(case: str, question: str, systems: Sequence[str]) -> None:
        for number in range(rounds):
            say(f"{precision}, {case}: saves and restores, {number + 1} of {rounds} ...")
            for system in systems:
                samples[system].setdefault(case, []).append(peers[system].ask("ask", precision, question))

    fast = [system for system in SYSTEMS if system not in SLOW]
    ask("full", "full", SYSTEMS)
    ask("changed", "changed", fast)
    for system in fast:
        peers[system].ask("ask", precision, "freeze")
    ask("frozen", "changed", fast)
    for peer in peers.values():
        peer.ask("ask", precision, "end")
    return samples


def _named(work: Work, rounds: int) -> dict[str, Figures]:
    """What a save holds training up where the caller names what is frozen: two thirds, and all."""
    with serving(NamedFrozen, work) as peer:
        return {
            "two_thirds": _summary(peer.ask("stalls", 2 / 3, rounds)),
            "all": _summary(peer.ask("stalls", 1.0, rounds)),
        }


def _ratios(samples: Mapping[str, Samples]) -> dict[str, Measurement]:
    """Round by round against the peer's save of the same round; of both precisions the worse."""
    return {
        "steady_stall_vs_torch_save": _worse(max, samples, "stall_ms_per_100mb", ("changed", "torch.save", "changed")),
        "durable_save_rate_vs_torch_save_fsync": _worse(
            min, samples, "save_mb_s", ("changed", "torch.save", "changed")
        ),
        "verified_restore_rate_vs_torch_save_fsync": _worse(
            min, samples, "restore_mb_s", ("changed", "torch.save", "changed")
        ),
        "full_size_vs_torch_save_gzip": _worse(max, samples, "mb", ("full", "torch.save+gzip", "full")),
        "two_thirds_frozen_increment_vs_gzip_full": _worse(max, samples, "mb", ("frozen", "torch.save+gzip", "full")),
    }


def _worse(
    choose: Callable[..., Measurement], samples: Mapping[str, Samples], figure: str, cases: tuple[str, str, str]
) -> Measurement:
    own, peer, of_peer = cases
    found = []
    for systems in samples.values():
        pairs = zip(systems["ours"][own], systems[peer][of_peer], strict=True)
        found.append(Measurement.of([ours[figure] / theirs[figure] for ours, theirs in pairs]))
    return choose(found, key=lambda measurement: measurement.value)


def _medians(samples: Samples) -> dict[str, dict[str, dict[str, Figures]]]:
    return {
        system: {
            case: {figure: _summary([sample[figure] for sample in of_case]) for figure in of_case[0]}
            for case, of_case in cases.items()
        }
        for system, cases in samples.items()
    }


def _summary(values: Sequence[float]) -> Figures:
    return {"median": statistics.median(values), "spread": spread(values), "n": len(values)}


def table(result: dict[str, Any]) -> str:
    """The result for people: every row that the project is held to, reached or not, then what lies behind it."""
    lines = ["Checkpoints" + (", a quick look" if result["quick"] else ""), "", *targets.lines(result["targets"])]
    for precision, systems in result["systems"].items():
        raw = systems["ours"]["full"]["raw_mb"]["median"]
        lines += ["", f"  {precision}, {raw:.1f} MB; medians of {result['rounds']}", "", *_lines(systems)]
        named = result["stall_with_frozen_named_ms_per_100mb"][precision]
        lines.append(
            f"  ours, told what is frozen: stall {named['two_thirds']['median']:.1f} with two thirds of it, "
            f"{named['all']['median']:.1f} with all"
        )
    lines += ["", "  A training beside its saves", "", *checkpoints_steps.lines(result["slowdown"])]
    lines += ["", "  One flipped bit", "", *checkpoints_flips.lines(result["flips"])]
    return "\n".join(lines) + "\n"


def _lines(systems: Mapping[str, Any]) -> list[str]:
    widths = (18, 24, 20, 16, 24)
    heads = ("stall ms/100 MB", "durable MB/s", "restore MB/s", "from the disk", "MB each")
    names = ("first/steady", CASE_NAMES, "full/last/frozen", "full/last", CASE_NAMES)
    lines = [
        f"  {'':<16}" + "".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (heads, names)
    ]
    for system, cases in systems.items():

        def cell(figure: str, *of: str, cases: Mapping[str, Any] = cases) -> str:
            return "/".join(f"{cases[case][figure]['median']:,.1f}" if case in cases else "-" for case in of)

        cells = (
            cell("stall_ms_per_100mb", "full", "changed"),
            cell("save_mb_s", *CASES),
            cell("restore_mb_s", *CASES),
            cell("cold_restore_mb_s", "full", "changed"),
            cell("mb", *CASES),
        )
        lines.append(f"  {system:<16}" + "".join(f"{text:>{width}}" for text, width in zip(cells, widths, strict=True)))
    return lines
