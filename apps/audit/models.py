"""The append-only event store. The tables are made by SQL (partitions, triggers, grants): see the first migration.

What stands in ``AuditEvent`` is never personal: actors are pseudonyms, and names and addresses are committed as HMACs
whose salt and value live in the side tables. Erasing those leaves every proof valid.
"""

from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from apps.core.ids import new_id


class AuditEvent(models.Model):
    """Who did what to which asset, when and why. In SQL: partitioned by month, with primary key (id, at)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField()
    type = models.CharField(max_length=64)
    workspace_id = models.UUIDField(null=True)
    subject_type = models.CharField(max_length=32)
    subject_id = models.CharField(max_length=64)
    actor_id = models.UUIDField(null=True)
    actor_kind = models.CharField(max_length=16)
    actor_digest = models.CharField(max_length=64, blank=True)
    address_digest = models.CharField(max_length=64, blank=True)
    token_id = models.CharField(max_length=64, blank=True)
    request_id = models.CharField(max_length=64, blank=True)
    trace_id = models.CharField(max_length=64, blank=True)
    reason = models.TextField(blank=True)
    outcome = models.CharField(max_length=16, default="success")
    diff = models.JSONField(default=list, encoder=DjangoJSONEncoder)
    payload = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    leaf = models.BinaryField()

    class Meta:
        ordering = ["-id"]
        indexes = [
            BrinIndex(fields=["at"], name="audit_at_brin"),
            models.Index(fields=["subject_type", "subject_id", "at"], name="audit_subject"),
            models.Index(fields=["actor_id", "at"], name="audit_actor"),
            models.Index(fields=["type", "at"], name="audit_type"),
            GinIndex(fields=["diff"], name="audit_diff_gin", opclasses=["jsonb_path_ops"]),
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.subject_type} {self.subject_id}"


class AuditPerson(models.Model):
    """The pseudonym of one person: ``id`` stands in events, ``salt`` keys the HMACs, and both can be forgotten."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    user_id = models.UUIDField(unique=True, null=True)
    salt = models.BinaryField(null=True)
    erased_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return str(self.id)


class AuditPersonalValue(models.Model):
    """A name or an address that events commit to by ``digest`` = HMAC-SHA256(salt, kind NUL value)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    person = models.ForeignKey(AuditPerson, on_delete=models.PROTECT, related_name="values")
    kind = models.CharField(max_length=16)
    value = models.TextField(null=True)  # noqa: DJ001 - NULL means erased, which an empty string does not
    digest = models.CharField(max_length=64)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["person", "kind", "digest"], name="audit_value_once_per_person")]

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:12]}"
