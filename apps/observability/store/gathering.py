"""Samples of several series into buckets, counters by what they have grown from."""

from collections.abc import Collection, Mapping
from datetime import datetime

from apps.observability.store import buckets, rows
from apps.observability.store.buckets import Buckets
from apps.observability.store.samples import EMPTY, Samples, united


def gathered(
    samples: Mapping[int, Samples], firsts: Mapping[int, datetime], counters: Collection[int], width: int
) -> dict[int, Buckets]:
    """Buckets of ``width`` seconds. ``firsts`` are where the samples of each series were read from: a whole bucket.
    ``counters`` are the series whose growth is meant."""
    grown = rows.before({id: firsts[id] for id, found in samples.items() if id in counters and len(found)})
    return {id: _one(found, grown.get(id, EMPTY), width, id in counters) for id, found in samples.items()}


def _one(found: Samples, before: Samples, width: int, is_counter: bool) -> Buckets:
    whole = united(before, found)
    return buckets.gathered(whole.times, whole.values, width, is_counter=is_counter)
