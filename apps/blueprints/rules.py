"""What each growth operator asks of a graph, beyond the grammar: one rule per operator."""

from collections.abc import Callable, Mapping

from apps.blueprints.graph import INPUT, Graph, Node, SpecError
from apps.blueprints.ops import OPS, show_shape

LAYERS = ("linear", "conv2d")
"""The operations that a widening can merge into a host's layer pair."""


def zero_at_birth(graph: Graph) -> dict[str, bool]:
    """For each node: is its output exactly zero before any training, whatever the input?"""
    zero = {INPUT: False}
    for node in graph.nodes:
        zero[node.id] = OPS[node.op].zero(node.call, tuple(zero[source] for source in node.inputs))
    return zero


def check_residual(graph: Graph) -> None:
    """y = h + alpha * D(h): D keeps the shape and is zero at birth, so that a graft starts as the identity."""
    last = graph.node(graph.output)
    if graph.output_shape != graph.input_shape:
        raise SpecError(
            f"a residual blueprint must give back its input's shape {show_shape(graph.input_shape)}, but node "
            f"{last.id!r} gives {show_shape(graph.output_shape)}; change the last layer's size",
            pointer="/output",
            node=last.id,
            code="shape",
        )
    if not zero_at_birth(graph)[graph.output]:
        raise SpecError(
            f"a residual blueprint must be zero at birth, but node {last.id!r} is not; "
            'give the last layer "init": "zeros"',
            pointer=last.pointer if last.op not in LAYERS else f"{last.pointer}/params/init",
            node=last.id,
            code="identity",
        )


def check_widen(graph: Graph) -> None:
    """incoming -> [batch_norm] -> activation -> outgoing: a branch that merges into a producer/consumer pair.

    The outgoing layer starts at zero and has no bias: the consumer keeps its own, and the pair's function is preserved.
    """
    nodes = graph.nodes
    _check_chain(graph)
    incoming, activation, outgoing = nodes[0], nodes[-2], nodes[-1]
    if len(nodes) == 4 and nodes[1].op != "batch_norm":
        raise _not_widen(nodes[1], "must be a batch_norm between the incoming layer and the activation")
    if not OPS[activation.op].activation:
        known = ", ".join(name for name, op in OPS.items() if op.activation)
        raise _not_widen(activation, f"must be an activation ({known})")
    if incoming.op not in LAYERS:
        raise _not_widen(incoming, f"must be a layer ({' or '.join(LAYERS)})")
    if outgoing.op != incoming.op:
        raise _not_widen(outgoing, f"must be a {incoming.op} like node {incoming.id!r}")
    for node, field, wanted in (
        (incoming, "init", "default"),
        (outgoing, "init", "zeros"),
        (outgoing, "bias", False),
        *((node, field, 1) for node in (incoming, outgoing) if node.op == "conv2d" for field in ("groups", "dilation")),
    ):
        if node.params[field] != wanted:
            raise _not_widen(node, f"needs {field} = {str(wanted).lower()}", f"/params/{field}")


def _check_chain(graph: Graph) -> None:
    nodes = graph.nodes
    if len(nodes) not in (3, 4):
        raise SpecError(
            f"a widen blueprint is incoming layer -> [batch_norm] -> activation -> outgoing layer; this one has "
            f"{len(nodes)} nodes",
            pointer="/nodes",
            code="chain",
        )
    for node, source in zip(nodes, (INPUT, *(node.id for node in nodes)), strict=False):
        if node.inputs != (source,):
            raise _not_widen(node, f"must take exactly the output of {source!r}", "/inputs")


def _not_widen(node: Node, demand: str, field: str = "/op") -> SpecError:
    return SpecError(
        f"node {node.id!r} of a widen blueprint {demand}", pointer=node.pointer + field, node=node.id, code="chain"
    )


OPERATORS: Mapping[str, Callable[[Graph], None]] = {"residual": check_residual, "widen": check_widen}
