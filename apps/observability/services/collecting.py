"""What the collectors read becomes samples."""

import contextlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from django.utils import timezone
from prometheus_client.core import Metric

from apps.core.collectors import Resting, read_collectors
from apps.core.errors import Conflict, Unavailable
from apps.core.locks import alone
from apps.observability.catalogue import COUNTER, HISTOGRAM, SUMMARY, spec_of
from apps.observability.collectors import hosts, runs
from apps.observability.contracts import Reading, Written
from apps.observability.store import writing

PERIOD = 15
"""Seconds between two samples of a series."""
NOTHING = Written(stored=0, known=0)

resting = Resting()
"""Of this process; the others have theirs."""


def collect() -> Written:
    """Read every collector once, and store what it says at one common time: the last multiple of PERIOD.

    Where another worker collects just now, or has for this time, nothing is stored twice.
    """
    with contextlib.suppress(Unavailable):  # then the collector of hosts says so
        hosts.publish()
    try:
        with alone("observability.collect", busy="another worker collects"):
            now = timezone.now().timestamp()
            at = datetime.fromtimestamp(now - now % PERIOD, UTC)
            # What runs record is in the store already: it is read there, for `/metrics`.
            return writing.record(
                list(readings(read_collectors(without=(runs.NAME,), resting=resting), at)), source="platform"
            )
    except Conflict:
        return NOTHING


def readings(families: Iterable[Metric], at: datetime) -> Iterator[Reading]:
    """The samples that the catalogue wants stored."""
    for family in families:
        for sample in family.samples:
            try:
                spec = spec_of(sample.name)
            except KeyError:
                continue  # not ours
            if not spec.stored or sample.name.endswith("_bucket"):
                continue
            summed = spec.kind in (HISTOGRAM, SUMMARY) and sample.name != spec.name
            yield Reading(
                name=sample.name,
                value=float(sample.value),
                at=at,
                labels=sample.labels,
                kind=COUNTER if spec.kind == COUNTER or summed else "gauge",
                unit="" if sample.name.endswith("_count") else spec.unit,
            )
