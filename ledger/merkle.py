"""RFC 6962 Merkle trees: hashes, proofs and their verification. Pure functions, no I/O.

A leaf hashes to SHA-256(00 || entry), an inner node to SHA-256(01 || left || right), the empty tree to SHA-256("").
Node (level, index) is the root of the perfect subtree over leaves index * 2^level .. (index + 1) * 2^level - 1.

A root does not commit to the size of its tree: one valid proof for (index 2, size 3) also leads to the same root as
(1, 2), (4, 5), (8, 9) and (16, 17). Take the size from a signed checkpoint only. Verification refuses index >= size
before it looks at anything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ledger.errors import IndexOutOfRange, RootMismatch, UsageError, VerificationFailed

__all__ = [
    "HASH_BYTES",
    "Frontier",
    "Node",
    "NodeGetter",
    "consistency_proof",
    "empty_root",
    "inclusion_proof",
    "leaf_hash",
    "node_count",
    "node_hash",
    "node_position",
    "subtree_root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_BYTES = 32

NodeGetter = Callable[[int, int], bytes]
"""Gives the hash of node (level, index); asked only for perfect subtrees inside the tree."""


class Node(NamedTuple):
    """The hash of the perfect subtree number `number` of height `level`."""

    level: int
    number: int
    hash: bytes


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(00 || entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def empty_root() -> bytes:
    """Root of the tree without leaves: SHA-256 of nothing."""
    return hashlib.sha256(b"").digest()


def node_count(size: int) -> int:
    """Number of perfect subtrees (leaves included) in a tree of `size` leaves."""
    return 2 * size - size.bit_count()


def node_position(level: int, index: int) -> int:
    """Place of node (level, index) when nodes are listed in the order in which appends complete them."""
    last_leaf = ((index + 1) << level) - 1
    return node_count(last_leaf) + level


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree: hashes of its perfect subtrees, largest first. Enough to append and to get the root."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    @classmethod
    def load(cls, size: int, node: NodeGetter) -> Frontier:
        """The frontier of a stored tree, from at most 63 of its nodes."""
        return cls(size, tuple(node(level, index) for level, index in _perfect_subtrees(0, size)))

    def extend(self, leaves: Iterable[bytes]) -> tuple[Frontier, list[Node]]:
        """Append leaf hashes. Returns the new frontier and every node completed, in `node_position` order.

        Amortised two hashes a leaf; this frontier is unchanged.
        """
        stack, size, completed = list(self.hashes), self.size, []
        for leaf in leaves:
            level, index, hash_ = 0, size, leaf
            completed.append(Node(level, index, hash_))
            while index & 1:
                level, index, hash_ = level + 1, index >> 1, node_hash(stack.pop(), hash_)
                completed.append(Node(level, index, hash_))
            stack.append(hash_)
            size += 1
        return Frontier(size, tuple(stack)), completed

    def root(self) -> bytes:
        """The root of the whole tree."""
        if not self.hashes:
            return empty_root()
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root


def subtree_root(start: int, stop: int, node: NodeGetter) -> bytes:
    """MTH(D[start:stop]) where D[start:stop] is a subtree of an RFC 6962 tree (as its split points make them)."""
    return Frontier(stop - start, tuple(node(level, index) for level, index in _perfect_subtrees(start, stop))).root()


def inclusion_proof(index: int, size: int, node: NodeGetter) -> list[bytes]:
    """PATH(index, D[0:size]) of RFC 9162, section 2.1.3.1: sibling hashes from the leaf upward.

    Raises UsageError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise UsageError(f"a tree of {size} leaves has no index {index}")
    proof, start, stop = [], 0, size
    while stop - start > 1:
        middle = start + _split(stop - start)
        if index < middle:
            proof.append(subtree_root(middle, stop, node))
            stop = middle
        else:
            proof.append(subtree_root(start, middle, node))
            start = middle
    return proof[::-1]


def consistency_proof(old_size: int, new_size: int, node: NodeGetter) -> list[bytes]:
    """PROOF(old_size, D[0:new_size]) of RFC 9162, section 2.1.4.1; empty for equal sizes and for old_size 0.

    Raises UsageError unless 0 <= old_size <= new_size.
    """
    if not 0 <= old_size <= new_size:
        raise UsageError(f"no consistency proof leads from size {old_size} to size {new_size}")
    if old_size in (0, new_size):
        return []
    proof, start, stop = [], 0, new_size
    while stop != old_size:
        middle = start + _split(stop - start)
        if old_size <= middle:
            proof.append(subtree_root(middle, stop, node))
            stop = middle
        else:
            proof.append(subtree_root(start, middle, node))
            start = middle
    if start > 0:
        # The old tree ends in a subtree that the verifier cannot take from the old root.
        proof.append(subtree_root(start, stop, node))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that leaf hash `leaf` is number `index` in the tree of `size` leaves with `root` (RFC 9162, 2.1.3.2).

    `size` and `root` must come from one signed checkpoint. Raises IndexOutOfRange, RootMismatch or another
    VerificationFailed.
    """
    if not 0 <= index < size:
        raise IndexOutOfRange(index, size)
    _check_hashes("inclusion", [leaf, *proof])
    fn, sn, computed = index, size - 1, leaf
    for sibling in proof:
        if sn == 0:
            raise VerificationFailed("inclusion.length", f"{len(proof)} hashes are too many for size {size}")
        if fn & 1 or fn == sn:
            computed = node_hash(sibling, computed)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            computed = node_hash(computed, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationFailed("inclusion.length", f"{len(proof)} hashes are too few for index {index}, size {size}")
    if computed != root:
        raise RootMismatch("inclusion.root", root, computed)


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check that the tree (size2, root2) extends the tree (size1, root1) (RFC 9162, section 2.1.4.2).

    size1 = 0 is refused: every tree extends the empty one, so such a proof says nothing, and a caller for whom that is
    fine has to say so (`ledger.monitor` does). Raises RootMismatch or another VerificationFailed.
    """
    if size1 <= 0:
        raise VerificationFailed("consistency.sizes", f"a proof from size {size1} says nothing")
    if size1 > size2:
        raise VerificationFailed("consistency.sizes", f"size {size2} is smaller than size {size1}")
    if size1 == size2:
        if proof:
            raise VerificationFailed("consistency.length", "trees of equal size need no hashes")
        if root1 != root2:
            raise RootMismatch("consistency.root", root1, root2)
        return
    if not proof:
        raise VerificationFailed("consistency.length", f"no hashes lead from size {size1} to size {size2}")
    _check_hashes("consistency", proof)
    # A perfect old tree is itself a node of the new one: its root opens the path.
    path = [root1, *proof] if size1.bit_count() == 1 else list(proof)
    fn, sn = size1 - 1, size2 - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if sn == 0:
            raise VerificationFailed("consistency.length", f"{len(proof)} hashes are too many for size {size2}")
        if fn & 1 or fn == sn:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not fn & 1 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            second = node_hash(second, sibling)
        fn, sn = fn >> 1, sn >> 1
    if sn != 0:
        raise VerificationFailed("consistency.length", f"{len(proof)} hashes are too few for size {size2}")
    if first != root1:
        raise RootMismatch("consistency.root1", root1, first)
    if second != root2:
        raise RootMismatch("consistency.root2", root2, second)


def _split(width: int) -> int:
    """The largest power of two smaller than `width` (width >= 2)."""
    return 1 << ((width - 1).bit_length() - 1)


def _perfect_subtrees(start: int, stop: int) -> list[tuple[int, int]]:
    """(level, index) of the perfect subtrees that make up leaves start..stop-1, largest first."""
    subtrees = []
    while start < stop:
        level = (stop - start).bit_length() - 1
        subtrees.append((level, start >> level))
        start += 1 << level
    return subtrees


def _check_hashes(what: str, hashes: Iterable[bytes]) -> None:
    for hash_ in hashes:
        if len(hash_) != HASH_BYTES:
            raise VerificationFailed(f"{what}.hash", f"a hash has {len(hash_)} bytes instead of {HASH_BYTES}")
