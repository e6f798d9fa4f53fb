"""Writing blueprints: the design first, then immutable versions of its spec."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import F

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.blueprints import spec as grammar
from apps.blueprints.lifecycle import VERSION_LIFECYCLE, VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.blueprints.starter import starter_library
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.flat import flat_object


@transaction.atomic
def create_blueprint(
    *,
    name: str,
    actor: Actor,
    title: str = "",
    card: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    workspace: Workspace | None = None,
) -> Blueprint:
    """A new blueprint without versions.

    Raises:
        ValidationError: the name is malformed or taken. Invalid: a card or tags that are not small flat objects.
    """
    blueprint = Blueprint(
        name=name,
        title=title,
        card=flat_object("/card", card or {}),
        tags=flat_object("/tags", tags or {}),
        workspace_id=workspace.pk if workspace else default_workspace_id(),
    )
    blueprint.full_clean()
    blueprint.save(force_insert=True)
    audit.record(type="blueprint.created", subject=blueprint, actor=actor, after=image(blueprint))
    return blueprint


@transaction.atomic
def update_blueprint(
    *,
    blueprint: Blueprint,
    actor: Actor,
    title: str | None = None,
    card: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    reason: str = "",
) -> Blueprint:
    """Change what people read about a blueprint; None leaves a part as it is. The name and the specs never change."""
    blueprint = Blueprint.objects.select_for_update().get(pk=blueprint.pk)
    before = image(blueprint)
    if title is not None:
        blueprint.title = title
    if card is not None:
        blueprint.card = flat_object("/card", card)
    if tags is not None:
        blueprint.tags = flat_object("/tags", tags)
    blueprint.full_clean()
    blueprint.save()
    audit.record(
        type="blueprint.modified",
        subject=blueprint,
        actor=actor,
        reason=reason,
        before=before,
        after=image(blueprint),
    )
    return blueprint


@transaction.atomic
def submit_version(*, blueprint: Blueprint, spec: Mapping[str, Any], actor: Actor) -> BlueprintVersion:
    """Check ``spec`` and append it as the next version, ready to be compiled.

    Numbers come from the database (``UPDATE ... RETURNING``), so concurrent writers get contiguous ones.

    Raises:
        Invalid: the spec is malformed; the error's pointer names the place. Conflict: this spec is a version already.
    """
    try:
        graph = grammar.parse(spec)
    except grammar.SpecError as error:
        raise Invalid(str(error), code=error.code, pointer=f"/spec{error.pointer}") from error
    Blueprint.objects.filter(pk=blueprint.pk).update(next_number=F("next_number") + 1)
    blueprint.refresh_from_db(fields=["next_number"])
    digest = grammar.digest(spec)
    twin = blueprint.versions.filter(digest=digest).first()
    if twin is not None:
        raise Conflict(f"this spec is version {twin.number} of {blueprint.name} already", code="duplicate_spec")
    version = BlueprintVersion(
        blueprint=blueprint,
        number=blueprint.next_number - 1,
        spec=dict(spec),
        digest=digest,
        operator=graph.operator,
        parameters=graph.parameters,
    )
    version.full_clean()
    version.save(force_insert=True)
    audit.record(type="blueprint.version_submitted", subject=version, actor=actor, after=image(version))
    return move_version(version=version, to=VersionState.SUBMITTED, actor=actor, reason="submitted")


def move_version(*, version: BlueprintVersion, to: VersionState, actor: Actor, reason: str) -> BlueprintVersion:
    """Move a version along its life cycle.

    Raises:
        InvalidTransition: the table has no such move.
    """
    return move(
        version, lifecycle=VERSION_LIFECYCLE, to=to, event="blueprint.version_transition", actor=actor, reason=reason
    )


def load_starter_library(*, actor: Actor) -> list[BlueprintVersion]:
    """The curated starter blueprints, each with its current spec as a version. What is there already is left alone."""
    return [_starter_version(name, actor) for name in starter_library()]


@transaction.atomic
def _starter_version(name: str, actor: Actor) -> BlueprintVersion:
    starter = starter_library()[name]
    workspace = Workspace.objects.select_for_update().get(pk=default_workspace_id())  # one loader at a time
    blueprint = Blueprint.objects.filter(workspace=workspace, name=name).first() or create_blueprint(
        name=name, title=starter.title, card=starter.card, tags=starter.tags, actor=actor, workspace=workspace
    )
    existing = blueprint.versions.filter(digest=grammar.digest(starter.spec)).first()
    return existing or submit_version(blueprint=blueprint, spec=starter.spec, actor=actor)
