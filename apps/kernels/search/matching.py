"""A search as a queryset: for those who go on with it (retirement, lists, reports)."""

from datetime import datetime

from django.db.models import QuerySet
from django.db.models.expressions import RawSQL
from django.utils import timezone

from apps.kernels.models import Kernel
from apps.kernels.search.compiler import TABLE, Context, compiled
from apps.kernels.search.nodes import Node, is_everything


def matching(node: Node, *, now: datetime | None = None, pointer: str = "/filter") -> QuerySet[Kernel]:
    """The kernels that match; ``now`` is what times in the search are told from.

    Raises:
        Unprocessable: an id in it is that of nothing.
    """
    kernels = Kernel.objects.all()
    if is_everything(node):
        return kernels
    condition = compiled(node, Context(now=now or timezone.now(), pointer=pointer))
    found = f"SELECT k.id FROM {TABLE} AS k WHERE {condition.text}"  # noqa: S608 - compiled from the closed grammar
    return kernels.filter(pk__in=RawSQL(found, condition.values))  # noqa: S611
