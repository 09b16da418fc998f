"""What a clinic signs when it discloses an answer: one form, one meaning, and nothing that nobody proved."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import fields, replace
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import attestation as att
from privacy.attestation_disclosure import (
    DISCLOSURE_CLAIMS,
    DISCLOSURE_TYPE,
    Disclosed,
    sign_disclosure,
    verify_disclosure_envelope,
)
from privacy.attestation_parts import LedgerReference
from privacy.dsse import sign_payload
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.attestation.test_joint_attestation import ENVELOPE as PREDICTION_ENVELOPE

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
PROOF = b"the proof of a disclosure"

DISCLOSED = Disclosed(
    prediction=LedgerReference.to(4, b"prediction"),
    scheme="mpc",
    kind="exact",
    patient=2,
    output=1,
    answer=bytes([0x80]) + bytes(range(47)),
    value=-(1 << 50),
    tolerance=3,
    scale_bits=36,
    grid_bits=6,
    record_id="patient-7 / Müller",
    salt=bytes(range(16)),
    path=(bytes(32), bytes([1] * 32)),
    recipient_nonce=bytes(range(32)),
    proof=Disclosed.proof_reference(PROOF),
    issued_at="2026-03-01T12:00:00Z",
)
ENVELOPE = sign_disclosure(DISCLOSED, PRIVATE)
PAYLOAD = base64.b64decode(json.loads(ENVELOPE)["payload"])


def signed(payload: bytes, payload_type: str = "application/vnd.in-toto+json") -> bytes:
    return sign_payload(payload, payload_type, PRIVATE)


def with_change(path: tuple[Any, ...], value: Any) -> bytes:
    """The envelope of another statement, signed by the clinic all the same."""
    statement = json.loads(PAYLOAD)
    target = statement
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    data = rfc8785.dumps(statement)
    assert data != PAYLOAD, "the case does not alter anything"
    return signed(data)


def test_what_was_signed_reads_back_as_itself() -> None:
    assert verify_disclosure_envelope(ENVELOPE, PUBLIC) == DISCLOSED
    assert rfc8785.dumps(json.loads(PAYLOAD)) == PAYLOAD
    assert sign_disclosure(DISCLOSED, PRIVATE) == ENVELOPE


def test_the_statement_is_about_the_committed_answer() -> None:
    statement = json.loads(PAYLOAD)
    assert (statement["_type"], statement["predicateType"]) == (att.STATEMENT_TYPE, DISCLOSURE_TYPE)
    digest = hashlib.sha256(DISCLOSED.answer).hexdigest()
    assert statement["subject"] == [{"name": "patient-2/output-1", "digest": {"sha256": digest}}]
    predicate = statement["predicate"]
    assert set(predicate) == {
        *("prediction", "scheme", "kind", "patient", "output", "answer", "value", "tolerance", "scaleBits", "gridBits"),
        *("recordId", "salt", "path", "recipientNonce", "proof", "issuedAt", "claims"),
    }
    assert predicate["value"] == "-1125899906842624"
    assert predicate["recipientNonce"] == bytes(range(32)).hex()
    assert predicate["proof"] == {"digest": hashlib.sha256(PROOF).hexdigest(), "size": len(PROOF)}
    assert predicate["claims"] == list(DISCLOSURE_CLAIMS)


def test_the_handle_is_that_of_salt_and_record() -> None:
    expected = hashlib.sha256(bytes(range(16)) + "patient-7 / Müller".encode()).digest()
    assert DISCLOSED.handle == expected
    assert replace(DISCLOSED, salt=bytes(16)).handle != expected
    assert replace(DISCLOSED, record_id="patient-7").handle != expected


def test_who_a_record_is_of_is_not_shown() -> None:
    assert "Müller" not in repr(DISCLOSED)
    assert bytes(range(16)).hex() not in repr(DISCLOSED)


def test_every_field_is_signed() -> None:
    """A statement with any field altered is another one: the signature of this one does not carry it."""
    others: dict[str, Any] = {
        "prediction": LedgerReference.to(5, b"prediction"),
        "kind": "threshold",
        "patient": 3,
        "output": 0,
        "answer": bytes([0x81]) + bytes(47),
        "value": 1 << 50,
        "tolerance": 4,
        "scale_bits": 37,
        "grid_bits": 5,
        "record_id": "patient-8",
        "salt": bytes(16),
        "path": (bytes(32),),
        "recipient_nonce": bytes(32),
        "proof": Disclosed.proof_reference(b"another"),
        "issued_at": "2026-03-01T12:00:01Z",
    }
    assert set(others) | {"scheme", "claims"} == {field.name for field in fields(Disclosed)}
    signature = json.loads(ENVELOPE)["signatures"]
    for name, value in others.items():
        changed = json.loads(sign_disclosure(replace(DISCLOSED, **{name: value}), PRIVATE))
        assert changed["payload"] != json.loads(ENVELOPE)["payload"]
        with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
            verify_disclosure_envelope(rfc8785.dumps({**changed, "signatures": signature}), PUBLIC)


def test_another_clinics_signature_is_refused() -> None:
    other = Ed25519PrivateKey.generate()
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_disclosure_envelope(sign_disclosure(DISCLOSED, other), PUBLIC)


P = ("predicate",)
REFUSED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "another scheme": ((*P, "scheme"), "ckks"),
    "a kind that does not exist": ((*P, "kind"), "all"),
    "another predicate": (("predicateType",), "https://sealproof.dev/attestation/evaluation/v1"),
    "another statement type": (("_type",), "https://in-toto.io/Statement/v0.1"),
    "a claim dropped": ((*P, "claims"), list(DISCLOSURE_CLAIMS[:-1])),
    "a claim added": ((*P, "claims"), [*DISCLOSURE_CLAIMS, "The patient is ill."]),
    "no subject": (("subject",), []),
    "two subjects": (("subject",), 2 * json.loads(PAYLOAD)["subject"]),
    "the subject of another answer": (("subject", 0, "digest", "sha256"), "00" * 32),
    "the subject of another patient": (("subject", 0, "name"), "patient-3/output-1"),
    "another patient than its subject": ((*P, "patient"), 3),
    "another output than its subject": ((*P, "output"), 0),
    "another answer than its subject": ((*P, "answer"), "81" + "00" * 47),
    "a negative patient": ((*P, "patient"), -1),
    "a patient that is text": ((*P, "patient"), "2"),
    "a patient that is no whole number": ((*P, "patient"), 2.5),
    "a negative tolerance": ((*P, "tolerance"), -1),
    "a value that is a number": ((*P, "value"), -5),
    "a value with a plus": ((*P, "value"), "+5"),
    "a value with a leading zero": ((*P, "value"), "05"),
    "a value of minus nothing": ((*P, "value"), "-0"),
    "a value with an exponent": ((*P, "value"), "1e3"),
    "a value in other digits": ((*P, "value"), "५"),
    "a value of a thousand digits": ((*P, "value"), "9" * 1000),
    "a short answer": ((*P, "answer"), "80" * 47),
    "an answer in capitals": ((*P, "answer"), "AB" * 48),
    "a short salt": ((*P, "salt"), "00" * 15),
    "no record": ((*P, "recordId"), ""),
    "a record of a megabyte": ((*P, "recordId"), "x" * 1025),
    "a path of text": ((*P, "path"), "00" * 32),
    "a short hash in the path": ((*P, "path"), ["00" * 31]),
    "a short nonce": ((*P, "recipientNonce"), "00" * 31),
    "no nonce": ((*P, "recipientNonce"), None),
    "a proof of no bytes": ((*P, "proof", "size"), 0),
    "another word for the digest": ((*P, "proof", "sha256"), "00" * 32),
    "a time that does not exist": ((*P, "issuedAt"), "2026-02-30T00:00:00Z"),
    "a time of another zone": ((*P, "issuedAt"), "2026-03-01T12:00:00+00:00"),
    "a field more": ((*P, "diagnosis"), "none"),
    "a prediction without its leaf": ((*P, "prediction"), {"index": 4}),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_statement_that_says_it_in_any_other_way_is_refused(what: str) -> None:
    with pytest.raises(DecodeError):
        verify_disclosure_envelope(with_change(*REFUSED[what]), PUBLIC)


@pytest.mark.parametrize("name", sorted(json.loads(PAYLOAD)["predicate"]))
def test_no_field_may_be_missing(name: str) -> None:
    statement = json.loads(PAYLOAD)
    del statement["predicate"][name]
    with pytest.raises(DecodeError):
        verify_disclosure_envelope(signed(rfc8785.dumps(statement)), PUBLIC)


def test_claims_cannot_be_other_ones() -> None:
    with pytest.raises(UsageError, match="fixed sentences"):
        replace(DISCLOSED, claims=("Anything.",))


def test_fields_out_of_range_are_not_signed() -> None:
    for changes in ({"patient": -1}, {"tolerance": -1}, {"record_id": ""}, {"salt": bytes(15)}, {"kind": "all"}):
        with pytest.raises(UsageError):
            sign_disclosure(replace(DISCLOSED, **changes), PRIVATE)  # type: ignore[arg-type]


def test_a_statement_has_one_spelling() -> None:
    text = PAYLOAD.decode()
    for other in (
        json.dumps(json.loads(PAYLOAD), sort_keys=True).encode(),
        PAYLOAD + b"\n",
        PAYLOAD.replace(b'"patient":2', b'"patient":2,"patient":2'),
        text.replace("ü", "\\u00fc").encode(),
    ):
        with pytest.raises(DecodeError):
            verify_disclosure_envelope(signed(other), PUBLIC)


def test_statements_of_another_kind_are_not_taken_for_disclosures() -> None:
    """The same DSSE payload type, under the same key: the predicate type tells them apart, in both directions."""
    with pytest.raises(DecodeError):
        verify_disclosure_envelope(PREDICTION_ENVELOPE, PUBLIC)
    with pytest.raises(DecodeError):
        att.verify_envelope(ENVELOPE, PUBLIC)
    with pytest.raises(VerificationFailed, match=r"attestation\.payload-type"):
        verify_disclosure_envelope(signed(PAYLOAD, "application/json"), PUBLIC)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ENVELOPE) - 1), st.integers(0, 255))
def test_an_envelope_with_one_byte_changed_is_refused_or_says_the_same(place: int, byte: int) -> None:
    """The key id is a hint that DSSE does not sign; the ledger entry has the digest of the whole envelope."""
    changed = ENVELOPE[:place] + bytes([byte]) + ENVELOPE[place + 1 :]
    try:
        found = verify_disclosure_envelope(changed, PUBLIC)
    except (DecodeError, VerificationFailed):
        return
    assert found == DISCLOSED
    kept = [json.loads(data)["signatures"][0]["sig"] for data in (changed, ENVELOPE)]
    assert kept[0] == kept[1]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_bytes_that_are_no_envelope_are_refused(data: bytes) -> None:
    for envelope in (data, signed(data) if data else b"{}"):
        with pytest.raises((DecodeError, VerificationFailed)):
            verify_disclosure_envelope(envelope, PUBLIC)


@settings(max_examples=50, deadline=None)
@given(
    st.text(min_size=1, max_size=60),
    st.integers(-(10**60), 10**60),
    st.lists(st.binary(min_size=32, max_size=32), max_size=17),
)
def test_every_statement_reads_back_as_itself(record: str, value: int, path: list[bytes]) -> None:
    """Also ids that no terminal should see: they are shown as escapes."""
    try:
        record.encode()
    except UnicodeEncodeError:
        return
    disclosed = replace(DISCLOSED, record_id=record, value=value, path=tuple(path))
    assert verify_disclosure_envelope(sign_disclosure(disclosed, PRIVATE), PUBLIC) == disclosed
