"""The forms of the pages of alerts: a silence, and what of a rule people change most."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms

from apps.core.errors import ServiceError
from apps.dashboards.forms import point_to_notes
from apps.observability import matchers
from apps.observability.matchers import Matcher
from apps.observability.models import DAY, AlertRule, Severity
from apps.observability.rules.kinds import KINDS
from apps.observability.rules.parameters import Parameter

DURATIONS: tuple[tuple[str, str], ...] = (
    ("1", "1 hour"),
    ("4", "4 hours"),
    ("12", "12 hours"),
    ("24", "1 day"),
    ("72", "3 days"),
    ("168", "1 week"),
)
LONGEST_COMMENT = 1000
MOST_TEXT = 5000
PARAMETER = "parameter_"
"""Before the name of a parameter of a rule, in the names of fields."""


class SilenceForm(forms.Form):
    """How long nobody is told, and why."""

    hours = forms.ChoiceField(label="For", choices=DURATIONS, initial="4")
    comment = forms.CharField(
        label="Why",
        max_length=LONGEST_COMMENT,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Shown wherever the alert is, and kept in the audit trail.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        point_to_notes(self)

    def duration(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["hours"]))

    def spoken(self) -> str:
        return dict(DURATIONS)[self.cleaned_data["hours"]]


class NewSilenceForm(SilenceForm):
    """A silence of what labels say, not of one alert."""

    matchers = forms.CharField(
        label="Labels",
        max_length=MOST_TEXT,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false", "autocomplete": "off"}),
        help_text='One a line, all must fit: alertname="Disk nearly full", host=~"gpu.*", severity!="critical".',
    )
    field_order = ("matchers", "hours", "comment")

    def clean_matchers(self) -> tuple[Matcher, ...]:
        try:
            return matchers.from_text(line for line in self.cleaned_data["matchers"].splitlines() if line.strip())
        except ServiceError as error:
            raise forms.ValidationError(error.detail) from None


class RuleForm(forms.Form):
    """What of a rule people change most: its limits, how long it waits, how severe it is, whether it is applied."""

    enabled = forms.BooleanField(required=False, label="Applied", help_text="Off: its open alerts are resolved.")
    severity = forms.ChoiceField(choices=Severity.choices)
    for_seconds = forms.IntegerField(
        label="Fires after, s", min_value=0, max_value=7 * DAY, help_text="It must have been so for so long."
    )
    keep_firing_seconds = forms.IntegerField(
        label="Resolved after, s", min_value=0, max_value=7 * DAY, help_text="It must have been over for so long."
    )
    reason = forms.CharField(max_length=500, required=False, help_text="Kept in the audit trail.")

    def __init__(self, *args: Any, rule: AlertRule, **kwargs: Any) -> None:
        plain = ("enabled", "severity", "for_seconds", "keep_firing_seconds")
        known = {f"{PARAMETER}{name}": value for name, value in rule.parameters.items()}
        kwargs["initial"] = {name: getattr(rule, name) for name in plain} | known
        super().__init__(*args, **kwargs)
        self.parameters = KINDS[rule.kind].parameters if rule.kind in KINDS else ()
        for parameter in self.parameters:
            self.fields[f"{PARAMETER}{parameter.name}"] = _field_of(parameter)
        point_to_notes(self)

    @property
    def limits(self) -> list[forms.BoundField]:
        return [self[f"{PARAMETER}{parameter.name}"] for parameter in self.parameters]

    def changes(self) -> dict[str, Any]:
        """What ``services.rules.change_rule`` takes."""
        given = {parameter.name: self.cleaned_data[f"{PARAMETER}{parameter.name}"] for parameter in self.parameters}
        plain = ("enabled", "severity", "for_seconds", "keep_firing_seconds")
        return {name: self.cleaned_data[name] for name in plain} | {"parameters": given}

    def refuse(self, error: ServiceError) -> None:
        """Show what the service refused at the field that its pointer names."""
        pointers = {f"/parameters/{parameter.name}": f"{PARAMETER}{parameter.name}" for parameter in self.parameters}
        refuse(self, error, pointers | {f"/{name}": name for name in self.fields})


def _field_of(parameter: Parameter) -> forms.Field:
    label = parameter.name.removesuffix("_seconds").replace("_", " ").capitalize()
    label += ", s" if parameter.name.endswith("_seconds") else ""
    if parameter.choices:
        return forms.ChoiceField(
            label=label, help_text=parameter.help, choices=[(choice, choice) for choice in parameter.choices]
        )
    kind = forms.IntegerField if parameter.whole else forms.FloatField
    return kind(label=label, help_text=parameter.help, widget=forms.NumberInput(attrs={"step": "any"}))


def refuse(form: forms.Form, error: ServiceError, fields: Mapping[str, str]) -> None:
    """Show what a service refused at the field that its pointer names (``fields``: pointer -> field)."""
    for problem in error.errors:
        name = fields.get(problem.pointer)
        form.add_error(name, problem.detail if name else f"{problem.pointer.strip('/')} {problem.detail}")
    if not error.errors:
        form.add_error(None, error.detail)
