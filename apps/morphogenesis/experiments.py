"""Is growth worth it? The same seeds through three arms: start net, grown net, and a static net of its final shape.

- ``no_growth``: the start width, never grown.
- ``grown``: the default policy.
- ``static_final``: the grown net's topology, trained from scratch for as many steps with the same settings.

All defaults were chosen on the validation splits of seeds 1000 and up; reports use ``REPORT_SEEDS``, never those, and
the test splits. Nothing here claims more than its intervals.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from apps.morphogenesis.contracts import wanted_bindings
from apps.morphogenesis.library import Blueprint, EventList, InMemoryCheckpoints, InMemoryKernels, NeverInterrupt
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trainer import RunResult, Trainer

REPORT_SEEDS = tuple(range(16))
TUNING_SEEDS_FROM = 1000
ARMS = ("no_growth", "grown", "static_final")
COMPARISONS = (("grown", "no_growth"), ("grown", "static_final"))

# Student's t, two-sided 95 %, by degrees of freedom 1 to 15.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One run of one arm, on the test split."""

    task: str
    host: str
    arm: str
    seed: int
    test_accuracy: float
    test_loss: float
    parameters: int
    train_flops: int
    fossilized: int
    culled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Mean paired difference ``left`` - ``right`` of test accuracy, in points, with its 95 % t interval over seeds.

    ``flops_share`` is left's training FLOPs as a share of right's.
    """

    left: str
    right: str
    points: float
    low: float
    high: float
    pairs: int
    flops_share: float


def compare(
    task: str,
    host: str,
    blueprints: Iterable[Blueprint],
    *,
    seeds: Sequence[int],
    overrides: Mapping[str, Any] | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> list[Row]:
    """Run every arm on every seed. ``overrides`` are run settings for all arms."""
    library, rows = list(blueprints), []
    for seed in seeds:
        base = {**(overrides or {}), "task": task, "host": host, "seed": seed}
        static = {**base, "growth": {"enabled": False}}
        results = {"no_growth": run(static, library), "grown": run(base, library)}
        results["static_final"] = run({**static, "topology": results["grown"].topology}, library)
        rows += [_row(base, arm, results[arm]) for arm in ARMS]
        accuracies = ", ".join(f"{arm} {result.test_accuracy:.1%}" for arm, result in results.items())
        say(f"{task} on {host}, seed {seed}: {accuracies}")
    return rows


def run(values: Mapping[str, Any], blueprints: Iterable[Blueprint]) -> RunResult:
    """One complete run in memory. Raises SettingsError, RunFailed."""
    settings = RunSettings.from_mapping(values)
    events = EventList()
    outcome = Trainer(
        settings=settings,
        kernels=InMemoryKernels(blueprints, wanted_bindings(settings)),
        checkpoints=InMemoryCheckpoints(),
        telemetry=events,
        decisions=events,
        control=NeverInterrupt(),
    ).run()
    assert outcome.result is not None
    return outcome.result


def differences(rows: Sequence[Row]) -> list[Difference]:
    """The comparisons over rows of one task and host."""
    return [_difference(rows, left, right) for left, right in COMPARISONS]


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Means by arm and the paired differences, as JSON types, for rows of one task and host."""
    return {
        "task": rows[0].task,
        "host": rows[0].host,
        "seeds": sorted({row.seed for row in rows}),
        "arms": {arm: _means([row for row in rows if row.arm == arm]) for arm in ARMS},
        "differences": [asdict(difference) for difference in differences(rows)],
        "interval": "95 % Student t over paired seeds, percentage points of test accuracy",
    }


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(mean, low, high) of 2 to 16 values: the 95 % Student t interval of the mean.

    Raises:
        ValueError: fewer than two values, or more than the table holds.
    """
    freedom = len(values) - 1
    if not 1 <= freedom <= len(T_95):
        raise ValueError(f"needs 2 to {len(T_95) + 1} values, not {len(values)}")
    mean = statistics.fmean(values)
    margin = T_95[freedom - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - margin, mean + margin


def _difference(rows: Sequence[Row], left: str, right: str) -> Difference:
    by_arm = {arm: {row.seed: row for row in rows if row.arm == arm} for arm in (left, right)}
    pairs = [(by_arm[left][seed], by_arm[right][seed]) for seed in sorted(by_arm[left])]
    points, low, high = t_interval([100 * (ours.test_accuracy - theirs.test_accuracy) for ours, theirs in pairs])
    return Difference(
        left=left,
        right=right,
        points=points,
        low=low,
        high=high,
        pairs=len(pairs),
        flops_share=sum(ours.train_flops for ours, _ in pairs) / sum(theirs.train_flops for _, theirs in pairs),
    )


def _means(rows: Sequence[Row]) -> dict[str, float]:
    names = ("test_accuracy", "test_loss", "parameters", "train_flops", "fossilized", "culled")
    return {name: statistics.fmean(getattr(row, name) for row in rows) for name in names}


def _row(base: Mapping[str, Any], arm: str, result: RunResult) -> Row:
    return Row(
        task=base["task"],
        host=base["host"],
        arm=arm,
        seed=base["seed"],
        test_accuracy=result.test_accuracy,
        test_loss=result.test_loss,
        parameters=result.parameters,
        train_flops=result.train_flops,
        fossilized=result.fossilized,
        culled=result.culled,
    )
