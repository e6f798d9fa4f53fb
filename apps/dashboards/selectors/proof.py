"""Verifying one event now, step by step: what the button of its page shows."""

from dataclasses import dataclass, field

from apps.audit import proofs, verifier
from apps.audit.models import AuditEvent
from apps.core.errors import ServiceError


@dataclass(slots=True)
class Verdict:
    """What was checked, in order; the first fault ends it."""

    steps: list[str] = field(default_factory=list)
    fault: str = ""
    is_pending: bool = False
    """Nothing is wrong: it cannot be proven yet."""


def verify(event: AuditEvent) -> Verdict:
    """Its values give its leaf, the leaf is under the newest root, and a known key signed that root."""
    verdict = Verdict()
    try:
        found = proofs.inclusion(event)
        told = proofs.exported(event, found.index)
        if verifier.event_leaf(told) != bytes(event.leaf):
            raise verifier.Wrong("its values do not give its leaf: one of them was changed")
        verdict.steps.append("Its values give its leaf.")
        keys = [verifier.Verifier.parse(text) for text in proofs.verifiers()]
        signed = verifier.open_checkpoint(found.checkpoint.note, keys)
        verdict.steps.append(f"The root of {signed.size:,} leaves is signed by a key of this trail.")
        verifier.check_inclusion(
            leaf=bytes(event.leaf), index=found.index, size=signed.size, path=found.path, root=signed.root
        )
        verdict.steps.append(f"Leaf {found.index:,} is under that root, by a path of {len(found.path)} digests.")
    except ServiceError as error:
        verdict.fault, verdict.is_pending = error.detail, True
    except verifier.Wrong as error:
        verdict.fault = str(error)
    return verdict
