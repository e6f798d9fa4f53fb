"""Variants of a kernel: the same weights in another dtype, meant to be computed in another memory format.

A variant is an artefact of its own, with its own digest, and no kernel: its header names the dtype and memory format.
Its tensors are written in their logical order whatever the memory format is (safetensors knows no strides); the format
is how they are laid out once loaded. Nothing here is compiled: the operations are torch's own.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from apps.morphogenesis.artefact import (
    MAX_ARTEFACT_BYTES,
    KernelFormatError,
    VariantHeader,
    read_variant,
    variant_metadata,
)
from apps.morphogenesis.operators import Branch, fill

TOLERANCE: Mapping[str, float] = {"float32": 1e-5, "bfloat16": 2.0**-4, "float16": 2.0**-7}
"""Largest relative L2 difference of any node's output to the kernel's: 16 unit roundoffs (2^-8, 2^-11) of the dtype,
for a chain of some ten roundings; float32 as when a kernel is validated."""

_DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_LAYOUTS: Mapping[str, torch.memory_format] = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}
_SMALLEST_NORM = 1e-7  # a float16 holds it
_NUDGE = 0.1
_UPSTREAM_SEED = 20_062


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A loaded variant: the branch in its dtype and layout."""

    branch: Branch
    memory_format: str
    dtype: str

    def cast(self, h: Tensor) -> Tensor:
        """An input as this variant takes it, with a gradient of its own as in a network.

        Without one, torch 2.13 crashes in the backward pass of a group norm over channels_last.
        """
        return _laid_out(h.to(_DTYPES[self.dtype]), self.memory_format).detach().requires_grad_()

    def refusal(self, h: Tensor) -> str:
        """What torch lacks on this machine for a step with this variant; empty if nothing."""
        subject = copy.deepcopy(self.branch).train()  # a step moves the statistics of a batch norm
        try:
            self._backward(subject, self.cast(h))
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            return str(error)[:200]
        return ""

    def gradient_norms(self, h: Tensor) -> dict[str, float]:
        """Norm of each parameter's gradient after one small step, from which on everything learns."""
        subject, h = copy.deepcopy(self.branch).eval(), self.cast(h)
        self._backward(subject, h)
        with torch.no_grad():
            for parameter in subject.parameters():
                gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
                parameter.sub_(_NUDGE * gradient / gradient.norm().clamp_min(_SMALLEST_NORM))
        subject.zero_grad(set_to_none=True)
        self._backward(subject, h)
        return {
            name: float(parameter.grad.norm()) if parameter.grad is not None else 0.0
            for name, parameter in subject.named_parameters()
        }

    def _backward(self, subject: Branch, h: Tensor) -> None:
        output = subject(h)
        upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(_UPSTREAM_SEED))
        output.backward(_laid_out(upstream.to(output.dtype), self.memory_format))

    def difference(self, kernel: Branch, h: Tensor) -> float:
        """Largest relative L2 difference of a node's output to the kernel's, in evaluation mode; nan when one is."""
        expected, found = _outputs(kernel, h), _outputs(self.branch, self.cast(h))
        differences = [
            (found[name].float() - wanted).norm() / wanted.norm().clamp_min(_SMALLEST_NORM)
            for name, wanted in expected.items()
        ]
        return float(torch.stack(differences).max())


def pack_variant(kernel: Branch, spec: Mapping[str, Any], *, memory_format: str, dtype: str) -> bytes:
    """The artefact of a variant of ``kernel``; ``spec`` is its bound spec. Raises KernelFormatError: too large."""
    header = VariantHeader(spec=spec, memory_format=memory_format, dtype=dtype)
    state = {
        name: (tensor.to(_DTYPES[dtype]) if tensor.is_floating_point() else tensor).detach().contiguous()
        for name, tensor in kernel.state_dict().items()
    }
    data = safetensors.torch.save(state, variant_metadata(header))
    if len(data) > MAX_ARTEFACT_BYTES:
        raise KernelFormatError(f"{len(data):,} bytes are over the limit of {MAX_ARTEFACT_BYTES:,}")
    return data


def load_variant(data: bytes) -> Variant:
    """The variant that an artefact holds. Raises KernelFormatError."""
    header, graph = read_variant(data)
    try:
        tensors = safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        raise KernelFormatError(f"not a safetensors file: {str(error)[:200]}") from error
    branch = fill(graph, tensors, dtype=_DTYPES[header.dtype])
    for parameter in branch.parameters():
        if parameter.dim() == 4:
            parameter.data = _laid_out(parameter.data, header.memory_format)
    return Variant(branch=branch, memory_format=header.memory_format, dtype=header.dtype)


def _laid_out(h: Tensor, memory_format: str) -> Tensor:
    return h.contiguous(memory_format=_LAYOUTS[memory_format])


def _outputs(branch: Branch, h: Tensor) -> dict[str, Tensor]:
    """Each node's output in evaluation mode."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
            outputs[name] = output.detach()

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in branch.named_children()]
    try:
        with torch.no_grad():
            branch.eval()(h)
    finally:
        for handle in handles:
            handle.remove()
    return outputs
