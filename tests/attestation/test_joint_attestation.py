"""Attestations of multi-party computation say exactly what a joint proof shows, and nothing of the other scheme's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import attestation as att
from privacy.errors import DecodeError, UsageError

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()


def digest(n: int) -> bytes:
    return hashlib.sha256(n.to_bytes(4, "big")).digest()


def coverage(first: int = 0, patients: int = 64, outputs: int = 2) -> att.JointCoverage:
    return att.JointCoverage(first, patients, tuple(range(outputs)), digest(100 + first))


PREDICATE = att.JointPredicate(
    prediction=att.LedgerReference.to(4, b"prediction"),
    model=att.LedgerReference.to(2, b"model"),
    records=att.LedgerReference.to(3, b"records"),
    scheme="mpc",
    parameter_set="mpc-64",
    session=digest(1),
    proofs=(
        att.JointProofReference.to(b"proof of a full batch", coverage()),
        att.JointProofReference.to(b"proof of the rest", coverage(64, 1)),
    ),
    error_bound=att.ErrorBound(0, 36, 6),
    issued_at="2026-03-01T12:00:00Z",
    request_nonce=digest(5),
)
PAYLOAD = att.encode_statement(PREDICATE)
ENVELOPE = att.sign_statement(PREDICATE, PRIVATE)


def test_an_attestation_verifies_and_reads_back_as_itself() -> None:
    verified = att.verify_envelope(ENVELOPE, PUBLIC)
    assert verified.predicate == PREDICATE
    assert verified.payload == PAYLOAD == rfc8785.dumps(json.loads(PAYLOAD))
    assert isinstance(att.decode_statement(PAYLOAD), att.JointPredicate)


def test_the_statement_names_its_answers_and_its_session() -> None:
    statement = json.loads(PAYLOAD)
    assert (statement["_type"], statement["predicateType"]) == (att.STATEMENT_TYPE, att.PREDICATE_TYPE)
    assert statement["subject"] == [
        {"name": "patients-0-63", "digest": {"sha256": digest(100).hex()}},
        {"name": "patients-64-64", "digest": {"sha256": digest(164).hex()}},
    ]
    predicate = statement["predicate"]
    assert set(predicate) == {
        *("prediction", "model", "records", "scheme", "parameterSet", "session", "proofs", "errorBound"),
        *("issuedAt", "requestNonce", "claims", "notClaimed"),
    }
    assert predicate["errorBound"] == {"error": "0", "scaleBits": 36, "gridBits": 6}
    assert predicate["session"] == digest(1).hex()
    assert set(predicate["proofs"][0]["covers"]) == {"firstPatient", "patients", "outputs", "answers"}
    assert predicate["proofs"][0]["system"] == "sealproof-joint-v1"
    assert predicate["claims"] == list(att.JOINT_CLAIMS)
    assert predicate["notClaimed"] == list(att.JOINT_NOT_CLAIMED)


def test_what_is_not_claimed_is_said() -> None:
    text = " ".join(att.JOINT_NOT_CLAIMED)
    assert set(att.NOT_CLAIMED[:3]) <= set(att.JOINT_NOT_CLAIMED)
    assert "privacy holds against parties that follow it" in text
    assert "answers are blurred" in text
    assert "even if both computing parties and the dealer" in " ".join(att.JOINT_CLAIMS)


def with_change(path: tuple[Any, ...], value: Any) -> bytes:
    statement = json.loads(PAYLOAD)
    target = statement
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    data = rfc8785.dumps(statement)
    assert data != PAYLOAD, "the case does not alter anything"
    return data


FIRST = ("predicate", "proofs", 0)
REFUSED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "the other scheme": (("predicate", "scheme"), "ckks"),
    "no scheme": (("predicate", "scheme"), "plain"),
    "the other scheme's claims": (("predicate", "claims"), list(att.CLAIMS)),
    "a claim dropped": (("predicate", "claims"), list(att.JOINT_CLAIMS[:-1])),
    "a disclaimer dropped": (("predicate", "notClaimed"), list(att.JOINT_NOT_CLAIMED[:-1])),
    "an error": (("predicate", "errorBound", "error"), "1"),
    "no session": (("predicate", "session"), None),
    "a key": (("predicate", "key"), {"index": 1, "leaf": "00" * 32, "digest": "00" * 32}),
    "no proofs": (("predicate", "proofs"), []),
    "the other system": ((*FIRST, "system"), att.PROOF_SYSTEM),
    "the other media type": ((*FIRST, "mediaType"), att.PROOF_MEDIA_TYPE),
    "a gap": ((*FIRST, "covers", "patients"), 63),
    "an overlap": ((*FIRST, "covers", "patients"), 65),
    "a late start": ((*FIRST, "covers", "firstPatient"), 1),
    "other outputs": ((*FIRST, "covers", "outputs"), [0]),
    "an output left out": ((*FIRST, "covers", "outputs"), [0, 2]),
    "no outputs": ((*FIRST, "covers", "outputs"), []),
    "other answers": ((*FIRST, "covers", "answers"), digest(9).hex()),
    "a subject renamed": (("subject", 0, "name"), "patients-0-64"),
    "a subject with another digest": (("subject", 0, "digest", "sha256"), digest(9).hex()),
    "a subject too few": (("subject",), json.loads(PAYLOAD)["subject"][:1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_that_says_anything_else_is_refused_although_signed(name: str) -> None:
    data = with_change(*REFUSED[name])
    with pytest.raises(DecodeError):
        att.decode_statement(data)
    with pytest.raises(DecodeError):
        att.verify_envelope(att.sign_payload(data, att.PAYLOAD_TYPE, PRIVATE), PUBLIC)


ALTERED: dict[str, Any] = {
    "prediction": att.LedgerReference.to(5, b"prediction"),
    "model": att.LedgerReference.to(2, b"model 2"),
    "records": att.LedgerReference.to(3, b"records 2"),
    "parameter_set": "mpc-32",
    "session": digest(2),
    "proofs": PREDICATE.proofs[:1],
    "error_bound": att.ErrorBound(0, 35, 6),
    "issued_at": "2026-03-01T12:00:01Z",
    "request_nonce": digest(6),
    "approval": att.LedgerReference.to(3, b"approval"),
}


def test_an_attestation_without_an_approval_has_no_field_for_it() -> None:
    """So that attestations of earlier releases keep their bytes; a null is another spelling, and refused."""
    fields = json.loads(PAYLOAD)
    assert "approval" not in fields["predicate"]
    fields["predicate"]["approval"] = None
    with pytest.raises(DecodeError, match="canonical"):
        att.decode_statement(rfc8785.dumps(fields))
    approved = dataclasses.replace(PREDICATE, approval=ALTERED["approval"])
    assert att.decode_statement(att.encode_statement(approved)) == approved


def test_every_field_of_the_predicate_is_under_the_signature() -> None:
    for field in dataclasses.fields(att.JointPredicate):
        if field.name not in {"scheme", "claims", "not_claimed"}:
            altered = dataclasses.replace(PREDICATE, **{field.name: ALTERED[field.name]})
            assert att.encode_statement(altered) != PAYLOAD, field.name


def test_the_issuer_chooses_neither_claims_nor_error() -> None:
    with pytest.raises(UsageError, match="fixed sentences"):
        dataclasses.replace(PREDICATE, claims=att.CLAIMS)
    with pytest.raises(UsageError, match="have no error"):
        dataclasses.replace(PREDICATE, error_bound=att.ErrorBound(1, 36, 6))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_statements_are_refused_or_other_statements(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PAYLOAD)))
    end = data.draw(st.integers(start, min(len(PAYLOAD), start + 3)))
    mutated = PAYLOAD[:start] + data.draw(st.binary(max_size=3)) + PAYLOAD[end:]
    try:
        predicate = att.decode_statement(mutated)
    except DecodeError:
        return
    assert att.encode_statement(predicate) == mutated
