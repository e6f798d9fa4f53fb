"""`/metrics/trends`, `/analysis/performance` and `/analysis/recommendations` over HTTP."""

from collections.abc import Callable

import numpy as np
import pytest
from django.utils.dateparse import parse_datetime

from apps.kernels.lifecycle import KernelState
from apps.morphogenesis.lifecycle import SeedState
from tests.api.conftest import Caller
from tests.support.factories import FieldReportFactory, KernelFactory
from tests.support.measured import hourly, lately
from tests.support.problems import assert_problem

pytestmark = pytest.mark.django_db

TRENDS, PERFORMANCE, RECOMMENDATIONS = (
    "/api/v1/metrics/trends",
    "/api/v1/analysis/performance",
    "/api/v1/analysis/recommendations",
)
DISK = "esper_host_disk_used_ratio"


def asked(client: Caller, path: str, **parameters: object) -> dict:
    response = client.get(path, parameters)
    assert response.status_code == 200, response.content
    return response.json()


def test_a_trend_tells_slope_interval_direction_and_forecast(admin: Caller) -> None:
    hourly(DISK, list(np.linspace(0.2, 0.5, 160)), host="a", disk="/")

    answer = asked(admin, TRENDS, name=DISK, hours=168, threshold=0.6)

    (series,) = answer["results"]
    assert series["series"]["labels"] == {"host": "a", "disk": "/"}
    assert (series["step"], series["last"]) == (3600, 0.5)
    trend = series["trend"]
    assert trend["low"] <= trend["slope_per_hour"] <= trend["high"]
    assert trend["slope_per_hour"] == pytest.approx(0.3 / 159, rel=0.01)
    assert trend["direction"] == "rising"
    assert trend["p"] < 0.01
    at, until = parse_datetime(series["forecast"]["at"]), parse_datetime(answer["until"])
    assert (at - until).total_seconds() / 3600 == pytest.approx(52, abs=2)


def test_series_are_chosen_by_labels(admin: Caller) -> None:
    for host in ("a", "b", "c"):
        lately(DISK, [0.5], host=host, disk="/")

    answer = asked(admin, TRENDS, name=DISK, label=['host=~"a|b"', 'host!="b"'])

    assert [series["series"]["labels"]["host"] for series in answer["results"]] == ["a"]
    assert answer["results"][0]["trend"] is None


def test_numbers_that_json_has_not_are_null(admin: Caller) -> None:
    lately("app_x", [float("nan")] * 5 + [float("inf")])
    lately("app_y", [1e308, -1e308] * 10)

    assert asked(admin, TRENDS, name="app_x", hours=1)["results"][0]["trend"] is None
    assert asked(admin, TRENDS, name="app_y", hours=1)["results"][0]["trend"]["direction"] == "none"


def test_an_unknown_name_has_no_series(admin: Caller) -> None:
    assert asked(admin, TRENDS, name="app_unknown")["results"] == []


@pytest.mark.parametrize(
    ("parameters", "pointer"),
    [
        ({}, "/name"),
        ({"name": "a\0b"}, "/name"),
        ({"name": "x" * 121}, "/name"),
        ({"name": DISK, "hours": "0"}, "/hours"),
        ({"name": DISK, "hours": "1e3"}, "/hours"),
        ({"name": DISK, "hours": str(10**30)}, "/hours"),
        ({"name": DISK, "threshold": "nan"}, "/threshold"),
        ({"name": DISK, "threshold": "-inf"}, "/threshold"),
        ({"name": DISK, "threshold": "full"}, "/threshold"),
        ({"name": DISK, "horizon_hours": "-1"}, "/horizon_hours"),
        ({"name": DISK, "label": "host"}, "/label"),
        ({"name": DISK, "label": 'host=~"("'}, "/label"),
        ({"name": DISK, "label": "host=\0"}, "/label"),
        ({"name": DISK, "point": "1"}, "/point"),
    ],
)
def test_a_wrong_parameter_is_named(admin: Caller, parameters: dict[str, str], pointer: str) -> None:
    response = admin.get(TRENDS, parameters)

    problem = assert_problem(response, 400)
    assert problem["errors"][0]["pointer"].startswith(pointer)


def test_performance_tells_each_number_with_its_cases(admin: Caller) -> None:
    lately("esper_host_cpu_ratio", [0.5], host="a")

    answer = asked(admin, PERFORMANCE, hours=48)

    since, until = parse_datetime(answer["since"]), parse_datetime(answer["until"])
    assert (until - since).total_seconds() == 48 * 3600
    assert answer["efficiency"]["test_accuracy"] == {"n": 0, "value": None, "low": None, "high": None}
    assert answer["adaptation"]["success"]["n"] == 0
    assert [each["series"]["name"] for each in answer["resources"]] == ["esper_host_cpu_ratio"]
    assert [tier["name"] for tier in answer["cache"]["tiers"]] == ["l1", "l2", "l3", "l4"]


@pytest.mark.parametrize("hours", ["0", "-1", "1.5", "x", "99999999"])
def test_a_window_that_cannot_be_is_refused(admin: Caller, hours: str) -> None:
    assert_problem(admin.get(PERFORMANCE, {"hours": hours}), 400)


def test_recommendations_carry_their_evidence(admin: Caller) -> None:
    assert asked(admin, RECOMMENDATIONS) == {"results": [], "unknown": []}

    kernel = KernelFactory(state=KernelState.VALIDATED)
    for number in range(5):
        FieldReportFactory(kernel=kernel, seed_number=number + 1, verdict=SeedState.CULLED)

    (found,) = asked(admin, RECOMMENDATIONS)["results"]
    assert (found["rule"], found["severity"]) == ("kernel_never_kept", "info")
    assert found["sentence"].startswith(f"Kernel {kernel.name} was grafted 5 times and never kept")
    assert found["link"] == f"/library/kernels/{kernel.pk}"
    assert found["evidence"][0] == {
        "what": "kept",
        "value": 0.0,
        "unit": "ratio",
        "n": 5,
        "low": 0.0,
        "high": pytest.approx(0.4345, abs=1e-4),
        "link": found["link"],
    }


@pytest.mark.parametrize("path", [f"{TRENDS}?name=x", PERFORMANCE, RECOMMENDATIONS])
def test_reading_takes_the_scope_of_runs(caller: Callable[..., Caller], nobody: Caller, path: str) -> None:
    assert caller("viewer", scopes=["runs:read"]).get(path).status_code == 200
    assert caller("viewer", scopes=["library:read"]).get(path).status_code == 403
    assert nobody.get(path).status_code == 401
