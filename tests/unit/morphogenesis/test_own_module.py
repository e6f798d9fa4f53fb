"""Growing what a user already has: any module with slots behind layers that it names, through the whole loop."""

import random

import numpy as np
import torch
from torch import Tensor, nn

from apps.blueprints.starter import core_library
from apps.morphogenesis.contracts import Binding
from apps.morphogenesis.export import export
from apps.morphogenesis.hosts import Host, initialise, place_slots
from apps.morphogenesis.library import EventList, InMemoryCheckpoints, InMemoryKernels, NeverInterrupt
from apps.morphogenesis.protocols import Command, Control, TransitionRecord
from apps.morphogenesis.trainer import Outcome, RunState, Trainer
from apps.morphogenesis.widen import Pair
from tests.unit.morphogenesis.support import quick_settings, tiny_digits
from tests.unit.morphogenesis.test_resume import CommandAt

KERNELS = InMemoryKernels(
    core_library().values(),
    [
        Binding.of("widen", "linear", FAN_IN=64, UNITS=5, FAN_OUT=5),
        Binding.of("residual", "linear", D=5, H=5),
        Binding.of("residual", "linear", D=10, H=5),
    ],
)


class Own(nn.Module):
    """Not one of ours: dropout, noise from python's and numpy's generators, a name for each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 5)
        self.act = nn.ReLU()
        self.drop = nn.Dropout(0.1)
        self.mid = nn.Linear(5, 5)
        self.head = nn.Linear(5, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.mid(self.act(self.stem(x.flatten(1)))))
        if self.training:
            h = h * (1 + random.gauss(0, 0.01) + 0.01 * float(np.random.standard_normal()))
        logits: Tensor = self.head(h.relu())
        return logits


def own_host() -> Host:
    module = Own()
    initialise(module, torch.Generator().manual_seed(5))
    pair = Pair(producer="stem", consumer="mid", slot="act.residual")
    return place_slots(module, ["act", "mid"], torch.zeros(1, 1, 8, 8), {"stem.width": pair})


def run(events: EventList, checkpoints: InMemoryCheckpoints, control: Control | None = None) -> tuple[Outcome, Host]:
    trainer = Trainer(
        settings=quick_settings(growth={"max_seeds": 3}),
        kernels=KERNELS,
        checkpoints=checkpoints,
        telemetry=events,
        decisions=events,
        control=control or NeverInterrupt(),
        host=own_host(),
        data=tiny_digits(),
    )
    return trainer.run(), trainer.host


def test_a_users_own_module_grows_pauses_resumes_and_leaves() -> None:
    whole_events, events, checkpoints = EventList(), EventList(), InMemoryCheckpoints()
    whole, _ = run(whole_events, InMemoryCheckpoints())
    for poll in (20, 40, 31):
        paused, _ = run(events, checkpoints, CommandAt(Command.PAUSE, poll))
        assert paused.state is RunState.PAUSED
    resumed, host = run(events, checkpoints)
    assert resumed.result == whole.result
    assert events.events == whole_events.events
    assert {move.site for move in events.of(TransitionRecord)} >= {"stem.width"}
    assert whole.result is not None
    assert whole.result.topology["widths"] == {"stem.width": 10}
    plain = export(host.eval())
    assert type(plain) is Own
    inputs = tiny_digits().test.inputs
    with torch.no_grad():
        assert torch.allclose(plain(inputs), host(inputs), atol=1e-6)
