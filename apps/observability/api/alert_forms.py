"""Alerts, their rules and silences: what clients send, and what they read."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.core.serializers import Choice, Flag, JSONObject, Number, StrictSerializer, Text, Whole
from apps.kernels.api.serializers import Reason
from apps.observability.api.matching import LabelMatcher
from apps.observability.lifecycle import AlertState
from apps.observability.matchers import MOST
from apps.observability.models import DAY, Alert, AlertRule, RuleKind, Severity, Silence
from apps.observability.selectors.alerts import state_of
from apps.observability.selectors.previews import Preview
from apps.observability.services.alerts import LONGEST_NOTE
from apps.observability.services.rules import LONGEST_TEXT, MOST_INHIBITORS, MOST_LABELS
from apps.observability.services.silences import LONGEST, LONGEST_COMMENT

SILENCE_STATES = ("pending", "active", "over")
HOURS = LONGEST.total_seconds() / 3600
WEEK = 7 * DAY


def tidied(given: dict[str, Any]) -> dict[str, Any]:
    """Checked input as services take it: plain JSON."""
    for name in ("matchers", "inhibited_by"):
        if name in given:
            given[name] = [dict(each) for each in given[name]]
    return given


class Labels(serializers.DictField):
    """Names and values of labels."""

    child = serializers.CharField()


# --- Alerts


class MutingSerializer(serializers.Serializer[Any]):
    """Why nobody is notified; both empty: they are."""

    silences = serializers.ListField(child=serializers.UUIDField(), help_text="ids of silences")
    inhibited_by = serializers.ListField(child=serializers.UUIDField(), help_text="ids of alerts")


class AlertSerializer(serializers.ModelSerializer[Alert]):
    """One episode of a rule's condition on one series. ``value`` as seen last; null: no finite number."""

    state = serializers.ChoiceField(choices=list(AlertState), read_only=True)
    severity = serializers.ChoiceField(choices=Severity.choices, read_only=True)
    labels = Labels(read_only=True)
    evidence = JSONObject(read_only=True, help_text="what the rule saw when it began to wait or to fire")
    muted_by = serializers.SerializerMethodField()

    class Meta:
        model = Alert
        fields: tuple[str, ...] = (
            "id",
            "rule_id",
            "rule_name",
            "fingerprint",
            "state",
            "severity",
            "metric",
            "series_id",
            "run_id",
            "labels",
            "summary",
            "remedy",
            "threshold",
            "value",
            "evidence",
            "started_at",
            "fired_at",
            "resolved_at",
            "last_true_at",
            "last_seen_at",
            "over_since",
            "acknowledged_at",
            "acknowledged_by_id",
            "note",
            "muted_by",
        )
        read_only_fields = fields

    @extend_schema_field(MutingSerializer)
    def get_muted_by(self, alert: Alert) -> Any:
        return MutingSerializer(self.context["view"].muting(alert)).data


class Acknowledgement(StrictSerializer):
    note = Text(max_length=LONGEST_NOTE, required=False, allow_blank=True, help_text="what you know of it")


class AlertSilence(StrictSerializer):
    hours = Number(min_value=0.01, max_value=HOURS)
    comment = Text(max_length=LONGEST_COMMENT, help_text="why")


# --- Rules


class Inhibitor(StrictSerializer):
    """Nobody is notified while that rule fires with the same values of these labels."""

    rule = Text(max_length=80, help_text="name of a rule")
    equal = serializers.ListField(child=Text(max_length=60), max_length=MOST_LABELS)


def _text(limit: int, help_text: str = "") -> Text:
    return Text(max_length=limit, required=False, allow_blank=True, help_text=help_text)


class AlertRuleChange(Reason):
    """What is left out stays as it is. ``parameters`` are taken whole: those left out get their defaults."""

    name = Text(max_length=80, required=False)
    description = _text(LONGEST_TEXT)
    kind = Choice(choices=RuleKind.choices, required=False)
    metric = Text(max_length=120, required=False, help_text="* for every one, with kind anomaly")
    matchers = serializers.ListField(
        child=LabelMatcher(), required=False, max_length=MOST, help_text="empty: every series of the metric"
    )
    parameters = JSONObject(required=False, help_text="as the kind asks for: docs/alerts.md")
    for_seconds = Whole(min_value=0, max_value=WEEK, required=False, help_text="it has to hold so long to fire")
    keep_firing_seconds = Whole(
        min_value=0, max_value=WEEK, required=False, help_text="it has to be over so long to be resolved"
    )
    severity = Choice(choices=Severity.choices, required=False)
    labels = serializers.DictField(
        child=Text(max_length=200), required=False, help_text="of its alerts, besides those of the series"
    )
    summary = _text(300, "what its alerts say; {value}, {threshold}, {metric} and {<label>} are filled in")
    remedy = _text(LONGEST_TEXT, "what to do")
    inhibited_by = serializers.ListField(child=Inhibitor(), required=False, max_length=MOST_INHIBITORS)
    enabled = Flag(required=False)


class NewAlertRule(AlertRuleChange):
    """``parameters`` that are left out get their defaults."""

    name = Text(max_length=80)
    kind = Choice(choices=RuleKind.choices)
    metric = Text(max_length=120, help_text="* for every one, with kind anomaly")


class AlertRuleSerializer(serializers.ModelSerializer[AlertRule]):
    """``shipped``: the key of the shipped rule that it was made from; empty: somebody wrote it."""

    kind = serializers.ChoiceField(choices=RuleKind.choices, read_only=True)
    severity = serializers.ChoiceField(choices=Severity.choices, read_only=True)
    matchers = LabelMatcher(many=True, read_only=True)
    parameters = JSONObject(read_only=True)
    labels = Labels(read_only=True)
    inhibited_by = Inhibitor(many=True, read_only=True)

    class Meta:
        model = AlertRule
        fields = (
            "id",
            "name",
            "description",
            "kind",
            "metric",
            "matchers",
            "parameters",
            "for_seconds",
            "keep_firing_seconds",
            "severity",
            "labels",
            "summary",
            "remedy",
            "inhibited_by",
            "enabled",
            "shipped",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields


class SaidSerializer(serializers.Serializer[Any]):
    """What the rule says of one series."""

    series_id = serializers.SerializerMethodField()
    labels = Labels(source="sighting.labels")
    holds = serializers.BooleanField(source="sighting.verdict.holds", allow_null=True, help_text="null: nobody knows")
    value = serializers.FloatField(source="sighting.verdict.value", allow_null=True)
    threshold = serializers.FloatField(source="sighting.verdict.threshold", allow_null=True)
    evidence = JSONObject(source="sighting.verdict.evidence")
    summary = serializers.CharField()

    @extend_schema_field(serializers.IntegerField(allow_null=True))
    def get_series_id(self, said: Any) -> int | None:
        return said.sighting.series.id if said.sighting.series else None


class AlertRulePreviewSerializer(serializers.Serializer[Preview]):
    """Numbers of series; ``shown`` are the first hundred, those that meet the rule before the others."""

    series = serializers.IntegerField(help_text="that it selects")
    holding = serializers.IntegerField(help_text="that meet it")
    unknown = serializers.IntegerField(help_text="of which too little is known")
    shown = SaidSerializer(many=True)


# --- Silences


class NewSilence(StrictSerializer):
    """Give ``ends_at`` or ``duration_seconds``."""

    matchers = serializers.ListField(child=LabelMatcher(), min_length=1, max_length=MOST)
    comment = Text(max_length=LONGEST_COMMENT, help_text="why")
    starts_at = serializers.DateTimeField(required=False, help_text="now by default")
    ends_at = serializers.DateTimeField(required=False)
    duration_seconds = Whole(min_value=1, max_value=int(LONGEST.total_seconds()), required=False)


class SilenceSerializer(serializers.ModelSerializer[Silence]):
    state = serializers.SerializerMethodField()
    matchers = LabelMatcher(many=True, read_only=True)

    class Meta:
        model = Silence
        fields: tuple[str, ...] = (
            "id",
            "state",
            "matchers",
            "starts_at",
            "ends_at",
            "comment",
            "created_by_id",
            "created_at",
        )
        read_only_fields = fields

    @extend_schema_field(serializers.ChoiceField(choices=SILENCE_STATES))
    def get_state(self, silence: Silence) -> str:
        return state_of(silence)


class SilenceDetailSerializer(SilenceSerializer):
    """``alerts``: open alerts that its matchers admit, as many as ``matching``; at most a hundred are named."""

    alerts = serializers.SerializerMethodField()
    matching = serializers.SerializerMethodField()

    class Meta(SilenceSerializer.Meta):
        fields = (*SilenceSerializer.Meta.fields, "alerts", "matching")
        read_only_fields = fields

    @extend_schema_field(serializers.ListField(child=serializers.UUIDField()))
    def get_alerts(self, silence: Silence) -> Any:
        return [str(alert.pk) for alert in self.context["view"].matched_by(silence)[:100]]

    def get_matching(self, silence: Silence) -> int:
        return len(self.context["view"].matched_by(silence))
