"""Grown nets against their controls, on test accuracy and training FLOPs: `manage.py bench growth [--quick]`."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from apps.blueprints.starter import core_library

QUICK = (("digits", "mlp"), ("spirals", "mlp"))
FULL = (*QUICK, ("digits", "cnn"))
QUICK_SEEDS, FULL_SEEDS = 5, 16


def run(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Every arm of every case over paired seeds, as JSON types."""
    import torch

    from apps.morphogenesis import experiments

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seeds = experiments.REPORT_SEEDS[: QUICK_SEEDS if quick else FULL_SEEDS]
        cases = [
            experiments.compare(task, host, core_library().values(), seeds=seeds, say=say)
            for task, host in (QUICK if quick else FULL)
        ]
    finally:
        torch.set_num_threads(threads)
    return {
        "bench": "growth",
        "cases": [experiments.summarise(rows) for rows in cases],
        "rows": [asdict(row) for rows in cases for row in rows],
    }


def table(result: dict[str, Any]) -> str:
    """The result for people; it says so where growth loses."""
    lines = []
    for case in result["cases"]:
        lines.append(f"{case['task']} on {case['host']}, {len(case['seeds'])} paired seeds")
        lines.append(f"  {'arm':<14}{'test accuracy':>14}{'parameters':>12}{'training GFLOPs':>17}")
        for arm, means in case["arms"].items():
            accuracy, gigaflops = f"{means['test_accuracy']:.2%}", f"{means['train_flops'] / 1e9:.3f}"
            lines.append(f"  {arm:<14}{accuracy:>14}{means['parameters']:>12,.0f}{gigaflops:>17}")
        lines += [f"  {_sentence(difference)}" for difference in case["differences"]]
        lines.append("")
    return "\n".join(lines)


def _sentence(difference: dict[str, Any]) -> str:
    low, high = difference["low"], difference["high"]
    verdict = "better" if low > 0 else "worse" if high < 0 else "no clear difference"
    return (
        f"{difference['left']} - {difference['right']}: {difference['points']:+.2f} points [{low:+.2f}, {high:+.2f}] "
        f"at {difference['flops_share']:.2f} of its training FLOPs: {verdict}"
    )
