"""What templates say often: numbers, states, times, evidence. Everything here is a pure function of its arguments."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.accounts.roles import Scope
from apps.dashboards import drawing, numbers, units
from apps.dashboards.selectors import rail as waiting
from apps.dashboards.stages import look

register = template.Library()

for reading in (
    numbers.count,
    numbers.signed,
    numbers.percent,
    numbers.points,
    numbers.scaled,
    numbers.size,
    numbers.signed_size,
    numbers.plain,
    numbers.nats,
    numbers.fixed,
    numbers.latency,
    numbers.seconds,
    numbers.duration,
):
    register.filter(reading.__name__, reading)

RAIL: tuple[tuple[str, str, str, Scope], ...] = (
    ("Runs", "dashboards:runs", "/runs", Scope.RUNS_READ),
    ("Library", "dashboards:library", "/library", Scope.LIBRARY_READ),
    ("Cache", "dashboards:cache", "/cache", Scope.LIBRARY_READ),
    ("Checkpoints", "dashboards:checkpoints", "/checkpoints", Scope.RUNS_READ),
    ("Recovery", "dashboards:recovery", "/recovery", Scope.RUNS_READ),
    ("Fleet", "dashboards:fleet", "/fleet", Scope.RUNS_READ),
    ("Alerts", "dashboards:alerts", "/alerts", Scope.RUNS_READ),
    ("Audit", "dashboards:audit", "/audit", Scope.AUDIT_READ),
)
"""The words of the left rail: each leads to a page that exists. (word, URL name, path prefix, scope it needs)."""
BADGES: Mapping[str, Callable[[], int]] = {"dashboards:alerts": waiting.unacknowledged}
"""URL name -> how many things there wait for a person."""

MAX_EVIDENCE = 60


@register.inclusion_tag("frame/rail.html", takes_context=True)
def rail(context: template.Context) -> dict[str, Any]:
    """The rail, with the words whose pages this user may see."""
    request = context["request"]
    words = [
        {
            "word": word,
            "url": url,
            "is_here": request.path.startswith(prefix),
            "badge": BADGES[url]() if url in BADGES else 0,
        }
        for word, url, prefix, scope in RAIL
        if request.user.has_scope(scope)
    ]
    return {"words": words}


@register.simple_tag
def icon(name: str) -> SafeString:
    """A symbol of static/icons.svg; beside it always stands a word."""
    return format_html(
        '<svg class="icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        static("icons.svg"),
        name,
    )


@register.simple_tag
def seed_icon(value: str) -> SafeString:
    """The symbol of a seed's stage."""
    return icon(look("seed", value).icon)


@register.simple_tag
def state(kind: str, value: str) -> SafeString:
    """The chip of a state: symbol, colour and word."""
    shown = look(kind, value)
    return format_html(
        '<span class="state tone-{}" title="{}">{}{}</span>', shown.tone, shown.meaning, icon(shown.icon), shown.word
    )


@register.filter
def word(value: str, kind: str) -> str:
    return look(kind, value).word


@register.filter
def tone(value: str, kind: str) -> str:
    return look(kind, value).tone


@register.simple_tag
def when(value: datetime | None) -> SafeString:
    """A time, relative to now: its hover tells it in UTC, and in the viewer's zone once the page's script has read it.

    The script says the same words (static/js/frame.js), so that nothing moves when it does.
    """
    if value is None:
        return format_html("{}", numbers.MISSING)
    told, words = f"{value:%Y-%m-%d %H:%M} UTC", numbers.ago((timezone.now() - value).total_seconds())
    return format_html('<time datetime="{}" title="{}" data-when>{}</time>', value.isoformat(), told, words)


@register.filter
def sparkline(values: Sequence[float | None]) -> list[str]:
    return drawing.polyline(values, width=96, height=24)


@register.filter
def evidence(values: object) -> list[tuple[str, str]]:
    """What was measured, flat: nested names joined, numbers with four digits. At most ``MAX_EVIDENCE`` lines."""
    return list(_flat(values, ""))[:MAX_EVIDENCE]


def _flat(value: object, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name} \u203a {_words(key)}" if name else _words(key))
    elif isinstance(value, list | tuple) and not any(isinstance(item, Mapping | list) for item in value):
        yield name, ", ".join(_text(item) for item in value) or "none"
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value, 1):
            yield from _flat(inner, f"{name} {index}".strip())
    else:
        yield name, _text(value)


@register.filter("spaced")
def _words(key: object) -> str:
    """'checkpoint_policy' -> 'checkpoint policy'."""
    return str(key).replace("_", " ")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return numbers.plain(value)
    return numbers.MISSING if value is None else str(value)


@register.filter
def setting(value: object) -> str:
    """A setting of a run: numbers exactly as they were given, lists in a row, nothing as a dash."""
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return numbers.MISSING if value is None or value == "" else str(value)


@register.filter
def measured(value: object, unit: str) -> str:
    """A value of a metric with its unit; text as it is."""
    return value if isinstance(value, str) else units.told(value, unit)


@register.filter
def spelled(value: object) -> str:
    """A name of the code as words: too_many_series -> 'too many series'."""
    return _words(value)


@register.filter
def told(value: object) -> str:
    """A value of an event's difference, exactly: text as it is, everything else as JSON; nothing is a dash."""
    if value is None:
        return numbers.MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@register.filter
def shape(values: object) -> str:
    """['N', 64] -> 'N × 64'."""
    return " \u00d7 ".join(str(value) for value in values) if isinstance(values, list | tuple) else numbers.MISSING


@register.filter
def pairs(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What ``.items`` gives, also of what people fill: there ``.items`` may be the member of that name."""
    return list(values.items())


@register.filter
def alert_labels(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """The labels of an alert: what it is called and how severe it is first, then the others by name."""
    return sorted(values.items(), key=lambda pair: (pair[0] != "alertname", pair[0] != "severity", pair[0]))


@register.filter
def lookup(values: Mapping[Any, Any], key: Any) -> Any:
    return values.get(key)


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The current query string with some values replaced: for links to other pages of the same list."""
    values = context["request"].GET.copy()
    for name, value in changes.items():
        values[name] = value
    return "?" + values.urlencode()
