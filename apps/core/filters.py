"""What filter sets share."""

from collections.abc import Iterable

from django_filters import rest_framework as filters


def any_of(values: Iterable[object], **kwargs: object) -> filters.MultipleChoiceFilter:
    """``?state=RUNNING&state=PAUSED``: rows with one of these values. A refusal names them."""
    known = [str(value) for value in values]
    return filters.MultipleChoiceFilter(
        choices=[(value, value) for value in known],
        distinct=False,
        error_messages={"invalid_choice": f"%(value)s: must be one of {', '.join(known)}"},
        **kwargs,
    )
