"""Aliases: names of a blueprint that point at one of its kernels, with the history of what they pointed at."""

from typing import ClassVar

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q

from apps.audit.watched import Watched
from apps.blueprints.models import Blueprint
from apps.core.ids import new_id
from apps.core.models import BaseModel
from apps.kernels.models.kernel import Kernel

ALIAS_NAME = RegexValidator(
    r"^[a-z][a-z0-9_-]{0,31}\Z", "use lower-case letters, digits, '_' and '-', starting with a letter; at most 32"
)


class KernelAlias(BaseModel):
    """A name (`prod`, `candidate`) within a blueprint. The only mutable thing about kernels that clients resolve."""

    audit: ClassVar[Watched] = Watched(subject="alias")

    blueprint = models.ForeignKey(Blueprint, on_delete=models.PROTECT, related_name="aliases")
    name = models.CharField(max_length=32, validators=[ALIAS_NAME])
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, null=True, related_name="aliases")
    """What it points at now; NULL: it was taken away."""
    is_protected = models.BooleanField(default=False)
    """Moving it needs a reason, and what it points at is never retired."""

    class Meta:
        verbose_name, verbose_name_plural = "alias", "aliases"
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["blueprint", "name"], name="alias_once_per_blueprint")]

    def __str__(self) -> str:
        return f"{self.blueprint.name}@{self.name}"


class AliasPeriod(models.Model):
    """From when to when an alias pointed at a kernel: [started_at, ended_at)."""

    audit: ClassVar[Watched] = Watched(subject="alias", of="alias_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    alias = models.ForeignKey(KernelAlias, on_delete=models.PROTECT, related_name="periods")
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="alias_periods")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    """NULL: it still does."""

    class Meta:
        ordering = ["-started_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["alias"], condition=Q(ended_at__isnull=True), name="alias_points_at_one_kernel"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("started_at")), name="alias_period_runs_forward"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.alias_id} -> {self.kernel_id}"
