"""Life cycle of a blueprint version, enforced in Python and in the database."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle


class VersionState(StrEnum):
    DRAFT = "DRAFT"
    SUBMITTED = "SUBMITTED"
    COMPILING = "COMPILING"
    CHARACTERIZED = "CHARACTERIZED"
    INVALID = "INVALID"
    RETIRED = "RETIRED"


S = VersionState

VERSION_LIFECYCLE = Lifecycle.of(
    "blueprint version",
    initial=[S.DRAFT],
    transitions=[
        (S.DRAFT, S.SUBMITTED),
        (S.SUBMITTED, S.COMPILING),
        (S.COMPILING, S.CHARACTERIZED),
        (S.COMPILING, S.INVALID),
        (S.CHARACTERIZED, S.RETIRED),
        (S.INVALID, S.RETIRED),
        (S.RETIRED, S.CHARACTERIZED),
        (S.RETIRED, S.INVALID),
    ],
)
