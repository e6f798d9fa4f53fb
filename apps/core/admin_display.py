"""How the admin shows what many tables have: links to other rows, digests, states, numbers with their unit."""

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import Any

from django.db.models import Model
from django.template.loader import render_to_string
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from unfold.decorators import display

EMPTY = "–"


def link_to(model: str, key: object, text: object = None) -> str | SafeString:
    """A link to the admin page of row ``key`` of ``model`` ("kernels.kernel"); the text alone where there is none."""
    if key is None or key == "":
        return EMPTY
    shown = str(key) if text is None else str(text)
    try:
        url = reverse(f"admin:{model.replace('.', '_')}_change", args=[str(key)])
    except NoReverseMatch:
        return shown
    return format_html('<a href="{}" class="text-primary-600 dark:text-primary-500">{}</a>', url, shown)


def link(row: Model | None, text: object = None) -> str | SafeString:
    """A link to the admin page of ``row``."""
    if row is None:
        return EMPTY
    return link_to(row._meta.label_lower, row.pk, row if text is None else text)


def chip(text: object, label: str = "") -> SafeString:
    """A word on its colour: success, info, primary, warning, danger or none."""
    return render_to_string("unfold/helpers/label.html", {"text": text, "type": label})


def state_column(labels: Mapping[Any, str], field: str = "state") -> Callable[..., Any]:
    """A column for lists and pages that shows the state in ``field`` as a chip."""

    @display(description=field, ordering=field)
    def state(self: Any, row: Model) -> SafeString:
        value = getattr(row, field)
        return chip(value, labels.get(value, ""))

    return state


def time_column(field: str, title: str) -> Callable[[Model], str | SafeString]:
    """A column for the time in ``field``: to the second, UTC, the same width in every row."""

    @display(description=title, ordering=field)
    def time(row: Model) -> str | SafeString:
        moment = getattr(row, field)
        if moment is None:
            return EMPTY
        shown = f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        iso = moment.isoformat()
        return format_html('<time datetime="{}" title="{}" class="whitespace-nowrap">{}</time>', iso, iso, shown)

    time.__name__ = f"{field}_utc"
    return time


def short(digest: str | None) -> str | SafeString:
    """The first 12 characters of a digest; all of it in the tooltip."""
    if not digest:
        return EMPTY
    return format_html('<span class="font-mono" title="{}">{}</span>', digest, digest[:12])


def whole(digest: str | None) -> str | SafeString:
    """All of a digest, in pieces between which a narrow window may break it."""
    pieces = ((digest or "")[start : start + 16] for start in range(0, len(digest or ""), 16))
    return format_html_join(mark_safe("<wbr>"), "{}", ((piece,) for piece in pieces)) or EMPTY


def on_one_line(text: object) -> SafeString:
    """For narrow columns of lists."""
    return format_html('<span class="whitespace-nowrap">{}</span>', text)


def size(count: int | None) -> str:
    """Bytes for people, binary prefixes (IEC 80000-13)."""
    if count is None:
        return EMPTY
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} B" if units[0] == "B" else f"{value:,.1f} {units[0]}"


def number(value: float | None, format_spec: str = ",.4g") -> str:
    return EMPTY if value is None else format(value, format_spec)
