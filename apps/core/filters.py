"""What filter sets share."""

from collections.abc import Iterable

from django_filters import rest_framework as filters


def any_of(values: Iterable[object], **kwargs: object) -> filters.MultipleChoiceFilter:
    """``?state=RUNNING&state=PAUSED``: rows with one of these values."""
    return filters.MultipleChoiceFilter(
        choices=[(str(value), str(value)) for value in values], distinct=False, **kwargs
    )
