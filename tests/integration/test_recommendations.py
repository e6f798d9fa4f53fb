"""Each recommendation: when it is made, with what evidence, and when it is not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import numpy as np
import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import is_valid_path
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, SaveReason
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.kernels.cache import fleet, stats
from apps.kernels.cache.segments import TierName
from apps.kernels.lifecycle import KernelState
from apps.morphogenesis.lifecycle import SeedState
from apps.morphogenesis.settings import RunSettings
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Alert, Anomaly, Channel, Notification, Series, Silence
from apps.observability.recommendations.contracts import Recommendation
from apps.observability.recommendations.facts import Facts
from apps.observability.recommendations.rules import RULES
from apps.observability.selectors.recommendations import advice
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric
from tests.support.factories import (
    CheckpointFactory,
    FieldReportFactory,
    KernelFactory,
    RunFactory,
    SeedFactory,
    SeedTransitionFactory,
    workspace,
)
from tests.support.measured import hourly, lately

pytestmark = pytest.mark.django_db

WEEK = 160
HOUR = timedelta(hours=1)
BY_KEY = {rule.key: rule for rule in RULES}


def found_by(key: str, **limits: float) -> list[Recommendation]:
    rule = replace(BY_KEY[key], limits={**BY_KEY[key].limits, **limits})
    return list(rule.find(Facts(timezone.now()), rule))


def the_one(key: str, **limits: float) -> Recommendation:
    (found,) = found_by(key, **limits)
    assert found.rule == key
    assert found.remedy
    assert found.evidence
    return found


def value_of(found: Recommendation, what: str) -> Any:
    return next(evidence for evidence in found.evidence if evidence.what == what)


def test_nothing_is_recommended_when_nothing_is_wrong() -> None:
    found = advice()

    assert (list(found.recommendations), list(found.unknown)) == ([], [])


# --- What runs out


def disk(*values: float) -> None:
    hourly("esper_host_disk_used_ratio", list(values), host="a", disk="/var")


def test_a_disk_that_fills_up_is_foretold_with_its_date_and_interval() -> None:
    disk(*(np.linspace(0.2, 0.6, WEEK) + 0.003 * np.sin(np.arange(WEEK) * 7)))

    found = the_one("disk_full")

    assert found.severity == "warning"
    date = timezone.now() + timedelta(hours=0.3 / (0.4 / WEEK))
    assert f"reaches 90 % on {date:%Y-%m-}" in found.sentence
    assert "not before" in found.sentence
    growth = value_of(found, "growth a day")
    assert growth.low < 24 * 0.4 / (WEEK - 1) < growth.high
    assert growth.link.startswith("/api/v1/metrics/query?name=esper_host_disk_used_ratio&")


@pytest.mark.parametrize("values", [np.linspace(0.5, 0.89, WEEK), [0.95] * WEEK, [0.95]])
def test_a_disk_that_is_full_now_or_soon_is_critical(values: list[float]) -> None:
    disk(*values)

    assert the_one("disk_full").severity == "critical"


@pytest.mark.parametrize(
    "values", [[0.5] * WEEK, np.linspace(0.8, 0.2, WEEK), np.linspace(0.20, 0.21, WEEK), np.linspace(0.1, 0.2, 9)]
)
def test_a_disk_with_room_for_long_is_no_matter(values: list[float]) -> None:
    disk(*values)

    assert found_by("disk_full") == []


def test_a_short_past_foretells_no_far_future() -> None:
    disk(*np.linspace(0.20, 0.25, 12))  # 0.65 are missing: six days and a half by half a day

    assert found_by("disk_full") == []


def test_a_database_reaches_its_budget(settings: Any) -> None:
    settings.DATABASE_BUDGET_BYTES = 10 * 2**30
    hourly("esper_database_bytes", list(np.linspace(5, 8, WEEK) * 2**30))

    found = the_one("database_full")

    assert "8 GiB of its budget of 10 GiB, which it reaches on" in found.sentence
    assert value_of(found, "budget").value == 10 * 2**30


@pytest.mark.parametrize("budget", [0, 2**60])
def test_a_database_without_budget_or_far_below_it_is_no_matter(settings: Any, budget: int) -> None:
    settings.DATABASE_BUDGET_BYTES = budget
    hourly("esper_database_bytes", list(np.linspace(5, 8, WEEK) * 2**30))

    assert found_by("database_full") == []


def reads(tier: TierName, **counts: int) -> None:
    for what, number in counts.items():
        stats.count(tier, cast(Any, what), size=1_000, n=number)
    assert fleet.publish()


def test_a_cache_that_lets_go_what_is_read_again_is_too_small() -> None:
    reads(TierName.L1, hits=100_000, misses=300_000, evictions=200_000)

    found = the_one("cache_too_small")

    assert found.subject == "l1"
    assert "ESPER_CACHE_L1_BYTES" in found.remedy
    assert value_of(found, "reads that it answered").n >= 400_000


def test_a_cache_that_misses_without_letting_go_is_large_enough() -> None:
    reads(TierName.L2, hits=1_000, misses=300_000, evictions=0)

    assert "l2" not in {found.subject for found in found_by("cache_too_small")}


def test_work_that_waits_ever_longer_needs_workers() -> None:
    lately("esper_queue_oldest_age_seconds", [2.0 * n for n in range(120)], queue="training")

    found = the_one("workers_short")

    assert found.subject == "training"
    assert "--queues training" in found.remedy


@pytest.mark.parametrize("ages", [[300.0] * 120, [0.2 * n for n in range(120)], [300.0 - n for n in range(120)]])
def test_work_that_is_caught_up_with_or_waits_shortly_needs_none(ages: list[float]) -> None:
    lately("esper_queue_oldest_age_seconds", ages, queue="training")

    assert found_by("workers_short") == []


def test_series_near_their_cap_are_told_with_the_largest_names(settings: Any) -> None:
    settings.METRICS_MAX_SERIES = 10
    for number in range(8):
        lately("app_latency_seconds", [1.0], client=str(number))

    found = the_one("too_many_series")

    assert found.severity == "warning"
    assert value_of(found, "series of app_latency_seconds").value == 8


def test_unused_series_are_told() -> None:
    Series.objects.bulk_create(
        Series(workspace=workspace(), name="app_x", digest=f"{n:064x}", last_at=timezone.now() - timedelta(days=9))
        for n in range(20)
    )

    found = the_one("too_many_series", least_series=20)

    assert found.severity == "info"
    assert value_of(found, "without a sample").value == 1.0


def test_a_few_series_are_no_matter() -> None:
    lately("app_latency_seconds", [1.0])

    assert found_by("too_many_series") == []


# --- Growing and saving


def ended(*states: SeedState, operator: str = "residual") -> None:
    for state in states:
        seed = SeedFactory(state=state, operator=operator, kernel_name="")
        SeedTransitionFactory(seed=seed, source=SeedState.EVALUATING, target=state)


def test_an_operator_that_is_rolled_back_too_often_is_told() -> None:
    ended(*[SeedState.ROLLED_BACK] * 6, *[SeedState.FOSSILIZED] * 6, operator="widen")

    found = {each.subject: each for each in found_by("rollbacks")}

    widen = found["operator widen"]
    rolled = value_of(widen, "rolled back")
    assert (rolled.value, rolled.n) == (0.5, 12)
    assert rolled.low > 0.1


@pytest.mark.parametrize(("rolled", "kept"), [(1, 1), (2, 10), (1, 40)])
def test_rollbacks_that_may_be_chance_are_not(rolled: int, kept: int) -> None:
    ended(*[SeedState.ROLLED_BACK] * rolled, *[SeedState.FOSSILIZED] * kept)

    assert found_by("rollbacks") == []


def reported(*verdicts: SeedState) -> Any:
    kernel = KernelFactory(state=KernelState.VALIDATED)
    for number, verdict in enumerate(verdicts):
        FieldReportFactory(kernel=kernel, seed_number=number + 1, verdict=verdict, contribution=-0.01 * number)
    return kernel


def test_a_kernel_that_no_run_keeps_is_told() -> None:
    kernel = reported(*[SeedState.CULLED] * 5)

    found = the_one("kernel_never_kept")

    assert found.link == f"/library/kernels/{kernel.pk}"
    gain = value_of(found, "mean gain")
    assert (gain.n, gain.value) == (5, pytest.approx(-0.02))
    assert gain.low < -0.02 < gain.high


def test_a_kernel_that_was_kept_once_or_tried_seldom_is_not() -> None:
    reported(*[SeedState.CULLED] * 8, SeedState.FOSSILIZED)
    reported(*[SeedState.CULLED] * 4)

    assert found_by("kernel_never_kept") == []


def training(losses: list[float]) -> Any:
    settings = RunSettings.from_mapping({"epochs": 400}).to_dict()
    run: Any = RunFactory(state=RunState.RUNNING, epochs=400, settings=settings)
    EpochMetric.objects.bulk_create(
        EpochMetric(run=run, epoch=epoch, step=40 * epoch, validation_loss=loss, parameters=1, train_flops=1)
        for epoch, loss in enumerate(losses, start=1)
    )
    return run


def test_a_run_on_a_plateau_with_free_slots_is_told() -> None:
    run = training([0.5 + 0.001 * (-1) ** n for n in range(40)])

    found = the_one("plateau")

    assert found.link == f"/runs/{run.pk}"
    assert value_of(found, "held-out loss an epoch").n == 30


def test_a_run_that_improves_is_not() -> None:
    training([1 / (n + 1) for n in range(40)])

    assert found_by("plateau") == []


def saved(*, every: float, stall: float, number: int = 6) -> None:
    run_id = new_id()
    for back in range(number):
        row: Any = CheckpointFactory(
            run_id=run_id, state=CheckpointState.COMMITTED, reason=SaveReason.INTERVAL, stall_seconds=stall
        )
        Checkpoint.objects.filter(pk=row.pk).update(created_at=timezone.now() - timedelta(seconds=every * back))


def test_saves_that_take_much_of_the_training_time_are_told() -> None:
    saved(every=60, stall=3.0)

    found = the_one("checkpoint_interval")

    assert value_of(found, "share of the training time").value == pytest.approx(0.05, rel=0.02)
    assert "longer interval" in found.remedy


def test_saves_that_are_cheap_and_seldom_are_told() -> None:
    saved(every=3_600, stall=0.01)

    found = the_one("checkpoint_interval")

    assert "loses up to 60 min" in found.sentence
    assert "shorter interval" in found.remedy


@pytest.mark.parametrize(("every", "stall", "number"), [(1_800, 0.01, 6), (600, 3.0, 6), (60, 3.0, 3)])
def test_saves_at_a_sensible_interval_are_not(every: float, stall: float, number: int) -> None:
    saved(every=every, stall=stall, number=number)

    assert found_by("checkpoint_interval") == []


# --- What people have not seen


def notified(state: str, *, route: UUID | None = None, attempts: int = 0, problem: str = "") -> None:
    notification = Notification.objects.create(
        workspace=workspace(),
        route_id=route or new_id(),
        route_name="on call",
        channel=Channel.WEBHOOK,
        group_key="0" * 64,
        payload={},
        due_at=timezone.now(),
    )
    for step in {"FAILED": ["FAILED"], "DELIVERED": ["SENDING", "DELIVERED"], "PENDING": []}[state]:
        Notification.objects.filter(pk=notification.pk).update(state=step)
    Notification.objects.filter(pk=notification.pk).update(attempts=attempts, problem=problem)


def test_a_route_whose_messages_do_not_arrive_is_told() -> None:
    route = new_id()
    notified(NotificationState.DELIVERED, route=route)
    notified(NotificationState.PENDING, route=route, attempts=4)
    notified(NotificationState.FAILED, route=route, problem="401 Unauthorized")

    found = the_one("failing_deliveries")

    assert found.severity == "warning"
    assert value_of(found, "messages that do not arrive").n == 3
    assert value_of(found, "the newest problem").value == "401 Unauthorized"


def test_a_message_that_is_tried_again_is_no_matter_yet() -> None:
    notified(NotificationState.PENDING, attempts=1)
    notified(NotificationState.DELIVERED)

    assert found_by("failing_deliveries") == []


def fired(*, ago: timedelta, severity: str = "critical", acknowledged: bool = False, **labels: str) -> None:
    at = timezone.now() - ago
    Alert.objects.create(
        workspace=workspace(),
        rule_id=new_id(),
        rule_name="loss spike",
        fingerprint=new_id().hex,
        state=AlertState.FIRING,
        severity=severity,
        metric="esper_run_train_loss",
        summary="the loss spikes",
        labels=labels,
        started_at=at,
        fired_at=at,
        last_true_at=at,
        last_seen_at=at,
        acknowledged_at=timezone.now() if acknowledged else None,
    )


def test_alerts_that_nobody_takes_on_are_told_by_rule() -> None:
    fired(ago=6 * HOUR)
    fired(ago=5 * HOUR)

    found = the_one("unacknowledged_alerts")

    assert found.severity == "critical"
    assert value_of(found, "alerts").value == 2
    assert value_of(found, "age of the oldest").value == pytest.approx(6 * 3600, rel=0.01)


def test_alerts_that_are_new_acknowledged_or_for_information_are_not() -> None:
    fired(ago=HOUR)
    fired(ago=6 * HOUR, acknowledged=True)
    fired(ago=6 * HOUR, severity="info")

    assert found_by("unacknowledged_alerts") == []


def test_alerts_that_are_silenced_are_not() -> None:
    fired(ago=6 * HOUR, alertname="loss spike")
    Silence.objects.create(
        workspace=workspace(),
        matchers=[{"label": "alertname", "op": "=", "value": "loss spike"}],
        starts_at=timezone.now() - HOUR,
        ends_at=timezone.now() + HOUR,
        comment="it is known",
    )

    assert found_by("unacknowledged_alerts") == []


def odd(number: int) -> None:
    series = lately("app_latency_seconds", [1.0])
    now = timezone.now()
    Anomaly.objects.bulk_create(
        Anomaly(
            workspace=workspace(),
            series=series,
            at=now - timedelta(minutes=minute),
            until=now,
            value=1.0,
            score=1.0,
            component="extreme",
            explanation="it is odd",
        )
        for minute in range(number)
    )


def test_a_series_in_which_the_detector_finds_something_all_day_is_told() -> None:
    odd(20)

    found = the_one("noisy_detector")

    assert value_of(found, "anomalies").value == 20
    assert value_of(found, "a part of the detector that fired").value == "extreme"


def test_a_few_anomalies_are_what_it_is_there_for() -> None:
    odd(19)

    assert found_by("noisy_detector") == []


# --- All of them


def test_the_worst_comes_first_and_a_rule_that_can_say_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(*[0.95] * WEEK)
    reported(*[SeedState.CULLED] * 5)
    monkeypatch.setattr(Facts, "cache", property(lambda facts: silent()))

    found = advice()

    assert [each.rule for each in found.recommendations] == ["disk_full", "kernel_never_kept"]
    assert [(each.rule, each.why) for each in found.unknown] == [("cache_too_small", "the broker is away")]


def silent() -> None:
    raise Unavailable("the broker is away")


def test_every_link_leads_to_something(settings: Any) -> None:
    settings.METRICS_MAX_SERIES = 3
    disk(*[0.95] * WEEK)
    lately("esper_queue_oldest_age_seconds", [2.0 * n for n in range(120)], queue="training")
    ended(*[SeedState.ROLLED_BACK] * 10)
    reported(*[SeedState.CULLED] * 5)
    training([0.5 + 0.001 * (-1) ** n for n in range(40)])
    saved(every=60, stall=3.0)
    notified(NotificationState.FAILED)
    fired(ago=6 * HOUR)
    odd(20)

    found = advice().recommendations

    assert len({each.rule for each in found}) == len(RULES) - 2
    links = {link for each in found for link in (each.link, *(evidence.link for evidence in each.evidence))}
    assert [link for link in links if link and not is_valid_path(link.partition("?")[0])] == []


def test_many_rows_take_as_many_queries_as_few() -> None:
    counts = []
    for number in (1, 4):
        for place in range(number):
            hourly("esper_host_disk_used_ratio", list(np.linspace(0.2, 0.8, WEEK)), host=f"{number} {place}", disk="/")
            training([0.5] * 40)
            saved(every=60, stall=3.0)
            fired(ago=6 * HOUR)
        with CaptureQueriesContext(connection) as queries:
            assert len(advice().recommendations) > 3 * number
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 30


def test_each_rule_has_a_key_of_its_own_and_says_what_it_looks_for() -> None:
    assert len(BY_KEY) == len(RULES)
    assert all(rule.about and rule.limits for rule in RULES)


def test_the_document_has_every_rule_with_its_limits() -> None:
    text = (settings.BASE_DIR / "docs" / "analysis.md").read_text()

    for rule in RULES:
        limits = ", ".join(f"{name} {limit:g}" for name, limit in rule.limits.items())
        assert f"| `{rule.key}` | {rule.about} | {limits} |" in text
