"""Which row a series is: looked up once a process, begun where it is new, and never more of them than allowed."""

from collections.abc import Iterable, Sequence
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction

from apps.core.errors import Invalid
from apps.core.locks import number_of
from apps.observability.contracts import Reading
from apps.observability.models import Series, SeriesSource
from apps.observability.store.identity import Key, digest_of, key_of

REMEMBERED = 50_000
"""Series a process knows by heart (some 20 MB); with more it begins anew."""

Place = tuple[str, UUID, Key]
"""Database, workspace, series."""
_known: dict[Place, int] = {}


def ids_of(readings: Sequence[Reading], *, source: SeriesSource, workspace_id: UUID) -> list[int]:
    """The series of each reading. Call it in the transaction that writes their samples: no series is removed until it
    ends.

    Only clients are held to the cap: whoever fills it must not blind the platform, whose own labels are few.

    Raises:
        Invalid: the workspace would have too many series (code "too_many_series").
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock_shared(%s)", [lock_number("series are removed")])
    keys = [key_of(reading.name, reading.labels) for reading in readings]
    database = str(connection.settings_dict["NAME"])
    first: dict[Key, Reading] = {}
    for key, reading in zip(keys, readings, strict=True):
        first.setdefault(key, reading)
    ids = {key: _known.get((database, workspace_id, key)) for key in first}
    missing = {key: first[key] for key, found in ids.items() if found is None}
    if missing:
        found = _resolved(missing, source, workspace_id)
        ids |= found
        places = {(database, workspace_id, key): id for key, id in found.items()}
        transaction.on_commit(lambda: _remember(places))  # one that is rolled back leaves no series behind
    return [id for key in keys if (id := ids[key]) is not None]


def forget() -> None:
    """Look every series up again."""
    _known.clear()


def lock_number(what: str) -> int:
    """The key of an advisory lock."""
    return number_of(f"esper metrics: {what}")


def _remember(places: dict[Place, int]) -> None:
    if len(_known) + len(places) > REMEMBERED:
        _known.clear()
    _known.update(places)


def _resolved(missing: dict[Key, Reading], source: SeriesSource, workspace_id: UUID) -> dict[Key, int]:
    digests = {key: digest_of(workspace_id, key) for key in missing}
    found = _rows(digests.values())
    if len(found) < len(missing):
        with connection.cursor() as cursor:  # one at a time begins series: the cap holds whoever else writes
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [lock_number(f"series of {workspace_id} begin")])
        found = _rows(digests.values())
        new = {key: reading for key, reading in missing.items() if digests[key] not in found}
        if source == SeriesSource.CLIENT:
            _check_room(new, workspace_id)
        Series.objects.bulk_create(
            [
                Series(
                    workspace_id=workspace_id,
                    name=reading.name,
                    labels=dict(key[1]),
                    digest=digests[key],
                    kind=reading.kind,
                    unit=reading.unit,
                    source=source,
                    run_id=reading.run_id,
                )
                for key, reading in new.items()
            ]
        )
        found = _rows(digests.values())
    return {key: found[digest] for key, digest in digests.items()}


def _rows(digests: Iterable[str]) -> dict[str, int]:
    return dict(Series.objects.filter(digest__in=list(digests)).values_list("digest", "id"))


def _check_room(new: dict[Key, Reading], workspace_id: UUID) -> None:
    """Raises Invalid."""
    most = settings.METRICS_MAX_SERIES
    there = Series.objects.filter(workspace=workspace_id).count()
    if there + len(new) <= most:
        return
    name, labels = next(iter(new))
    example = f"{name}{{{', '.join(f'{label}={value!r}' for label, value in labels)}}}"
    raise Invalid(
        f"the workspace has {there:,} series of at most {most:,}, and {len(new):,} more were to begin, such as"
        f" {example[:300]}: leave out labels that have many values, or raise ESPER_METRICS_MAX_SERIES",
        pointer="/samples",
        code="too_many_series",
    )
