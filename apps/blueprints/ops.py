"""The closed registry of operations that a blueprint may use: one table, one entry per operation.

An entry says how many inputs the operation takes, which parameters, what shape comes out, which tensors it owns, what
it costs and when its output is exactly zero at birth. The torch module for each lives in ``morphogenesis.operators``; a
test holds that both tables have the same keys. Pure Python: the web process reads this.

Shapes are tuples, batch first: sizes are ints, the free dimensions (batch ``N``, spatial ``H`` and ``W``) are strings.
FLOPs are of one forward pass over one sample, a multiply-add counted as two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

Dim = int | str
Shape = tuple[Dim, ...]

MAX_SIZE = 65_536
"""The largest size of any bound dimension."""


class OpError(ValueError):
    """An operation cannot take these inputs or parameters. ``param`` names the parameter at fault, if one is."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Param:
    """One parameter of an operation. ``kind`` is "size" (an int or a symbol), "integer", "boolean" or "choice"."""

    kind: str
    default: Any = None
    required: bool = False
    minimum: int = 1
    maximum: int = MAX_SIZE
    odd: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """What one tensor of a kernel must be. ``dtype`` is safetensors' name; buffers are not ``trainable``."""

    shape: tuple[int, ...]
    dtype: str = "F32"
    trainable: bool = True

    @property
    def elements(self) -> int:
        """Number of scalars."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Call:
    """One use of an operation: the shapes of its inputs and its checked parameters."""

    inputs: tuple[Shape, ...]
    params: Mapping[str, Any]

    @property
    def channels(self) -> int:
        """Size of the first input's feature dimension (always bound: position 1)."""
        size = self.inputs[0][1]
        assert isinstance(size, int)  # the grammar leaves only N, H and W free
        return size

    @property
    def rank(self) -> int:
        return len(self.inputs[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation of the registry.

    ``shape`` raises OpError; the other rules are only asked about calls whose shape was accepted. ``flops`` takes the
    number of positions (H x W; 1 for a vector). ``zero`` answers: given which inputs are exactly zero at birth, is the
    output? A residual branch is the identity at birth exactly when its output node is zero.
    """

    title: str
    arity: int = 1
    params: Mapping[str, Param] = field(default_factory=dict)
    shape: Callable[[Call], Shape]
    tensors: Callable[[Call], dict[str, TensorSpec]] = lambda call: {}
    flops: Callable[[Call, int], int]
    zero: Callable[[Call, tuple[bool, ...]], bool]
    activation: bool = False


def _need_rank(call: Call, rank: int, what: str) -> None:
    if call.rank != rank:
        layout = "[N, features]" if rank == 2 else "[N, channels, H, W]"
        raise OpError(f"{what} needs an input of shape {layout}, not {show_shape(call.inputs[0])}")


def show_shape(shape: Shape) -> str:
    """``(\"N\", 64)`` as people write it: ``[N, 64]``."""
    return f"[{', '.join(str(dim) for dim in shape)}]"


# Shapes


def _linear_shape(call: Call) -> Shape:
    _need_rank(call, 2, "linear")
    return call.inputs[0][0], call.params["out_features"]


def _conv2d_shape(call: Call) -> Shape:
    _need_rank(call, 4, "conv2d")
    groups, channels = call.params["groups"], call.params["out_channels"]
    for count, side in ((call.channels, "input"), (channels, "output")):
        if count % groups:
            raise OpError(f"groups={groups} does not divide the {count} {side} channels", "groups")
    return call.inputs[0][0], channels, *call.inputs[0][2:]


def _kept(rank: int, what: str) -> Callable[[Call], Shape]:
    """The shape of an operation that keeps that of its one input, of this rank."""

    def shape(call: Call) -> Shape:
        _need_rank(call, rank, what)
        return call.inputs[0]

    return shape


def _group_norm_shape(call: Call) -> Shape:
    _need_rank(call, 4, "group_norm")
    if call.channels % call.params["groups"]:
        raise OpError(f"groups={call.params['groups']} does not divide the {call.channels} channels", "groups")
    return call.inputs[0]


def _pooled_shape(call: Call) -> Shape:
    _need_rank(call, 4, "global_avg_pool")
    return call.inputs[0][:2]


def _channel_mul_shape(call: Call) -> Shape:
    _need_rank(call, 4, "channel_mul")
    image, factors = call.inputs
    if factors != image[:2]:
        raise OpError(f"the second input must be {show_shape(image[:2])}, not {show_shape(factors)}")
    return image


def _attention_shape(call: Call) -> Shape:
    """Queries and keys of equal shape; as many channels of each as the heads share evenly."""
    _need_rank(call, 4, "attention")
    queries, keys, values = call.inputs
    if queries != keys:
        raise OpError(f"queries and keys must have equal shapes, not {show_shape(queries)} and {show_shape(keys)}")
    if len(values) != 4:
        raise OpError(f"the values must have the shape [N, channels, H, W], not {show_shape(values)}")
    heads = call.params["heads"]
    for shape, what in ((queries, "query"), (values, "value")):
        size = shape[1]
        assert isinstance(size, int)
        if size % heads:
            raise OpError(f"heads={heads} does not divide the {size} {what} channels", "heads")
    return values


def _same_shape(call: Call) -> Shape:
    first = call.inputs[0]
    for other in call.inputs[1:]:
        if other != first:
            raise OpError(f"inputs must have equal shapes, not {show_shape(first)} and {show_shape(other)}")
    return first


# Tensors: names, shapes and types exactly as torch keeps them in the state of the module


def _linear_tensors(call: Call) -> dict[str, TensorSpec]:
    out = call.params["out_features"]
    return _with_bias(call, {"weight": TensorSpec(shape=(out, call.channels))}, out)


def _conv2d_tensors(call: Call) -> dict[str, TensorSpec]:
    out, kernel = call.params["out_channels"], call.params["kernel_size"]
    weight = TensorSpec(shape=(out, call.channels // call.params["groups"], kernel, kernel))
    return _with_bias(call, {"weight": weight}, out)


def _with_bias(call: Call, tensors: dict[str, TensorSpec], size: int) -> dict[str, TensorSpec]:
    if call.params["bias"]:
        tensors["bias"] = TensorSpec(shape=(size,))
    return tensors


def _affine_tensors(call: Call) -> dict[str, TensorSpec]:
    return {"weight": TensorSpec(shape=(call.channels,)), "bias": TensorSpec(shape=(call.channels,))}


def _weight_tensors(call: Call) -> dict[str, TensorSpec]:
    return {"weight": TensorSpec(shape=(call.channels,))}


def _batch_norm_tensors(call: Call) -> dict[str, TensorSpec]:
    return _affine_tensors(call) | {
        "running_mean": TensorSpec(shape=(call.channels,), trainable=False),
        "running_var": TensorSpec(shape=(call.channels,), trainable=False),
        "num_batches_tracked": TensorSpec(shape=(), dtype="I64", trainable=False),
    }


# Costs


def _linear_flops(call: Call, positions: int) -> int:
    out: int = call.params["out_features"]
    return positions * out * (2 * call.channels + int(call.params["bias"]))


def _conv2d_flops(call: Call, positions: int) -> int:
    taps: int = call.params["kernel_size"] ** 2 * (call.channels // call.params["groups"])
    out: int = call.params["out_channels"]
    return positions * out * (2 * taps + int(call.params["bias"]))


def _per_element(cost: int) -> Callable[[Call, int], int]:
    return lambda call, positions: cost * call.channels * positions


def _avg_pool_flops(call: Call, positions: int) -> int:
    size: int = call.params["kernel_size"]
    return size**2 * call.channels * positions


def _attention_flops(call: Call, positions: int) -> int:
    """Both matrix products, and five for each weight: its scaling and the softmax."""
    values = call.inputs[2][1]
    assert isinstance(values, int)
    heads: int = call.params["heads"]
    return positions**2 * (2 * call.channels + 2 * values + 5 * heads)


# When the output is exactly zero at birth


def _zero_if_initialised_so(call: Call, inputs: tuple[bool, ...]) -> bool:
    return call.params["init"] == "zeros" or (inputs[0] and not call.params["bias"])


def _zero_of_zero(call: Call, inputs: tuple[bool, ...]) -> bool:
    return all(inputs)


def _zero_if_any(call: Call, inputs: tuple[bool, ...]) -> bool:
    return any(inputs)


def _zero_scale(call: Call, inputs: tuple[bool, ...]) -> bool:
    return call.params["init"] == "zeros" or inputs[0]


def _zero_values(call: Call, inputs: tuple[bool, ...]) -> bool:
    return inputs[2]


def _never_zero(call: Call, inputs: tuple[bool, ...]) -> bool:
    return False


def _activation(title: str, cost: int, zero: Callable[[Call, tuple[bool, ...]], bool] = _zero_of_zero) -> Op:
    return Op(title=title, shape=_same_shape, flops=_per_element(cost), zero=zero, activation=True)


_INIT = Param(kind="choice", default="default", choices=("default", "zeros"))
_BIAS = Param(kind="boolean", default=True)

OPS: Mapping[str, Op] = {
    "linear": Op(
        title="Fully connected layer",
        params={"out_features": Param(kind="size", required=True), "bias": _BIAS, "init": _INIT},
        shape=_linear_shape,
        tensors=_linear_tensors,
        flops=_linear_flops,
        zero=_zero_if_initialised_so,
    ),
    "conv2d": Op(
        title="2-D convolution, stride 1, padded so that H and W stay",
        params={
            "out_channels": Param(kind="size", required=True),
            "kernel_size": Param(kind="integer", default=3, maximum=15, odd=True),
            "groups": Param(kind="size", default=1),
            "dilation": Param(kind="integer", default=1, maximum=8),
            "bias": _BIAS,
            "init": _INIT,
        },
        shape=_conv2d_shape,
        tensors=_conv2d_tensors,
        flops=_conv2d_flops,
        zero=_zero_if_initialised_so,
    ),
    "batch_norm": Op(
        title="Batch normalisation over features or channels",
        shape=_same_shape,
        tensors=_batch_norm_tensors,
        flops=_per_element(2),
        zero=_zero_of_zero,
    ),
    "layer_norm": Op(
        title="Layer normalisation over features",
        shape=_kept(2, "layer_norm"),
        tensors=_affine_tensors,
        flops=_per_element(8),
        zero=_zero_of_zero,
    ),
    "rms_norm": Op(
        title="Root-mean-square normalisation over features (Zhang and Sennrich, 2019)",
        shape=_kept(2, "rms_norm"),
        tensors=_weight_tensors,
        flops=_per_element(4),
        zero=_zero_of_zero,
    ),
    "group_norm": Op(
        title="Normalisation over groups of channels and all positions of a sample (Wu and He, 2018)",
        params={"groups": Param(kind="size", default=1)},
        shape=_group_norm_shape,
        tensors=_affine_tensors,
        flops=_per_element(8),
        zero=_zero_of_zero,
    ),
    "layer_scale": Op(
        title="One learned factor a feature or channel (LayerScale: Touvron et al., 2021)",
        params={"init": _INIT},
        shape=_same_shape,
        tensors=_weight_tensors,
        flops=_per_element(1),
        zero=_zero_scale,
    ),
    "avg_pool": Op(
        title="Mean over a window around each position, stride 1, over what lies inside the image",
        params={"kernel_size": Param(kind="integer", default=3, minimum=3, maximum=15, odd=True)},
        shape=_kept(4, "avg_pool"),
        flops=_avg_pool_flops,
        zero=_zero_of_zero,
    ),
    "global_avg_pool": Op(
        title="Mean of each channel over all positions",
        shape=_pooled_shape,
        flops=_per_element(1),
        zero=_zero_of_zero,
    ),
    "attention": Op(
        title="Scaled dot-product attention over positions: queries, keys, values (Vaswani et al., 2017)",
        arity=3,
        params={"heads": Param(kind="size", default=1)},
        shape=_attention_shape,
        flops=_attention_flops,
        zero=_zero_values,
    ),
    "relu": _activation("Rectified linear unit", 1),
    "gelu": _activation("Gaussian error linear unit", 8),
    "silu": _activation("Sigmoid-weighted linear unit (swish)", 5),
    "tanh": _activation("Hyperbolic tangent", 5),
    "sigmoid": _activation("Logistic function", 4, zero=_never_zero),
    "add": Op(title="Sum of two inputs", arity=2, shape=_same_shape, flops=_per_element(1), zero=_zero_of_zero),
    "mul": Op(title="Product of two inputs", arity=2, shape=_same_shape, flops=_per_element(1), zero=_zero_if_any),
    "channel_mul": Op(
        title="Each channel of an image times its own factor",
        arity=2,
        shape=_channel_mul_shape,
        flops=_per_element(1),
        zero=_zero_if_any,
    ),
}
