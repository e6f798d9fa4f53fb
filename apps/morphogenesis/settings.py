"""The settings of a run: one frozen, checked value that decides everything a run does.

Decisions are a function of (settings, library snapshot): nothing outside them, no clock and no timing, may change what
a run grows. Pure Python: the API checks a request against this before any row is written.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from apps.morphogenesis.catalogue import HOSTS, RECIPES, TASKS
from apps.morphogenesis.topology import Topology, TopologyError

T = TypeVar("T")


class SettingsError(ValueError):
    """A setting is unknown, of the wrong type or out of range. ``pointer`` is its JSON pointer (RFC 6901)."""

    def __init__(self, message: str, *, pointer: str, code: str = "invalid") -> None:
        super().__init__(message)
        self.pointer = pointer
        self.code = code


def bounded(default: Any, low: float | None = None, high: float | None = None, *, help: str = "") -> Any:
    """A dataclass field with inclusive bounds, read by ``_check`` and by the documentation."""
    return field(default=default, metadata={"low": low, "high": high, "help": help})


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthSettings:
    """When, where and how much to grow (Tamiyo's default policy) and the gates' thresholds."""

    enabled: bool = field(default=True, metadata={"help": "false trains the host as it is"})
    # When: the training-loss trigger, forced inside the window, never later than the deadline (shares of all steps).
    window_start: float = bounded(0.10, 0.0, 1.0, help="no growth before this share of the planned steps")
    forced_at: float = bounded(0.25, 0.0, 1.0, help="growth is forced at this share when the trigger has not fired")
    deadline: float = bounded(0.40, 0.0, 1.0, help="no growth after this share")
    trigger_steps: int = bounded(150, 1, 100_000, help="look-back of the loss trigger, steps")
    trigger_improvement: float = bounded(0.05, 0.0, 1.0, help="the trigger fires below this relative improvement")
    trigger_decay: float = bounded(0.98, 0.0, 0.9999, help="decay of the training-loss average")
    widen_factor: float = bounded(2.0, 1.0, 16.0, help="a layer is widened from its start width to this multiple")
    max_seeds: int = bounded(3, 0, 64, help="germinations in one run")
    parameter_budget: int = bounded(1_000_000, 0, 1_000_000_000, help="parameters the grown net may have")
    embargo_epochs: int = bounded(5, 0, 1000, help="a slot rests this long after a cull")
    # Gates.
    identity_tolerance: float = bounded(1e-5, 0.0, 1.0, help="G0/GW: largest output difference at birth")
    min_training_epochs: int = bounded(2, 1, 1000, help="G2: epochs in isolation")
    max_training_epochs: int = bounded(6, 1, 1000, help="a seed that G2 has not passed by then is culled")
    min_gradient_ratio: float = bounded(0.10, 0.0, 1e6, help="G2: seed/host gradient norm, per parameter")
    max_gradient_ratio: float = bounded(100.0, 0.0, 1e9, help="G2: above this the seed's gradient explodes")
    ramp_epochs: int = bounded(2, 1, 1000, help="epochs from alpha 0 to 1")
    ramp_curve: str = field(
        default="linear", metadata={"choices": ("linear", "cosine", "sigmoid"), "help": "shape of the ramp"}
    )
    stabilize_steps: int = bounded(30, 1, 100_000, help="G4: steps for normalisation statistics")
    max_stabilize_epochs: int = bounded(4, 1, 1000, help="a seed that G4 has not passed by then is culled")
    min_eval_epochs: int = bounded(1, 0, 1000, help="G5: epochs before the first paired ablation")
    max_eval_epochs: int = bounded(6, 1, 1000, help="a seed that G5 has not passed by then is culled")
    loss_tolerance: float = bounded(0.02, 0.0, 10.0, help="G5: nats by which held-out loss may exceed that at birth")
    rent: float = bounded(0.0005, 0.0, 10.0, help="G5: nats per 1,000 parameters that a seed must earn")
    confidence: float = bounded(0.95, 0.5, 0.9999, help="G5: level of the bootstrap interval")
    bootstrap_samples: int = bounded(2000, 100, 100_000, help="G5: bootstrap resamples")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Everything that decides a run. ``topology`` fixes the host's layer widths (controls use a grown net's)."""

    task: str = field(default="digits", metadata={"choices": tuple(TASKS), "help": "the data"})
    host: str = field(default="mlp", metadata={"choices": tuple(HOSTS), "help": "the network that is grown"})
    seed: int = bounded(0, 0, 2**31 - 1, help="of weights, data order and bootstrap")
    epochs: int = bounded(40, 1, 10_000, help="passes over the training split")
    batch_size: int = bounded(32, 1, 4096, help="samples in a step")
    learning_rate: float = bounded(1e-3, 1e-7, 10.0, help="AdamW's")
    weight_decay: float = bounded(1e-2, 0.0, 10.0, help="AdamW's")
    gradient_clip: float = bounded(1.0, 0.0, 1e6, help="global norm, per group; 0 = off")
    width: int = bounded(0, 0, 65_536, help="start width; 0 = the host's default")
    snapshot_epochs: int = bounded(5, 1, 10_000, help="epochs between snapshots")
    max_rollbacks: int = bounded(3, 0, 100, help="the run fails at the next alarm of the governor")
    topology: dict[str, Any] | None = None
    growth: GrowthSettings = field(default_factory=GrowthSettings)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Parse and check settings, JSON types only.

        Where ``width`` (or 0), ``epochs`` or ``learning_rate`` is missing, the catalogue's recipe for the task and host
        fills it; every other missing setting takes its default. The result names them all.

        Raises:
            SettingsError: an unknown name, a wrong type, a value out of range, or a host the task does not support.
        """
        growth = _parse(GrowthSettings, values.get("growth", {}), "/growth")
        rest = {name: value for name, value in values.items() if name != "growth"}
        settings = _parse(cls, rest, "", growth=growth)
        if settings.host not in TASKS[settings.task].hosts:
            hosts = ", ".join(TASKS[settings.task].hosts)
            raise SettingsError(f"task {settings.task!r} runs on: {hosts}", pointer="/host", code="unsupported")
        if not growth.window_start <= growth.forced_at <= growth.deadline:
            raise SettingsError(
                "needs window_start <= forced_at <= deadline", pointer="/growth/forced_at", code="inconsistent"
            )
        if settings.topology is not None:
            settings._check_topology(settings.topology)
        return settings._with_recipe(values)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only; ``from_mapping`` gives an equal value back."""
        return dataclasses.asdict(self)

    def _with_recipe(self, given: Mapping[str, Any]) -> Self:
        recipe = RECIPES.get((self.task, self.host))
        if recipe is None:
            return self
        missing = {name for name in ("width", "epochs", "learning_rate") if not given.get(name)}
        return dataclasses.replace(self, **{name: getattr(recipe, name) for name in missing})

    def _check_topology(self, values: dict[str, Any]) -> None:
        try:
            topology = Topology.parse(values)
        except TopologyError as error:
            raise SettingsError(str(error), pointer=f"/topology{error.pointer}", code="topology") from error
        task = TASKS[self.task]
        for name, found, wanted in (
            ("host", topology.host, self.host),
            ("input_shape", topology.input_shape, task.input_shape),
            ("classes", topology.classes, task.classes),
        ):
            if found != wanted:
                raise SettingsError(
                    f"must be {wanted!r} for this run, not {found!r}", pointer=f"/topology/{name}", code="topology"
                )


def _parse(kind: type[T], values: Any, prefix: str, **given: Any) -> T:
    if not isinstance(values, Mapping):
        raise SettingsError("must be an object", pointer=prefix or "/", code="type")
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in given}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise SettingsError(
                f"unknown setting {name!r}; known: {', '.join(fields)}", pointer=f"{prefix}/{name}", code="unknown"
            )
    checked = {name: _check(fields[name], value, f"{prefix}/{name}") for name, value in values.items()}
    return kind(**checked, **given)


def _check(spec: dataclasses.Field[Any], value: Any, pointer: str) -> Any:
    value = _typed(spec, value, pointer)
    choices = spec.metadata.get("choices")
    if choices is not None and value not in choices:
        raise SettingsError(f"{value!r} is not one of: {', '.join(choices)}", pointer=pointer, code="unknown")
    low, high = spec.metadata.get("low"), spec.metadata.get("high")
    if (low is not None and value < low) or (high is not None and value > high):
        raise SettingsError(f"must be from {low:g} to {high:g}, not {value:g}", pointer=pointer, code="range")
    return value


def _typed(spec: dataclasses.Field[Any], value: Any, pointer: str) -> Any:
    if spec.name == "topology":
        if value is not None and not isinstance(value, dict):
            raise SettingsError("must be an object or null", pointer=pointer, code="type")
        return value
    wanted = type(spec.default)
    if type(value) is int and abs(value) >= 2**63:
        raise SettingsError("is too large", pointer=pointer, code="range")
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted or value != value or value in (float("inf"), float("-inf")):
        raise SettingsError(f"must be of type {wanted.__name__}, not {value!r:.80}", pointer=pointer, code="type")
    return value
