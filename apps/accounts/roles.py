"""Roles and what each may do, as one table. A token narrows its user's scopes, it never widens them."""

from enum import StrEnum


class Scope(StrEnum):
    RUNS_READ = "runs:read"
    RUNS_WRITE = "runs:write"
    LIBRARY_READ = "library:read"
    LIBRARY_WRITE = "library:write"
    AUDIT_READ = "audit:read"
    ACCOUNTS_MANAGE = "accounts:manage"


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    CURATOR = "curator"
    ADMIN = "admin"


VIEWER_SCOPES = frozenset({Scope.RUNS_READ, Scope.LIBRARY_READ})
OPERATOR_SCOPES = VIEWER_SCOPES | {Scope.RUNS_WRITE, Scope.AUDIT_READ}

ROLE_SCOPES: dict[str, frozenset[str]] = {
    Role.VIEWER: VIEWER_SCOPES,
    Role.OPERATOR: OPERATOR_SCOPES,
    Role.CURATOR: OPERATOR_SCOPES | {Scope.LIBRARY_WRITE},
    Role.ADMIN: frozenset(Scope),
}
