"""The contract HeadAnchor: only honest growth is accepted, for every pair of sizes, and nothing else.

What it accepts is compared with two implementations: the naive one of these tests and `ledger.merkle`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ledger import Checkpoint, Signer, VerifiedHead, open_checkpoint
from ledger.checkpoint import sign_checkpoint
from ledger.errors import ChainRefused, OriginMismatch, UsageError, VerificationFailed
from ledger.merkle import empty_root, verify_consistency, verify_inclusion
from tests.support.contracts import CONTRACTS, contracts_tool

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from ledger.anchors.evm import Artefact, Chain, ChainKey
from ledger.anchors.head_anchor import HeadAnchor

LARGEST = 40
ENTRIES = [f"entry {i}".encode() for i in range(LARGEST)]


class Calls:
    """Collects calls of one function with the expected outcome of each, to be made in few requests."""

    def __init__(self, anvil: Any, anchor: HeadAnchor, signature: str) -> None:
        import web3

        self._anvil, self._selector = anvil, bytes(web3.Web3.keccak(text=signature)[:4])
        self._call = {"from": anchor.operator, "to": anchor.contract.address}
        self._data: list[str] = []
        self._expected: list[tuple[bool, object]] = []

    def add(
        self, first: int | bytes, second: int | bytes, proof: Sequence[bytes], expected: bool, what: object
    ) -> None:
        head = [x if isinstance(x, bytes) else x.to_bytes(32, "big") for x in (first, second, 96, len(proof))]
        self._data.append("0x" + b"".join([self._selector, *head, *proof]).hex())
        self._expected.append((expected, what))

    def check(self) -> int:
        """Make them all; returns how many should be refused."""
        found = self._anvil.accepted([{**self._call, "data": data} for data in self._data])
        wrong = [(what, got) for got, (want, what) in zip(found, self._expected, strict=True) if got != want]
        assert wrong == []
        refused = sum(not want for want, _ in self._expected)
        self._data, self._expected = [], []
        return refused


def advance_calls(anvil: Any, anchor: HeadAnchor) -> Calls:
    return Calls(anvil, anchor, "advance(uint64,bytes32,bytes32[])")


def inclusion_calls(anvil: Any, anchor: HeadAnchor) -> Calls:
    return Calls(anvil, anchor, "verify_inclusion(bytes32,uint64,bytes32[])")


def holds(check: Callable[..., None], *arguments: Any) -> bool:
    try:
        check(*arguments)
    except VerificationFailed:
        return False
    return True


def flipped(value: bytes, bit: int = 0) -> bytes:
    return (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(len(value), "big")


def mutants(proof: list[bytes]) -> Iterator[list[bytes]]:
    """Every hash changed, missing, doubled, exchanged with the next; one more at either end."""
    for i, value in enumerate(proof):
        yield [*proof[:i], flipped(value, i), *proof[i + 1 :]]
        yield [*proof[:i], *proof[i + 1 :]]
        yield [*proof[:i], value, *proof[i:]]
        if i + 1 < len(proof):
            yield [*proof[:i], proof[i + 1], value, *proof[i + 2 :]]
    yield [*proof, bytes(32)]
    yield [bytes(32), *proof]


@pytest.fixture(scope="module")
def log_signer() -> Signer:
    return Signer("ledger.example/anchored", bytes(range(32)))


@pytest.fixture(scope="module")
def head(log_signer: Signer) -> Callable[[int, bytes], VerifiedHead]:
    """A signed head, whatever it says: the log's operator signs what he likes."""

    def make(size: int, root: bytes) -> VerifiedHead:
        note = sign_checkpoint(Checkpoint(log_signer.name, size, root), log_signer)
        return open_checkpoint(note, log_signer.verifier, log_signer.name)

    return make


@pytest.fixture
def anchor(chain: Chain, log_signer: Signer) -> HeadAnchor:
    return HeadAnchor.deploy(chain, log_signer.name)[0]


@pytest.mark.slow
def test_it_advances_from_every_size_to_every_larger_one_and_never_with_a_changed_proof(anvil, anchor, naive, head):
    roots = [naive.root(ENTRIES[:n]) for n in range(LARGEST + 1)]
    refused = 0
    for m in range(1, LARGEST + 1):
        anchor.advance(head(m, roots[m]), naive.proof(m - 1, ENTRIES[:m]))
        calls = advance_calls(anvil, anchor)
        for n in range(m + 1, LARGEST + 1):
            proof = naive.proof(m, ENTRIES[:n])
            verify_consistency(m, n, proof, roots[m], roots[n])
            calls.add(n, roots[n], proof, True, (m, n))
            calls.add(n, flipped(roots[n]), proof, False, (m, n, "root"))
            calls.add(n, roots[n], naive.proof(m - 1, ENTRIES[:n]), False, (m, n, "of the size before"))
            for mutant in mutants(proof):
                assert not holds(verify_consistency, m, n, mutant, roots[m], roots[n])
                calls.add(n, roots[n], mutant, False, (m, n, mutant))
            # A root does not commit to its size: what RFC 9162 lets pass here, both let pass; see the next test.
            for other in (n - 1, n + 1, 2 * n):
                expected = other > m and holds(verify_consistency, m, other, proof, roots[m], roots[n])
                calls.add(other, roots[n], proof, expected, (m, n, other))
        for n in range(m + 1):
            calls.add(n, roots[n], [], False, (m, n, "back"))
            calls.add(n, roots[n], naive.proof(n, ENTRIES[:m]), False, (m, n, "back, with the proof forward"))
        refused += calls.check()
    assert refused > 10_000


@pytest.mark.slow
def test_it_finds_every_leaf_of_every_tree_and_nothing_else(anvil, anchor, naive, head):
    refused = 0
    leaves = [naive.leaf(entry) for entry in ENTRIES]
    for n in range(1, LARGEST + 1):
        root = naive.root(ENTRIES[:n])
        anchor.advance(head(n, root), naive.proof(n - 1, ENTRIES[:n]))
        calls = inclusion_calls(anvil, anchor)
        for index in range(n):
            leaf, path = leaves[index], naive.path(index, ENTRIES[:n])
            verify_inclusion(leaf, index, n, path, root)
            calls.add(leaf, index, path, True, (index, n))
            calls.add(flipped(leaf), index, path, False, (index, n, "leaf"))
            for mutant in mutants(path):
                # Two equal neighbours may be exchanged; there are none here.
                assert not holds(verify_inclusion, leaf, index, n, mutant, root)
                calls.add(leaf, index, mutant, False, (index, n, mutant))
            for other in (index - 1, index + 1, index ^ 2, n, n + index, 2 * n, 2**64 - 1):
                if other >= 0:
                    calls.add(leaf, other, path, False, (index, n, other))
        refused += calls.check()
    assert refused > 10_000


def test_the_size_confusion_of_rfc_6962_finds_no_size_to_confuse(anvil, anchor, naive, head):
    # One valid path for (index 2, size 3) also leads to the root as (1, 2), (4, 5), (8, 9) and (16, 17).
    root, path = naive.root(ENTRIES[:3]), naive.path(2, ENTRIES[:3])
    leaf = naive.leaf(ENTRIES[2])
    confused = [(1, 2), (4, 5), (8, 9), (16, 17)]
    assert all(holds(verify_inclusion, leaf, index, size, path, root) for index, size in confused)
    anchor.advance(head(3, root), [])
    calls = inclusion_calls(anvil, anchor)
    for index in range(70):
        calls.add(leaf, index, path, index == 2, index)
    calls.check()


def decoded(vector: dict[str, Any], *names: str) -> tuple[list[bytes], list[bytes]]:
    """Named hashes of an outside vector, and its proof."""
    decode = lambda text: base64.b64decode(text or "")  # noqa: E731
    return [decode(vector[name]) for name in names], [decode(hash_) for hash_ in vector["proof"] or []]


@pytest.mark.slow
def test_the_outside_vectors_have_the_wanted_result(anvil, anchor, vectors):
    counts = {True: 0, False: 0}
    for path in sorted((vectors / "merkle").rglob("*.json")):
        vector = json.loads(path.read_text())
        if "leafHash" in vector:
            (leaf, root), proof = decoded(vector, "leafHash", "root")
            size, wanted = vector["treeSize"], not vector["wantErr"]
            call = (leaf, vector["leafIdx"])
        else:
            (old, root), proof = decoded(vector, "root2", "root1")
            # A head that is there already is no step.
            size, wanted = vector["size1"], not vector["wantErr"] and vector["size1"] != vector["size2"]
            call = (vector["size2"], old)
        hashes = [root, *(value for value in call if isinstance(value, bytes)), *proof]
        if not 0 < size <= 2**62 or any(len(value) != 32 for value in hashes):
            continue  # no such head can be anchored, and no such call be made
        # Quicker than a contract for every vector; what it then holds is read back.
        anvil.request("anvil_setStorageAt", anchor.contract.address, "0x5", f"0x{size:064x}")
        anvil.request("anvil_setStorageAt", anchor.contract.address, "0x6", f"0x{root.hex()}")
        assert anchor.contract.call("head") == [anchor.origin, size, root]
        calls = inclusion_calls(anvil, anchor) if "leafHash" in vector else advance_calls(anvil, anchor)
        calls.add(*call, proof, wanted, str(path))
        calls.check()
        counts[wanted] += 1
    assert counts[True] >= 8
    assert counts[False] >= 80


def test_before_the_first_head_it_is_the_empty_log(anvil, anchor, naive, head):
    newest = anchor.newest()
    assert (newest.origin, newest.size, newest.root, newest.block) == (anchor.origin, 0, empty_root(), None)
    calls = inclusion_calls(anvil, anchor)
    calls.add(empty_root(), 0, [], False, "in the empty tree")
    calls.check()
    calls = advance_calls(anvil, anchor)
    calls.add(0, empty_root(), [], False, "nothing")
    calls.add(3, naive.root(ENTRIES[:3]), [bytes(32)], False, "a proof from nothing")
    calls.add(2**62 + 1, bytes(32), [], False, "too large")
    calls.add(2**62, bytes(32), [], True, "just not too large")
    calls.check()


def test_it_says_why_it_refuses_and_stays_as_it_was(chain, anvil, anchor, naive, head):
    roots = {n: naive.root(ENTRIES[:n]) for n in (3, 5, 8)}
    anchor.advance(head(5, roots[5]), [])
    before = anchor.newest()
    proof = naive.proof(5, ENTRIES[:8])
    for size, root, hashes, reason in (
        (3, roots[3], [], "rollback: the size is smaller"),
        (5, roots[3], [], "fork: another root of this size"),
        (5, roots[5], [], "this head is anchored already"),
        (8, roots[8], [], "proof: too short"),
        (8, roots[8], proof[:-1], "proof: too short"),
        (8, roots[8], [*proof, bytes(32)], "proof: too long"),
        (8, roots[8], [flipped(proof[0]), *proof[1:]], "proof: not from the anchored root"),
        (8, roots[3], proof, "proof: not to this root"),
    ):
        with pytest.raises(ChainRefused, match=reason):
            anchor.advance(head(size, root), hashes)
    with anvil.connected(1) as other, pytest.raises(ChainRefused, match="only the operator"):
        HeadAnchor.at(other, anchor.contract.address).advance(head(8, roots[8]), proof)
    with pytest.raises(UsageError, match="64 hashes"):
        anchor.advance(head(8, roots[8]), [bytes(32)] * 64)
    assert anchor.newest() == before
    anchor.advance(head(8, roots[8]), proof)
    with pytest.raises(ChainRefused, match="index: the tree is smaller"):
        anchor.verify_inclusion(naive.leaf(ENTRIES[2]), 8, naive.path(2, ENTRIES[:8]))
    anchor.verify_inclusion(naive.leaf(ENTRIES[2]), 2, naive.path(2, ENTRIES[:8]))


def test_every_head_that_was_anchored_can_be_found_again(anchor, naive, head):
    sizes = [1, 2, 7, 8, 30]
    for old, size in zip([0, *sizes], sizes, strict=False):
        anchor.advance(head(size, naive.root(ENTRIES[:size])), naive.proof(old, ENTRIES[:size]))
    heads = list(anchor.heads())
    assert [found.size for found in heads] == sizes
    assert [found.root for found in heads] == [naive.root(ENTRIES[:size]) for size in sizes]
    assert all(found.time and found.block for found in heads)
    assert [anchor.at_size(size) for size in sizes] == heads
    assert anchor.newest() == heads[-1]
    assert anchor.at_size(5) is None


def test_a_head_of_another_log_is_never_sent(anchor, naive):
    signer = Signer("ledger.example/other", bytes(32))
    note = sign_checkpoint(Checkpoint(signer.name, 3, naive.root(ENTRIES[:3])), signer)
    with pytest.raises(OriginMismatch):
        anchor.advance(open_checkpoint(note, signer.verifier, signer.name), [])


@pytest.mark.parametrize(
    ("name", "fits"), [("ä" * 64, True), ("ä" * 64 + "x", False), ("", False)], ids=["128", "129", "0"]
)
def test_a_log_name_has_at_most_128_bytes(chain, name, fits):
    if fits:
        assert HeadAnchor.deploy(chain, name)[0].newest().origin == name
    else:
        with pytest.raises(UsageError, match="128"):
            HeadAnchor.deploy(chain, name)


def test_a_log_of_a_trillion_entries_is_anchored_for_little_gas(chain, anchor, head):
    # A log of 2^40 entries, made of equal ones: only its perfect subtrees are needed.
    from ledger.merkle import Frontier, consistency_proof, leaf_hash, node_hash, subtree_root

    level = [leaf_hash(b"x")]
    while len(level) < 41:
        level.append(node_hash(level[-1], level[-1]))
    node = lambda height, _: level[height]  # noqa: E731
    small, large = 2**40 - 1, 2**40 + 2**39 + 1
    first = anchor.advance(head(small, subtree_root(0, small, node)), [])
    proof = consistency_proof(small, large, node)
    assert len(proof) == 42
    receipt = anchor.advance(head(large, subtree_root(0, large, node)), proof)
    assert first.gas_used < 60_000
    assert receipt.gas_used < 110_000
    assert Frontier.load(large, node).root() == anchor.newest().root


def test_only_this_very_contract_is_taken_for_an_anchor(chain, anchor):
    artefact = Artefact.load("HeadAnchor")
    # The same interface, and it would agree to anything: one byte of the code differs.
    tampered = bytearray(artefact.bytecode)
    place = artefact.bytecode.index(artefact.runtime) + artefact.runtime.index(b"rollback")
    tampered[place] ^= 1
    fake, _ = chain.deploy(
        Artefact(**{**{f: getattr(artefact, f) for f in artefact.__slots__}, "bytecode": bytes(tampered)}), "x"
    )
    with pytest.raises(ChainRefused, match="is not HeadAnchor") as refused:
        HeadAnchor.at(chain, fake.address)
    assert refused.value.check == "chain.other-contract"
    with pytest.raises(ChainRefused, match="no contract"):
        HeadAnchor.at(chain, chain.key.address)
    for address in (anchor.contract.address, anchor.contract.address.lower()):
        assert HeadAnchor.at(chain, address).origin == anchor.origin
    capitals = anchor.contract.address
    wrong = "0x" + capitals[2:].swapcase()
    for address in (wrong, capitals[:-1], capitals + "0", capitals[2:], f" {capitals}"):
        with pytest.raises(UsageError):
            HeadAnchor.at(chain, address)


def test_a_key_is_never_shown():
    key = ChainKey.generate()
    secret = key.format().strip()
    assert ChainKey.parse(key.format()).address == key.address
    assert secret not in repr(key)
    with pytest.raises(TypeError):
        key.__reduce__()
    for text in (secret.upper(), f"0x{secret}", secret[:-1], f" {secret}", secret + "\n\n", "0" * 64, "f" * 64):
        if text != secret:
            with pytest.raises(UsageError):
                ChainKey.parse(text)


@pytest.mark.slow
def test_the_committed_artefacts_are_what_the_sources_compile_to():
    tool = contracts_tool()
    for source in sorted(CONTRACTS.glob("*.vy")):
        assert source.with_suffix(".json").read_text() == tool.artefact_text(source), f"{source.stem}: make docs"
    assert {path.stem for path in CONTRACTS.glob("*.json")} == {path.stem for path in CONTRACTS.glob("*.vy")}
