"""Declaring tags: a key gets a type, choices, and an index that ``manage.py index_tags`` makes."""

from collections.abc import Sequence

from django.db import transaction

from apps.accounts.models import Workspace, default_workspace_id
from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.kernels.grading import GRADE_TAGS
from apps.kernels.models import MAX_TAG_KEYS, TagKey, TagType

MAX_CHOICES = 100


@transaction.atomic
def declare_tag(
    *,
    name: str,
    type: str,
    actor: Actor,
    choices: Sequence[str] = (),
    description: str = "",
    workspace: Workspace | None = None,
) -> TagKey:
    """Give the tag ``name`` a type. Kernels keep what they have; what is written from now on is checked.

    Raises:
        ValidationError: the name or the type is malformed, or the name is declared already. Invalid: choices that
            cannot be. Conflict: there are as many declared tags as may have an index.
    """
    workspace_id = workspace.pk if workspace else default_workspace_id()
    Workspace.objects.select_for_update().get(pk=workspace_id)  # one declaration at a time: they are counted
    key = TagKey(
        name=name, type=type, choices=_checked(type, choices), description=description, workspace_id=workspace_id
    )
    key.full_clean()
    if name in GRADE_TAGS and type != TagType.BOOLEAN:
        raise Invalid("is given by measurement, as true", pointer="/type", code="reserved")
    if TagKey.objects.count() >= MAX_TAG_KEYS:
        raise Conflict(f"there are {MAX_TAG_KEYS} declared tags already: remove one first", code="too_many")
    key.save(force_insert=True)
    audit.record(type="tag.declared", subject=key, actor=actor, after=image(key))
    return key


@transaction.atomic
def update_tag(
    *,
    tag_key: TagKey,
    actor: Actor,
    choices: Sequence[str] | None = None,
    description: str | None = None,
    reason: str = "",
) -> TagKey:
    """Change what a declared tag may be; None leaves a part as it is. Its name and type never change.

    Raises:
        Invalid: choices that cannot be.
    """
    fresh = TagKey.objects.select_for_update(of=("self",)).get(pk=tag_key.pk)
    before = image(fresh)
    if choices is not None:
        fresh.choices = _checked(fresh.type, choices)
    if description is not None:
        fresh.description = description
    fresh.full_clean()
    if image(fresh) == before:
        return fresh
    fresh.save()
    audit.record(type="tag.changed", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh))
    return fresh


@transaction.atomic
def remove_tag(*, tag_key: TagKey, actor: Actor, reason: str = "") -> None:
    """Take a declaration back: the tag is free again. Kernels keep their values; the index goes with the next
    ``manage.py index_tags``."""
    fresh = TagKey.objects.select_for_update(of=("self",)).get(pk=tag_key.pk)
    audit.record(type="tag.removed", subject=fresh, actor=actor, reason=reason, before=image(fresh))
    fresh.delete()


def _checked(type: str, choices: Sequence[str]) -> list[str]:
    if choices and type != TagType.TEXT:
        raise Invalid("only a text has choices", pointer="/choices", code="type")
    if len(choices) > MAX_CHOICES:
        raise Invalid(f"at most {MAX_CHOICES}", pointer="/choices", code="too_many")
    if len(set(choices)) != len(choices):
        raise Invalid("names a choice twice", pointer="/choices", code="repeated")
    return list(choices)
