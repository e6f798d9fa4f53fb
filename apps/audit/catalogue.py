"""Every type of audit event there is. A type that is not here is refused."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EventType:
    """``subject`` is the kind of thing the event is about ("": any kind); ``sentence`` reads it to a person."""

    name: str
    subject: str
    sentence: str

    @property
    def family(self) -> str:
        return self.name.partition(".")[0]


EVENT_TYPES: dict[str, EventType] = {
    kind.name: kind
    for kind in (
        EventType("access.user_created", "user", "created the user"),
        EventType("access.role_changed", "user", "changed the role of"),
        EventType("access.password_changed", "user", "changed the password of"),
        EventType("access.token_issued", "token", "issued the token"),
        EventType("access.token_revoked", "token", "revoked the token"),
        EventType("access.login", "user", "logged in"),
        EventType("access.logout", "user", "logged out"),
        EventType("access.refused", "user", "was refused access"),
        EventType("access.login_refused", "user", "was refused at login"),
        EventType("access.account_closed", "user", "closed the account of"),
        EventType("access.person_erased", "person", "erased the person"),
        EventType("access.audit_exported", "trail", "exported from the trail"),
        EventType("workspace.created", "workspace", "created the workspace"),
        EventType("blueprint.created", "blueprint", "created the blueprint"),
        EventType("blueprint.modified", "blueprint", "changed the blueprint"),
        EventType("blueprint.version_submitted", "blueprint_version", "submitted a version of"),
        EventType("blueprint.version_transition", "blueprint_version", "moved the version"),
        EventType("blueprint.version_linked", "blueprint_version", "told what it came from of"),
        EventType("kernel.registered", "kernel", "registered the kernel"),
        EventType("kernel.compiled", "kernel", "compiled the kernel"),
        EventType("kernel.uploaded", "kernel", "uploaded the binary of"),
        EventType("kernel.transition", "kernel", "moved the kernel"),
        EventType("kernel.validated", "kernel", "validated the kernel"),
        EventType("kernel.rejected", "kernel", "rejected the kernel"),
        EventType("kernel.quarantined", "kernel", "quarantined the kernel"),
        EventType("kernel.field_report", "kernel", "reported an outcome of"),
        EventType("kernel.modified", "kernel", "changed the kernel"),
        EventType("kernel.graded", "kernel", "graded by its measurements the kernel"),
        EventType("kernel.linked", "kernel", "told what it came from of"),
        EventType("kernel.variants_made", "kernel", "made variants of"),
        EventType("kernel.retired", "kernel", "retired the kernel"),
        EventType("kernel.restored", "kernel", "restored the kernel"),
        EventType("kernel.purged", "kernel", "purged the kernel"),
        EventType("kernel.tier_changed", "kernel", "moved the bytes of"),
        EventType("kernel.healed", "kernel", "healed the corrupt bytes of"),
        EventType("cache.planned", "cache_plan", "planned to move bytes in"),
        EventType("cache.applying", "cache_plan", "began to move the bytes of"),
        EventType("cache.applied", "cache_plan", "moved the bytes of"),
        EventType("cache.failed", "cache_plan", "failed to move the bytes of"),
        EventType("cache.cancelled", "cache_plan", "gave up"),
        EventType("alias.set", "alias", "pointed at a kernel the alias"),
        EventType("alias.removed", "alias", "took away the alias"),
        EventType("alias.protection_changed", "alias", "changed the protection of the alias"),
        EventType("tag.declared", "tag_key", "declared the tag"),
        EventType("tag.changed", "tag_key", "changed the tag"),
        EventType("tag.removed", "tag_key", "removed the declaration of the tag"),
        EventType("retention.policy_created", "retention_policy", "created the retention policy"),
        EventType("retention.policy_changed", "retention_policy", "changed the retention policy"),
        EventType("retention.planned", "retention_plan", "made the plan"),
        EventType("retention.transition", "retention_plan", "moved the plan"),
        EventType("retention.applied", "retention_plan", "applied the plan"),
        EventType("run.created", "run", "created the run"),
        EventType("run.transition", "run", "moved the run"),
        EventType("run.command", "run", "asked of the run"),
        EventType("run.library_frozen", "run", "froze the library of"),
        EventType("run.recovered", "run", "took over the run"),
        EventType("run.faulted", "run", "told of a fault in"),
        EventType("run.rollback", "run", "rolled back the run"),
        EventType("seed.transition", "seed", "moved the seed"),
        EventType("seed.outcome", "seed", "told what became of the seed"),
        EventType("slot.changed", "slot", "changed the slot"),
        EventType("adaptation.decision", "run", "decided in the run"),
        EventType("checkpoint.staged", "checkpoint", "began the checkpoint"),
        EventType("checkpoint.committed", "checkpoint", "stored the checkpoint"),
        EventType("checkpoint.transition", "checkpoint", "moved the checkpoint"),
        EventType("alert.threshold", "", "saw a resource threshold violated by"),
        EventType("alert.verification", "trail", "found that the trail was altered:"),
        EventType("audit.partition_made", "partition", "made the partition"),
        EventType("audit.text_indexed", "partition", "indexed the text of the partition"),
        EventType("audit.partition_archived", "partition", "archived and detached the partition"),
        EventType("audit.key_rotated", "key", "rotated the signing key to"),
        EventType("audit.key_replaced", "key", "replaced the lost signing key by"),
        EventType("audit.unattributed", "", "found that no event tells of a change of"),
        EventType("alert.unattributed", "", "found that no event tells of a change of"),
        EventType("audit.restored", "trail", "accepted an older state of the trail:"),
        EventType("audit.verified", "trail", "verified the trail"),
        EventType("report.requested", "report", "asked for the report"),
        EventType("report.begun", "report", "chose the checkpoint that answers the report"),
        EventType("report.postponed", "report", "could not write yet the report"),
        EventType("report.written", "report", "wrote the report"),
        EventType("report.failed", "report", "could not write the report"),
        EventType("report.reproduced", "report", "computed again the report"),
    )
}
