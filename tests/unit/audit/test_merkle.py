"""The stored tree against RFC 9162's definitions, and against the known answers of Certificate Transparency."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.audit.merkle import TILE, Tree, new_nodes
from apps.audit.verifier import (
    EMPTY_ROOT,
    Frontier,
    Wrong,
    check_consistency,
    check_inclusion,
    leaf_hash,
    node_hash,
)

# The test leaves of the Certificate Transparency log code (RFC 6962 reference implementation), and their roots.
KNOWN_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
    )
]  # fmt: skip
KNOWN_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


class Store:
    """Leaves and nodes in memory, filled the way the sealer fills its tables."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.nodes: dict[tuple[int, int], bytes] = {}

    def append(self, digests: list[bytes]) -> None:
        for node in new_nodes(len(self.leaves), digests, self.read):
            assert (node.group, node.index) not in self.nodes, "a full tile is written once"
            self.nodes[node.group, node.index] = node.digest
        self.leaves += digests

    def read(self, group: int, tile: int) -> list[bytes]:
        if group == 0:
            return self.leaves[tile * TILE : (tile + 1) * TILE]
        within = range(tile * TILE, (tile + 1) * TILE)
        return [self.nodes[group, index] for index in within if (group, index) in self.nodes]

    @property
    def tree(self) -> Tree:
        return Tree(self.read)


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(number.to_bytes(4, "big")) for number in range(count)]


def definition(digests: list[bytes]) -> bytes:
    """MTH of RFC 9162, section 2.1.1, word for word."""
    if not digests:
        return hashlib.sha256(b"").digest()
    if len(digests) == 1:
        return digests[0]
    split = 1
    while split * 2 < len(digests):
        split *= 2
    return node_hash(definition(digests[:split]), definition(digests[split:]))


@pytest.fixture(scope="module")
def store() -> Store:
    """66,000 leaves (a node of the second group), appended in batches of every awkward size."""
    generator, filled, all_leaves = random.Random(9162), Store(), leaves(66_000)
    while len(filled.leaves) < len(all_leaves):
        start = len(filled.leaves)
        filled.append(all_leaves[start : start + generator.choice((1, 3, 200, 255, 256, 257, 5_000))])
    return filled


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_those_of_certificate_transparency(size: int) -> None:
    digests = [leaf_hash(data) for data in KNOWN_LEAVES[:size]]
    store, frontier = Store(), Frontier()
    store.append(digests)
    for digest in digests:
        frontier.append(digest)

    assert store.tree.root(size).hex() == frontier.root().hex() == KNOWN_ROOTS[size - 1]


def test_the_empty_tree_is_the_hash_of_nothing() -> None:
    assert Store().tree.root(0) == Frontier().root() == EMPTY_ROOT == definition([])


@given(st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_stored_tiles_a_frontier_and_the_definition_agree(size: int) -> None:
    digests, store, frontier = leaves(size), Store(), Frontier()
    store.append(digests)
    for digest in digests:
        frontier.append(digest)

    assert store.tree.root(size) == frontier.root() == definition(digests)


def test_every_proof_of_small_trees_is_right() -> None:
    store, digests = Store(), leaves(40)
    store.append(digests)
    for size in range(1, 41):
        root = store.tree.root(size)
        for index in range(size):
            path = store.tree.inclusion(index, size)
            check_inclusion(leaf=digests[index], index=index, size=size, path=path, root=root)
        for first in range(size + 1):
            check_consistency(
                first=first,
                second=size,
                path=store.tree.consistency(first, size),
                first_root=store.tree.root(first),
                second_root=root,
            )


def test_proofs_over_many_tiles_are_right_and_read_few_of_them(store: Store) -> None:
    generator = random.Random(2026)
    for _ in range(60):
        size = generator.randrange(1, len(store.leaves) + 1)
        index, first = generator.randrange(size), generator.randrange(size + 1)
        tree = store.tree

        path = tree.inclusion(index, size)
        assert len(tree._tiles) <= 6
        check_inclusion(leaf=store.leaves[index], index=index, size=size, path=path, root=tree.root(size))
        check_consistency(
            first=first,
            second=size,
            path=tree.consistency(first, size),
            first_root=tree.root(first),
            second_root=tree.root(size),
        )


def test_a_proof_with_any_step_changed_left_out_or_added_is_refused(store: Store) -> None:
    generator, size = random.Random(7), 40_000
    root = store.tree.root(size)
    for _ in range(40):
        index = generator.randrange(size)
        path = store.tree.inclusion(index, size)
        place = generator.randrange(len(path))
        changed = [*path[:place], bytes(32), *path[place + 1 :]]
        for wrong in (changed, path[:-1], [*path, bytes(32)], path[::-1], []):
            with pytest.raises(Wrong):
                check_inclusion(leaf=store.leaves[index], index=index, size=size, path=wrong, root=root)
        with pytest.raises(Wrong):
            check_inclusion(leaf=store.leaves[index], index=index ^ 1, size=size, path=path, root=root)


def test_a_rewritten_beginning_has_no_consistency_proof(store: Store) -> None:
    first, second = 1_000, 40_000
    path = store.tree.consistency(first, second)
    roots = {"first_root": store.tree.root(first), "second_root": store.tree.root(second)}
    for name in roots:
        with pytest.raises(Wrong):
            check_consistency(first=first, second=second, path=path, **{**roots, name: bytes(32)})
    for wrong in (path[:-1], [*path, bytes(32)], [], path[::-1]):
        with pytest.raises(Wrong):
            check_consistency(first=first, second=second, path=wrong, **roots)


@pytest.mark.parametrize(("index", "size"), [(-1, 5), (5, 5), (0, 0)])
def test_a_leaf_outside_of_the_tree_has_no_proof(store: Store, index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        store.tree.inclusion(index, size)
    with pytest.raises(Wrong, match="is not in a tree"):
        check_inclusion(leaf=bytes(32), index=index, size=size, path=[], root=bytes(32))


def test_a_tree_that_lost_a_leaf_says_where() -> None:
    store = Store()
    store.append(leaves(300))
    del store.leaves[299]

    with pytest.raises(LookupError, match="tile 1 of group 0"):
        store.tree.root(300)
