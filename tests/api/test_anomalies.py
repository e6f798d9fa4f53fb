"""`/analysis/anomalies` over HTTP: what the detector found, and what of it is odd now."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from apps.observability.models import Anomaly, DetectorState, Series
from tests.api.conftest import Caller
from tests.support.anomalies import add_anomaly
from tests.support.metrics import add_series
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db
PATH = "/api/v1/analysis/anomalies"
NOW = timezone.now().replace(microsecond=0)


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The session may have begun long before: what is odd now is odd at the time of the test."""
    monkeypatch.setitem(globals(), "NOW", timezone.now().replace(microsecond=0))


def odd(series: Series, *, minutes: float = 1, **more: Any) -> Anomaly:
    """An anomaly that began so many minutes ago."""
    return add_anomaly(series, at=NOW - timedelta(minutes=minutes), **more)


def asked(client: Caller, path: str = PATH, **parameters: object) -> list[dict]:
    response = client.get(path, parameters)
    assert response.status_code == 200, response.content
    return response.json()["results"]


def test_an_anomaly_tells_series_reason_and_where_to_look(admin: Caller) -> None:
    run_id = uuid4()
    odd(
        add_series("loss", part='"head"'),
        run_id=run_id,
        components={"extreme": 0.6},
        expected_low=0.2,
        expected_high=0.4,
    )

    (found,) = asked(admin)

    assert (found["series"]["name"], found["series"]["labels"]) == ("loss", {"part": '"head"'})
    assert (found["component"], found["components"]) == ("extreme", {"extreme": 0.6})
    assert (found["expected_low"], found["expected_high"], found["explanation"]) == (0.2, 0.4, "it is 9.5")
    assert found["links"]["run"] == f"/api/v1/runs/{run_id}"
    assert admin.get(found["links"]["samples"]).status_code == 200


def test_anomalies_are_found_by_run_name_time_and_component(admin: Caller) -> None:
    run_id, loss, rate = uuid4(), add_series("loss"), add_series("rate")
    old = odd(loss, minutes=60, lasting=5)
    of_run = odd(rate, run_id=run_id)
    shifted = odd(rate, minutes=2, component="shift")

    def ids(**parameters: object) -> set[str]:
        return {row["id"] for row in asked(admin, **parameters)}

    assert ids(run=run_id) == {str(of_run.pk)}
    assert ids(name="loss") == {str(old.pk)}
    assert ids(component="shift") == {str(shifted.pk)}
    assert ids(since=(NOW - timedelta(minutes=56)).isoformat()) == {str(old.pk), str(of_run.pk), str(shifted.pk)}
    assert ids(since=(NOW - timedelta(minutes=50)).isoformat()) == {str(of_run.pk), str(shifted.pk)}


def test_the_advisor_ranks_what_goes_on_and_what_happened_to_many(admin: Caller) -> None:
    over, alone, one, other = (add_series(name) for name in ("over", "alone", "one", "other"))
    odd(over, minutes=10, score=1.0)
    odd(alone, minutes=5, score=1.0)
    odd(one, minutes=1.2, score=0.6)
    odd(other, minutes=1, score=0.7)
    odd(other, minutes=8)
    odd(add_series("long_ago"), minutes=60)
    for series in (alone, one, other):
        DetectorState.objects.create(
            series=series, version=1, state={}, state_at=NOW, last_at=NOW - timedelta(minutes=5)
        )
    DetectorState.objects.create(series=over, version=1, state={}, state_at=NOW, last_at=NOW)

    found = asked(admin, f"{PATH}/current")

    assert [row["anomaly"]["series"]["name"] for row in found] == ["other", "one", "alone", "over"]
    assert [(row["ongoing"], row["together"], row["times"]) for row in found] == [
        (True, 1, 2),
        (True, 1, 1),
        (True, 0, 1),
        (False, 0, 1),
    ]


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("run", "x"), ("component", "magic"), ("since", "yesterday"), ("name", "x" * 121), ("other", "1")],
)
def test_a_wrong_parameter_is_named(admin: Caller, parameter: str, value: str) -> None:
    response = admin.get(PATH, {parameter: value})

    problem = assert_problem(response, 400)
    assert problem["errors"][0]["pointer"] == f"/{parameter}"


def test_reading_takes_the_scope_of_runs(caller) -> None:
    for path in (PATH, f"{PATH}/current"):
        assert_problem(caller("viewer", scopes=["blueprints:read"]).get(path), 403)
