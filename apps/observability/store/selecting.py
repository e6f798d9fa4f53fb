"""Which series a name and matchers select."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from uuid import UUID

from django.db.models import Q, QuerySet

from apps.accounts.models import default_workspace_id
from apps.core.errors import Invalid
from apps.observability.contracts import SeriesInfo
from apps.observability.matchers import Matcher, matches
from apps.observability.models import Series

AT_ONCE = 2_000


def info(row: Series) -> SeriesInfo:
    return SeriesInfo(
        id=row.pk,
        name=row.name,
        labels=row.labels,
        kind=row.kind,
        unit=row.unit,
        source=row.source,
        run_id=row.run_id,
    )


def selected(
    name: str | None = None,
    *,
    names: Sequence[str] | None = None,
    matchers: Sequence[Matcher] = (),
    ids: Sequence[int] | None = None,
    limit: int | None = None,
    workspace_id: UUID | None = None,
) -> list[SeriesInfo]:
    """Series by name and id, at most ``limit``. Without ``workspace_id``: of the default workspace."""
    rows = Series.objects.filter(workspace=workspace_id or default_workspace_id()).order_by("name", "id")
    if name is not None:
        rows = rows.filter(name=name)
    if names is not None:
        rows = rows.filter(name__in=list(names))
    if ids is not None:
        rows = rows.filter(pk__in=list(ids))
    return [info(row) for row in islice(admitted(rows, matchers), limit)]


def with_labels(rows: QuerySet[Series], matchers: Iterable[Matcher]) -> QuerySet[Series]:
    """Those whose labels are, or are not, as the matchers say: where a page of rows is asked for.

    Raises:
        Invalid: a matcher is an expression.
    """
    for matcher in matchers:
        if matcher.op not in ("=", "!="):
            raise Invalid("only = and != here", pointer="/label", code="invalid")
        there = Q(labels__contains={matcher.label: matcher.value})
        if not matcher.value:  # a label that is not there has the empty value
            there |= ~Q(labels__has_key=matcher.label)
        rows = rows.filter(there) if matcher.op == "=" else rows.exclude(there)
    return rows


def admitted(rows: QuerySet[Series], matchers: Iterable[Matcher]) -> Iterator[Series]:
    """Those that all matchers admit. Equality is looked up by the database, expressions are tried here."""
    rest = []
    for matcher in matchers:
        if matcher.op == "=" and matcher.value:
            rows = rows.filter(labels__contains={matcher.label: matcher.value})
        else:
            rest.append(matcher)
    for row in rows.iterator(chunk_size=AT_ONCE) if rest else rows:
        if matches(rest, row.labels):
            yield row
