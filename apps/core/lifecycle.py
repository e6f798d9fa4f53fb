"""A life cycle is a table: allowed transitions and initial states. Python and PostgreSQL enforce the same one."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pgtrigger
from django.db.models import Q

from apps.core.errors import InvalidTransition


@dataclass(frozen=True)
class Lifecycle:
    """States of one kind of asset.

    ``transitions`` maps a state to those that may follow it; ``initial`` are the states a row may be born in.
    """

    name: str
    initial: frozenset[str]
    transitions: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, name: str, *, initial: Iterable[str], transitions: Iterable[tuple[str, str]]) -> "Lifecycle":
        table: dict[str, frozenset[str]] = {}
        for source, target in transitions:
            table[str(source)] = table.get(str(source), frozenset()) | {str(target)}
        return cls(name=name, initial=frozenset(map(str, initial)), transitions=table)

    @property
    def edges(self) -> list[tuple[str, str]]:
        return sorted((source, target) for source, targets in self.transitions.items() for target in targets)

    def allows(self, source: str, target: str) -> bool:
        return target in self.transitions.get(source, frozenset())

    def check(self, source: str, target: str) -> None:
        """Raises InvalidTransition, naming what is allowed instead."""
        if self.allows(source, target):
            return
        allowed = ", ".join(sorted(self.transitions.get(source, ()))) or "nothing: it is final"
        raise InvalidTransition(
            f"a {self.name} cannot go from {source} to {target}; from {source} it can go to {allowed}"
        )

    def triggers(self, field: str = "state") -> list[pgtrigger.Trigger]:
        """The same table in the database, whichever door a write takes."""
        return [
            pgtrigger.FSM(name=f"{field}_transitions", field=field, transitions=self.edges),
            pgtrigger.Trigger(
                name=f"{field}_initial",
                when=pgtrigger.Before,
                operation=pgtrigger.Insert,
                condition=pgtrigger.Q(**{f"new__{field}__in": sorted(self.initial)}).__invert__(),
                func=f"RAISE EXCEPTION 'a {self.name} cannot be born in state %', NEW.{field};",
            ),
        ]


def state_check(field: str, states: Iterable[str]) -> Q:
    """The condition of a CheckConstraint that admits only known states."""
    return Q(**{f"{field}__in": [str(state) for state in states]})


def choices(states: Iterable[Any]) -> list[tuple[str, str]]:
    return [(str(state), str(state)) for state in states]
