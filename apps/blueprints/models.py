"""Blueprints (Urza): designs of kernels, versioned. A version's spec never changes once it exists."""

from typing import ClassVar

from django.contrib.postgres.indexes import GinIndex
from django.core.validators import RegexValidator
from django.db import models

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.blueprints.lifecycle import VERSION_LIFECYCLE, VersionState
from apps.core.lifecycle import choices, state_check
from apps.core.lineage import LineageEdge, edge_triggers
from apps.core.models import BaseModel

NAME = RegexValidator(
    r"^[a-z0-9][a-z0-9._-]{0,99}\Z", "use lower-case letters, digits, '.', '_' and '-', starting with a letter or digit"
)


class Blueprint(WorkspaceOwned):
    """A design with a name. ``card`` tells people what it is for; ``next_number`` numbers its versions."""

    audit: ClassVar[Watched] = Watched(subject="blueprint", outside={"next_number"})

    name = models.CharField(max_length=100, validators=[NAME])
    title = models.CharField(max_length=200, blank=True)
    card = models.JSONField(default=dict, blank=True)
    tags = models.JSONField(default=dict, blank=True)
    next_number = models.PositiveIntegerField(default=1, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="blueprint_name_once_per_workspace")]
        indexes = [GinIndex(fields=["tags"], name="blueprint_tags_gin", opclasses=["jsonb_path_ops"])]

    def __str__(self) -> str:
        return self.name


class BlueprintVersion(BaseModel):
    """One immutable spec of a blueprint; ``digest`` is the sha256 of its canonical JSON."""

    audit: ClassVar[Watched] = Watched(subject="blueprint_version")

    blueprint = models.ForeignKey(Blueprint, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(editable=False)
    spec = models.JSONField()
    digest = models.CharField(max_length=64, editable=False)
    operator = models.CharField(max_length=16, editable=False)
    parameters = models.BigIntegerField(editable=False)
    state = models.CharField(max_length=16, choices=choices(VersionState), default=VersionState.DRAFT, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["blueprint", "number"], name="version_number_once_per_blueprint"),
            models.UniqueConstraint(fields=["blueprint", "digest"], name="version_spec_once_per_blueprint"),
            models.CheckConstraint(condition=state_check("state", VersionState), name="version_state_is_known"),
        ]
        triggers = VERSION_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"{self.blueprint.name} v{self.number}"

    @property
    def workspace_id(self) -> object:
        return self.blueprint.workspace_id


class VersionLineage(LineageEdge):
    """``child`` was made from ``parent``: cloned, derived (mutated) or merged (crossed)."""

    audit: ClassVar[Watched] = Watched(subject="blueprint_version", of="child_id")

    child = models.ForeignKey(BlueprintVersion, on_delete=models.PROTECT, related_name="parent_edges")
    parent = models.ForeignKey(BlueprintVersion, on_delete=models.PROTECT, related_name="child_edges")

    class Meta:
        verbose_name_plural = "version lineage"
        ordering = ["-id"]
        constraints = LineageEdge.constraints_for("version")
        triggers = edge_triggers()

    def __str__(self) -> str:
        return f"{self.child_id} {self.kind} {self.parent_id}"
