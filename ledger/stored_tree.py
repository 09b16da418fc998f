"""The Merkle tree that lies in a storage: proofs and roots with one read each, and checks against a signed head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from ledger.checkpoint import VerifiedHead
from ledger.errors import CorruptLog
from ledger.merkle import (
    HASH_BYTES,
    Frontier,
    NodeGetter,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_count,
    subtree_root,
)
from ledger.storage.base import Storage

__all__ = ["StoredTree"]

_CHUNK = 1024
_T = TypeVar("_T")


class StoredTree:
    """Reads the nodes of a storage. Sizes and indices must lie inside the stored tree: checking that is the log's part.

    Everything raises CorruptLog when a node is missing or malformed, StorageError when reading fails.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def nodes(self, positions: Sequence[tuple[int, int]]) -> list[bytes]:
        """The hashes of the nodes (level, index), in the order asked for."""
        hashes = self._storage.nodes(positions) if positions else []
        if any(len(hash_) != HASH_BYTES for hash_ in hashes):
            raise CorruptLog(f"a stored node has not {HASH_BYTES} bytes")
        return hashes

    def root(self, size: int) -> bytes:
        """Root of the tree of the first `size` entries."""
        return self._compute(lambda node: subtree_root(0, size, node))

    def inclusion(self, index: int, size: int) -> tuple[bytes, list[bytes]]:
        """The leaf hash of entry `index`, and the hashes that show it in the tree of `size`."""
        return self._compute(lambda node: (node(0, index), inclusion_proof(index, size, node)))

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The hashes that show the tree of size `new` to extend that of size `old`."""
        return self._compute(lambda node: consistency_proof(old, new, node))

    def check_extent(self, head: VerifiedHead, exact: bool) -> None:
        """Nothing missing at the end, and with `exact` (when nobody else appends meanwhile) nothing beyond it."""
        expected, stored = (head.size, node_count(head.size)), self._storage.extent()
        if stored != expected and (exact or stored[0] < expected[0] or stored[1] < expected[1]):
            raise CorruptLog(f"(entries, nodes) stored: {stored}, the checkpoint asks for {expected}")

    def check_edge(self, head: VerifiedHead) -> Frontier:
        """The stored right edge, if it hashes to the signed root."""
        frontier = self._compute(lambda node: Frontier.load(head.size, node))
        _check_root(head, frontier)
        return frontier

    def check_everything(self, head: VerifiedHead) -> Frontier:
        """The frontier rebuilt from the entries, if every stored node and the signed root agree with it. Linear."""
        frontier = Frontier()
        for start in range(0, head.size, _CHUNK):
            stop = min(start + _CHUNK, head.size)
            frontier, nodes = frontier.extend(leaf_hash(entry) for entry in self._storage.entries(start, stop))
            if [node.hash for node in nodes] != self._storage.completed_nodes(start, stop):
                raise CorruptLog(f"entries {start} to {stop - 1} do not hash to the stored nodes")
        _check_root(head, frontier)
        return frontier

    def _compute(self, function: Callable[[NodeGetter], _T]) -> _T:
        """`function` over the stored nodes: a first run on blank hashes tells which it takes, so that one read does."""
        wanted: dict[tuple[int, int], bytes] = {}
        function(lambda level, index: wanted.setdefault((level, index), bytes(HASH_BYTES)))
        hashes = dict(zip(wanted, self.nodes(list(wanted)), strict=True))
        return function(lambda level, index: hashes[level, index])


def _check_root(head: VerifiedHead, frontier: Frontier) -> None:
    if frontier.root() != head.root:
        raise CorruptLog(
            f"the stored tree of {head.size} entries has root {frontier.root().hex()}, "
            f"the checkpoint says {head.root.hex()}"
        )
