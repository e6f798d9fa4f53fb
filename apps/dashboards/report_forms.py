"""The form that asks for a compliance report: one field a parameter, in the words of people."""

from typing import Any

from django import forms

from apps.accounts.models import User
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.lifecycle import ReportKind
from apps.audit.reports import QUESTIONS
from apps.audit.selectors import person_of
from apps.core.errors import ServiceError
from apps.core.ids import parse_id
from apps.dashboards.forms import point_to_notes
from apps.kernels.models import Kernel

SUBJECTS = sorted({kind.subject for kind in EVENT_TYPES.values() if kind.subject})


def _moment(label: str, help_text: str = "") -> forms.DateTimeField:
    widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
    return forms.DateTimeField(label=label, help_text=help_text, required=False, widget=widget)


def _name(label: str, help_text: str) -> forms.CharField:
    return forms.CharField(label=label, help_text=help_text, required=False, max_length=150)


class ReportForm(forms.Form):
    """Its fields are those of the kind's parameters; ``person`` stands for a person and their account at once."""

    since = _moment("From (UTC)")
    until = _moment("Before (UTC)")
    person = _name("Person", "A user name. Empty: everybody.")
    subject_type = forms.ChoiceField(
        label="Kind of asset",
        required=False,
        choices=[("", "any"), *((kind, kind.replace("_", " ")) for kind in SUBJECTS)],
    )
    subject_id = forms.CharField(label="Id of one asset", required=False, max_length=64, help_text="Empty: all.")
    kernel = forms.CharField(label="Kernel", max_length=160, help_text="Its id or its whole name.")
    as_of = _moment("As it stood at (UTC)", "Empty: now.")

    def __init__(self, kind: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        names = {"person" if name == "account" else name for name in QUESTIONS[ReportKind(kind)].names}
        for name in set(self.fields) - names - {"as_of"}:
            del self.fields[name]
        point_to_notes(self)

    @property
    def question(self) -> Any:
        return QUESTIONS[ReportKind(self.kind)]

    def clean_person(self) -> dict[str, str]:
        """The parameters that stand for the person: pseudonym and account, as far as the report asks for them."""
        name = self.cleaned_data["person"]
        if not name:
            return {}
        user = User.objects.filter(username=name).first()
        if user is None:
            raise forms.ValidationError("Nobody is called that.")
        person = person_of(user.pk)
        found = {"account": str(user.pk)} | ({"person": str(person.pk)} if person is not None else {})
        if person is None and "account" not in self.question.names:
            raise forms.ValidationError("The trail knows no event by this person.")
        return {key: value for key, value in found.items() if key in self.question.names}

    def clean_kernel(self) -> str:
        given = self.cleaned_data["kernel"]
        key = parse_id(given)
        if key is not None:
            return str(key)
        newest = Kernel.objects.filter(name=given).order_by("-id").values_list("pk", flat=True).first()
        if newest is None:
            raise forms.ValidationError("No kernel is called that.")
        return str(newest)

    def parameters(self) -> dict[str, str]:
        """What ``request_report`` takes."""
        given = {name: value for name, value in self.cleaned_data.items() if name not in {"as_of", "person"} and value}
        times = {name: value.isoformat() for name, value in given.items() if name in {"since", "until"}}
        return {**given, **times, **self.cleaned_data.get("person", {})}

    def refuse(self, error: ServiceError) -> None:
        """Show what the service refused at the field that its pointer names."""
        for problem in error.errors:
            name = problem.pointer.rsplit("/", 1)[-1]
            self.add_error(name if name in self.fields else None, problem.detail)
        if not error.errors:
            self.add_error(None, error.detail)
        point_to_notes(self)
