"""AdamW whose state is keyed by parameter name, so that moments survive when the network changes shape.

torch keys optimizer state by parameter object, and ``load_state_dict`` refuses another number of groups. Here a
structural change rebuilds the optimizer: moments of old entries are carried, those of new entries are zero.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from apps.morphogenesis.widen import Cut, insert_zeros, remove

MOMENTS = ("exp_avg", "exp_avg_sq")


class NamedAdamW:
    """One AdamW over a module's parameters (Loshchilov and Hutter, 2019); call ``rebuild`` after every change of it."""

    def __init__(self, module: nn.Module, *, learning_rate: float, weight_decay: float) -> None:
        self._module = module
        self._learning_rate = learning_rate
        self._weight_decay = weight_decay
        self._adamw = self._make()

    @property
    def learning_rate(self) -> float:
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = value
        for group in self._adamw.param_groups:
            group["lr"] = value

    def zero_grad(self) -> None:
        self._adamw.zero_grad(set_to_none=True)

    def step(self) -> None:
        self._adamw.step()

    def rebuild(self, *, grown: Iterable[Cut] = (), cut: Iterable[Cut] = ()) -> None:
        """Follow a change of the module: entries ``grown`` get zero moments, those ``cut`` lose theirs."""
        state = self.state()
        for change in grown:
            self._edit(state, change, insert_zeros)
        for change in cut:
            self._edit(state, change, remove)
        self.load(state)

    def state(self) -> dict[str, Tensor]:
        """``<parameter>/<exp_avg|exp_avg_sq|step>`` to tensor, for every parameter that has been stepped."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._named
            for key, value in self._adamw.state.get(parameter, {}).items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over state of these names, for the module's parameters as they are now; others are ignored."""
        self._adamw = self._make()
        for name, parameter in self._named:
            entry = {key: state[f"{name}/{key}"] for key in (*MOMENTS, "step") if f"{name}/{key}" in state}
            if entry:
                self._adamw.state[parameter] = {
                    key: torch.empty_like(value, device=parameter.device).copy_(value) for key, value in entry.items()
                }

    def _make(self) -> torch.optim.AdamW:
        self._named = list(self._module.named_parameters())
        parameters = [parameter for _, parameter in self._named]
        return torch.optim.AdamW(parameters, lr=self._learning_rate, weight_decay=self._weight_decay, fused=True)

    @staticmethod
    def _edit(state: dict[str, Tensor], change: Cut, edit: Callable[[Tensor, int, int, int], Tensor]) -> None:
        for moment in MOMENTS:
            key = f"{change.tensor}/{moment}"
            if key in state:
                state[key] = edit(state[key], change.axis, change.start, change.count)
