"""Reading blueprints."""

from uuid import UUID

from django.db.models import Count, QuerySet

from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.core.errors import NotFound
from apps.core.ids import parse_id


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
