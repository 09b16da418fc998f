"""A log that goes back, forks or rewrites is caught, with the evidence; nothing changes for its follower."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ledger.checkpoint import VerifiedHead, open_checkpoint
from ledger.errors import (
    DecodeError,
    Fork,
    InconsistentGrowth,
    LogMisbehaved,
    Rollback,
    RootMismatch,
    UsageError,
    VerificationFailed,
)
from ledger.log import Log
from ledger.merkle import consistency_proof
from ledger.monitor import follow
from ledger.note import Signer

ENTRIES = [f"entry {i}".encode() for i in range(12)]
FORKED = [*ENTRIES[:3], b"rewritten", *ENTRIES[4:]]


class Simulator:
    """A log that may lie: signs any list of entries, proves from any other."""

    def __init__(self, signer: Signer, head_note: Callable[..., bytes], nodes: Any) -> None:
        self.signer, self.note, self._nodes = signer, head_note, nodes

    def head(self, entries: list[bytes]) -> VerifiedHead:
        return open_checkpoint(self.note(entries), self.signer.verifier, self.signer.name)

    def proof(self, old: int, entries: list[bytes]) -> list[bytes]:
        return consistency_proof(old, len(entries), self._nodes(entries))

    def follow(self, old: VerifiedHead | None, new: bytes, proof: list[bytes]) -> VerifiedHead:
        return follow(old, new, proof, self.signer.verifier, self.signer.name)


@pytest.fixture(scope="module")
def simulator(signer: Signer, head_note: Callable[..., bytes], memory_nodes: Any) -> Simulator:
    return Simulator(signer, head_note, memory_nodes)


def test_an_honest_log_is_followed_from_first_contact_on(log: Log, signer: Signer) -> None:
    head = follow(None, log.checkpoint(), [], signer.verifier, signer.name)
    for batch in (ENTRIES[:1], ENTRIES[1:1], ENTRIES[1:7], ENTRIES[7:]):
        log.append_many(batch)
        proof = log.consistency_proof(head.size)
        head = follow(head, log.checkpoint(), proof, signer.verifier, signer.name)
    assert head == log.head()


def test_a_rollback_is_caught_with_both_checkpoints(simulator: Simulator) -> None:
    old, new = simulator.head(ENTRIES[:7]), simulator.note(ENTRIES[:6])
    for proof in ([], simulator.proof(6, ENTRIES[:7])):
        with pytest.raises(Rollback) as caught:
            simulator.follow(old, new, proof)
        assert (caught.value.old, caught.value.new) == (old.note, new)
        assert (caught.value.old_size, caught.value.new_size) == (7, 6)
    with pytest.raises(Rollback):
        simulator.follow(old, simulator.note([]), [])


def test_a_fork_is_caught_with_both_checkpoints(simulator: Simulator) -> None:
    old, new = simulator.head(ENTRIES), simulator.note(FORKED)
    with pytest.raises(Fork) as caught:
        simulator.follow(old, new, [])
    assert (caught.value.old, caught.value.new, caught.value.size) == (old.note, new, 12)
    # Whoever gets the error can check the two signatures again.
    for note in (caught.value.old, caught.value.new):
        open_checkpoint(note, simulator.signer.verifier, simulator.signer.name)


def test_a_rewritten_past_is_caught_whatever_is_offered_as_proof(simulator: Simulator) -> None:
    new = simulator.note(FORKED)
    for size in range(4, 12):
        old = simulator.head(ENTRIES[:size])
        for proof in (simulator.proof(size, FORKED), simulator.proof(size, ENTRIES), []):
            with pytest.raises(InconsistentGrowth) as caught:
                simulator.follow(old, new, proof)
            assert (caught.value.old, caught.value.new, caught.value.proof) == (old.note, new, tuple(proof))
            assert isinstance(caught.value.reason, VerificationFailed)
    # What was not rewritten is still consistent.
    simulator.follow(simulator.head(ENTRIES[:3]), new, simulator.proof(3, FORKED))


def test_the_same_head_again_needs_no_proof_and_allows_none(simulator: Simulator) -> None:
    head = simulator.head(ENTRIES)
    assert simulator.follow(head, head.note, []) == head
    with pytest.raises(InconsistentGrowth):
        simulator.follow(head, head.note, [bytes(32)])


def test_growth_from_the_empty_tree_and_first_contact_take_no_proof(simulator: Simulator) -> None:
    for old in (None, simulator.head([])):
        assert simulator.follow(old, simulator.note(ENTRIES), []).size == 12
        with pytest.raises(VerificationFailed) as caught:
            simulator.follow(old, simulator.note(ENTRIES), [bytes(32)])
        assert caught.value.check == "consistency.length"


def test_an_unsigned_head_convicts_nobody(simulator: Simulator) -> None:
    old = simulator.head(ENTRIES)
    stranger = Signer(simulator.signer.name, bytes(32))
    for forged in (simulator.note(FORKED, stranger), simulator.note(ENTRIES[:3], stranger)):
        with pytest.raises(VerificationFailed) as caught:
            simulator.follow(old, forged, [])
        assert not isinstance(caught.value, LogMisbehaved)
    with pytest.raises(DecodeError):
        simulator.follow(old, b"garbage", [])


def test_the_failed_check_is_kept_as_the_reason(simulator: Simulator) -> None:
    old = simulator.head(ENTRIES[:5])
    with pytest.raises(InconsistentGrowth) as caught:
        simulator.follow(old, simulator.note(FORKED), simulator.proof(5, FORKED))
    assert isinstance(caught.value.reason, RootMismatch)
    assert caught.value.reason.expected == old.root
    assert caught.value.__cause__ is caught.value.reason


def test_a_head_of_another_log_is_a_mistake_of_the_caller(simulator: Simulator, head_note: Any) -> None:
    other = Signer("other.example/log", bytes(32))
    old = open_checkpoint(head_note(ENTRIES, other), other.verifier, other.name)
    with pytest.raises(UsageError):
        simulator.follow(old, simulator.note(ENTRIES), [])
