"""Looking for a word in a whole database: in every column of every table, whatever its type."""

from typing import Any

import psycopg
from psycopg import sql

TABLES = """
    SELECT relation.relnamespace::regnamespace::text, relation.relname FROM pg_class AS relation
    WHERE relation.relkind IN ('r', 'm') AND relation.relnamespace::regnamespace::text NOT IN
        ('pg_catalog', 'information_schema', 'pg_toast')
    ORDER BY 1, 2
"""


def tables_with(connection: "psycopg.Connection[Any]", *words: str) -> set[str]:
    """The tables that hold one of the words, as text or as the bytes of it, in whatever case."""
    found = set()
    for schema, table in connection.execute(TABLES).fetchall():
        name = sql.Identifier(schema, table)
        for word in words:
            query = sql.SQL("SELECT 1 FROM {} AS row WHERE row::text ILIKE %s OR row::text ILIKE %s LIMIT 1")
            patterns = [f"%{_literal(text)}%" for text in (word, word.encode().hex())]
            if connection.execute(query.format(name), patterns).fetchone():
                found.add(table)
    return found


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
