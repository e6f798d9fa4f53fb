"""Declared tags: a key with a type, so that a wrong value is refused and a search on it is indexed."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched

TAG_NAME = RegexValidator(
    r"^[a-z][a-z0-9_]{0,47}\Z", "use lower-case letters, digits and '_', starting with a letter; at most 48"
)
MAX_TAG_KEYS = 32


class TagType(models.TextChoices):
    TEXT = "text"
    NUMBER = "number"
    BOOLEAN = "boolean"


class IndexState(models.TextChoices):
    WAITING = "waiting", "waiting: manage.py index_tags makes it"
    READY = "ready"
    FAILED = "failed"


class TagKey(WorkspaceOwned):
    """A declared tag of kernels. ``choices``: the only values that it may have; empty means any of its type."""

    audit: ClassVar[Watched] = Watched(subject="tag_key", outside={"index_state", "index_error"})

    name = models.CharField(max_length=48, validators=[TAG_NAME])
    type = models.CharField(max_length=8, choices=TagType)
    choices = ArrayField(models.CharField(max_length=100), default=list, blank=True)
    description = models.CharField(max_length=200, blank=True)
    index_state = models.CharField(max_length=8, choices=IndexState, default=IndexState.WAITING, editable=False)
    index_error = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["workspace", "name"], name="tag_key_once_per_workspace")]

    def __str__(self) -> str:
        return self.name
