"""The random state that a run depends on: python's, numpy's and torch's global generators, and the device's.

The engine's own draws come from generators of their own; a host or a policy that somebody brings along may use these.
"""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

NUMPY_SEEDS = 2**32


def seed(value: int) -> None:
    """Start every global generator anew from one seed."""
    random.seed(value)
    np.random.seed(value % NUMPY_SEEDS)
    torch.manual_seed(value)


def state(device: torch.device) -> dict[str, Any]:
    """The state of every generator, as tensors of our own and JSON types."""
    version, words, gauss = random.getstate()
    legacy: Mapping[str, Any] = np.random.get_state(legacy=False)
    tree: dict[str, Any] = {
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
        "numpy": {
            "words": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "position": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        tree["cuda"] = torch.cuda.get_rng_state(device)
    return tree


def load(tree: Mapping[str, Any], device: torch.device) -> None:
    """Take over what ``state`` gave. A state from a machine without the device leaves the device's as it is."""
    python, legacy = tree["python"], tree["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    key = legacy["words"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, legacy["position"], legacy["has_gauss"], legacy["gauss"]))
    torch.set_rng_state(tree["torch"])
    if device.type == "cuda" and "cuda" in tree:
        torch.cuda.set_rng_state(tree["cuda"], device)


@contextmanager
def kept(device: torch.device) -> Iterator[None]:
    """Put the state back afterwards, whatever was drawn inside."""
    before = state(device)
    try:
        yield
    finally:
        load(before, device)
