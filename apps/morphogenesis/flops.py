"""Floating-point operations, counted on a real pass: 2 per multiply-add of each matrix product and convolution.

A training step is taken as three forward passes (forward, and twice as much backward: Kaplan et al., 2020). Held-out
passes for gates and metrics are no training and are not counted.
"""

from contextlib import ExitStack

import torch
from torch.utils.flop_counter import FlopCounterMode

from apps.morphogenesis.hosts import Host
from apps.morphogenesis.slots import Mode

TRAINING_FACTOR = 3


def forward_flops(host: Host) -> int:
    """Forward FLOPs for one sample as a training step runs it: a seed in the shadow counts, one that is OFF not."""
    training = host.training
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), ExitStack() as stack:
        for site in host.slots:
            slot = host.slot(site)
            if slot.mode is Mode.SHADOW:
                stack.enter_context(slot.at_strength(1.0))
        host.eval()
        with counter:
            host(host.probe)
        host.train(training)
    return counter.get_total_flops()
