"""What is in the database, as one digest per table: whatever changes anything changes one of them."""

from django.apps import apps
from django.db import connection


def digests() -> dict[str, str | None]:
    """Table -> md5 over all its rows, for the tables of ``apps.*``; None for an empty one."""
    tables = [model._meta.db_table for model in apps.get_models() if model.__module__.startswith("apps.")]
    found: dict[str, str | None] = {}
    with connection.cursor() as cursor:
        for name in tables:
            cursor.execute(f'SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM "{name}" AS t')
            found[name] = cursor.fetchone()[0]
    return found


def beside_the_trail() -> dict[str, str | None]:
    """The same without the audit trail's own tables: a refusal is an event, and writes nothing else."""
    return {name: digest for name, digest in digests().items() if not name.startswith("audit_")}
