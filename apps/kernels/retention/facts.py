"""What the rules need beside the kernels' own rows: a fixed number of statements, however many kernels."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog
from django.db import connection, transaction
from django.db.models import Case, F, FloatField, Func, QuerySet, RowRange, Sum, TextField, Value, When, Window
from django.db.models.functions import Cast, Coalesce, RowNumber
from django.db.models.lookups import Exact

from apps.core.errors import Invalid, ServiceError
from apps.kernels import search
from apps.kernels.lifecycle import ENDED
from apps.kernels.models import Kernel, KernelAlias, KernelLineage, KernelUse, RetentionPolicy
from apps.kernels.retention.rules import RETIRABLE, Facts

log = structlog.get_logger(__name__)

_KERNEL, _ALIAS, _USE, _EDGE = (model._meta.db_table for model in (Kernel, KernelAlias, KernelUse, KernelLineage))

LOOKUPS: dict[str, str] = {
    "alias": f"""
        SELECT kernel_id, string_agg(CASE WHEN is_protected THEN 'protected alias ' ELSE 'alias ' END || name, ', '
                                     ORDER BY name)
        FROM {_ALIAS} WHERE kernel_id = ANY(%(ids)s) GROUP BY 1""",  # noqa: S608 - names of our own
    "live_run": f"""
        SELECT kernel_id, 'held by ' || count(*) || ' run(s)'
        FROM {_USE} WHERE until IS NULL AND kernel_id = ANY(%(ids)s) GROUP BY 1""",  # noqa: S608
    "live_descendant": f"""
        WITH RECURSIVE down(id) AS (
            SELECT unnest(%(ids)s::uuid[])
            UNION SELECT edge.child_id FROM {_EDGE} AS edge JOIN down ON edge.parent_id = down.id
        ), kept(id) AS (
            SELECT edge.parent_id FROM {_EDGE} AS edge JOIN down ON edge.child_id = down.id
            JOIN {_KERNEL} AS child ON child.id = edge.child_id AND child.state <> ALL(%(dead)s)
            UNION SELECT edge.parent_id FROM {_EDGE} AS edge JOIN kept ON edge.child_id = kept.id
        ) SELECT id, 'a kernel that came from it is in use' FROM kept WHERE id = ANY(%(ids)s)""",  # noqa: S608
    "successor": f"""
        SELECT successor_id, 'named as the successor of ' || count(*) || ' kernel(s)'
        FROM {_KERNEL} WHERE successor_id = ANY(%(ids)s) AND state <> 'PURGED' GROUP BY 1""",  # noqa: S608
}
"""Protection -> statement with (kernel, what holds) of those among ``ids`` that it protects."""


def population(policy: RetentionPolicy) -> QuerySet[Kernel]:
    """The kernels in use that the policy is about.

    Raises:
        Invalid: its ``match`` does not parse.
    """
    in_use = Kernel.objects.filter(workspace=policy.workspace_id, state__in=RETIRABLE)
    if not policy.match:
        return in_use
    try:
        found = search.matching(search.parse(policy.match), pointer="/match")
    except ServiceError as error:
        raise Invalid(error.detail, pointer="/match", code=error.code) from error
    return in_use.filter(pk__in=found.order_by().values("pk"))


def of_policy(
    policy: RetentionPolicy, ids: Iterable[UUID] | None = None, *, protected: Mapping[UUID, Facts] | None = None
) -> dict[UUID, Facts]:
    """The facts of every kernel that the policy is about, or of ``ids``, also those that it is not about.

    ``protected``: what ``of_kernels`` said of ``ids``, for whoever asks about many policies.
    """
    standings = _standings(policy, None if ids is None else list(ids))
    wanted = list(standings if ids is None else ids)
    if protected is not None:
        return {key: replace(protected[key], **standings.get(key, {})) for key in wanted}
    held, unread = _protected(wanted)
    return {key: Facts(**standings.get(key, {}), held=held.get(key, {}), unread=unread) for key in wanted}


def of_kernels(ids: Iterable[UUID]) -> dict[UUID, Facts]:
    """What protects these kernels, whatever the policy."""
    wanted = list(ids)
    held, unread = _protected(wanted)
    return {key: Facts(held=held.get(key, {}), unread=unread) for key in wanted}


def _standings(policy: RetentionPolicy, ids: list[UUID] | None) -> dict[UUID, Mapping[str, Any]]:
    """Where each kernel stands among those that match. Ranks are of all that match, also where few are asked for."""
    rows = population(policy).order_by().annotate(**_columns(policy)).values_list("id", *COLUMNS)
    statement, parameters = rows.query.sql_with_params()
    names = ", ".join(COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id, {names} FROM ({statement}) AS standing (id, {names})"  # noqa: S608 - names of our own
            " WHERE %s::uuid[] IS NULL OR id = ANY(%s::uuid[])",
            [*parameters, ids, ids],
        )
        found = cursor.fetchall()
    return {key: {"matches": True, **dict(zip(COLUMNS, values, strict=True))} for key, *values in found}


COLUMNS = ("value", "latest_rank", "best_rank", "bytes_through")


def _columns(policy: RetentionPolicy) -> dict[str, Any]:
    """The columns of ``Facts``; a rank that the policy does not ask for is not computed."""
    value = _value(policy.metric)
    best = [value.desc(nulls_last=True), F("id").desc()]
    recent = [Coalesce("last_used_at", "created_at").desc(), F("id").desc()]
    bytes_through = Window(Sum(Coalesce("size", 0)), order_by=recent, frame=RowRange(start=None, end=0))
    return {
        "value": value,
        "latest_rank": _if(policy.keep_latest, Window(RowNumber(), order_by=F("id").desc())),
        "best_rank": _if(policy.keep_best, Window(RowNumber(), order_by=best)),
        "bytes_through": _if(policy.storage_cap_bytes, bytes_through),
    }


def _if(criterion: int | None, column: Any) -> Any:
    return Value(0) if criterion is None else column


def _value(metric: str) -> Any:
    """The metric as a number; NULL where it is missing or is none."""
    kind = Func(
        Func("metrics", Value(metric), function="jsonb_extract_path"),
        function="jsonb_typeof",
        output_field=TextField(),
    )
    text = Func("metrics", Value(metric), function="jsonb_extract_path_text", output_field=TextField())
    return Case(When(Exact(kind, Value("number")), then=Cast(text, FloatField())), default=None)


def _protected(ids: list[UUID]) -> tuple[dict[UUID, dict[str, str]], frozenset[str]]:
    """Kernel -> protection -> what holds; and the protections that could not be read.

    One statement for all of them; if it fails, one for each, to learn which do.
    """
    rows = _read(list(LOOKUPS), ids)
    unread = set()
    if rows is None:
        found = {name: _read([name], ids) for name in LOOKUPS}
        unread = {name for name, read in found.items() if read is None}
        rows = [row for read in found.values() for row in read or ()]
    held: dict[UUID, dict[str, str]] = {}
    for name, key, detail in rows:
        held.setdefault(key, {})[name] = detail
    return held, frozenset(unread)


def _read(names: list[str], ids: list[UUID]) -> list[tuple[str, UUID, str]] | None:
    """(protection, kernel, what holds); None when it could not be read."""
    each = (f"SELECT '{name}', held.* FROM ({LOOKUPS[name]}) AS held" for name in names)  # noqa: S608 - our own
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(each), {"ids": ids, "dead": [str(state) for state in ENDED]})
            return cursor.fetchall()
    except Exception:  # whatever it is: nobody is retired by mistake
        log.exception("protections_unread", protections=names)
        return None
