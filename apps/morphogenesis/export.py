"""Takes a grown network out of the platform: a plain ``nn.Module`` of torch's own classes, with equal outputs."""

import copy

from torch import fx, nn

from apps.morphogenesis.hosts import Host, LayeredHost, WrappedHost
from apps.morphogenesis.slots import SlotSite


def export(host: Host) -> nn.Module:
    """A copy of the host without slots: fossils are ordinary layers, no code of this platform runs in its forward.

    A host that ships becomes a ``torch.fx.GraphModule`` (readable: ``.code``); a module that ``place_slots`` made a
    host becomes that module again, with ``nn.Sequential(layer, branches)`` where fossils are. Training and evaluation
    mode, parameters and buffers are carried over.

    Raises:
        ValueError: a seed is live: let the run end first.
    """
    for site in host.slots:
        if host.slot(site).live:
            raise ValueError(f"site {site} has a live seed: export a network whose seeds have reached their end")
    plain = copy.deepcopy(host)
    if isinstance(plain, LayeredHost):
        return fx.symbolic_trace(plain)
    if not isinstance(plain, WrappedHost):
        raise ValueError(f"no way to export a {type(host).__name__}")
    for path in plain.slots.values():
        _unwrap(plain.module, path.removeprefix("module.").removesuffix(".1"))
    return plain.module


def _unwrap(module: nn.Module, path: str) -> None:
    """Replace the ``nn.Sequential(layer, slot)`` that ``place_slots`` made at ``path``."""
    layer, slot = module.get_submodule(path).children()
    assert isinstance(slot, SlotSite)
    parent, _, name = path.rpartition(".")
    plain = nn.Sequential(layer, fx.symbolic_trace(slot)) if len(slot.branches) else layer
    setattr(module.get_submodule(parent), name, plain)
