"""What is measured of a branch before anyone trusts it (Urabrask's bench): plain numbers, no verdicts.

Every probe is drawn from a fixed generator, so that equal kernels give equal numbers on any machine, up to rounding.
"""

import copy
import hashlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import safetensors
import torch
from torch import Tensor

from apps.blueprints.spec import Graph, Shape
from apps.morphogenesis.operators import Branch

PROBE_BATCH = 8
PROBE_SIDE = 8
"""Free dimensions of the probe: N = 8 samples, H = W = 8."""

_PROBE_SEED = 20_061
_PROJECTIONS = 4
_NUDGE = 0.1
_SMALLEST_NORM = 1e-12


def settle() -> None:
    """One thread and deterministic kernels, for a process that measures."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def toolchain() -> dict[str, str | int]:
    """What made the numbers: stored with each report, since another build may round differently."""
    return {
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def probe(shape: Shape, *, seed: int = _PROBE_SEED, samples: int = PROBE_BATCH, side: int = PROBE_SIDE) -> Tensor:
    """Standard normal values for a symbolic shape: N = ``samples``, H = W = ``side``."""
    sizes = [size if isinstance(size, int) else samples if size == "N" else side for size in shape]
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


def worst(values: Iterable[float]) -> float:
    """The largest; a nan is worse than any number."""
    return max(values, key=lambda value: math.inf if math.isnan(value) else value, default=0.0)


def largest_output(branch: Branch, h: Tensor) -> float:
    """max |D(h)|, in training and in evaluation mode; nan when any value is. 0 means the identity at birth."""
    with torch.no_grad():
        evaluated = _output(branch, h, training=False)
        trained = _output(branch, h, training=True)
        return float(torch.maximum(evaluated.abs().max(), trained.abs().max()))


def non_finite(branch: Branch) -> list[str]:
    """Names of the tensors that hold an inf or a nan."""
    return [name for name, tensor in branch.state_dict().items() if not bool(torch.isfinite(tensor).all())]


def gradient_norms(branch: Branch, h: Tensor, *, training: bool) -> dict[str, float]:
    """Norm of each parameter's gradient under a fixed random upstream gradient. The branch stays as it is."""
    subject = copy.deepcopy(branch)
    return {name: float(gradient.norm()) for name, gradient in _gradients(subject, h, training=training).items()}


def gradient_norms_after_nudge(branch: Branch, h: Tensor) -> dict[str, float]:
    """The same after one small step: at birth only the zero layers learn, from the next step on everything must.

    Measured in evaluation mode: in training mode a bias before a batch norm has no gradient by construction.
    """
    subject = copy.deepcopy(branch)
    gradients = _gradients(subject, h, training=False)
    with torch.no_grad():
        for name, parameter in subject.named_parameters():
            norm = gradients[name].norm()
            if norm > 0:
                parameter.sub_(_NUDGE * gradients[name] / norm)
    return {name: float(gradient.norm()) for name, gradient in _gradients(subject, h, training=False).items()}


def fingerprint(branch: Branch, h: Tensor) -> dict[str, list[float]]:
    """For each node, its output under ``h`` in evaluation mode: the norm, then four projections on fixed signs.

    At birth the branch's own output is zero whatever the other weights are, so the inner nodes have to speak.
    """
    numbers: dict[str, list[float]] = {}

    def record(node_id: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
            numbers[node_id] = _project(output.detach())

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in branch.named_children()]
    try:
        with torch.no_grad():
            _output(branch, h, training=False)
    finally:
        for handle in handles:
            handle.remove()
    return numbers


def fingerprints(branch: Branch, probes: Sequence[Tensor]) -> dict[str, list[float]]:
    """The fingerprints under several probes in one: those after the first under ``node@1``, ``node@2``, ..."""
    return {
        f"{node_id}@{index}" if index else node_id: numbers
        for index, h in enumerate(probes)
        for node_id, numbers in fingerprint(branch, h).items()
    }


def deviation(found: Mapping[str, list[float]], reference: Mapping[str, list[float]]) -> float:
    """Largest difference of two fingerprints, relative to each node's norm; inf when they are not of one graph."""
    if found.keys() != reference.keys():
        return math.inf
    return max((_difference(numbers, reference[node_id]) for node_id, numbers in found.items()), default=math.inf)


def benchmark(branch: Branch, h: Tensor, *, rounds: int = 3, round_s: float = 0.016) -> dict[str, float]:
    """Microseconds of forward, of forward + backward on ``h``, and of a 256x256 matmul, side by side in each round.

    Medians over the rounds. ``relative`` is the median of training / matmul, each quotient of one round, so that what
    slows the whole machine for a while cancels; ``relative_low`` and ``relative_high`` are its extremes.
    For information: timings never decide inside a run.
    """
    forward, both = _steps(branch, h)
    matrix = torch.ones(256, 256)
    steps = {"forward_us": forward, "training_us": both, "baseline_us": lambda: matrix @ matrix}
    timed = _interleaved(steps, rounds, round_s)
    ratios = [training / base for training, base in zip(timed["training_us"], timed["baseline_us"], strict=True)]
    return {
        **{name: round(statistics.median(times), 2) for name, times in timed.items()},
        "relative": statistics.median(ratios),
        "relative_low": min(ratios),
        "relative_high": max(ratios),
        "rounds": rounds,
    }


def compare_speed(
    kernel: tuple[Branch, Tensor], variant: tuple[Branch, Tensor], *, rounds: int, round_s: float
) -> dict[str, float]:
    """The timings of a variant beside those of its kernel, in turns. ``speedup`` > 1: the variant is faster.

    ``speedup`` is the median of kernel / variant over the rounds (forward + backward), with its extremes.
    """
    (kernel_forward, kernel_both), (forward, both) = _steps(*kernel), _steps(*variant)
    steps = {"kernel_forward_us": kernel_forward, "kernel_training_us": kernel_both}
    timed = _interleaved({**steps, "forward_us": forward, "training_us": both}, rounds, round_s)
    ratios = [old / new for old, new in zip(timed["kernel_training_us"], timed["training_us"], strict=True)]
    return {
        **{name: round(statistics.median(times), 2) for name, times in timed.items()},
        "speedup": statistics.median(ratios),
        "speedup_low": min(ratios),
        "speedup_high": max(ratios),
        "rounds": rounds,
    }


def digest(data: bytes) -> str:
    """sha256 in hex: the identity of an artefact."""
    return hashlib.sha256(data).hexdigest()


def check_shapes(branch: Branch, graph: Graph) -> list[str]:
    """Names of tensors whose shape is not what the graph says (both tables of operations must agree)."""
    state, wanted = branch.state_dict(), graph.tensors
    return [
        name
        for name in sorted(state.keys() | wanted.keys())
        if name not in state or name not in wanted or tuple(state[name].shape) != wanted[name].shape
    ]


def _difference(numbers: list[float], expected: list[float]) -> float:
    if len(numbers) != len(expected):
        return math.inf
    differences = [abs(a - b) for a, b in zip(numbers, expected, strict=True)]
    # A nan compares with nothing, so a maximum could pass over it.
    return (
        max(differences) / max(abs(expected[0]), _SMALLEST_NORM) if all(map(math.isfinite, differences)) else math.inf
    )


def _output(branch: Branch, h: Tensor, *, training: bool) -> Tensor:
    # A copy, because a forward pass in training mode moves the statistics of a batch norm.
    subject = copy.deepcopy(branch) if training else branch
    output: Tensor = subject.train(training)(h)
    return output


def _gradients(subject: Branch, h: Tensor, *, training: bool) -> dict[str, Tensor]:
    subject.train(training)
    output = subject(h)
    upstream = torch.randn(output.shape, generator=torch.Generator().manual_seed(_PROBE_SEED + 1))
    names, parameters = zip(*subject.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(output, parameters, upstream), strict=True))


def _project(output: Tensor) -> list[float]:
    values = output.flatten().double()
    generator = torch.Generator().manual_seed(_PROBE_SEED + 2)
    numbers = [float(values.norm())]
    for _ in range(_PROJECTIONS):
        signs = torch.randint(0, 2, values.shape, generator=generator, dtype=torch.int8)
        numbers.append(float(values @ (2.0 * signs.double() - 1.0)))
    return numbers


def _steps(branch: Branch, h: Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """(forward, forward + backward) of a copy of the branch."""
    subject = copy.deepcopy(branch).train()

    def forward() -> None:
        with torch.no_grad():
            subject(h)

    def both() -> None:
        subject.zero_grad(set_to_none=True)
        subject(h).sum().backward()

    return forward, both


def _interleaved(steps: Mapping[str, Callable[[], object]], rounds: int, round_s: float) -> dict[str, list[float]]:
    """Each step's median microseconds in each round. One repetition before the first round warms up."""
    for step in steps.values():
        step()
    timed: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            timed[name].append(_median_us(step, round_s))
    return timed


def _median_us(step: Callable[[], object], budget_s: float) -> float:
    """Median over 1 to 50 repetitions."""
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while not times or (len(times) < 50 and time.perf_counter() < end):
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e6)
    return statistics.median(times)
