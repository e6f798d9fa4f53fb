"""Which kernel came from which. That a kernel was compiled from a blueprint version is a column of the kernel."""

from typing import ClassVar

from django.db import models

from apps.audit.watched import Watched
from apps.core.lineage import LineageEdge, edge_triggers
from apps.kernels.models.kernel import Kernel


class KernelLineage(LineageEdge):
    """``child`` came from ``parent``."""

    audit: ClassVar[Watched] = Watched(subject="kernel", of="child_id")

    child = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="parent_edges")
    parent = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="child_edges")

    class Meta:
        verbose_name_plural = "kernel lineage"
        ordering = ["-id"]
        constraints = LineageEdge.constraints_for("kernel")
        triggers = edge_triggers()

    def __str__(self) -> str:
        return f"{self.child_id} {self.kind} {self.parent_id}"
