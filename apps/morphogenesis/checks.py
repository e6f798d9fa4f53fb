"""What is measured of a branch before anyone trusts it (Urabrask's bench): plain numbers, no verdicts.

Every probe is drawn from a fixed generator, so that equal kernels give equal numbers on any machine, up to rounding.
"""

import copy
import hashlib
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping
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


def probe(shape: Shape, *, seed: int = _PROBE_SEED) -> Tensor:
    """Standard normal values for a symbolic shape: N = 8, H = W = 8."""
    sizes = [size if isinstance(size, int) else PROBE_BATCH if size == "N" else PROBE_SIDE for size in shape]
    return torch.randn(sizes, generator=torch.Generator().manual_seed(seed))


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


def deviation(found: Mapping[str, list[float]], reference: Mapping[str, list[float]]) -> float:
    """Largest difference of two fingerprints, relative to each node's norm; inf when they are not of one graph."""
    if found.keys() != reference.keys():
        return math.inf
    return max((_difference(numbers, reference[node_id]) for node_id, numbers in found.items()), default=math.inf)


def benchmark(branch: Branch, h: Tensor, *, budget_s: float = 0.05) -> dict[str, float]:
    """Median microseconds of forward and of forward + backward on ``h``, and of a 256x256 matmul in the same run.

    For information: timings never decide inside a run.
    """
    subject = copy.deepcopy(branch).train()
    matrix = torch.ones(256, 256)

    def forward() -> None:
        with torch.no_grad():
            subject(h)

    def both() -> None:
        subject.zero_grad(set_to_none=True)
        subject(h).sum().backward()

    timings = {
        "forward_us": _median_us(forward, budget_s),
        "training_us": _median_us(both, budget_s),
        "baseline_us": _median_us(lambda: matrix @ matrix, budget_s),
    }
    return {**timings, "relative": timings["training_us"] / timings["baseline_us"]}


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


def _median_us(step: Callable[[], object], budget_s: float) -> float:
    """Median over 2 to 51 repetitions, the first, which warms up, left out."""
    times: list[float] = []
    end = time.perf_counter() + budget_s
    while len(times) < 2 or (len(times) <= 50 and time.perf_counter() < end):
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e6)
    return round(statistics.median(times[1:]), 2)
