"""A log's operator who changes the past cannot take the anchor along, and bundles of his other log are refused.

The operator holds every key: the log's and the one that pays on the chain. Each attack is also run against a contract
that lacks the one line that stops it, which takes the lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from api.client.anchored import check_anchor
from api.client.audit import verify_bundle
from ledger import Checkpoint, Signer, VerifiedHead, leaf_hash, open_checkpoint
from ledger.checkpoint import sign_checkpoint
from ledger.errors import ChainRefused
from ledger.merkle import Frontier, consistency_proof, inclusion_proof
from privacy.errors import VerificationFailed
from tests.support.contracts import weakened

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from api.chain.anchors import push_head
from ledger.anchors.evm import Artefact, Chain, Contract
from ledger.anchors.head_anchor import HeadAnchor

NAME = "HeadAnchor"
ORIGIN = "ledger.example/anchored"
SIGNER = Signer(ORIGIN, bytes(range(32)))


@dataclass(frozen=True)
class ForgedLog:
    """A log as its operator would like it to have been. Every head that he shows is well signed."""

    entries: tuple[bytes, ...]
    signer: Signer = SIGNER

    def node(self, level: int, index: int) -> bytes:
        start = index << level
        return Frontier().extend(leaf_hash(e) for e in self.entries[start : start + (1 << level)])[0].root()

    def head(self, size: int | None = None) -> VerifiedHead:
        size = len(self.entries) if size is None else size
        root = Frontier().extend(leaf_hash(e) for e in self.entries[:size])[0].root()
        return signed(self.signer, size, root)

    def consistency(self, old: int, new: int) -> list[bytes]:
        return consistency_proof(old, new, self.node)


def signed(signer: Signer, size: int, root: bytes) -> VerifiedHead:
    note = sign_checkpoint(Checkpoint(signer.name, size, root), signer)
    return open_checkpoint(note, signer.verifier, signer.name)


HONEST = ForgedLog(tuple(f"entry {i}".encode() for i in range(12)))
REWRITTEN = ForgedLog((*HONEST.entries[:3], b"it was never so", *HONEST.entries[4:]))
FORKED = ForgedLog((*HONEST.entries[:4], b"another fifth", *HONEST.entries[5:]))


@pytest.fixture
def anchor(chain: Chain) -> HeadAnchor:
    """Five honest entries are anchored."""
    made, _ = HeadAnchor.deploy(chain, ORIGIN)
    made.advance(HONEST.head(5), [])
    return made


def test_a_server_that_rolls_back_cannot_advance_the_anchor(anchor):
    before = anchor.newest()
    with pytest.raises(VerificationFailed, match=r"anchor\.rollback"):
        push_head(anchor, HONEST.head(3), HONEST.consistency)
    for proof in ([], HONEST.consistency(3, 5), HONEST.consistency(5, 12)):
        with pytest.raises(ChainRefused, match="rollback"):
            anchor.advance(HONEST.head(3), proof)
    assert anchor.newest() == before


def test_a_server_that_forks_cannot_advance_the_anchor(anchor):
    before = anchor.newest()
    with pytest.raises(VerificationFailed, match=r"anchor\.fork"):
        push_head(anchor, FORKED.head(5), FORKED.consistency)
    with pytest.raises(ChainRefused, match="fork"):
        anchor.advance(FORKED.head(5), [])
    for size in range(6, 13):
        with pytest.raises(VerificationFailed, match=r"anchor\.fork"):
            push_head(anchor, FORKED.head(size), FORKED.consistency)
    assert anchor.newest() == before


@pytest.mark.parametrize("size", [6, 8, 12])
def test_a_server_that_rewrites_an_entry_has_no_proof_for_the_anchor(anchor, size):
    # Whatever it takes from its two histories, in whatever mixture.
    before, honest, forged = anchor.newest(), HONEST.consistency(5, size), REWRITTEN.consistency(5, size)
    assert len(honest) == len(forged)
    mixtures = {tuple(mixture) for mixture in itertools.product(*zip(honest, forged, strict=True))}
    tried = [list(m) for m in mixtures] + [forged[:-1], forged[1:], [*forged, REWRITTEN.head(5).root], []]
    for proof in tried:
        with pytest.raises(ChainRefused, match="proof"):
            anchor.advance(REWRITTEN.head(size), proof)
    assert anchor.newest() == before
    anchor.advance(HONEST.head(size), honest)


# -- the lines that stop it, one by one --------------------------------------------------------------------------------


def holding(chain: Chain, artefact: Artefact, log: ForgedLog, size: int) -> Contract:
    contract, _ = chain.deploy(artefact, ORIGIN)
    contract.send("advance", size, log.head(size).root, [])
    return contract


def advanced(contract: Contract, head: VerifiedHead, proof: Sequence[bytes]) -> None:
    contract.send("advance", head.size, head.root, list(proof))
    assert contract.call("head")[1:] == [head.size, head.root]


def rewrite(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    advanced(holding(chain, artefact, HONEST, 5), REWRITTEN.head(8), REWRITTEN.consistency(5, 8))


def no_proof(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    advanced(holding(chain, artefact, HONEST, 5), REWRITTEN.head(8), [])


def any_future(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # The proof is the honest log's; the root is of a log with nothing of it.
    other = ForgedLog(tuple(b"x%d" % i for i in range(8)))
    advanced(holding(chain, artefact, HONEST, 5), other.head(8), HONEST.consistency(5, 8))


def rollback(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # From five entries to one "entry", whose hash is the old root: from there on any history can be told.
    contract = holding(chain, artefact, HONEST, 5)
    root = HONEST.head(5).root
    advanced(contract, signed(HONEST.signer, 1, root), [root])


def inflated_size(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # The tree of eight, told as one of a thousand.
    root = HONEST.head(8).root
    advanced(holding(chain, artefact, HONEST, 5), signed(HONEST.signer, 1000, root), HONEST.consistency(5, 8))


def stranger(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # Someone else appends an entry that the log does not have: the log could never be anchored again.
    contract = holding(chain, artefact, HONEST, 5)
    with anvil.connected(1) as other:
        theirs = Contract(other, contract.address, artefact)
        advanced(theirs, FORKED_LATER.head(6), FORKED_LATER.consistency(5, 6))


def index_beyond(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # Entry 1 of four, shown as entry 5: as if it had been logged after what it must precede.
    contract = holding(chain, artefact, HONEST, 4)
    leaf, path = leaf_hash(HONEST.entries[1]), inclusion_proof(1, 4, HONEST.node)
    contract.call("verify_inclusion", leaf, 1, path)
    contract.call("verify_inclusion", leaf, 5, path)


def size_of_the_caller(chain: Chain, artefact: Artefact, anvil: Any) -> None:
    # RFC 6962: the root of three entries is also "the root of seventeen", with entry 2 as entry 16.
    contract = holding(chain, artefact, HONEST, 3)
    leaf, path = leaf_hash(HONEST.entries[2]), inclusion_proof(2, 3, HONEST.node)
    more = len(next(f for f in artefact.abi if f.get("name") == "verify_inclusion")["inputs"]) == 4
    for index, size in ((2, 3), (1, 2), (4, 5), (8, 9), (16, 17)):
        contract.call("verify_inclusion", leaf, index, *([size] if more else []), path)


FORKED_LATER = ForgedLog((*HONEST.entries[:5], b"not of this log"))

Attack = Callable[[Chain, Artefact, Any], None]
WEAKENINGS: dict[str, tuple[Attack, tuple[tuple[str, str], ...]]] = {
    "no consistency proof is checked": (
        no_proof,
        (("        self._check_consistency(old, self.root, size, root, proof)\n", "        pass\n"),),
    ),
    "the proof need not begin at the anchored root": (
        rewrite,
        (('    assert first == root1, "proof: not from the anchored root"\n', ""),),
    ),
    "the proof need not end at the new root": (
        any_future,
        (('    assert second == root2, "proof: not to this root"\n', ""),),
    ),
    "the size may shrink": (rollback, (('    assert size >= old, "rollback: the size is smaller"\n', ""),)),
    "the length of a proof is not bound to the sizes": (
        inflated_size,
        (('    assert sn == 0, "proof: too short"\n    assert first', "    assert first"),),
    ),
    "anyone may advance": (stranger, (('    assert msg.sender == OPERATOR, "only the operator"\n', ""),)),
    "an index may lie beyond the size": (
        index_beyond,
        (('    assert index < self.size, "index: the tree is smaller"\n', ""),),
    ),
    "the size is whatever the caller says": (
        size_of_the_caller,
        (
            ("(leaf: bytes32, index: uint64, ", "(leaf: bytes32, index: uint64, size: uint64, "),
            ("assert index < self.size,", "assert index < size,"),
            ("sn: uint256 = convert(self.size - 1, uint256)", "sn: uint256 = convert(size - 1, uint256)"),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("weakness", sorted(WEAKENINGS))
def test_a_contract_without_one_line_takes_the_lie_and_ours_refuses_it(chain, anvil, weakness):
    attack, changes = WEAKENINGS[weakness]
    weak = weakened(NAME, *changes)
    attack(chain, weak, anvil)
    with pytest.raises(ChainRefused):
        attack(chain, Artefact.load(NAME), anvil)
    # And nobody takes it for an anchor.
    with pytest.raises(ChainRefused, match="is not HeadAnchor"):
        HeadAnchor.at(chain, chain.deploy(weak, ORIGIN)[0].address)


# -- bundles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victim(story, honest_bundle) -> VerifiedHead:
    """The head of a bundle that verifies: without an anchor nobody could tell that it is from a fork."""
    return verify_bundle(honest_bundle, story.world.verifier).head


def anchored(chain: Chain, head: VerifiedHead, *steps: tuple[VerifiedHead, list[bytes]]) -> HeadAnchor:
    made, _ = HeadAnchor.deploy(chain, head.origin)
    for step, proof in steps:
        made.advance(step, proof)
    return made


def true_history(story, size: int) -> ForgedLog:
    """What the operator showed to everybody else: the same log with one entry different."""
    entries = list(story.world.log.entries(0, story.world.log.size))
    entries[2] = b"what was really logged"
    return ForgedLog((*entries, *(b"more %d" % i for i in range(size))), story.world.signer)


@pytest.mark.parametrize("more", [0, 1, 9])
def test_a_bundle_from_a_fork_is_refused_whatever_proof_the_server_gives(chain, story, victim, more):
    truth = true_history(story, more)
    anchor = anchored(chain, victim, (truth.head(victim.size + more), []))
    lies = [
        truth.consistency,
        ForgedLog(tuple(story.world.log.entries(0, victim.size)) + truth.entries[victim.size :]).consistency,
        lambda old, new: [],
        lambda old, new: [victim.root, anchor.newest().root],
    ]
    for lie in lies:
        with pytest.raises(VerificationFailed) as refused:
            check_anchor(victim, lie, anchor)
        assert refused.value.check == "anchor.fork"


def test_a_bundle_from_a_fork_is_refused_without_a_server_if_its_size_was_ever_anchored(chain, story, victim):
    truth = true_history(story, 5)
    first, last = truth.head(victim.size), truth.head()
    anchor = anchored(chain, victim, (first, []), (last, truth.consistency(first.size, last.size)))
    with pytest.raises(VerificationFailed, match="two histories"):
        check_anchor(victim, None, anchor)


def test_a_bundle_that_is_newer_than_the_anchor_and_from_a_fork_is_refused(chain, story, victim):
    truth = true_history(story, 0)
    anchor = anchored(chain, victim, (truth.head(4), []))
    for lie in (truth.consistency, story.world.consistency, lambda old, new: []):
        with pytest.raises(VerificationFailed, match=r"anchor\.fork"):
            check_anchor(victim, lie, anchor)


def test_an_honest_bundle_passes_at_every_age_of_the_anchor(chain, story, victim):
    entries = tuple(story.world.log.entries(0, victim.size))
    log = ForgedLog((*entries, b"later", b"later still"), story.world.signer)
    anchor = anchored(chain, victim, (log.head(4), []))
    assert check_anchor(victim, log.consistency, anchor).relation == "newer"
    anchor.advance(victim, log.consistency(4, victim.size))
    assert check_anchor(victim, None, anchor).relation == "same"
    anchor.advance(log.head(), log.consistency(victim.size, len(log.entries)))
    assert check_anchor(victim, None, anchor).relation == "same", "found among the anchored heads"
    assert check_anchor(log.head(victim.size - 1), log.consistency, anchor).relation == "older"
