"""The tables in the docs are those of the code."""

import re
from pathlib import Path

import pytest

from apps.accounts.roles import ROLE_SCOPES, Role, Scope
from apps.audit.catalogue import EVENT_TYPES

DOCS = Path(__file__).parents[3] / "docs"


def rows_of(name: str) -> list[list[str]]:
    """The cells of all table rows of a page."""
    lines = (DOCS / name).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def test_every_type_of_event_is_in_the_catalogue_of_the_docs_with_its_subject() -> None:
    documented = {
        name: subject
        for names, subject, *_ in rows_of("audit.md")
        for name in re.findall(r"`([a-z_]+\.[a-z_]+)`", names)
    }

    assert documented == {kind.name: kind.subject for kind in EVENT_TYPES.values()}


@pytest.mark.parametrize("scope", Scope)
def test_the_docs_give_each_scope_to_the_roles_that_have_it(scope: str) -> None:
    (cells,) = [cells for cells in rows_of("accounts.md") if cells[0] == f"`{scope}`" and len(cells) == 6]
    documented = {role for role, cell in zip(Role, cells[2:], strict=True) if cell == "yes"}

    assert documented == {role for role in Role if scope in ROLE_SCOPES[role]}
