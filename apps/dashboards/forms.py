"""The form that starts a run. Choices and limits come from the engine's own catalogue and settings."""

import dataclasses
from typing import Any

from django import forms

from apps.core.errors import ServiceError
from apps.morphogenesis.catalogue import HOSTS, TASKS
from apps.morphogenesis.settings import RunSettings
from apps.training.models import LibrarySource

LIMITS = {field.name: field.metadata for field in dataclasses.fields(RunSettings)}
FIELD_OF_POINTER = {
    "/name": "name",
    "/library_source": "learned",
    **{f"/settings/{name}": name for name in ("task", "host", "epochs", "seed")},
}


def _bounded(name: str, **options: Any) -> forms.IntegerField:
    return forms.IntegerField(min_value=LIMITS[name]["low"], max_value=LIMITS[name]["high"], **options)


def point_to_notes(form: forms.Form) -> None:
    """Tie each field to its error and its help text, for those who hear the page."""
    for name, field in form.fields.items():
        described = [f"id_{name}_help"] if field.help_text else []
        if form.is_bound and name in form.errors:
            field.widget.attrs["aria-invalid"] = "true"
            described.insert(0, f"id_{name}_error")
        if described:
            field.widget.attrs["aria-describedby"] = " ".join(described)


class StartRunForm(forms.Form):
    """What a person chooses; everything else takes the recipe of the task and host."""

    task = forms.ChoiceField(choices=[(card.name, card.title) for card in TASKS.values()])
    host = forms.ChoiceField(label="Host network", choices=[(card.name, card.title) for card in HOSTS.values()])
    epochs = _bounded("epochs", required=False, help_text="Empty: what the recipe of the task and host says.")
    seed = _bounded("seed", initial=0, help_text="The same seed and library give the same network, bit for bit.")
    name = forms.CharField(max_length=120, required=False, help_text="Empty: task, host and the time.")
    learned = forms.BooleanField(
        required=False,
        label="Use what earlier runs reported",
        help_text="Every validated kernel, ranked by its field reports. Off: the starter library, neutral.",
    )
    control = forms.BooleanField(
        required=False,
        initial=True,
        label="Train the static control afterwards",
        help_text="The same final size from scratch: without it the result proves nothing.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        point_to_notes(self)

    def settings(self) -> dict[str, Any]:
        """What ``RunSettings.from_mapping`` reads; a missing ``epochs`` is the recipe's."""
        chosen = {name: self.cleaned_data[name] for name in ("task", "host", "epochs", "seed")}
        return {name: value for name, value in chosen.items() if value is not None}

    def library_source(self) -> str:
        return LibrarySource.LEARNED if self.cleaned_data["learned"] else LibrarySource.STARTER

    def refuse(self, error: ServiceError) -> None:
        """Show what the service refused at the field that its pointer names."""
        for problem in error.errors:
            self.add_error(FIELD_OF_POINTER.get(problem.pointer), problem.detail)
        if not error.errors:
            self.add_error(None, error.detail)
