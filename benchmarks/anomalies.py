"""The anomaly detector: `manage.py bench anomalies [--corpus DIR] [--quick] [--json]`.

On generated streams, on recorded healthy training curves, and with ``--corpus`` on a folder in the layout of the
Numenta Anomaly Benchmark (NAB). Its threshold is the shipped one everywhere, but where a row says otherwise.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from apps.observability.anomalies import THRESHOLD, StreamDetector
from apps.observability.contracts import Numbers
from benchmarks import anomalies_corpus, anomalies_curves, anomalies_scoring, anomalies_streams, targets
from benchmarks.anomalies_controls import CONTROLS
from benchmarks.anomalies_scoring import Marked
from benchmarks.anomalies_streams import Stream
from benchmarks.targets import Measurement

SEEDS, QUICK_SEEDS = (1001, 1002, 1003), (1001,)
"""Of the generated streams: the detector was set on others (1 to 52)."""
PROCESSES = 2
FIXED_REFRACTORY = 200
HALVES_SEED = 2026
HALVINGS = 20
OURS, FIXED = "ours", "ours, refractory 200"
PROTOCOL = {
    "scoring": "NAB, standard profile: weights 1 (hit), 0.11 (false alarm), 1 (miss), a sigmoid over the window and"
    " behind it, 0 = no alarm ever, 100 = perfect; the first 15 % of each stream (of its first 5,000) are not scored",
    "threshold": f"{THRESHOLD}, the shipped one, for all streams; best_threshold: the one that scores most on the same"
    " streams, as NAB itself picks it",
    "half against half": "streams are halved at random, the threshold that scores most on the one half scores the"
    f" other, and the other way round; median of {HALVINGS} halvings",
    "probation": "the detector is told how many values are not scored; its refractory period is half of that",
    "tuning": "constants were set on generated streams of seeds 1 to 52 and on 25 files of NAB; generated streams are"
    " reported on seeds 1001 to 1003; docs/anomalies.md says which files of NAB were set on and which were not",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What each detector said of one stream."""

    stream: Stream
    marked: Marked
    scores: dict[str, Numbers]


def run(quick: bool = False, say: Callable[[str], Any] = print, corpus: Path | None = None) -> dict[str, Any]:
    """Every figure of the area, as JSON types.

    Raises:
        CommandError: ``corpus`` is no folder of the layout.
    """
    real = anomalies_corpus.read(corpus) if corpus else []
    say("training curves ...")
    curves = anomalies_curves.measure(CONTROLS)
    say("generated streams ...")
    generated = _scored(
        [stream for seed in (QUICK_SEEDS if quick else SEEDS) for stream in anomalies_streams.streams(seed)]
    )
    measured = {"false_alarms_healthy_curves": _once(curves["percent"][OURS])}
    found = {"generated": _summary(generated)}
    if real:
        say(f"{corpus}: {len(real)} streams, {sum(len(stream.values) for stream in real):,} values ...")
        scored = _scored(real)
        found["corpus"] = _summary(scored)
        found["corpus"]["half_against_half"] = halves = _halves(scored)
        measured["nab_standard_scoreboard"] = _once(found["corpus"]["standard"][OURS])
        measured["nab_standard_half_against_half"] = Measurement.of(halves)
    return {
        "bench": "anomalies",
        "targets": targets.rows("anomalies", measured),
        "threshold": THRESHOLD,
        "protocol": PROTOCOL,
        "curves": curves,
        **found,
    }


def _once(value: float | None) -> Measurement:
    return Measurement(value=value or 0.0, n=1, spread=0.0)


def _scored(streams: Sequence[Stream]) -> list[Scored]:
    context = multiprocessing.get_context("spawn")
    order = sorted(range(len(streams)), key=lambda place: -len(streams[place].values))
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        found = dict(zip(order, pool.map(_judged, [streams[place] for place in order]), strict=True))
    return [
        Scored(
            stream=stream,
            marked=anomalies_scoring.mark(len(stream.values), stream.windows),
            scores=found[place],
        )
        for place, stream in enumerate(streams)
    ]


def _judged(stream: Stream) -> dict[str, Numbers]:
    probation = anomalies_scoring.probation(len(stream.values))
    detectors = {
        OURS: StreamDetector(probation),
        FIXED: StreamDetector(probation, refractory=FIXED_REFRACTORY),
        **{name: control() for name, control in CONTROLS.items()},
    }
    pairs = list(zip(stream.times.tolist(), stream.values.tolist(), strict=True))
    return {name: np.array([detector.update(at, value) for at, value in pairs]) for name, detector in detectors.items()}


def _summary(scored: Sequence[Scored]) -> dict[str, Any]:
    """Scores of all detectors, and of ours by family and stream."""
    names = list(scored[0].scores)
    families: dict[str, list[Scored]] = {}
    for each in scored:
        families.setdefault(each.stream.family, []).append(each)
    best = anomalies_scoring.best_threshold(_marked(scored), _of(scored, OURS))
    return {
        "streams": len(scored),
        "values": sum(len(each.stream.values) for each in scored),
        "windows": sum(each.marked.windows for each in scored),
        "standard": {name: _standard(scored, name) for name in names},
        "best_threshold": {"threshold": best, "standard": _standard(scored, OURS, best)},
        "families": {family: _counted(rows) for family, rows in families.items()},
        "all": _counted(scored),
        "by_stream": {each.stream.name: _counted([each]) for each in scored},
    }


def _marked(scored: Sequence[Scored]) -> list[Marked]:
    return [each.marked for each in scored]


def _of(scored: Sequence[Scored], name: str) -> list[Numbers]:
    return [each.scores[name] for each in scored]


def _standard(scored: Sequence[Scored], name: str, threshold: float = THRESHOLD) -> float | None:
    return anomalies_scoring.standard(_marked(scored), _of(scored, name), threshold)


def _counted(scored: Sequence[Scored]) -> dict[str, Any]:
    """Ours: the score, windows hit, false alarms, precision and recall. A window is hit once, however many alarms."""
    hit = false = 0
    for each in scored:
        alarms = each.marked.window[each.scores[OURS] >= THRESHOLD]
        hit += len(set(alarms[alarms >= 0].tolist()))
        false += int((alarms == -1).sum())
    windows = sum(each.marked.windows for each in scored)
    return {
        "standard": _standard(scored, OURS),
        "windows": windows,
        "hit": hit,
        "false_alarms": false,
        "recall": hit / windows if windows else None,
        "precision": hit / (hit + false) if hit + false else None,
    }


def _halves(scored: Sequence[Scored]) -> list[float]:
    """Of each halving: the mean of both halves' scores at the threshold that is best on the other half."""
    chance = np.random.Generator(np.random.Philox(HALVES_SEED))
    found = []
    for _ in range(HALVINGS):
        order = chance.permutation(len(scored))
        first, second = ([scored[place] for place in half] for half in np.array_split(order, 2))
        values = []
        for set_on, reported in ((first, second), (second, first)):
            threshold = anomalies_scoring.best_threshold(_marked(set_on), _of(set_on, OURS))
            values.append(_standard(reported, OURS, threshold))
        scores = [value for value in values if value is not None]
        if scores:
            found.append(sum(scores) / len(scores))
    return found


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"Anomaly detector, threshold {result['threshold']}", "", *targets.lines(result["targets"])]
    curves = result["curves"]
    lines += ["", f"  healthy training curves: {curves['curves']} runs, {curves['checks']:,} checks"]
    for name, percent in curves["percent"].items():
        caught = ", ".join(f"{fault} {share:.0%}" for fault, share in curves["caught"][name].items())
        lines.append(f"    {name:<26}{percent:>7.2f} % flagged; caught of planted faults: {caught}")
    for part in ("generated", "corpus"):
        if part in result:
            lines += _part(part, result[part])
    return "\n".join(lines) + "\n"


def _part(name: str, part: dict[str, Any]) -> list[str]:
    lines = ["", f"  {name}: {part['streams']} streams, {part['values']:,} values, {part['windows']} windows"]
    for detector, score in part["standard"].items():
        lines.append(f"    {detector:<30}{_number(score)}  NAB standard")
    best = part["best_threshold"]
    lines.append(f"    {'ours, best threshold':<30}{_number(best['standard'])}  at {best['threshold']:.3f}")
    for family, row in [*part["families"].items(), ("all", part["all"])]:
        counts = f"{row['hit']} of {row['windows']} windows, {row['false_alarms']} false alarms"
        lines.append(f"    {family:<30}{_number(row['standard'])}  {counts}")
    return lines


def _number(value: float | None) -> str:
    return "      -" if value is None else f"{value:7.1f}"
