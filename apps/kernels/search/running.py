"""Running a search: pages that cost what they show, whatever the size of the library.

Results by id come in one of two ways, and neither trusts the planner's guess of how many there are:

- a *walk* looks at candidates in the order of an index (of a declared tag or of the tier, where the search asks one to
  be equal to something, else the primary key), chunk by chunk, and stops when the page is full;
- a *look-up* takes matches out of an index (tags, digest, contract, lineage ...) and sorts their ids: first those of
  the time in which the page should lie, as the ids tell it, then all.

A walk begins. When what it found says that the page lies far away and an index serves the search, the look-up takes
over, unless there turn out to be too many matches. A search that no index serves ends with an error that says what
would. Other orders sort all matches.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import OperationalError, connection, transaction
from django.utils import timezone
from psycopg.errors import QueryCanceled

from apps.core.errors import Invalid, Unprocessable
from apps.core.pagination import DEFAULT_SIZE, MAX_SIZE
from apps.kernels.models import FieldReport, IndexState, TagKey
from apps.kernels.search import contracts
from apps.kernels.search.compiler import TABLE, TRUE, Context, Sql, as_json, compiled, expression, tag_equality
from apps.kernels.search.fields import Kind, field_named
from apps.kernels.search.indexes import is_indexed
from apps.kernels.search.nodes import EVERYTHING, Compare, Node, Op, contract_of, required, terms
from apps.kernels.search.ordering import Order, Position, binding_of, read_position, write_cursor
from apps.kernels.search.past import source_at
from apps.kernels.search.rows import COLUMNS, Projection, document
from apps.kernels.search.text import to_text
from apps.kernels.search.tree import to_json

TIMEOUT_MS = 5_000
WALK_IS_LONG = 2_500
"""Candidates that a walk is expected to need still: from here on a look-up is tried."""
FEW_MATCHES = 2_000
"""A look-up of more matches than this is given up for the walk, until the walk turns out to be very long."""
WALK_IS_TOO_LONG = 20_000
MAX_WALK = 200_000
"""Candidates that one page of a search that no index serves may look at."""
MAX_CHUNK = 20_000
LEAST_FOUND = 0.5
"""What a walk that found nothing is taken to have found."""
MARGIN = 1.5
"""A look-up takes the time of so many times the candidates that the page is expected to need."""
MAX_FACETS = 8
FACET_VALUES = 50
INNER = (*COLUMNS, "blueprint_version_id")
IN_ORDER = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_sort": "off",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "jit": "off",
}
BY_INDEX = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "on", "enable_sort": "on"}
PLANNING = tuple(IN_ORDER)
REMEDY = (
    "add a condition that an index serves (a tag equal to a value, digest, name, created_at > ..., descends_from), or "
    "declare the tag (POST /api/v1/tag-keys) so that it has an index"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is asked. Empty ``order_by``: newest first, or by rank where the search asks for a contract.

    ``fields``: members of the rows; empty means those of the list of kernels. ``facets``: fields whose values are
    counted. ``pointer``: where the client wrote the filter, for errors.
    """

    filter: Node = EVERYTHING
    order_by: Sequence[str] = ()
    fields: Sequence[str] = ()
    facets: Sequence[str] = ()
    page_size: int = DEFAULT_SIZE
    cursor: str | None = None
    as_of: datetime | None = None
    count: bool = False
    pointer: str = "/filter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """``facets``: field -> its most frequent values with their counts. ``count``: None unless it was asked for."""

    rows: list[dict[str, Any]]
    next_cursor: str | None
    has_more: bool
    facets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    count: int | None = None


def run(query: Query) -> Page:
    """One page of results.

    Raises:
        Invalid: something in the query is not right; the pointer names it. Unprocessable: an id in it is that of
            nothing (``not_found``), or it costs too much (``too_expensive``).
    """
    if not 1 <= query.page_size <= MAX_SIZE:
        raise Invalid(f"must be a whole number from 1 to {MAX_SIZE}", pointer="/page_size", code="range")
    if query.as_of is not None and query.as_of > timezone.now():
        raise Invalid("is in the future", pointer="/as_of", code="future")
    order = Order.of(query.order_by, is_ranked=contract_of(query.filter) is not None)
    try:
        with _bounded(IN_ORDER if order.is_by_id and query.as_of is None else {}):
            return _Search(query, order).page()
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise _too_slow(query) from None
        raise


@contextmanager
def _bounded(plans: Mapping[str, str]) -> Iterator[None]:
    is_nested = connection.in_atomic_block
    with transaction.atomic():
        _set(statement_timeout=TIMEOUT_MS, **plans)
        yield
        if is_nested:
            _set(**dict.fromkeys((*PLANNING, "statement_timeout"), "DEFAULT"))


def _set(**values: object) -> None:
    """Until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} TO {value}" for name, value in values.items()))


def _asked(statement: Sql) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement.text, statement.values)
        return cursor.fetchall()


def _too_slow(query: Query) -> Unprocessable:
    return _too_expensive(query, f"took longer than {TIMEOUT_MS / 1000:.0f} s", frozenset())


def _too_expensive(query: Query, how: str, indexed: frozenset[str]) -> Unprocessable:
    slow = next((term for term in terms(query.filter) if not is_indexed(term, indexed)), None)
    if slow is None:
        what = f"the order {', '.join(query.order_by)}" if query.order_by else "the search"
    else:
        what = f"the condition {to_text(slow):.200}"
    return Unprocessable(f"{what} {how}: {REMEDY}", pointer=query.pointer, code="too_expensive")


class _Search:
    """One page of one search."""

    def __init__(self, query: Query, order: Order) -> None:
        self.query, self.size, self.order = query, query.page_size, order
        self.until = monotonic() + TIMEOUT_MS / 1000
        wanted = contract_of(query.filter)
        self.projection = Projection.of(query.fields)
        self.binding = binding_of(to_json(query.filter), self.order, query.as_of)
        self.position = read_position(query.cursor, self.order, self.binding) if query.cursor else None
        self.now = self.position.now if self.position else query.as_of or timezone.now()
        self.indexed = _indexed_tags(query.filter)
        context = Context(now=self.now, pointer=query.pointer, as_of=query.as_of)
        self.condition = compiled(query.filter, context)
        self.source = Sql(TABLE)
        if query.as_of is not None:
            self.source = source_at(query.as_of, ", ".join(INNER))
        self.run_left_out = contracts.resolved(wanted, pointer=query.pointer)[1] if wanted else None
        self.is_ranked = self.order.is_ranked

    def check_time(self) -> None:
        """Statements are bounded one by one: their number must not make a search any longer."""
        if monotonic() > self.until:
            raise _too_slow(self.query)

    def page(self) -> Page:
        is_walk = self.order.is_by_id and self.query.as_of is None
        found = _ById(self).rows() if is_walk else self._sorted()
        has_more = len(found) > self.size
        found = found[: self.size]
        cursor = write_cursor(self._position(found[-1]), self.order, self.binding) if has_more else None
        rows = self.projection.shaped(found)
        if self.is_ranked:
            for row, values in zip(rows, found, strict=True):
                row["rank"] = {"gain": float(values[-3]), "reports": values[-1]}
        facets, count = self._counted()
        return Page(rows=rows, next_cursor=cursor, has_more=has_more, facets=facets, count=count)

    def _position(self, values: Sequence[Any]) -> Position:
        start = self.projection.width
        keys = values[start : start + len(self.order.keys)]
        return Position(self.now, (values[0],) if self.order.is_by_id else tuple(keys))

    def _sorted(self) -> list[tuple[Any, ...]]:
        """All matches in another order than that of an index: the page's worth of them is kept while they are read."""
        columns = [self.projection.selected, *(key.sql for key in self.order.keys)]
        conditions = [self.condition]
        if self.position is not None:
            conditions.append(self.order.after(self.position.values))
        joined = self._reports() if self.is_ranked else Sql("")
        where, by = Sql.joined("AND", conditions), self.order.by()
        selected = ", ".join(column.text for column in columns) + (", r.reports" if self.is_ranked else "")
        return _asked(
            Sql(
                f"SELECT {selected} FROM {self.source.text} AS k {joined.text} "  # noqa: S608 - compiled
                f"WHERE {where.text} ORDER BY {by.text} LIMIT %s",
                (
                    *(value for column in columns for value in column.values),
                    *self.source.values,
                    *joined.values,
                    *where.values,
                    *by.values,
                    self.size + 1,
                ),
            )
        )

    def _reports(self) -> Sql:
        """``r``: outcomes of the kernel in other runs."""
        conditions: list[str] = ["kernel_id = k.id"]
        values: list[Any] = []
        if self.run_left_out is not None:
            conditions.append("run_id <> %s")
            values.append(self.run_left_out)
        if self.query.as_of is not None:
            conditions.append("created_at <= %s")
            values.append(self.query.as_of)
        where = " AND ".join(conditions)
        return Sql(
            "CROSS JOIN LATERAL (SELECT count(contribution) AS reports, coalesce(sum(contribution), 0) AS total "  # noqa: S608
            f"FROM {FieldReport._meta.db_table} WHERE {where}) AS r",
            tuple(values),
        )

    def _counted(self) -> tuple[dict[str, list[dict[str, Any]]], int | None]:
        if not self.query.facets and not self.query.count:
            return {}, None
        _set(**dict.fromkeys(PLANNING, "DEFAULT"))
        return {name: self._facet(name, index) for index, name in enumerate(self._facets())}, self._count()

    def _facets(self) -> list[str]:
        if len(self.query.facets) > MAX_FACETS:
            raise Invalid(f"at most {MAX_FACETS} fields", pointer="/facets", code="too_many")
        return list(dict.fromkeys(self.query.facets))

    def _facet(self, name: str, index: int) -> list[dict[str, Any]]:
        counted = field_named(name, pointer=f"/facets/{index}")
        if counted.kind is Kind.TIME:
            raise Invalid(f"{name} is a time: its values are not counted", pointer=f"/facets/{index}", code="operator")
        value = expression(counted)
        self.check_time()
        rows = _asked(
            Sql(
                f"SELECT {value.text} AS value, count(*) FROM {self.source.text} AS k "  # noqa: S608 - compiled
                f"WHERE {self.condition.text} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {FACET_VALUES + 1}",
                (*value.values, *self.source.values, *self.condition.values),
            )
        )
        # No value is none of the values that are counted, and may have been the most frequent one.
        present = [(value, count) for value, count in rows if value is not None][:FACET_VALUES]
        return [{"value": document(value) if counted.is_member else value, "count": n} for value, n in present]

    def _count(self) -> int | None:
        if not self.query.count:
            return None
        self.check_time()
        statement = f"SELECT count(*) FROM {self.source.text} AS k WHERE {self.condition.text}"  # noqa: S608 - compiled
        return int(_asked(Sql(statement, (*self.source.values, *self.condition.values)))[0][0])


def _indexed_tags(node: Node) -> frozenset[str]:
    """The declared tags that have their index, when the search asks for a tag at all."""
    if not any(isinstance(term, Compare) and term.field.startswith("tags.") for term in terms(node)):
        return frozenset()
    return frozenset(TagKey.objects.filter(index_state=IndexState.READY).values_list("name", flat=True))


@dataclass(frozen=True, slots=True)
class _Lead:
    """An index in the order of a walk.

    ``condition`` says ``= ANY (ARRAY[x])``, not ``= x``: then only this index is in the order (expression, id), and the
    planner cannot take the primary key for it, which may meet the whole library before the first match.
    """

    condition: Sql = TRUE
    expression: Sql | None = None

    def order(self, descending: bool) -> Sql:
        by_id = f"k.id {'DESC' if descending else 'ASC'}"
        if self.expression is None:
            return Sql(by_id)
        leading = "ASC" if descending else "DESC"  # the indexes are (expression, id DESC), read either way
        return Sql(f"{self.expression.text} {leading}, {by_id}", self.expression.values)


def _lead(node: Node, indexed: frozenset[str]) -> _Lead:
    tier = _Lead()
    for term in required(node):
        key = tag_equality(term)
        if key in indexed and isinstance(term, Compare):
            member = expression(field_named(term.field, pointer=""))
            value = as_json(term.value)
            return _Lead(Sql(f"{member.text} = ANY (ARRAY[%s]::jsonb[])", (*member.values, value)), member)
        if isinstance(term, Compare) and term.op is Op.EQ and term.field in {"tier", "storage_tier"}:
            tier = _Lead(Sql("k.storage_tier = ANY (ARRAY[%s]::varchar[])", (term.value,)), Sql("k.storage_tier"))
    return tier


class _ById:
    """The page of a search that is ordered by id."""

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.wanted = search.size + 1
        self.descending = search.order.keys[0].descending
        self.lead = _lead(search.query.filter, search.indexed)
        self.is_indexed = is_indexed(search.query.filter, search.indexed)
        self.position: UUID | None = search.position.values[0] if search.position else None
        self.found: list[tuple[Any, ...]] = []
        self.scanned = 0
        self.pace = 0.0
        """Milliseconds between two candidates, by the first chunk."""

    def rows(self) -> list[tuple[Any, ...]]:
        chunk, tried = max(2 * self.wanted, 64), False
        while not self._walk(chunk):
            self.search.check_time()
            needed = self._expected()
            if self.is_indexed and needed > WALK_IS_LONG and not tried:
                tried = True
                until = self._boundary(needed)
                if until and self._look_up(FEW_MATCHES, until) and len(self.found) >= self.wanted:
                    break
                if self._look_up(FEW_MATCHES):
                    break
            if self.is_indexed and self.scanned >= WALK_IS_TOO_LONG and self._look_up(None):
                break
            if self.scanned >= MAX_WALK:
                how = f"was looked for in {self.scanned:,} kernels without filling a page"
                raise _too_expensive(self.search.query, how, self.search.indexed)
            chunk = min(max(int(needed * 1.3), 64), 4 * self.scanned, MAX_CHUNK)
        return self.found

    def _expected(self) -> float:
        """How many more candidates the page needs if they go on as they were."""
        density = max(len(self.found), LEAST_FOUND) / self.scanned
        return (self.wanted - len(self.found)) / density

    def _walk(self, chunk: int) -> bool:
        """Look at the next candidates. Returns True at the end: the page is full, or there are no more."""
        selected, order = self.search.projection.selected, self.lead.order(self.descending)
        by_id = f"k.id {'DESC' if self.descending else 'ASC'}"
        behind = self._behind()
        condition = self.search.condition
        candidates = (
            f"SELECT {', '.join(INNER)} FROM {TABLE} AS k WHERE {self.lead.condition.text} AND {behind.text} "  # noqa: S608
            f"ORDER BY {order.text} LIMIT %s"
        )
        inner = (
            f"SELECT k.*, ({condition.text}) AS fits, row_number() OVER (ORDER BY {by_id}) AS place "  # noqa: S608
            f"FROM ({candidates}) AS k"
        )
        missing = self.wanted - len(self.found)
        rows = _asked(
            Sql(
                f"SELECT {selected.text}, k.fits, k.place FROM ({inner}) AS k WHERE k.fits OR k.place IN (1, %s) "  # noqa: S608
                f"ORDER BY {by_id} LIMIT %s",
                (
                    *selected.values,
                    *condition.values,
                    *self.lead.condition.values,
                    *behind.values,
                    *order.values,
                    chunk,
                    chunk,
                    missing + 2,  # the first and the last are told whether they fit or not
                ),
            )
        )
        self.found = [*self.found, *(row[:-2] for row in rows if row[-2])][: self.wanted]
        self.scanned += chunk
        if len(self.found) >= self.wanted or not rows or rows[-1][-1] < chunk:
            return True
        self.position = rows[-1][0]
        self.pace = self.pace or abs(_milliseconds(rows[0][0]) - _milliseconds(rows[-1][0])) / chunk
        return False

    def _behind(self) -> Sql:
        if self.position is None:
            return TRUE
        return Sql(f"k.id {'<' if self.descending else '>'} %s", (self.position,))

    def _boundary(self, needed: float) -> UUID | None:
        """The id of about so many candidates further on: ids begin with the milliseconds of their making (UUIDv7)."""
        if self.position is None or not self.pace:
            return None
        span = int(needed * MARGIN * self.pace) + 1
        at = _milliseconds(self.position) + (-span if self.descending else span)
        return UUID(int=at << 80) if 0 < at < 1 << 48 else None

    def _look_up(self, few: int | None, until: UUID | None = None) -> bool:
        """Take the rest of the page, or what of it lies before ``until``, out of the indexes.

        Returns False, and nothing, if there are more matches than ``few``.
        """
        _set(**BY_INDEX)
        condition, behind = self.search.condition, self._behind()
        if until is not None:
            window = Sql(f"k.id {'>=' if self.descending else '<='} %s", (until,))
            condition = Sql.joined("AND", [window, behind, condition])
        limit = "" if few is None else f" LIMIT {few + 1}"
        direction = "DESC" if self.descending else "ASC"
        selected = self.search.projection.selected
        rows = _asked(
            Sql(
                f"WITH hits AS MATERIALIZED (SELECT k.id FROM {TABLE} AS k WHERE {condition.text}{limit}), "  # noqa: S608
                f"page AS (SELECT k.id FROM hits AS k WHERE {behind.text} ORDER BY k.id {direction} LIMIT %s) "
                f"SELECT {selected.text}, count FROM (SELECT count(*) AS count FROM hits) AS total "
                f"LEFT JOIN {TABLE} AS k ON k.id = ANY (ARRAY(SELECT id FROM page)) AND (count <= %s OR %s) "
                f"ORDER BY k.id {direction}",
                (*condition.values, *behind.values, self.wanted - len(self.found), *selected.values, few, few is None),
            )
        )
        if few is not None and rows[0][-1] > few:
            _set(**IN_ORDER)
            return False
        self.found += [row[:-1] for row in rows if row[0] is not None]
        self.position = until or self.position
        return True


def _milliseconds(key: UUID) -> int:
    return key.int >> 80
