"""What the platform measures (series, samples, their packed history and averages), what is odd about it (anomalies),
and what people are told of (rules, alerts, silences, routes, notifications).

Tables of samples are partitioned by time, made by SQL: see the first migration. Retention drops partitions.
"""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.serializers.json import DjangoJSONEncoder
from django.core.validators import MaxValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from apps.accounts.models import Workspace, WorkspaceOwned
from apps.audit.watched import Watched
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.observability.lifecycle import (
    ALERT_LIFECYCLE,
    NOTIFICATION_LIFECYCLE,
    OPEN,
    AlertState,
    NotificationState,
)

DAY = 86_400


class SeriesKind(models.TextChoices):
    GAUGE = "gauge", "a value that goes up and down"
    COUNTER = "counter", "a count that only goes up, until its process begins anew"


class SeriesSource(models.TextChoices):
    PLATFORM = "platform", "the platform's own collectors"
    RUN = "run", "a training run of a worker"
    CLIENT = "client", "a client, over the API"


class Series(models.Model):
    """One curve: a metric's name and its labels. ``digest`` is the sha256 of workspace, name and sorted labels."""

    id = models.BigAutoField(primary_key=True)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+", editable=False)
    name = models.CharField(max_length=120, editable=False)
    labels = models.JSONField(default=dict, editable=False)
    """{name: value}, both strings."""
    digest = models.CharField(max_length=64, unique=True, editable=False)
    kind = models.CharField(max_length=8, choices=SeriesKind, default=SeriesKind.GAUGE, editable=False)
    unit = models.CharField(max_length=24, blank=True, editable=False)
    source = models.CharField(max_length=8, choices=SeriesSource, default=SeriesSource.PLATFORM, editable=False)
    run_id = models.UUIDField(null=True, editable=False)
    """The run that it is of; also its label ``run``."""
    created_at = models.DateTimeField(auto_now_add=True, editable=False)
    last_at = models.DateTimeField(null=True, editable=False)
    """Of its newest sample, as the last roll-up found it: exact is what the samples say."""

    class Meta:
        ordering = ["name", "id"]
        verbose_name_plural = "series"
        indexes = [
            models.Index(fields=["workspace", "name", "id"], name="series_name"),
            models.Index(fields=["run_id"], name="series_run", condition=Q(run_id__isnull=False)),
        ]

    def __str__(self) -> str:
        labels = ", ".join(f'{name}="{value}"' for name, value in sorted(self.labels.items()))
        return f"{self.name}{{{labels}}}" if labels else self.name


class Sample(models.Model):
    """A measured value, for the last days. Partitioned by day; ``chunks`` hold what is older."""

    pk = models.CompositePrimaryKey("series_id", "at")
    series_id = models.BigIntegerField(editable=False)
    at = models.DateTimeField(editable=False)
    value = models.FloatField(editable=False)
    """NaN and infinite values are values, too."""
    anomalous = models.BooleanField(default=False, editable=False)

    class Meta:
        db_table = "observability_sample"

    def __str__(self) -> str:
        return f"{self.series_id} at {self.at}: {self.value}"


class SampleChunk(models.Model):
    """All samples of a series of one hour, packed (``store.packing``). Partitioned by day."""

    pk = models.CompositePrimaryKey("series_id", "start")
    series_id = models.BigIntegerField(editable=False)
    start = models.DateTimeField(editable=False)
    """The full hour, UTC."""
    count = models.PositiveIntegerField(editable=False)
    data = models.BinaryField(editable=False)

    class Meta:
        db_table = "observability_samplechunk"

    def __str__(self) -> str:
        return f"{self.series_id} from {self.start}: {self.count}"


class Rollup(models.Model):
    """Least, mean and greatest value of a series over a bucket of time that begins at ``start``, and of how many
    samples. Values that are no finite number do not count. Partitioned by month."""

    pk = models.CompositePrimaryKey("series_id", "start")
    series_id = models.BigIntegerField(editable=False)
    start = models.DateTimeField(editable=False)
    least = models.FloatField(editable=False)
    mean = models.FloatField(editable=False)
    greatest = models.FloatField(editable=False)
    last = models.FloatField(editable=False)
    count = models.PositiveIntegerField(editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.series_id} from {self.start}: {self.mean}"


class FiveMinuteRollup(Rollup):
    SECONDS: ClassVar[int] = 300

    class Meta(Rollup.Meta):
        abstract = False
        db_table = "observability_rollup5m"


class HourRollup(Rollup):
    SECONDS: ClassVar[int] = 3600

    class Meta(Rollup.Meta):
        abstract = False
        db_table = "observability_rollup1h"


class DetectorState(models.Model):
    """What the anomaly detector has learned of a series: a restart is no new warm-up."""

    series = models.OneToOneField(Series, on_delete=models.CASCADE, primary_key=True, related_name="detector")
    version = models.PositiveSmallIntegerField(editable=False)
    """Of the detector; another version begins anew."""
    state = models.JSONField(editable=False)
    state_at = models.DateTimeField(editable=False)
    """Of the newest sample that is in ``state``: it is written every few minutes (``services.scanning``)."""
    seen = models.PositiveBigIntegerField(default=0, editable=False)
    last_at = models.DateTimeField(null=True, editable=False)
    """Of the newest sample that the detector was told."""
    last_score = models.FloatField(default=0.0, editable=False)
    updated_at = models.DateTimeField(auto_now=True, editable=False)

    def __str__(self) -> str:
        return f"{self.series_id} after {self.seen}"


class Anomaly(models.Model):
    """A moment at which the detector found a series to behave as it never does, with what made it think so."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+", editable=False)
    series = models.ForeignKey(Series, on_delete=models.CASCADE, related_name="anomalies", editable=False)
    run_id = models.UUIDField(null=True, editable=False)
    at = models.DateTimeField(editable=False)
    until = models.DateTimeField(editable=False)
    """The last odd sample before a new anomaly was listened for."""
    value = models.FloatField(editable=False)
    score = models.FloatField(editable=False)
    """0 to 1; ``anomalies.THRESHOLD`` and above is an anomaly."""
    component = models.CharField(max_length=32, editable=False)
    """The part of the detector that weighed most."""
    components = models.JSONField(default=dict, editable=False)
    """{component: what it contributed}."""
    expected_low = models.FloatField(null=True, editable=False)
    expected_high = models.FloatField(null=True, editable=False)
    explanation = models.TextField(editable=False)
    """A sentence for people."""

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "anomalies"
        constraints = [models.UniqueConstraint(fields=["series", "at"], name="anomaly_once")]
        indexes = [
            models.Index(fields=["workspace", "-at"], name="anomaly_at"),
            models.Index(fields=["run_id", "at"], name="anomaly_run", condition=Q(run_id__isnull=False)),
        ]

    def __str__(self) -> str:
        return f"{self.series_id} at {self.at:%Y-%m-%d %H:%M:%S}"


class Severity(models.TextChoices):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class RuleKind(models.TextChoices):
    """What a rule looks for in each series that it selects (``rules.kinds``)."""

    THRESHOLD = "threshold", "above or below a value"
    CHANGE = "change", "moved by so many percent against its own past"
    SPIKE = "spike", "far above its robust median"
    NON_FINITE = "non_finite", "not a finite number"
    PLATEAU = "plateau", "has stopped moving"
    ABSENCE = "absence", "no sample for so long"
    ANOMALY = "anomaly", "the detector found an anomaly"
    FORECAST = "forecast", "reaches a value within so many hours by its trend"


class AlertRule(WorkspaceOwned):
    """What people want to be told of: a condition on every series of ``metric`` that ``matchers`` admit."""

    audit: ClassVar[Watched] = Watched(subject="alert_rule")

    name = models.CharField(max_length=80)
    description = models.TextField(blank=True)
    kind = models.CharField(max_length=16, choices=RuleKind)
    metric = models.CharField(max_length=120)
    matchers = models.JSONField(default=list, blank=True)
    """[{"label", "op", "value"}], op one of =, !=, =~, !~ (``matchers``)."""
    parameters = models.JSONField(default=dict, blank=True)
    """As the kind asks for (``rules.kinds``), e.g. {"op": ">", "value": 0.1, "reading": "mean"}."""
    for_seconds = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(7 * DAY)])
    """The condition must have held for so long before it fires."""
    keep_firing_seconds = models.PositiveIntegerField(default=0, validators=[MaxValueValidator(7 * DAY)])
    """It must have been over for so long before it is resolved."""
    severity = models.CharField(max_length=8, choices=Severity, default=Severity.WARNING)
    labels = models.JSONField(default=dict, blank=True)
    """Labels that its alerts get besides those of the series: {name: value}."""
    summary = models.CharField(max_length=300, blank=True)
    """What its alerts say: {metric}, {value}, {threshold} and {<label>} are filled in."""
    remedy = models.TextField(blank=True)
    """What to do about it."""
    inhibited_by = models.JSONField(default=list, blank=True)
    """[{"rule": name, "equal": [label, ...]}]: nobody is notified while that rule fires with the same labels."""
    enabled = models.BooleanField(default=True)
    shipped = models.CharField(max_length=80, blank=True, editable=False)
    """The key of the shipped rule that it was made from (``rules.shipped``)."""

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["workspace", "name"], name="alert_rule_name_once"),
            models.UniqueConstraint(
                fields=["workspace", "shipped"], name="alert_rule_shipped_once", condition=~Q(shipped="")
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Alert(WorkspaceOwned):
    """One episode of a rule's condition on one series. A resolved one stays; the next episode is another row."""

    audit: ClassVar[Watched] = Watched(subject="alert", outside={"value", "last_true_at", "last_seen_at", "over_since"})

    rule_id = models.UUIDField(editable=False)
    rule_name = models.CharField(max_length=80, editable=False)
    fingerprint = models.CharField(max_length=64, editable=False)
    """sha256 of rule and labels: what is the same problem."""
    state = models.CharField(max_length=8, choices=choices(AlertState), default=AlertState.PENDING, editable=False)
    severity = models.CharField(max_length=8, choices=Severity, editable=False)
    metric = models.CharField(max_length=120, editable=False)
    series_id = models.BigIntegerField(null=True, editable=False)
    run_id = models.UUIDField(null=True, editable=False)
    labels = models.JSONField(default=dict, editable=False)
    """Of the series, the rule's own, "alertname" and "severity": what silences and routes match."""
    summary = models.TextField(editable=False)
    remedy = models.TextField(blank=True, editable=False)
    threshold = models.FloatField(null=True, editable=False)
    value = models.FloatField(null=True, editable=False)
    """As it was seen last."""
    evidence = models.JSONField(default=dict, editable=False, encoder=DjangoJSONEncoder)
    """What the rule saw when it began: values, window, component of the detector."""
    started_at = models.DateTimeField(editable=False)
    fired_at = models.DateTimeField(null=True, editable=False)
    resolved_at = models.DateTimeField(null=True, editable=False)
    last_true_at = models.DateTimeField(editable=False)
    last_seen_at = models.DateTimeField(editable=False)
    """When it was last evaluated."""
    over_since = models.DateTimeField(null=True, editable=False)
    """Since when the condition does not hold any more, while it keeps firing."""
    acknowledged_at = models.DateTimeField(null=True, editable=False)
    acknowledged_by_id = models.UUIDField(null=True, editable=False)
    note = models.TextField(blank=True, editable=False)
    """What who acknowledged it wrote."""

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=state_check("state", AlertState), name="alert_state_is_known"),
            models.UniqueConstraint(
                fields=["workspace", "fingerprint"],
                name="alert_open_once",
                condition=state_check("state", sorted(OPEN)),
            ),
        ]
        indexes = [
            models.Index(fields=["workspace", "state", "-id"], name="alert_state"),
            models.Index(fields=["fingerprint", "-id"], name="alert_fingerprint"),
            models.Index(fields=["run_id"], name="alert_run", condition=Q(run_id__isnull=False)),
        ]
        triggers = ALERT_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return self.summary


class Silence(WorkspaceOwned):
    """Nobody is notified of alerts whose labels match, from ``starts_at`` until ``ends_at``: a maintenance, say."""

    audit: ClassVar[Watched] = Watched(subject="silence")

    matchers = models.JSONField()
    """As of AlertRule; at least one."""
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    comment = models.TextField()
    created_by_id = models.UUIDField(null=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(ends_at__gte=models.F("starts_at")), name="silence_ends_after_it_starts")
        ]
        indexes = [models.Index(fields=["workspace", "ends_at"], name="silence_ends")]

    def __str__(self) -> str:
        return self.comment


class Channel(models.TextChoices):
    EMAIL = "email", "e-mail"
    WEBHOOK = "webhook", "signed webhook"


class AlertRoute(WorkspaceOwned):
    """Whom to tell of which alerts, in what groups and how often."""

    audit: ClassVar[Watched] = Watched(subject="alert_route", secret={"secret", "target"})
    """Targets are people's addresses, or URLs that hold a password as often as not: the trail has digests of them."""

    name = models.CharField(max_length=80)
    channel = models.CharField(max_length=8, choices=Channel)
    target = models.TextField()
    """E-mail addresses, one a line; or the URL of the webhook."""
    secret = models.CharField(max_length=200, blank=True)
    """What webhooks are signed with; it is made when none is given, and never shown again."""
    matchers = models.JSONField(default=list, blank=True)
    """Empty: every alert."""
    group_by = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    """Alerts with the same values of these labels go into one message; empty: one message for all."""
    group_wait_seconds = models.PositiveIntegerField(default=30, validators=[MaxValueValidator(3600)])
    group_interval_seconds = models.PositiveIntegerField(default=300, validators=[MaxValueValidator(DAY)])
    repeat_interval_seconds = models.PositiveIntegerField(default=4 * 3600, validators=[MaxValueValidator(30 * DAY)])
    send_resolved = models.BooleanField(default=True)
    enabled = models.BooleanField(default=True)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="alert_route_name_once")]

    def __str__(self) -> str:
        return self.name


class Notification(models.Model):
    """A message about a group of alerts, on its way over one route: the outbox and the log of deliveries in one."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.CASCADE, related_name="+", editable=False)
    route_id = models.UUIDField(editable=False)
    route_name = models.CharField(max_length=80, editable=False)
    channel = models.CharField(max_length=8, choices=Channel, editable=False)
    group_key = models.CharField(max_length=64, editable=False)
    state = models.CharField(
        max_length=9, choices=choices(NotificationState), default=NotificationState.PENDING, editable=False
    )
    alerts = ArrayField(models.UUIDField(), default=list, editable=False)
    open_alerts = ArrayField(models.UUIDField(), default=list, editable=False)
    """Those of ``alerts`` that it tells of as firing, while it is the newest message of its group; then empty."""
    waiting = ArrayField(models.TextField(), default=list, editable=False)
    """E-mail: the addresses that have not got it yet, after one has; empty: all of the route's."""
    payload = models.JSONField(editable=False)
    """As the webhook gets it (Alertmanager, version 4)."""
    attempts = models.PositiveSmallIntegerField(default=0, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    due_at = models.DateTimeField(editable=False)
    """When to try next."""
    claimed_until = models.DateTimeField(null=True, editable=False)
    delivered_at = models.DateTimeField(null=True, editable=False)
    problem = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=state_check("state", NotificationState), name="notification_state_is_known"
            )
        ]
        indexes = [
            models.Index(fields=["route_id", "group_key", "-id"], name="notification_group"),
            models.Index(fields=["route_id"], name="notification_open", condition=~Q(open_alerts=[])),
            models.Index(
                fields=["due_at"],
                name="notification_due",
                condition=state_check("state", [NotificationState.PENDING, NotificationState.SENDING]),
            ),
        ]
        triggers = NOTIFICATION_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"{self.route_name}: {len(self.alerts)} alerts"


class DeliveryAttempt(models.Model):
    """One try to deliver a notification, and what became of it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    notification = models.ForeignKey(Notification, on_delete=models.CASCADE, related_name="tries", editable=False)
    at = models.DateTimeField(auto_now_add=True, editable=False)
    seconds = models.FloatField(editable=False)
    status = models.PositiveSmallIntegerField(null=True, editable=False)
    """HTTP status or SMTP code; null: no answer."""
    problem = models.TextField(blank=True, editable=False)
    """Empty: it was delivered."""

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.at}: {self.problem or 'delivered'}"
