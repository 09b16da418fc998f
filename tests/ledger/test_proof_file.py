"""tlog-proof files: an entry, its place, its log, offline; and every way to alter one."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import open_checkpoint
from ledger.errors import DecodeError, IndexOutOfRange, RootMismatch, UsageError, VerificationFailed
from ledger.merkle import inclusion_proof, leaf_hash
from ledger.note import Signer
from ledger.proof import TlogProof, VerifiedEntry

ENTRIES = [f"entry {i}".encode() for i in range(13)]
INDEX = 5


@pytest.fixture(scope="module")
def proof(memory_nodes: Any, head_note: Callable[..., bytes]) -> TlogProof:
    hashes = inclusion_proof(INDEX, len(ENTRIES), memory_nodes(ENTRIES))
    return TlogProof(INDEX, tuple(hashes), head_note(ENTRIES))


def test_the_file_has_the_published_form(proof: TlogProof) -> None:
    lines = proof.format().decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == "index 5"
    assert [base64.b64decode(line) for line in lines[2:6]] == list(proof.hashes)
    assert lines[6] == ""
    assert "\n".join(lines[7:]).encode() == proof.checkpoint
    extra = replace(proof, extra=b"context")
    assert extra.format().decode().split("\n")[1] == "extra " + base64.b64encode(b"context").decode()
    for one in (proof, extra):
        assert TlogProof.parse(one.format()) == one


def test_a_proof_verifies_to_the_entry_its_place_and_its_head(proof: TlogProof, signer: Signer) -> None:
    verified = TlogProof.parse(proof.format()).verify(ENTRIES[INDEX], signer.verifier, signer.name)
    assert (verified.index, verified.entry, verified.leaf_hash) == (INDEX, ENTRIES[INDEX], leaf_hash(ENTRIES[INDEX]))
    assert verified.head == open_checkpoint(proof.checkpoint, signer.verifier, signer.name)


def test_another_entry_is_refused(proof: TlogProof, signer: Signer) -> None:
    for entry in (b"", b"entry 6", ENTRIES[INDEX] + b"\0", leaf_hash(ENTRIES[INDEX])):
        with pytest.raises(RootMismatch):
            proof.verify(entry, signer.verifier, signer.name)


def test_another_index_is_refused(proof: TlogProof, signer: Signer) -> None:
    for index in range(20):
        if index == INDEX:
            continue
        with pytest.raises(VerificationFailed) as caught:
            replace(proof, index=index).verify(ENTRIES[INDEX], signer.verifier, signer.name)
        assert isinstance(caught.value, IndexOutOfRange) == (index >= len(ENTRIES))


def test_another_head_of_the_same_log_is_refused(
    proof: TlogProof, signer: Signer, head_note: Callable[..., bytes]
) -> None:
    for other in (ENTRIES[:-1], [*ENTRIES, b"x"], [b"x", *ENTRIES[1:]]):
        with pytest.raises(VerificationFailed):
            replace(proof, checkpoint=head_note(other)).verify(ENTRIES[INDEX], signer.verifier, signer.name)


def test_another_log_and_another_key_are_refused(
    proof: TlogProof, signer: Signer, head_note: Callable[..., bytes]
) -> None:
    stranger = Signer(signer.name, bytes(32))
    with pytest.raises(VerificationFailed):
        replace(proof, checkpoint=head_note(ENTRIES, stranger)).verify(ENTRIES[INDEX], signer.verifier, signer.name)
    with pytest.raises(VerificationFailed):
        proof.verify(ENTRIES[INDEX], stranger.verifier, signer.name)
    with pytest.raises(UsageError):
        proof.verify(ENTRIES[INDEX], signer.verifier, "other.example/log")


def test_hashes_altered_dropped_or_added_are_refused(proof: TlogProof, signer: Signer) -> None:
    altered = [()]
    for i, hash_ in enumerate(proof.hashes):
        before, after = proof.hashes[:i], proof.hashes[i + 1 :]
        altered += [before + after, (*before, hash_, *proof.hashes[i:])]
        altered += [(*before, bytes([hash_[0] ^ 1]) + hash_[1:], *after)]
    altered += [proof.hashes[::-1], (*proof.hashes, bytes(32))]
    for hashes in altered:
        with pytest.raises(VerificationFailed):
            replace(proof, hashes=hashes).verify(ENTRIES[INDEX], signer.verifier, signer.name)


def test_malformed_files_are_refused(proof: TlogProof) -> None:
    good = proof.format()
    for bad in (
        b"",
        b"\n\n",
        good[1:],
        b"\n" + good,
        good[:-1],
        good + b"\n",
        good.replace(b"@v1", b"@v2"),
        good.replace(b"index 5\n", b""),
        good.replace(b"index 5", b"index 05"),
        good.replace(b"index 5", b"index +5"),
        good.replace(b"index 5", b"index  5"),
        good.replace(b"index 5", b"index -5"),
        good.replace(b"index 5", b"Index 5"),
        good.replace(b"index 5", b"index 5 "),
        good.replace(b"index 5", b"index 5\nindex 5"),
        good.replace(b"index 5", b"index 9223372036854775808"),
        good.replace(b"index 5", b"index \xd9\xa5"),
        good.replace(b"index 5", b"extra \nindex 5"),
        good.replace(b"index 5", b"extra eA\nindex 5"),
        good.replace(b"index 5", b"extra eA==\nextra eA==\nindex 5"),
        good.replace(b"index 5", b"index 5\nextra eA=="),
        good.replace(b"index 5", b"extra\nindex 5"),
        good.replace(b"index 5\n", b"index 5\nAAAA\n"),
        good.replace(b"index 5\n", b"index 5\n\n"),
        good.replace(b"index 5\n", b"index 5\n" + (base64.b64encode(bytes(32)) + b"\n") * 60),
        good.replace(b"\n", b"\r\n"),
        good.replace(b"\n\n", b"\n", 1),
        good[: good.index(b"\n\n") + 2],
        good.replace(b"ledger.example/test\n13\n", b"ledger.example/test\n"),
    ):
        assert bad != good
        with pytest.raises(DecodeError):
            TlogProof.parse(bad)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_decode_to_themselves_or_are_refused_and_no_change_verifies(
    proof: TlogProof, signer: Signer, data: st.DataObject
) -> None:
    good = proof.format()
    if data.draw(st.booleans()):
        at, cut = data.draw(st.integers(0, len(good))), data.draw(st.integers(0, 4))
        changed = good[:at] + data.draw(st.binary(max_size=4)) + good[at + cut :]
    else:
        changed = data.draw(st.binary(max_size=100))
    try:
        parsed = TlogProof.parse(changed)
    except DecodeError:
        return
    assert parsed.format() == changed
    try:
        verified = parsed.verify(ENTRIES[INDEX], signer.verifier, signer.name)
    except VerificationFailed:
        return
    assert (verified.index, verified.head.size) == (INDEX, len(ENTRIES))


def test_impossible_proofs_are_not_made(proof: TlogProof) -> None:
    for change in ({"index": -1}, {"index": 2**63}, {"hashes": (b"x",)}, {"hashes": (bytes(32),) * 64}, {"extra": b""}):
        with pytest.raises(UsageError):
            replace(proof, **change)  # type: ignore[arg-type]


def test_only_verification_makes_a_verified_entry(proof: TlogProof, signer: Signer) -> None:
    verified = proof.verify(ENTRIES[INDEX], signer.verifier, signer.name)
    with pytest.raises(UsageError):
        VerifiedEntry(0, b"", b"", verified.head, object())
    with pytest.raises((ValueError, TypeError)):
        replace(verified, entry=b"another")
