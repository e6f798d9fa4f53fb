"""A lock that spans transactions is given back also by who can no longer say so."""

from django.db import connection

from apps.core.locks import alone


def test_the_server_asks_after_a_holder_that_is_silent_within_a_minute(committed_db: str) -> None:
    with alone("a test", busy="somebody else holds it"), connection.cursor() as cursor:
        told = []
        for setting in ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"):
            cursor.execute(f"SHOW {setting}")
            told.append(int(cursor.fetchone()[0]))

    idle, interval, count = told
    assert 0 < idle + interval * count <= 60
