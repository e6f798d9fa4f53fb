"""Filters as chips: each a link that turns one condition of the query string on or off. The URL is the state."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from apps.dashboards.selectors import alerts, checkpoints
from apps.dashboards.selectors.alerts import AlertFilter
from apps.dashboards.selectors.checkpoints import CheckpointFilter
from apps.dashboards.selectors.runs import CHOICES, ORDERS, RunFilter
from apps.dashboards.stages import ALERT_LOOKS, CHECKPOINT_LOOKS, RUN_LOOKS, SEVERITY_LOOKS


@dataclass(frozen=True, slots=True)
class Chip:
    word: str
    is_on: bool
    query: str
    """The query string that a click leads to."""


def toggle(query: Mapping[str, str], name: str, value: str, word: str) -> Chip:
    """The chip of ``name=value``. Following it leaves the other conditions as they are and starts at the first page."""
    is_on = query.get(name) == value
    kept = {key: text for key, text in query.items() if key not in {name, "after"}}
    return Chip(word=word, is_on=is_on, query=urlencode(kept if is_on else {**kept, name: value}))


def run_chips(wanted: RunFilter, query: Mapping[str, str]) -> dict[str, list[Chip]]:
    """Groups of chips for the list of runs, by what they filter."""
    kept = {**wanted.chosen}
    kept |= {name: "1" for name in ("mine", "controls") if query.get(name) == "1"}
    if wanted.text:
        kept["q"] = wanted.text
    if wanted.order != ORDERS[0]:
        kept["order"] = wanted.order
    words = {state: look.word for state, look in RUN_LOOKS.items()}
    groups = {
        name: [toggle(kept, name, value, words.get(value, value)) for value in values]
        for name, values in CHOICES.items()
    }
    groups["show"] = [toggle(kept, "mine", "1", "mine"), toggle(kept, "controls", "1", "static controls")]
    groups["order"] = [_order(kept, order, wanted.order) for order in ORDERS]
    return groups


def _order(kept: Mapping[str, str], order: str, now: str) -> Chip:
    """The chip of an order: one is always on, and the first is how the list comes without one."""
    others = {key: text for key, text in kept.items() if key != "order"}
    return Chip(
        word=order, is_on=order == now, query=urlencode(others | ({} if order == ORDERS[0] else {"order": order}))
    )


def checkpoint_chips(wanted: CheckpointFilter) -> dict[str, list[Chip]]:
    """Groups of chips for the list of checkpoints, by what they filter."""
    kept = {**wanted.chosen}
    kept |= {name: "1" for name in ("pinned", "gone") if getattr(wanted, name)}
    if wanted.run_id:
        kept["run"] = str(wanted.run_id)
    words = {state: look.word for state, look in CHECKPOINT_LOOKS.items()} | checkpoints.PLACES | checkpoints.REASONS
    groups = {
        title: [toggle(kept, name, value, words[value]) for value in checkpoints.CHOICES[name]]
        for name, title in (("state", "state"), ("reason", "saved for"), ("location", "bytes in"))
    }
    groups["show"] = [toggle(kept, "pinned", "1", "pinned"), toggle(kept, "gone", "1", "gone ones too")]
    return groups


def alert_chips(wanted: AlertFilter) -> dict[str, list[Chip]]:
    """Groups of chips for the list of alerts, by what they filter."""
    words = {name: look.word for looks in (ALERT_LOOKS, SEVERITY_LOOKS) for name, look in looks.items()}
    words |= {"no": "told", "yes": "muted"}
    groups = {
        title: [toggle(wanted.kept, name, value, words[value]) for value in alerts.CHOICES[name]]
        for name, title in (("state", "state"), ("severity", "severity"), ("muted", "people are"))
    }
    ids = {"run": wanted.run_id, "rule": wanted.rule_id}
    only = [toggle(wanted.kept, name, str(value), f"this {name}") for name, value in ids.items() if value]
    return groups | ({"only": only} if only else {})
