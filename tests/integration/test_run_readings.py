"""What a run's worker records while it trains is in the store under the run's name, and in `/metrics` while it runs."""

from typing import Any

import pytest
from django.test import Client

from apps.observability.catalogue import RECORDED
from apps.observability.models import Sample, Series
from apps.observability.store import writing
from apps.training.lifecycle import RunState
from tests.support.training import quick_run, train_to_the_end


def test_a_run_leaves_every_reading_under_its_name(committed_db: str) -> None:
    run = train_to_the_end(quick_run())

    series = Series.objects.filter(run_id=run.pk)
    assert set(series.values_list("name", flat=True)) == set(RECORDED) - {"esper_run_overhead_ratio"}, (
        "it grows nothing"
    )
    assert {tuple(labels.items()) for labels in series.values_list("labels", flat=True)} == {(("run", str(run.pk)),)}
    assert set(series.values_list("source", flat=True)) == {"run"}


def test_the_newest_readings_are_in_metrics(committed_db: str, client: Client) -> None:
    run = train_to_the_end(quick_run())
    accuracy = Series.objects.get(run_id=run.pk, name="esper_run_validation_accuracy")
    newest = Sample.objects.filter(series_id=accuracy.pk).latest("at")

    body = client.get("/metrics").content.decode()

    assert f'esper_run_validation_accuracy{{run="{run.pk}"}} {newest.value}' in body


def test_a_store_that_fails_costs_readings_and_no_run(committed_db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(writing, "record", fail)

    run = train_to_the_end(quick_run())

    assert run.state == RunState.COMPLETED
    assert not Series.objects.filter(run_id=run.pk).exists()
