"""The design first, then immutable versions of its spec."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import F

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.blueprints import spec as grammar
from apps.blueprints.lifecycle import VERSION_LIFECYCLE, VersionState
from apps.blueprints.models import Blueprint, BlueprintVersion
from apps.blueprints.starter import core_library, starter_digests, starter_library
from apps.core.actors import Actor
from apps.core.errors import Invalid
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


class Submission(NamedTuple):
    """A version, and whether it was written now: False when its spec was a version of the blueprint already."""

    version: BlueprintVersion
    created: bool


def submit_version(*, blueprint: Blueprint, spec: Mapping[str, Any], actor: Actor) -> BlueprintVersion:
    """The version of the blueprint with this spec, appended now if there is none (see ``find_or_submit_version``)."""
    return find_or_submit_version(blueprint=blueprint, spec=spec, actor=actor).version


@transaction.atomic
def find_or_submit_version(*, blueprint: Blueprint, spec: Mapping[str, Any], actor: Actor) -> Submission:
    """Check ``spec`` and append it as the next version, ready to be compiled. A spec that is one already stays that.

    The blueprint's row is locked and holds the next number, so concurrent writers get contiguous ones.

    Raises:
        Invalid: the spec is malformed; the error's pointer names the place.
    """
    try:
        graph = grammar.parse(spec)
        digest = grammar.digest(spec)
    except grammar.SpecError as error:
        raise Invalid(str(error), code=error.code, pointer=f"/spec{error.pointer}") from error
    blueprint = Blueprint.objects.select_for_update().get(pk=blueprint.pk)
    twin = blueprint.versions.select_related("blueprint").filter(digest=digest).first()
    if twin is not None:
        return Submission(twin, created=False)
    version = BlueprintVersion(
        blueprint=blueprint,
        number=blueprint.next_number,
        spec=dict(spec),
        digest=digest,
        operator=graph.operator,
        parameters=graph.parameters,
    )
    version.full_clean()
    Blueprint.objects.filter(pk=blueprint.pk).update(next_number=F("next_number") + 1)
    version.save(force_insert=True)
    audit.record(type="blueprint.version_submitted", subject=version, actor=actor, after=image(version))
    submitted = move_version(version=version, to=VersionState.SUBMITTED, actor=actor, reason="submitted")
    return Submission(submitted, created=True)


def move_version(*, version: BlueprintVersion, to: VersionState, actor: Actor, reason: str) -> BlueprintVersion:
    """Move a version along its life cycle.

    Raises:
        InvalidTransition: the table has no such move.
    """
    return move(
        version, lifecycle=VERSION_LIFECYCLE, to=to, event="blueprint.version_transition", actor=actor, reason=reason
    )


def load_core_library(*, actor: Actor) -> list[BlueprintVersion]:
    """The blueprints that runs grow by default, each with its current spec as a version. What is there stays."""
    return _load(core_library(), actor)


def load_starter_library(*, actor: Actor) -> list[BlueprintVersion]:
    """The same of every curated starter blueprint, core ones first."""
    return _load(starter_library(), actor)


def _load(names: Iterable[str], actor: Actor) -> list[BlueprintVersion]:
    digests = {name: starter_digests()[name] for name in names}
    known = BlueprintVersion.objects.select_related("blueprint").filter(
        blueprint__workspace=default_workspace_id(), blueprint__name__in=digests, digest__in=digests.values()
    )
    there = {(version.blueprint.name, version.digest): version for version in known}
    return [there.get(key) or _starter_version(key[0], actor) for key in digests.items()]


@transaction.atomic
def _starter_version(name: str, actor: Actor) -> BlueprintVersion:
    starter = starter_library()[name]
    workspace = Workspace.objects.select_for_update().get(pk=default_workspace_id())  # one loader at a time
    blueprint = Blueprint.objects.filter(workspace=workspace, name=name).first() or create_blueprint(
        name=name, title=starter.title, card=starter.card, tags=starter.tags, actor=actor, workspace=workspace
    )
    return submit_version(blueprint=blueprint, spec=starter.spec, actor=actor)
