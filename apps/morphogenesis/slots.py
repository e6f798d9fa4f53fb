"""Seed slots: the places inside a host network where a seed can grow (Kasmina), and the rules that isolate it.

A ``SlotSite`` stands behind a layer and adds residual branches to its activation h. A fossil is simply added:
y = h + D(h). The live seed, always the last branch, is OFF, in the SHADOW, or GRAFTed:

- OFF: the branch does not run.
- SHADOW: the branch reads ``h.detach()``; the forward returns h's own bits whatever the branch computed, and the
  backward gives the upstream gradient to h and to the branch's output alike. So the seed trains as if it were added,
  and the host trains as if the seed were not there.
- GRAFT: y = h + alpha * D(h), with full gradient.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from apps.morphogenesis.monitors import sample_rms
from apps.morphogenesis.operators import Branch


class Mode(StrEnum):
    """How a site runs its live seed."""

    OFF = "OFF"
    SHADOW = "SHADOW"
    GRAFT = "GRAFT"


class ShadowGraft(torch.autograd.Function):
    """Identity on h; gradient for h and for the seed's output."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, seed_output: Tensor) -> Tensor:
        return h.view_as(h)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        return gradients[0], gradients[0]


class SlotSite(nn.Module):
    """Adds branches to an activation of shape [N, features] or [N, channels, H, W]; empty, it is the identity."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self.specs: list[dict[str, Any]] = []
        self.live = False
        self.mode = Mode.OFF
        self.alpha = 0.0
        self.watch = False
        """Measure ``share`` in the next training pass?"""
        self.share: Tensor | None = None
        """Root mean square of the live seed's output as a share of h's, on a sample, when last watched."""
        self._strength: float | None = None

    def forward(self, h: Tensor) -> Tensor:
        last = len(self.branches) - 1
        for index, branch in enumerate(self.branches):
            h = self._run_live(branch, h) if self.live and index == last else h + branch(h)
        return h

    def plant(self, branch: Branch, spec: Mapping[str, Any]) -> None:
        """Add a live seed, OFF, and its bound spec. Raises ValueError: the site has one already."""
        if self.live:
            raise ValueError("the site already has a live seed")
        self.branches.append(branch)
        self.specs.append(dict(spec))
        self.live, self.mode, self.alpha = True, Mode.OFF, 0.0

    def fossilize(self) -> None:
        """Make the live seed a part of the host, at full strength for good."""
        self._check_live()
        self.live, self.mode, self.alpha = False, Mode.OFF, 0.0

    def uproot(self) -> None:
        """Remove the live seed."""
        self._check_live()
        del self.branches[len(self.branches) - 1]
        del self.specs[-1]
        self.live, self.mode, self.alpha = False, Mode.OFF, 0.0

    def clear(self) -> None:
        """Remove every branch."""
        self.branches = nn.ModuleList()
        self.specs = []
        self.live, self.mode, self.alpha = False, Mode.OFF, 0.0

    def revive(self, mode: Mode, alpha: float) -> None:
        """Make the last branch the live seed again (after a restore)."""
        self.live, self.mode, self.alpha = True, mode, alpha

    @property
    def seed(self) -> Branch | None:
        """The live seed's module."""
        branch = self.branches[-1] if self.live else None
        assert branch is None or isinstance(branch, Branch)
        return branch

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Run the live seed at this alpha, whatever its mode; 0 leaves it out. For passes without gradient."""
        self._strength = strength
        try:
            yield
        finally:
            self._strength = None

    def _run_live(self, branch: nn.Module, h: Tensor) -> Tensor:
        if self._strength is not None:
            return torch.add(h, branch(h), alpha=self._strength) if self._strength else h
        if self.mode is Mode.GRAFT:
            return torch.add(h, self._watched(h, branch(h)), alpha=self.alpha)
        if self.mode is Mode.SHADOW and torch.is_grad_enabled():
            grafted: Tensor = ShadowGraft.apply(h, self._watched(h, branch(h.detach())))
            return grafted
        return h

    def _watched(self, h: Tensor, output: Tensor) -> Tensor:
        if self.watch:
            self.share = sample_rms(output) / sample_rms(h)
        return output

    def _check_live(self) -> None:
        if not self.live:
            raise ValueError("the site has no live seed")
