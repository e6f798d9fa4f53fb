"""Layered drawings of small directed graphs (Sugiyama, Tagawa and Toda, 1981): a pure function from nodes and edges to
coordinates, the same for the same input.

    layered([Node("a", "linear"), Node("b", "relu")], [Edge("a", "b")])     -> Drawing(width, height, boxes, lines)

Edges run downwards. Ranks are longest paths from the sources; an edge over several ranks gets a bend in each, so that
it passes beside the boxes; each rank is ordered by the mean place of its neighbours, then pulled towards it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from statistics import fmean

SWEEPS = 4
"""Passes down and up again; small graphs are at rest after two."""
GAP = 14.0
"""Between neighbours of one rank, in viewBox units."""
RISE = 30.0
"""Between two ranks."""
BEND = 10.0
"""The room that an edge takes where it passes a rank."""
PAD = 3.0
TEXT_AWAY = 12.0
"""From a box to the middle of the text of an edge."""


@dataclass(frozen=True, slots=True)
class Node:
    """``tone`` is a CSS class; ``href`` makes the box a link; ``hint`` is said where the text was cut."""

    id: str
    text: str
    note: str = ""
    href: str = ""
    tone: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    source: str
    target: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A node in its place: the upper left corner, and the baselines of its two lines of text."""

    node: Node
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)

    @property
    def text_y(self) -> float:
        return round(self.y + (self.height / 2 + 4 if not self.node.note else self.height / 2 - 3), 1)

    @property
    def note_y(self) -> float:
        return round(self.y + self.height / 2 + 13, 1)


@dataclass(frozen=True, slots=True)
class Line:
    """An edge as an SVG path, and where its text stands."""

    edge: Edge
    path: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Drawing:
    width: float
    height: float
    boxes: Sequence[Box]
    lines: Sequence[Line]


@dataclass(slots=True)
class _Item:
    """Something that takes room in a rank: a node, or an edge that passes (``node`` is None)."""

    rank: int
    width: float
    node: Node | None = None
    x: float = 0.0


def layered(
    nodes: Sequence[Node], edges: Iterable[Edge], *, width: float = 150.0, height: float = 40.0, rise: float = RISE
) -> Drawing:
    """Place ``nodes`` as boxes of ``width`` x ``height`` and ``edges`` as curves; edges from or to others are left out.

    Raises:
        CycleError: the edges go in a circle.
    """
    known = {node.id: node for node in nodes}
    drawn = [edge for edge in edges if edge.source in known and edge.target in known]
    ranks = _ranks(known, drawn)
    items = {node.id: _Item(ranks[node.id], width, node) for node in nodes}
    chains = [_chain(edge, items) for edge in drawn]
    layers = _layers([*items.values(), *(item for chain in chains for item in chain[1:-1])])
    above, below = _neighbours(chains)
    _order(layers, above, below)
    _place(layers, above, below)
    shift = PAD - min((item.x - item.width / 2 for layer in layers for item in layer), default=0.0)
    for layer in layers:
        for item in layer:
            item.x += shift
    step = height + rise
    return Drawing(
        width=round(max((item.x + item.width / 2 for layer in layers for item in layer), default=0.0) + PAD, 1),
        height=round(max(0.0, len(layers) * step - rise) + 2 * PAD, 1),
        boxes=[
            Box(item.node, round(item.x - width / 2, 1), round(PAD + item.rank * step, 1), width, height)
            for item in items.values()
            if item.node is not None
        ],
        lines=_lines(drawn, chains, height, step),
    )


def _ranks(known: Mapping[str, Node], edges: Iterable[Edge]) -> dict[str, int]:
    """Node -> the length of the longest path that leads to it."""
    sources: dict[str, list[str]] = {key: [] for key in known}
    for edge in edges:
        sources[edge.target].append(edge.source)
    ranks: dict[str, int] = {}
    for key in TopologicalSorter(sources).static_order():
        ranks[key] = max((ranks[source] + 1 for source in sources[key]), default=0)
    return ranks


def _chain(edge: Edge, items: Mapping[str, _Item]) -> list[_Item]:
    """The edge's source, one bend for each rank that it passes, and its target."""
    source, target = items[edge.source], items[edge.target]
    return [source, *(_Item(rank, BEND) for rank in range(source.rank + 1, target.rank)), target]


def _layers(items: Iterable[_Item]) -> list[list[_Item]]:
    found: defaultdict[int, list[_Item]] = defaultdict(list)
    for item in items:
        found[item.rank].append(item)
    return [found[rank] for rank in sorted(found)]


Neighbours = Mapping[int, Sequence[_Item]]
"""By the identity of an item."""


def _neighbours(chains: Iterable[Sequence[_Item]]) -> tuple[Neighbours, Neighbours]:
    above: defaultdict[int, list[_Item]] = defaultdict(list)
    below: defaultdict[int, list[_Item]] = defaultdict(list)
    for chain in chains:
        for upper, lower in pairwise(chain):
            above[id(lower)].append(upper)
            below[id(upper)].append(lower)
    return above, below


Visit = Callable[[list[_Item], Neighbours], None]


def _sweep(layers: Sequence[list[_Item]], above: Neighbours, below: Neighbours, visit: Visit) -> None:
    for _ in range(SWEEPS):
        for layer in layers[1:]:
            visit(layer, above)
        for layer in layers[-2::-1]:
            visit(layer, below)


def _order(layers: Sequence[list[_Item]], above: Neighbours, below: Neighbours) -> None:
    """Sort each rank by the mean place of its neighbours; equal ones keep the order of the input."""
    for layer in layers:
        _number(layer)

    def sort(layer: list[_Item], beside: Neighbours) -> None:
        wanted = {id(item): fmean(near.x for near in beside.get(id(item), [item])) for item in layer}
        layer.sort(key=lambda item: wanted[id(item)])
        _number(layer)

    _sweep(layers, above, below, sort)


def _number(layer: Sequence[_Item]) -> None:
    for place, item in enumerate(layer):
        item.x = place - (len(layer) - 1) / 2


def _place(layers: Sequence[list[_Item]], above: Neighbours, below: Neighbours) -> None:
    """Real coordinates: as near to the mean of the neighbours as the order and the gaps allow."""
    for layer in layers:
        _spread(layer, [0.0] * len(layer))

    def pull(layer: list[_Item], beside: Neighbours) -> None:
        _spread(layer, [fmean(near.x for near in beside.get(id(item), [item])) for item in layer])

    _sweep(layers, above, below, pull)


def _spread(layer: Sequence[_Item], wanted: Sequence[float]) -> None:
    """Put a rank at the wanted places, pushed apart where they overlap; the push is shared by both sides."""
    at, place = [], float("-inf")
    for index, (item, want) in enumerate(zip(layer, wanted, strict=True)):
        room = (item.width + layer[index - 1].width) / 2 + GAP if index else 0.0
        place = max(want, place + room)
        at.append(place)
    back = fmean(want - place for want, place in zip(wanted, at, strict=True)) if at else 0.0
    for item, place in zip(layer, at, strict=True):
        item.x = place + back


def _lines(edges: Sequence[Edge], chains: Sequence[list[_Item]], height: float, step: float) -> list[Line]:
    out, into = Counter(edge.source for edge in edges), Counter(edge.target for edge in edges)
    return [
        Line(
            edge,
            _path(chain, height, step),
            *_text_place(chain, height, step, meets=into[edge.target] > 1, parts=out[edge.source] > 1),
        )
        for edge, chain in zip(edges, chains, strict=True)
    ]


def _path(chain: Sequence[_Item], height: float, step: float) -> str:
    """Curves that leave and enter upright, straight past the ranks between."""
    first, *bends, last = chain
    x, y = first.x, PAD + first.rank * step + height
    path = [f"M{x:.1f},{y:.1f}"]
    for bend in bends:
        top = PAD + bend.rank * step
        path += [_curve(x, y, bend.x, top), f"V{top + height:.1f}"]
        x, y = bend.x, top + height
    path.append(_curve(x, y, last.x, PAD + last.rank * step))
    return " ".join(path)


def _text_place(chain: Sequence[_Item], height: float, step: float, *, meets: bool, parts: bool) -> tuple[float, float]:
    """Near the upper end where an edge ``meets`` others below, near the lower one where it ``parts`` from others."""
    first, second, last = chain[0], chain[1], chain[-1]
    leaves, enters = PAD + first.rank * step + height, PAD + last.rank * step
    if meets and not parts:
        return round(first.x + 0.15 * (second.x - first.x), 1), round(leaves + TEXT_AWAY + 4, 1)
    if parts and not meets:
        return round(last.x, 1), round(enters - TEXT_AWAY + 4, 1)
    return round((first.x + second.x) / 2, 1), round(leaves + (step - height) / 2 + 4, 1)


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    half = (to_y - y) / 2
    return f"C{x:.1f},{y + half:.1f} {to_x:.1f},{to_y - half:.1f} {to_x:.1f},{to_y:.1f}"
