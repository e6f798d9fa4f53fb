"""Verifying the whole trail: every event against its leaf, every leaf against the tree, every root against its note.

Streams in the order of the tree: one chunk of events is held at a time, whatever the trail's length. What an altered
byte breaks is named: the event, the leaf, the node, the checkpoint, the copy or the personal value.
"""

import time
from collections.abc import Callable, Sequence

from apps.audit.merkle import Tree
from apps.audit.models import AuditCheckpoint, AuditCopy
from apps.audit.proofs import read_tile
from apps.audit.verification import notes as signed
from apps.audit.verification import sides
from apps.audit.verification.events import CHUNK, Walk
from apps.audit.verification.findings import Finding, Outcome
from apps.audit.verifier import Frontier, Verifier
from apps.core.errors import NotFound

__all__ = ["Finding", "Outcome", "verify"]


def verify(
    *,
    since: int = 0,
    trusted: Sequence[Verifier] = (),
    notes: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Verify the trail from leaf ``since`` on (a checkpoint's size), with all side tables when that is 0.

    ``trusted`` are the keys that checkpoints must be signed by, and those that they vouch for; without any, the keys
    that the database itself names. ``notes`` are checkpoint notes from elsewhere that the trail must agree with.

    Raises:
        NotFound: no checkpoint was signed at ``since`` leaves.
    """
    started = time.monotonic()
    if since and not AuditCheckpoint.objects.filter(size=since).exists():
        raise NotFound(f"no checkpoint was signed at {since} leaves")
    outcome = Outcome(first=since, size=sides.leaf_count())
    tree = _tree(since, outcome)
    if tree is not None:
        walk = _walk(outcome, tree, trusted, notes, progress)
        sides.check_unsealed(outcome)
        if not since:
            sides.check_strays(outcome)
            sides.check_archives(outcome)
            sides.check_personal_values(outcome, walk)
    outcome.seconds = time.monotonic() - started
    return outcome


def _tree(since: int, outcome: Outcome) -> Frontier | None:
    try:
        return Frontier(since, Tree(read_tile).subtrees(since))
    except LookupError as error:
        outcome.wrong("node", since, f"the tree cannot be entered at {since} leaves: {error}; verify the whole trail")
        return None


def _walk(
    outcome: Outcome,
    tree: Frontier,
    trusted: Sequence[Verifier],
    notes: Sequence[str],
    progress: Callable[[int, int], None],
) -> Walk:
    keys = list(trusted) or signed.keys_of_the_database(outcome)
    last_copied = AuditCopy.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    elsewhere = signed.from_elsewhere(notes, keys, outcome)
    check = signed.Notes(outcome, tree, keys, elsewhere, last_copied)
    walk = Walk(outcome, tree, check.at_this_size)
    check.at_this_size()
    for start in range(outcome.first, outcome.size, CHUNK):
        walk.check(start, min(start + CHUNK, outcome.size))
        progress(tree.size, outcome.size)
    newest = AuditCheckpoint.objects.order_by("-size").values_list("size", flat=True).first() or 0
    check.finish(sides.leaf_count(), newest)
    return walk
