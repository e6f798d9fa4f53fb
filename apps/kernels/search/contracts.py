"""What a slot of a run takes. Runs are above kernels: training announces how to ask (``ask_slots_by``) at start."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from apps.core.errors import Unprocessable
from apps.kernels.search.nodes import FitsContract, FitsSlot


@dataclass(frozen=True, slots=True)
class SlotContract:
    """The contract of a slot, and the run that it belongs to: outcomes of that run do not rank for it."""

    contract: FitsContract
    run_id: UUID


AskSlot = Callable[[UUID], SlotContract | None]
_asked: list[AskSlot] = []


def ask_slots_by(ask: AskSlot) -> None:
    _asked[:] = [ask]


def resolved(node: FitsSlot | FitsContract, *, pointer: str) -> tuple[FitsContract, UUID | None]:
    """The contract, and the run to leave out of the ranking.

    Raises:
        Unprocessable: there is no such slot, or nothing is known of its shapes.
    """
    if isinstance(node, FitsContract):
        return node, None
    found = _asked[0](UUID(node.slot)) if _asked else None
    if found is None:
        detail = f"there is no slot {node.slot} whose shapes are known"
        raise Unprocessable(detail, pointer=pointer, code="not_found")
    return found.contract, found.run_id
