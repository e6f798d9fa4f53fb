"""Staging: copies of live tensors in memory that is used again and again, so that training may go on at once.

This copy is all that training waits for. Measured on 2 cores, ms per 100 MB: into fresh memory 40 to 300; into touched
memory 14 by one thread and 7 by torch's two, but beside others who work (a save in flight, another process) 74 by one
and 284 by two, which wait for each other. So the host's tensors are copied by one thread. Those on a GPU go through
pinned memory by a stream of its own: the host waits for nothing, and the device only keeps what follows from overtaking
the copy.
"""

from collections.abc import Sequence
from queue import LifoQueue
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

SETS = 2
"""Of buffers: one may be filled while the other is still being written to the disk."""
ALIGNMENT = 64
"""Bytes, a cache line; every item size divides it."""
SMALL_ITEMS = 32_768
"""A tensor with fewer is copied by torch, which uses one thread for it (at::internal::GRAIN_SIZE)."""

Layout: TypeAlias = tuple[tuple[torch.dtype, torch.Size, torch.device], ...]
Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"


class Staged:
    """Copies that stay as they are until ``release``: ``tensors``, contiguous and on the CPU, in the given order."""

    def __init__(self, staging: "Staging", buffers: "_Buffers", tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self._staging = staging
        self._buffers: _Buffers | None = buffers

    def wait(self) -> None:
        """Until the copies from devices have arrived; before, ``tensors`` must not be read."""
        if self._buffers is not None:
            self._buffers.wait()

    def release(self) -> None:
        """Give the memory back for the next copies; what ``tensors`` holds is not valid any more."""
        if self._buffers is not None:
            buffers, self._buffers = self._buffers, None
            buffers.wait()
            self._staging.free(buffers)


class Staging:
    """Two sets of buffers, reserved when they are first needed; the one that was used last is used first."""

    def __init__(self) -> None:
        self._sets: LifoQueue[_Buffers] = LifoQueue()
        for _ in range(SETS):
            self.free(_Buffers())

    def take(self, tensors: Sequence[Tensor]) -> Staged:
        """Copy ``tensors``. Waits while both sets are taken.

        What is written to a tensor after the return, on the host or in the current stream of its device, is not in the
        copy. Raises RuntimeError: there is no memory, or a device fails.
        """
        buffers = self._sets.get()
        try:
            return Staged(self, buffers, buffers.copy([tensor.detach() for tensor in tensors]))
        except BaseException:
            self.free(_Buffers())  # the old ones may be half written by a device
            raise

    def free(self, buffers: "_Buffers") -> None:
        self._sets.put(buffers)


class _Buffers:
    """One set: memory for the host's tensors and, pinned, for those of devices; and how it is divided."""

    def __init__(self) -> None:
        self._memory: dict[bool, Tensor] = {}  # whether pinned -> bytes
        self._layout: Layout | None = None
        self._targets: list[Tensor] = []
        self._streams: dict[torch.device, torch.cuda.Stream] = {}
        self._arrivals: list[torch.cuda.Event] = []

    def copy(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        layout = tuple((tensor.dtype, tensor.shape, tensor.device) for tensor in tensors)
        if layout != self._layout:
            self._divide(layout)
        by_device: dict[torch.device, tuple[list[Tensor], list[Tensor]]] = {}
        for target, tensor in zip(self._targets, tensors, strict=True):
            targets, sources = by_device.setdefault(tensor.device, ([], []))
            targets.append(target)
            sources.append(tensor)
        for device, (targets, sources) in by_device.items():
            if device.type == "cuda":
                self._copy_from_device(device, targets, sources)
            else:
                _copy_on_host(targets, sources)
        return self._targets

    def wait(self) -> None:
        for arrival in self._arrivals:
            arrival.synchronize()
        self._arrivals = []

    def _copy_from_device(self, device: torch.device, targets: list[Tensor], sources: list[Tensor]) -> None:
        current = torch.cuda.current_stream(device)
        stream = self._streams.setdefault(device, torch.cuda.Stream(device))
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            torch._foreach_copy_(targets, sources, non_blocking=True)
            arrival = stream.record_event()
        current.wait_event(arrival)  # the next optimizer step must not overtake the copy
        self._arrivals.append(arrival)

    def _divide(self, layout: Layout) -> None:
        """Have memory for ``layout`` and a target for each tensor. Frees memory before it takes more."""
        self._layout, self._targets = None, []
        places, ends = [], {False: 0, True: 0}
        for dtype, shape, device in layout:
            is_pinned = device.type == "cuda"
            places.append((is_pinned, ends[is_pinned]))
            ends[is_pinned] += -(-shape.numel() * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        for is_pinned, size in ends.items():
            self._reserve(is_pinned, size)
        for (dtype, shape, _), (is_pinned, start) in zip(layout, places, strict=True):
            memory = self._memory[is_pinned][start : start + shape.numel() * dtype.itemsize]
            self._targets.append(memory.view(dtype).view(shape))
        self._layout = layout

    def _reserve(self, is_pinned: bool, size: int) -> None:
        if is_pinned in self._memory and size <= len(self._memory[is_pinned]) <= 2 * size:
            return
        self._memory.pop(is_pinned, None)
        self._memory[is_pinned] = torch.empty(size, dtype=torch.uint8, pin_memory=is_pinned and size > 0)


def _copy_on_host(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    rest: tuple[list[Tensor], list[Tensor]] = [], []
    for target, source in zip(targets, sources, strict=True):
        if source.numel() >= SMALL_ITEMS and source.is_contiguous() and not (source.is_conj() or source.is_neg()):
            np.copyto(_bytes_of(target), _bytes_of(source))
        else:
            rest[0].append(target)
            rest[1].append(source)
    if rest[0]:
        torch._foreach_copy_(*rest)


def _bytes_of(tensor: Tensor) -> Bytes:
    found: Bytes = tensor.reshape(-1).view(torch.uint8).numpy()
    return found
