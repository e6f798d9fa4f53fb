"""Gives and takes grades (``kernels.grading``) as cohorts of kernels change."""

from collections.abc import Iterator
from uuid import UUID

from django.db import connection, transaction

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM, Actor
from apps.kernels.grading import GRADES, SMALLEST_COHORT, graded
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel

BATCH = 500

# The standing of every kernel in its cohort, then only those that have other grades than they should.
_DUE = """
WITH standing AS (
    SELECT id, tags, count(*) OVER cohort AS size, {standings}
    FROM kernels_kernel
    WHERE state = 'VALIDATED' AND hardware ? 'profile' {within}
    WINDOW cohort AS (PARTITION BY hardware->>'profile', operator, jsonb_array_length(compat->'input'))
), wanted AS (
    SELECT id, tags, {wants} FROM standing
)
SELECT id, {names} FROM wanted WHERE ({differs}) {only} ORDER BY id LIMIT %(limit)s
"""


@transaction.atomic
def grade_kernels(*, kernel: Kernel | None = None, actor: Actor = SYSTEM, limit: int = BATCH) -> list[Kernel]:
    """Bring the grades of at most ``limit`` kernels up to date, or those of ``kernel`` only; returns the changed ones.

    One event for each change; a kernel whose grades stand is not touched.
    """
    due = dict(_due(kernel, limit))
    rows = Kernel.objects.select_for_update().filter(pk__in=due, state=KernelState.VALIDATED).order_by("pk")
    return [_grade(row, due[row.pk], actor) for row in rows]


def _grade(kernel: Kernel, grades: dict[str, bool], actor: Actor) -> Kernel:
    before = image(kernel)
    kernel.tags = graded(kernel.tags, grades)
    kernel.save()
    reason = ", ".join(f"{name}: {str(given).lower()}" for name, given in grades.items())
    audit.record(type="kernel.graded", subject=kernel, actor=actor, reason=reason, before=before, after=image(kernel))
    return kernel


def _due(kernel: Kernel | None, limit: int) -> Iterator[tuple[UUID, dict[str, bool]]]:
    """(kernel id, its right grades) of those that have others."""
    tags = [grade.tag for grade in GRADES]
    standing = "cume_dist() OVER (cohort ORDER BY (metrics->>'{metric}')::float8) AS {tag}"
    want = "(size >= %(smallest)s AND {tag} <= {share}) AS {tag}"
    differs = "{tag} IS DISTINCT FROM (tags @> '{{\"{tag}\": true}}')"
    query = _DUE.format(
        standings=", ".join(standing.format(metric=grade.metric, tag=grade.tag) for grade in GRADES),
        wants=", ".join(want.format(tag=grade.tag, share=grade.share) for grade in GRADES),
        differs=" OR ".join(differs.format(tag=tag) for tag in tags),
        names=", ".join(tags),
        within="AND hardware->>'profile' = %(profile)s AND operator = %(operator)s" if kernel else "",
        only="AND id = %(id)s" if kernel else "",
    )
    values: dict[str, int | str | UUID | None] = {"smallest": SMALLEST_COHORT, "limit": limit}
    if kernel is not None:
        values |= {"id": kernel.pk, "profile": kernel.hardware.get("profile"), "operator": kernel.operator}
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        for key, *given in cursor.fetchall():
            yield key, dict(zip(tags, given, strict=True))
