"""PostgreSQL, by its own statistics (the manual's chapter "Monitoring Database Activity"). Three short queries."""

from collections.abc import Iterable
from typing import Any

from django.db import connection
from prometheus_client.core import Metric

from apps.observability.collectors.families import families

STATES = {"active": "active", "idle": "idle", "idle in transaction": "idle_in_transaction"}

_TOTALS = """
SELECT pg_database_size(datname), xact_commit, xact_rollback, deadlocks, blks_hit, blks_read,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
FROM pg_stat_database WHERE datname = current_database()
"""
# Of other roles' connections the application role sees that they are, and no more.
_CONNECTIONS = """
SELECT coalesce(state, ''), count(*), coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0)
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1
"""


def told() -> Iterable[Metric]:
    """Sizes in bytes. Our own connection does not count."""
    size, committed, rolled_back, deadlocks, hit, read, most = _rows(_TOTALS)[0]
    by_state = {(name,): 0.0 for name in (*STATES.values(), "other")}
    longest = used = 0.0
    for state, number, age in _rows(_CONNECTIONS):
        by_state[(STATES.get(state, "other"),)] += number
        used += number
        longest = max(longest, float(age))
    return families(
        {
            "esper_database_bytes": size,
            "esper_database_connections": by_state,
            "esper_database_connections_used_ratio": used / most if most > 0 else None,
            "esper_database_longest_transaction_seconds": longest,
            "esper_database_transactions_total": {("commit",): committed, ("rollback",): rolled_back},
            "esper_database_deadlocks_total": deadlocks,
            "esper_database_cache_hit_ratio": hit / (hit + read) if hit + read else None,
        }
    )


def _rows(query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()
