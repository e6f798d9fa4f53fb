"""A folder in the layout of the Numenta Anomaly Benchmark: ``data/**.csv`` with timestamp and value, and
``labels/combined_windows.json`` with the first and the last timestamp of each window."""

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from django.core.management.base import CommandError

from benchmarks.anomalies_streams import Stream

LABELS = "labels/combined_windows.json"


def read(folder: Path) -> list[Stream]:
    """Every labelled stream of the corpus, by name.

    Raises:
        CommandError: it is no such folder, naming the file and the line at fault.
    """
    labels = _labels(folder / LABELS)
    return [_stream(folder / "data", name, labels[name]) for name in sorted(labels)]


def _labels(path: Path) -> dict[str, Sequence[Sequence[str]]]:
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CommandError(
            f"--corpus: {path} cannot be read: {error.strerror}; it lists the windows of each file"
        ) from None
    except ValueError as error:
        raise CommandError(f"--corpus: {path} is no JSON: {error}") from None
    if not isinstance(labels, dict) or not labels:
        raise CommandError(f"--corpus: {path} must be an object of file names and their windows")
    for name, windows in labels.items():
        if not isinstance(windows, list) or not all(_is_window(window) for window in windows):
            raise CommandError(f"--corpus: {path}: the windows of {name} must be pairs of timestamps")
    return labels


def _is_window(window: Any) -> bool:
    return isinstance(window, list) and len(window) == 2 and all(isinstance(edge, str) for edge in window)


def _stream(root: Path, name: str, windows: Sequence[Sequence[str]]) -> Stream:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise CommandError(f"--corpus: {LABELS} names {name}, which lies outside {root}")
    times, values = _values(path)
    if not times:
        raise CommandError(f"--corpus: {path} has no rows")
    return Stream(
        name=name,
        family=name.partition("/")[0],
        times=np.array(times),
        values=np.array(values),
        windows=tuple(_window(path, times, window) for window in windows),
    )


def _values(path: Path) -> tuple[list[float], list[float]]:
    times, values = [], []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            for row in rows:
                try:
                    times.append(_seconds(row["timestamp"]))
                    values.append(float(row["value"]))
                except (KeyError, TypeError, ValueError):
                    wanted = "needs timestamp (2014-04-01 00:00:00) and value (a number)"
                    raise CommandError(f"--corpus: {path}, line {rows.line_num}: {wanted}") from None
    except OSError as error:
        raise CommandError(f"--corpus: {path} cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CommandError(f"--corpus: {path} is no CSV: {error}") from None
    return times, values


def _seconds(text: str) -> float:
    at = datetime.fromisoformat(text.strip())
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _window(path: Path, times: Sequence[float], window: Sequence[str]) -> tuple[int, int]:
    """Positions of the first rows with the window's timestamps, as the benchmark looks them up."""
    try:
        first, last = (times.index(_seconds(edge)) for edge in window)
    except ValueError:
        raise CommandError(f"--corpus: {LABELS}: the window {' to '.join(window)} is not of rows of {path}") from None
    if first > last:
        raise CommandError(f"--corpus: {LABELS}: the window {' to '.join(window)} of {path} ends before it begins")
    return first, last
