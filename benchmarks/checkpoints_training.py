"""What the checkpoints' bench saves: a transformer that is really trained with AdamW, on text that comes with Python.

Random numbers compress as no trained state does, so nothing here is made up: the weights and both moments are what so
many steps of next-byte prediction left. A state of N MB is weights and moments together; in bfloat16, half of that.
"""

import pydoc_data.topics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

CONTEXT, BATCH = 64, 4
BYTES_PER_PARAMETER = 12
"""A float32 weight and its two moments."""
LEARNING_RATE = 1e-3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Size:
    width: int
    layers: int

    @classmethod
    def of(cls, megabytes: float) -> "Size":
        """The transformer whose float32 state with moments is about as large."""
        width = 384 if megabytes >= 64 else 128 if megabytes >= 8 else 64
        return cls(width, max(3, round(megabytes * 1e6 / BYTES_PER_PARAMETER / (12 * width * width))))


class Transformer(nn.Module):
    """Bytes in, the logits of the next byte out: (batch, time) -> (batch, time, 256)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.bytes = nn.Embedding(256, size.width)
        self.places = nn.Embedding(CONTEXT, size.width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                size.width, size.width // 64, 4 * size.width, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(size.layers)
        )
        self.last = nn.LayerNorm(size.width)
        self.out = nn.Linear(size.width, 256, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT), persistent=False)

    def forward(self, text: Tensor) -> Tensor:
        hidden = self.bytes(text) + self.places.weight
        for layer in self.layers:
            hidden = layer(hidden, src_mask=self.mask, is_causal=True)
        found: Tensor = self.out(self.last(hidden))
        return found


class Training:
    """A model, its optimizer and its place in the text; ``step()`` changes every tensor of the state."""

    def __init__(self, size: Size, precision: str, *, seed: int = 2026) -> None:
        torch.manual_seed(seed)
        self.model = Transformer(size)
        for parameter in self.model.parameters():
            parameter.data = parameter.data.to(DTYPES[precision])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=LEARNING_RATE, fused=True)
        self._batches = _batches(seed)

    def step(self) -> float:
        """One optimizer step; the loss."""
        text = next(self._batches)
        # In float32 whatever the weights are kept in: few CPUs multiply bfloat16 fast.
        wide = {name: parameter.float() for name, parameter in self.model.named_parameters()}
        logits = functional_call(self.model, wide, text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        """The live tensors, not copies."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def nbytes(self) -> int:
        """Of the weights and both moments, and the numbers of steps."""
        moments = [value for values in self.optimizer.state.values() for value in values.values()]
        return sum(tensor.nbytes for tensor in [*self.model.state_dict().values(), *moments])

    def load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def freeze(self, share: float) -> list[Tensor]:
        """From the first parameter on, until ``share`` of the bytes no longer change; returns those tensors, with their
        moments."""
        parameters = list(self.model.parameters())
        wanted = share * sum(parameter.nbytes for parameter in parameters)
        frozen: list[Tensor] = []
        for parameter in parameters:
            if wanted < parameter.nbytes / 2:
                break
            wanted -= parameter.nbytes
            parameter.requires_grad_(False)
            parameter.grad = None
            frozen += [parameter.data, *(value for value in self.optimizer.state[parameter].values())]
        return frozen


def _batches(seed: int) -> Iterator[Tensor]:
    text = torch.frombuffer(bytearray("\n".join(pydoc_data.topics.topics.values()).encode()), dtype=torch.uint8)
    chance = torch.Generator().manual_seed(seed)
    while True:
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH,), generator=chance)
        yield torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()]).long()
