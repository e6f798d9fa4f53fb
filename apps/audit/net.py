"""The net under the services: triggers that find a watched row changed without an event about it.

Used by migrations, which write the columns out: they never import models. ``tests/contracts/test_watched.py`` fails
while a watched table has other columns than its triggers.

    operations = [
        watch("kernels_kernel", subject="kernel", columns=["state", "digest"]),
    ]

PostgreSQL refuses to drop or retype a column that a trigger names: such a migration begins with ``unwatch`` and ends
with ``watch``. To change the columns, ``watch`` again.
"""

from collections.abc import Sequence

from django.db.migrations import RunSQL

ROWS, CHANGES, TRUNCATE = "audit_net_rows", "audit_net_changes", "audit_net_truncate"


def watch(table: str, *, subject: str, columns: Sequence[str], of: str = "id") -> RunSQL:
    """Let the net watch rows that come and go, and changes of ``columns``; whatever it watched there before.

    ``of`` is the column with the id of the subject. What is not in ``columns`` costs nothing to change.
    """
    named = ", ".join(f'"{column}"' for column in columns)
    differs = " OR ".join(f'OLD."{column}" IS DISTINCT FROM NEW."{column}"' for column in columns)
    at_commit = "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
    net = f"EXECUTE FUNCTION esper_audit_net('{subject}', '{of}')"
    make = (
        f'CREATE CONSTRAINT TRIGGER {ROWS} AFTER INSERT OR DELETE ON "{table}" {at_commit} {net};'
        f'CREATE CONSTRAINT TRIGGER {CHANGES} AFTER UPDATE OF {named} ON "{table}" {at_commit} WHEN ({differs}) {net};'
        f'CREATE TRIGGER {TRUNCATE} BEFORE TRUNCATE ON "{table}" '
        "FOR EACH STATEMENT EXECUTE FUNCTION esper_audit_keep();"
    )
    return RunSQL(_drop(table) + make, reverse_sql=_drop(table))


def unwatch(table: str) -> RunSQL:
    """Take the net away from a table: before a column of it is dropped or retyped."""
    return RunSQL(_drop(table), reverse_sql=RunSQL.noop)


def _drop(table: str) -> str:
    return "".join(f'DROP TRIGGER IF EXISTS {trigger} ON "{table}";' for trigger in (ROWS, CHANGES, TRUNCATE))
