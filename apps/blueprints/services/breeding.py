"""Versions made from versions: cloned, mutated, crossed; each tells in the lineage what it came from."""

from typing import Any
from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.blueprints.services.versions import Submission, create_blueprint, find_or_submit_version, submit_version
from apps.blueprints.variation import ContractsDiffer, NoVariation, cross, mutate
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.lineage import LineageKind, find_or_add_edge


@transaction.atomic
def link_versions(
    *,
    child: BlueprintVersion,
    parent: BlueprintVersion,
    kind: LineageKind,
    actor: Actor,
    weight: float = 1.0,
    run_id: UUID | None = None,
    reason: str = "",
) -> VersionLineage:
    """Write that ``child`` came from ``parent``. The edge that is there already is returned as it is; none is changed.

    Raises:
        Invalid: the weight is no share, or a version would be its own parent. Conflict: the edge would close a cycle.
    """
    edge, is_new = find_or_add_edge(VersionLineage, child=child, parent=parent, kind=kind, weight=weight, run_id=run_id)
    if not is_new:
        return edge
    payload = {"parent": parent.pk, "kind": str(kind), "weight": weight, **({"run": run_id} if run_id else {})}
    audit.record(type="blueprint.version_linked", subject=child, actor=actor, reason=reason, payload=payload)
    return edge


@transaction.atomic
def clone_blueprint(*, version: BlueprintVersion, name: str, actor: Actor, title: str | None = None) -> Blueprint:
    """A blueprint of its own that starts with this version's spec, card and tags.

    Raises:
        ValidationError: the name is malformed or taken.
    """
    source = version.blueprint
    blueprint = create_blueprint(
        name=name,
        title=source.title if title is None else title,
        card=source.card,
        tags=source.tags,
        workspace=source.workspace,
        actor=actor,
    )
    child = submit_version(blueprint=blueprint, spec=version.spec, actor=actor)
    link_versions(child=child, parent=version, kind=LineageKind.CLONED, actor=actor)
    return blueprint


@transaction.atomic
def mutate_version(*, version: BlueprintVersion, seed: int, actor: Actor) -> Submission:
    """The next version of the blueprint: this one with one seeded change. The same seed gives the same spec.

    When the blueprint has that spec already, it is given back and nothing is written.

    Raises:
        Conflict: no single change leads to another blueprint.
    """
    try:
        variation = mutate(version.spec, seed=seed)
    except NoVariation as error:
        raise Conflict(str(error), code="no_variation") from error
    made = find_or_submit_version(blueprint=version.blueprint, spec=variation.spec, actor=actor)
    if made.created:
        reason = _reason(variation.change, seed)
        link_versions(child=made.version, parent=version, kind=LineageKind.DERIVED, actor=actor, reason=reason)
    return made


@transaction.atomic
def cross_versions(*, left: BlueprintVersion, right: BlueprintVersion, seed: int, actor: Actor) -> Submission:
    """The next version of the left one's blueprint: one seeded combination of both. The same seed gives the same spec.

    The weights of the edges are the shares of the child's nodes. When the blueprint has that spec already, it is given
    back and nothing is written.

    Raises:
        Invalid: the two have not the same contract. Conflict: no combination leads to another blueprint.
    """
    if left.pk == right.pk:
        raise Invalid("a version is crossed with another one", pointer="/other", code="same")
    try:
        variation = cross(left.spec, right.spec, seed=seed)
    except ContractsDiffer as error:
        raise Invalid(str(error), pointer="/other", code="contract") from error
    except NoVariation as error:
        raise Conflict(str(error), code="no_variation") from error
    made = find_or_submit_version(blueprint=left.blueprint, spec=variation.spec, actor=actor)
    if made.created:
        told: dict[str, Any] = {"kind": LineageKind.MERGED, "actor": actor, "reason": _reason(variation.change, seed)}
        for parent, weight in ((left, variation.share), (right, 1.0 - variation.share)):
            link_versions(child=made.version, parent=parent, weight=weight, **told)
    return made


def _reason(change: str, seed: int) -> str:
    return f"{change} (seed {seed})"
