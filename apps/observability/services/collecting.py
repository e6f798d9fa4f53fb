"""What the collectors read becomes samples."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import structlog
from django.utils import timezone
from prometheus_client.core import Metric

from apps.core.collectors import Resting, read_collectors
from apps.core.errors import Invalid
from apps.core.locks import Busy, alone
from apps.observability.catalogue import COUNTER, HISTOGRAM, SUMMARY, spec_of
from apps.observability.collectors import runs
from apps.observability.contracts import Reading, Written
from apps.observability.store import identity, writing

log = structlog.get_logger(__name__)

PERIOD = 15
"""Seconds between two samples of a series."""
NOTHING = Written(stored=0, known=0)

resting = Resting()
"""Of this process; the others have theirs."""


def collect() -> Written:
    """Read every collector once, and store what it says at one common time: the last multiple of PERIOD.

    Where another worker collects just now, or has for this time, nothing is stored twice.
    """
    try:
        with alone("observability.collect", busy="another worker collects"):
            now = timezone.now().timestamp()
            at = datetime.fromtimestamp(now - now % PERIOD, UTC)
            # What runs record is in the store already: it is read there, for `/metrics`.
            return _stored(list(readings(read_collectors(without=(runs.NAME,), resting=resting), at)))
    except Busy:
        return NOTHING


def _stored(found: Sequence[Reading]) -> Written:
    """A reading that cannot be kept, such as of a disk with too long a name, must not cost the others."""
    try:
        return writing.record(found, source="platform")
    except Invalid as error:
        log.error("readings_refused", problems=[f"{fault.pointer}: {fault.detail}" for fault in error.errors])
    return writing.record(
        [each for each in found if not identity.faults(each.name, each.labels, "")], source="platform"
    )


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
