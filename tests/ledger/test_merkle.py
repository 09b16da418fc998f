"""The Merkle tree against its recursive definition, and what its proofs do not say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import IndexOutOfRange, RootMismatch, UsageError, VerificationFailed
from ledger.merkle import (
    Frontier,
    consistency_proof,
    empty_root,
    inclusion_proof,
    leaf_hash,
    node_count,
    node_position,
    verify_consistency,
    verify_inclusion,
)

ENTRIES = [f"entry {i}".encode() for i in range(300)]


@pytest.fixture(scope="module")
def trees(naive: Any, memory_nodes: Any) -> Any:
    """The recursive implementation, and the nodes of the 300-leaf tree."""
    return naive, memory_nodes(ENTRIES)


def test_the_known_hashes_of_rfc_6962() -> None:
    assert empty_root().hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert Frontier().root() == empty_root()


def test_every_root_up_to_size_70_is_the_recursive_one(trees: Any) -> None:
    naive, _ = trees
    frontier = Frontier()
    for size in range(71):
        assert frontier.root() == naive.root(ENTRIES[:size])
        frontier, _ = frontier.extend([leaf_hash(ENTRIES[size])])


def test_every_inclusion_proof_up_to_size_40(trees: Any) -> None:
    naive, nodes = trees
    for size in range(1, 41):
        root = naive.root(ENTRIES[:size])
        for index in range(size):
            proof = inclusion_proof(index, size, nodes)
            assert proof == naive.path(index, ENTRIES[:size])
            verify_inclusion(leaf_hash(ENTRIES[index]), index, size, proof, root)


def test_every_consistency_proof_up_to_size_40(trees: Any) -> None:
    naive, nodes = trees
    roots = [naive.root(ENTRIES[:size]) for size in range(41)]
    for new in range(41):
        for old in range(new + 1):
            proof = consistency_proof(old, new, nodes)
            assert proof == naive.proof(old, ENTRIES[:new])
            if old > 0:
                verify_consistency(old, new, proof, roots[old], roots[new])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_proofs_agree_with_the_recursive_ones_up_to_size_300(trees: Any, data: st.DataObject) -> None:
    naive, nodes = trees
    size = data.draw(st.integers(1, 300))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root, old_root = naive.root(ENTRIES[:size]), naive.root(ENTRIES[:old])
    inclusion, consistency = inclusion_proof(index, size, nodes), consistency_proof(old, size, nodes)
    assert inclusion == naive.path(index, ENTRIES[:size])
    assert consistency == naive.proof(old, ENTRIES[:size])
    verify_inclusion(leaf_hash(ENTRIES[index]), index, size, inclusion, root)
    verify_consistency(old, size, consistency, old_root, root)
    # And no other entry, no other old tree.
    with pytest.raises(RootMismatch):
        verify_inclusion(leaf_hash(b"another"), index, size, inclusion, root)
    if old < size:
        with pytest.raises(VerificationFailed):
            verify_consistency(old, size, consistency, leaf_hash(b"another"), root)


@settings(max_examples=200, deadline=None)
@given(index=st.integers(-2, 20), size=st.integers(-2, 20), length=st.integers(0, 6), good=st.booleans())
def test_the_verifier_agrees_with_the_recursive_one_on_any_proof(
    trees: Any, index: int, size: int, length: int, good: bool
) -> None:
    """Arbitrary hashes as proof: accepted exactly when the recursive reading leads to the root."""
    naive, _ = trees
    proof = [leaf_hash(bytes([i])) for i in range(length)]
    leaf = leaf_hash(b"leaf")
    expected = naive.root_of_path(leaf, index, size, proof) if 0 <= index < size else None
    root = expected if good and expected is not None else leaf_hash(b"other root")
    try:
        verify_inclusion(leaf, index, size, proof, root)
        accepted = True
    except VerificationFailed:
        accepted = False
    assert accepted == (good and expected is not None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), max_size=8))
def test_appending_in_any_batches_gives_the_same_tree(trees: Any, batches: list[int]) -> None:
    _, nodes = trees
    frontier, completed, done = Frontier(), [], 0
    for batch in batches:
        before = frontier
        frontier, new = frontier.extend(leaf_hash(e) for e in ENTRIES[done : done + batch])
        assert before.size == done, "extend leaves the old frontier alone"
        done = min(done + batch, 300)
        completed += new
    assert frontier == Frontier.load(done, nodes)
    assert [node_position(n.level, n.number) for n in completed] == list(range(node_count(done)))
    assert all(nodes(n.level, n.number) == n.hash for n in completed)


def test_a_root_does_not_commit_to_the_size_so_the_index_is_checked_first(trees: Any) -> None:
    """One valid proof for (2, 3) is a valid path for other sizes, and for indices that the tree does not have."""
    naive, nodes = trees
    leaf, proof, root = leaf_hash(ENTRIES[2]), inclusion_proof(2, 3, nodes), naive.root(ENTRIES[:3])
    for index, size in [(2, 3), (1, 2), (4, 5), (8, 9), (16, 17)]:
        verify_inclusion(leaf, index, size, proof, root)
    # Refused for the index alone, whatever the path would lead to.
    for index, size in [(3, 3), (2, 2), (5, 5), (9, 9), (17, 17), (3, 0), (0, 0), (-1, 3), (2**70, 3)]:
        with pytest.raises(IndexOutOfRange) as caught:
            verify_inclusion(leaf, index, size, proof, root)
        assert (caught.value.index, caught.value.size) == (index, size)


def test_the_index_is_refused_before_the_proof_is_looked_at() -> None:
    with pytest.raises(IndexOutOfRange):
        verify_inclusion(b"short", 1, 1, [b"not a hash"], b"")


@pytest.mark.parametrize(
    ("index", "size", "proof", "check"),
    [
        (0, 1, [bytes(32)], "inclusion.length"),
        (0, 2, [], "inclusion.length"),
        (0, 2, [bytes(31)], "inclusion.hash"),
        (0, 2, [bytes(33)], "inclusion.hash"),
        (0, 2**63, [bytes(32)] * 100, "inclusion.length"),
        (2**63 - 1, 2**63, [], "inclusion.length"),
    ],
)
def test_malformed_inclusion_proofs_are_named(index: int, size: int, proof: list[bytes], check: str) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_inclusion(bytes(32), index, size, proof, bytes(32))
    assert caught.value.check == check


@pytest.mark.parametrize(
    ("old", "new", "proof", "check"),
    [
        (0, 0, [], "consistency.sizes"),
        (0, 4, [], "consistency.sizes"),
        (-1, 4, [bytes(32)], "consistency.sizes"),
        (5, 4, [bytes(32)], "consistency.sizes"),
        (4, 4, [bytes(32)], "consistency.length"),
        (3, 4, [], "consistency.length"),
        (3, 4, [bytes(32)], "consistency.length"),
        (3, 4, [bytes(32)] * 90, "consistency.length"),
        (2, 4, [bytes(31)], "consistency.hash"),
    ],
)
def test_malformed_consistency_proofs_are_named(old: int, new: int, proof: list[bytes], check: str) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_consistency(old, new, proof, bytes(32), bytes(32))
    assert caught.value.check == check


def test_a_root_mismatch_carries_both_roots(trees: Any) -> None:
    naive, nodes = trees
    old, new = naive.root(ENTRIES[:3]), naive.root(ENTRIES[:7])
    proof = consistency_proof(3, 7, nodes)
    with pytest.raises(RootMismatch) as caught:
        verify_consistency(3, 7, proof, bytes(32), new)
    assert (caught.value.check, caught.value.expected, caught.value.computed) == ("consistency.root1", bytes(32), old)
    with pytest.raises(RootMismatch) as caught:
        verify_consistency(3, 7, proof, old, bytes(32))
    assert (caught.value.check, caught.value.expected, caught.value.computed) == ("consistency.root2", bytes(32), new)
    with pytest.raises(RootMismatch) as caught:
        verify_consistency(7, 7, [], old, new)
    assert (caught.value.check, caught.value.expected, caught.value.computed) == ("consistency.root", old, new)


def test_no_proof_is_made_for_what_the_tree_does_not_have(trees: Any) -> None:
    _, nodes = trees
    for index, size in [(3, 3), (-1, 3), (0, 0)]:
        with pytest.raises(UsageError):
            inclusion_proof(index, size, nodes)
    for old, new in [(4, 3), (-1, 3)]:
        with pytest.raises(UsageError):
            consistency_proof(old, new, nodes)
