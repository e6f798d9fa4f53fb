"""The append-only event store. The tables are made by SQL (partitions, triggers, grants): see the first migration.

What stands in ``AuditEvent`` is never personal: actors are pseudonyms, and names and addresses are committed as HMACs
whose salt and value live in the side tables. Erasing those leaves every proof valid.
"""

from typing import ClassVar

from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

from apps.audit.lifecycle import REPORT_LIFECYCLE, ReportKind, ReportState
from apps.audit.watched import Watched
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.core.models import BaseModel


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


class AppendOnly(models.Model):
    """A table that triggers and privileges keep from being changed: see the second migration."""

    class Meta:
        abstract = True


class AuditPending(models.Model):
    """An event that is not sealed yet. In SQL also ``xid``, the transaction that wrote it: the sealer's horizon.

    A trigger of the event store writes it, and only the sealing function takes it away.
    """

    event_id = models.UUIDField(primary_key=True)
    at = models.DateTimeField()
    leaf = models.BinaryField()

    def __str__(self) -> str:
        return str(self.event_id)


class AuditLeaf(AppendOnly):
    """The place of a sealed event in the Merkle tree: ``index`` has no gaps."""

    index = models.BigIntegerField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    at = models.DateTimeField()
    digest = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.index} {self.event_id}"


class AuditNode(AppendOnly):
    """The root of a full tile: see ``merkle``."""

    pk = models.CompositePrimaryKey("group", "index")
    group = models.SmallIntegerField()
    index = models.BigIntegerField()
    digest = models.BinaryField()

    def __str__(self) -> str:
        return f"{self.group}/{self.index}"


class AuditKey(AppendOnly):
    """A public key that checkpoints were signed with. ``admitted_by`` is the key that vouched for it, if one did."""

    id = models.CharField(primary_key=True, max_length=8)
    verifier = models.CharField(max_length=300)
    admitted_at = models.DateTimeField()
    admitted_by = models.CharField(max_length=8, blank=True)

    def __str__(self) -> str:
        return self.verifier


class AuditCheckpoint(AppendOnly):
    """The signed root of the first ``size`` leaves."""

    size = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField()
    root = models.BinaryField()
    note = models.TextField()
    key = models.ForeignKey(AuditKey, on_delete=models.PROTECT, related_name="+")

    def __str__(self) -> str:
        return f"{self.size} {bytes(self.root).hex()[:12]}"


class AuditCopy(AppendOnly):
    """A checkpoint note that has reached the object storage."""

    checkpoint = models.OneToOneField(
        AuditCheckpoint, on_delete=models.PROTECT, primary_key=True, db_column="size", related_name="copy"
    )
    name = models.CharField(max_length=200)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class AuditVerification(AppendOnly):
    """What one verification of the trail found: ``findings`` has the first hundred."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    at = models.DateTimeField()
    first = models.BigIntegerField()
    size = models.BigIntegerField()
    findings_count = models.BigIntegerField()
    unchecked_count = models.BigIntegerField(default=0)
    findings = models.JSONField(default=list)
    seconds = models.FloatField()

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.first}..{self.size}: {self.findings_count}"


class AuditArchive(AppendOnly):
    """A month whose events lie in the object storage, with their leaves, and no longer in the event store."""

    partition = models.CharField(primary_key=True, max_length=63)
    name = models.CharField(max_length=200)
    sha256 = models.CharField(max_length=64)
    events = models.BigIntegerField()
    bytes = models.BigIntegerField()
    at = models.DateTimeField()

    def __str__(self) -> str:
        return self.partition


class AuditReport(BaseModel):
    """A compliance report: a question, the tree that it is answered from, and the signed answer in the storage."""

    audit: ClassVar[Watched] = Watched(subject="report")

    kind = models.CharField(max_length=16, choices=choices(ReportKind), editable=False)
    parameters = models.JSONField(default=dict, editable=False)
    as_of = models.DateTimeField(editable=False)
    state = models.CharField(max_length=16, choices=choices(ReportState), default=ReportState.QUEUED, editable=False)
    requested_by = models.UUIDField(null=True, editable=False)
    size = models.BigIntegerField(null=True, editable=False)
    root = models.BinaryField(null=True, editable=False)
    name = models.CharField(max_length=200, blank=True, editable=False)
    sha256 = models.CharField(max_length=64, blank=True, editable=False)
    rows = models.BigIntegerField(default=0, editable=False)
    note = models.TextField(blank=True, editable=False)
    failure = models.TextField(blank=True, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=state_check("kind", ReportKind), name="report_kind_is_known"),
            models.CheckConstraint(condition=state_check("state", ReportState), name="report_state_is_known"),
        ]
        triggers = REPORT_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"{self.kind} as of {self.as_of:%Y-%m-%d %H:%M}"
