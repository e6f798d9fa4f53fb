"""Putting a kernel into a site of the host, and taking a live seed out again: the structural side of a germination."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from apps.morphogenesis import widen
from apps.morphogenesis.artefact import KernelFormatError
from apps.morphogenesis.contracts import SiteContract
from apps.morphogenesis.flops import forward_flops
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.operators import Branch, load_artefact, unpack
from apps.morphogenesis.protocols import KernelOffer, KernelSource, KernelUnavailable
from apps.morphogenesis.seeds import Seed
from apps.morphogenesis.slots import Mode


def fetch(kernels: KernelSource, offer: KernelOffer) -> tuple[Branch, dict[str, Any]] | str:
    """The kernel's branch and bound spec, or why it cannot be used."""
    try:
        data = kernels.load(offer.digest)
    except KernelUnavailable as error:
        return f"the kernel is not available: {error}"
    if hashlib.sha256(data).hexdigest() != offer.digest:
        return "the kernel's bytes do not have its digest"
    try:
        return load_artefact(data), unpack(data)[0]
    except KernelFormatError as error:
        return f"the kernel cannot be read: {error}"


def contract_fault(learner: Learner, site: SiteContract, branch: Branch) -> str | None:
    """Why the branch does not fit the site, or None."""
    graph = branch.graph
    if graph.operator != site.operator:
        return f"the kernel is a {graph.operator} operator, the site takes {site.operator}"
    if (graph.input_shape, graph.output_shape) != (site.input_shape, site.output_shape):
        return "the kernel's shapes are not the site's"
    if site.operator == "widen":
        return widen.mismatch(learner.host, learner.host.pairs[site.name], branch)
    return None


def plant(learner: Learner, site: SiteContract, branch: Branch, spec: dict[str, Any]) -> tuple[int, int]:
    """Put the branch into the site; a widening is merged at once. Gives the units it added: (start, count)."""
    host = learner.host
    if site.operator == "widen":
        pair = host.pairs[site.name]
        start = widen.units(host, pair)
        learner.changed(grown=widen.merge(host, pair, branch))
        return start, widen.units(host, pair) - start
    host.slot(site.name).plant(branch.to(learner.device), spec)
    learner.changed()
    return 0, 0


def uproot(learner: Learner, seed: Seed) -> None:
    """Take a live seed out of the host."""
    if seed.operator == "widen":
        cuts = widen.unmerge(learner.host, learner.host.pairs[seed.site], seed.start, seed.count)
        learner.changed(cut=cuts)
        return
    learner.host.slot(seed.site).uproot()
    learner.changed()


@contextmanager
def without(learner: Learner, seed: Seed) -> Iterator[None]:
    """Run the host as if the live seed were not there."""
    if seed.operator == "widen":
        with widen.masked(learner.host, learner.host.pairs[seed.site], seed.start, seed.count):
            yield
        return
    with learner.host.slot(seed.site).at_strength(0.0):
        yield


def full_strength_logits(learner: Learner, seed: Seed) -> Tensor:
    """Held-out logits with the live seed at full strength."""
    if seed.operator == "widen":
        return learner.logits(learner.data.validation)
    with learner.host.slot(seed.site).at_strength(1.0):
        return learner.logits(learner.data.validation)


def running_flops(learner: Learner, seed: Seed) -> int:
    """Forward FLOPs for one sample while the live seed runs."""
    if seed.operator == "widen":
        return learner.forward_flops
    slot = learner.host.slot(seed.site)
    mode, slot.mode = slot.mode, Mode.SHADOW
    flops = forward_flops(learner.host)
    slot.mode = mode
    return flops
