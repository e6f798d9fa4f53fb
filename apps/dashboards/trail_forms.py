"""The filters of the audit page: those of the API, with the widgets and words of a page."""

from typing import Any

from django import forms
from django.http import HttpRequest, QueryDict

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.filters import ACTORS, FAMILIES, OUTCOMES, AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.search import SUBJECT_TYPES, Search
from apps.audit.selectors import person_named
from apps.core.ids import parse_id
from apps.dashboards.forms import point_to_notes

ANY = ("", "any")
LABELS = {
    "q": ("Text", ""),
    "type": ("What happened", ""),
    "actor": ("Who", "A user name, me, worker, system, or a pseudonym's id."),
    "subject_type": ("Kind of thing", ""),
    "subject_id": ("Its id", ""),
    "since": ("From (UTC)", ""),
    "until": ("Before (UTC)", ""),
    "outcome": ("Outcome", ""),
}
NOBODY_CALLED_THAT = "Nobody whom the trail knows is called that, and it is no id."
SHOWN = ("q", "type")
FOLDED = ("actor", "subject_type", "subject_id", "outcome", "since", "until")
CARRIED = ("family", "request_id", "token_id")
"""Filters that chips and links set; the form only passes them on."""


class TrailFilters:
    """What the query string asks of the trail. ``search`` is None where a filter is wrong: ``form`` says which."""

    def __init__(self, request: HttpRequest) -> None:
        self.given = _without_empty(request.GET)
        filters = AuditEventFilter(_with_pseudonym(self.given), AuditEvent.objects.all(), request=request)
        self.search: Search | None = filters.qs if filters.is_valid() else None
        self.form: Any = filters.form
        self.form.data = self.given  # a name that was typed is shown as it was typed
        for name, widget in _widgets().items():
            field, shown = self.form.fields[name], self.form[name]
            field.label, field.help_text = shown.label, shown.help_text = LABELS[name]
            field.widget = widget
        if "actor" in self.form.errors:
            self.form.errors["actor"] = [NOBODY_CALLED_THAT]
        point_to_notes(self.form)

    @property
    def shown(self) -> list[Any]:
        return [self.form[name] for name in SHOWN]

    @property
    def folded(self) -> list[Any]:
        return [self.form[name] for name in FOLDED]

    @property
    def is_unfolded(self) -> bool:
        """Whether something is set there that must be seen."""
        return any(name in self.given for name in FOLDED)

    @property
    def carried(self) -> list[tuple[str, str]]:
        return [(name, value) for name in CARRIED for value in self.given.getlist(name)]

    @property
    def problems(self) -> list[str]:
        """What is wrong with filters that have no field on the page."""
        return [f"{name}: {self.form.errors[name][0]}" for name in CARRIED if name in self.form.errors]

    @property
    def narrows(self) -> bool:
        return any(name in self.given for name in (*LABELS, *CARRIED))

    @property
    def query(self) -> str:
        """The filters alone, for the export."""
        kept = QueryDict(mutable=True)
        for name, values in _with_pseudonym(self.given).lists():
            if name in LABELS or name in CARRIED:
                kept.setlist(name, values)
        return kept.urlencode()

    def chips(self) -> list[tuple[str, bool, str]]:
        """(family, whether it is on, the query string that a click leads to)."""
        chosen = self.given.getlist("family")
        found = []
        for family in FAMILIES:
            query = self.given.copy()
            query.pop("after", None)
            is_on = family in chosen
            query.setlist("family", [name for name in chosen if name != family] + ([] if is_on else [family]))
            found.append((family, is_on, query.urlencode()))
        return found

    def narrow_chips(self) -> list[tuple[str, str, str]]:
        """(name, value, the query string without it) of filters that only links set."""
        found = []
        for name in ("request_id", "token_id"):
            if name in self.given:
                query = self.given.copy()
                query.pop("after", None)
                query.pop(name)
                found.append((name.removesuffix("_id"), str(self.given[name]), query.urlencode()))
        return found


def _without_empty(query: QueryDict) -> QueryDict:
    kept = QueryDict(mutable=True)
    for name, values in query.lists():
        said = [value for value in values if value.strip()]
        if said:
            kept.setlist(name, said)
    return kept


def _with_pseudonym(query: QueryDict) -> QueryDict:
    """A user name becomes the pseudonym behind which the trail knows the person."""
    name = query.get("actor", "")
    if not name or name in ACTORS or parse_id(name) or "\0" in name:
        return query
    person = person_named(name)
    if person is None:
        return query
    changed = query.copy()
    changed["actor"] = str(person.pk)
    return changed


def _widgets() -> dict[str, forms.Widget]:
    types = [
        (family, [(kind.name, kind.name) for kind in EVENT_TYPES.values() if kind.family == family])
        for family in FAMILIES
    ]
    moment = {"type": "datetime-local"}
    return {
        "q": forms.TextInput(attrs={"type": "search", "placeholder": "in the reason or in what changed"}),
        "type": forms.Select(choices=[ANY, *types]),
        "actor": forms.TextInput(attrs={"list": "actors", "autocomplete": "off"}),
        "subject_type": forms.Select(choices=[ANY, *((kind, kind.replace("_", " ")) for kind in SUBJECT_TYPES)]),
        "subject_id": forms.TextInput(attrs={"autocomplete": "off"}),
        "outcome": forms.Select(choices=[ANY, *((name, name) for name in OUTCOMES)]),
        "since": forms.TextInput(attrs=moment),
        "until": forms.TextInput(attrs=moment),
    }
