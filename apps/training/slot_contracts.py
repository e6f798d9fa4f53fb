"""What a slot of a run takes: asked by the search of kernels (``compatible_with``)."""

from uuid import UUID

from apps.kernels.search.contracts import SlotContract
from apps.kernels.search.nodes import FitsContract
from apps.morphogenesis.contracts import contracts_of, start_topology
from apps.morphogenesis.settings import RunSettings, SettingsError
from apps.morphogenesis.topology import Topology
from apps.training.models import SeedSlot


def slot_contract(slot_id: UUID) -> SlotContract | None:
    """The contract of a slot in the shape that its run ended with, else that it started with.

    None: there is no such slot, or its run is external and trains a network that we do not know.
    """
    slot = SeedSlot.objects.select_related("run").filter(pk=slot_id).first()
    if slot is None:
        return None
    try:
        settings = RunSettings.from_mapping(slot.run.settings)
        grown = slot.run.result.get("topology")
        topology = Topology.parse(grown) if grown else start_topology(settings)
    except (SettingsError, KeyError, ValueError):
        return None
    found = next((contract for contract in contracts_of(topology) if contract.name == slot.site), None)
    if found is None:
        return None
    contract = FitsContract(operator=found.operator, input=found.input_shape, output=found.output_shape)
    return SlotContract(contract=contract, run_id=slot.run_id)
