"""Putting a kernel into a site of the host, and taking a live seed out again: the structural side of a germination."""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from apps.morphogenesis import widen
from apps.morphogenesis.artefact import KernelFormatError
from apps.morphogenesis.contracts import SiteContract
from apps.morphogenesis.datasets import Split
from apps.morphogenesis.flops import forward_flops
from apps.morphogenesis.learner import Learner
from apps.morphogenesis.operators import Branch, load_artefact, unpack
from apps.morphogenesis.protocols import KernelOffer, KernelSource, KernelUnavailable
from apps.morphogenesis.seeds import Seed
from apps.morphogenesis.slots import Mode

SCALES = (1.0, 0.5, 0.25, 0.125, 0.0625)
LINEAR_OPERATIONS = ("linear", "conv2d", "layer_scale")


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


def logits_at(learner: Learner, seed: Seed, split: Split, strength: float = 1.0) -> Tensor:
    """Logits of a held-out pass with the live seed at this strength; a widening has but one."""
    if seed.operator == "widen":
        return learner.logits(split)
    with learner.host.slot(seed.site).at_strength(strength):
        return learner.logits(split)


def best_scale(learner: Learner, seed: Seed) -> float:
    """The factor of ``SCALES`` on the shadow seed's output at which the loss on some training samples is lowest.

    In the shadow a seed follows the gradient at strength zero: it learns a direction, and nothing tells it how far to
    go. A line search completes that first-order step.
    """
    if not _is_scalable(learner, seed):
        return 1.0
    sample = learner.data.train.head(len(learner.data.validation))
    losses = {scale: learner.judge_logits(logits_at(learner, seed, sample, scale), sample).loss for scale in SCALES}
    return min(SCALES, key=lambda scale: losses[scale] if math.isfinite(losses[scale]) else math.inf)


def rescale(learner: Learner, seed: Seed, scale: float) -> None:
    """Multiply the output of a live residual seed by ``scale``, in its last layer."""
    branch = learner.host.slot(seed.site).seed
    assert branch is not None
    with torch.no_grad():
        for parameter in branch.get_submodule(branch.graph.output).parameters():
            parameter.mul_(scale)


def running_flops(learner: Learner, seed: Seed) -> int:
    """Forward FLOPs for one sample while the live seed runs."""
    if seed.operator == "widen":
        return learner.forward_flops
    slot = learner.host.slot(seed.site)
    mode, slot.mode = slot.mode, Mode.SHADOW
    flops = forward_flops(learner.host)
    slot.mode = mode
    return flops


def _is_scalable(learner: Learner, seed: Seed) -> bool:
    if seed.operator == "widen":
        return False
    branch = learner.host.slot(seed.site).seed
    return branch is not None and branch.graph.node(branch.graph.output).op in LINEAR_OPERATIONS
