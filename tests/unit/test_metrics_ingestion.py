"""Whatever JSON is sent as a sample: it is a reading, or it is told what is wrong."""

import contextlib
from datetime import UTC, datetime

from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.observability.services import ingestion
from apps.observability.store import writing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["loss", "esper_loss", "7", ""]) | JSON,
        "value": st.floats() | st.sampled_from(["NaN", "+Inf", "inf", 10**400]) | JSON,
        "at": st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat) | st.text(max_size=30) | JSON,
    },
    optional={
        "labels": st.dictionaries(st.text(max_size=4), st.text(max_size=4) | JSON, max_size=3) | JSON,
        "kind": st.sampled_from(["gauge", "counter"]) | JSON,
        "unit": st.text(max_size=30) | JSON,
    },
)


@given(NEARLY | JSON)
@settings(max_examples=300)
def test_a_sample_is_read_or_refused(given_sample):
    with contextlib.suppress(ingestion.Fault, Invalid):
        reading = ingestion._reading(given_sample)
        writing.check([reading], now=timezone.now())
        assert isinstance(reading.value, float)
        assert all(isinstance(value, str) for value in reading.labels.values())
