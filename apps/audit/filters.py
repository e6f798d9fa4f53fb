"""What the trail can be asked for."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django_filters import rest_framework as filters

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditEvent, AuditReport
from apps.audit.search import OPEN_TYPES, SUBJECT_TYPES, Search
from apps.audit.selectors import person_of
from apps.core.actors import ActorKind
from apps.core.filters import any_of
from apps.core.ids import parse_id

FAMILIES = tuple(dict.fromkeys(kind.family for kind in EVENT_TYPES.values()))
OUTCOMES = ("success", "refused", "failure")
ME = "me"
ACTORS = (ME, *map(str, ActorKind))
NOBODY = UUID(int=0)
"""The pseudonym of those about whom nothing was recorded."""


class SearchForm(forms.Form):
    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        since, until = values.get("since"), values.get("until")
        if since and until and since >= until:
            self.add_error("until", "must be after since")
        return values


def check_actor(text: str) -> None:
    if text not in ACTORS and parse_id(text) is None:
        raise ValidationError(f"is not the id of an actor, nor one of: {', '.join(ACTORS)}")


class AuditEventFilter(filters.FilterSet):
    """Reads a query string into a ``Search``, which stands where other lists have a queryset."""

    type = any_of(EVENT_TYPES)
    family = any_of(FAMILIES)
    subject_type = any_of(SUBJECT_TYPES)
    subject_id = filters.CharFilter(max_length=64)
    actor = filters.CharFilter(
        max_length=64, validators=[check_actor], label="a pseudonym, `me`, or a kind: user, token, worker, system"
    )
    request_id = filters.CharFilter(max_length=64)
    token_id = filters.CharFilter(max_length=64)
    outcome = filters.ChoiceFilter(choices=[(name, name) for name in OUTCOMES])
    since = filters.IsoDateTimeFilter(label="at or after")
    until = filters.IsoDateTimeFilter(label="before")
    q = filters.CharFilter(max_length=200, strip=False, label="text in the reason or the difference, in any case")

    class Meta:
        model = AuditEvent
        fields: list[str] = []
        form = SearchForm

    def filter_queryset(self, queryset: Any) -> Any:
        given = self.form.cleaned_data
        types, is_impossible = _types(given)
        actor_id, actor_kind = self._actor(given["actor"])
        return Search(
            types=types,
            is_impossible=is_impossible,
            subject_types=tuple(given["subject_type"]),
            actor_id=actor_id,
            actor_kind=actor_kind,
            text=given["q"],
            **{name: given[name] for name in ("subject_id", "request_id", "token_id", "outcome", "since", "until")},
        )

    def _actor(self, text: str) -> tuple[UUID | None, str]:
        if text == ME:
            person = person_of(self.request.user.pk)
            return person.pk if person else NOBODY, ""
        return parse_id(text), text if text in ACTORS else ""


def _types(given: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """The types that all filters together leave, none for any; and whether they leave none at all."""
    chosen, families, subjects = set(given["type"]), set(given["family"]), set(given["subject_type"])
    if given["subject_id"]:
        subjects = set()  # the subject itself is the better filter
    left = tuple(
        kind.name
        for kind in EVENT_TYPES.values()
        if (not chosen or kind.name in chosen)
        and (not families or kind.family in families)
        and (not subjects or kind.subject in subjects or kind.name in OPEN_TYPES)
    )
    is_any = not (chosen or families or subjects)
    return (() if is_any else left), not left


class ReportFilter(filters.FilterSet):
    kind = any_of(ReportKind)
    state = any_of(ReportState)

    class Meta:
        model = AuditReport
        fields: list[str] = []
