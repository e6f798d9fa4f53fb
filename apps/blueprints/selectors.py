"""Reading blueprints."""

from collections.abc import Collection
from uuid import UUID

from django.db.models import Count, QuerySet

from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.errors import NotFound
from apps.core.ids import parse_id
from apps.core.lineage import MAX_DEPTH, Family, family

SHOWN_VERSIONS = 100
"""Of a blueprint, the newest so many are where its lineage starts."""


def blueprints() -> QuerySet[Blueprint]:
    return Blueprint.objects.select_related("workspace").annotate(version_count=Count("versions"))


def blueprint_by_id_or_name(reference: str | UUID) -> Blueprint:
    """Raises NotFound."""
    key = parse_id(reference)
    found = Blueprint.objects.filter(pk=key).first() if key else Blueprint.objects.filter(name=str(reference)).first()
    if found is None:
        raise NotFound(f"there is no blueprint {str(reference)!r}")
    return found


def version_of(blueprint: Blueprint, number: int | None = None) -> BlueprintVersion:
    """The given version, or the newest. Raises NotFound."""
    versions = blueprint.versions.select_related("blueprint").order_by("-number")
    found = versions.first() if number is None else versions.filter(number=number).first()
    if found is None:
        raise NotFound(f"{blueprint.name} has no version {number if number is not None else 'yet'}")
    return found


def versions() -> QuerySet[BlueprintVersion]:
    return BlueprintVersion.objects.select_related("blueprint__workspace")


def family_of_versions(starts: Collection[UUID], *, depth: int = MAX_DEPTH) -> Family:
    """What these versions came from and what came from them."""
    rows = BlueprintVersion.objects.select_related("blueprint").defer("spec")
    return family(VersionLineage, starts, rows, depth=depth)


def family_of_blueprint(blueprint: Blueprint, *, depth: int = MAX_DEPTH) -> Family:
    """The same of the newest versions of a blueprint."""
    newest = blueprint.versions.order_by("-number").values_list("pk", flat=True)[:SHOWN_VERSIONS]
    return family_of_versions(list(newest), depth=depth)
