"""Attestations: what was signed is what is read, and what is read is exactly what may be said."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.attestation import (
    CLAIMS,
    MAX_ENVELOPE_BYTES,
    NOT_CLAIMED,
    PAYLOAD_TYPE,
    PREDICATE_TYPE,
    STATEMENT_TYPE,
    Coverage,
    Envelope,
    EnvelopeSignature,
    ErrorBound,
    LedgerReference,
    Positions,
    Predicate,
    ProofReference,
    VerifiedStatement,
    decode_envelope,
    decode_statement,
    encode_envelope,
    encode_statement,
    pae,
    sign_payload,
    sign_statement,
    verify_envelope,
)
from privacy.errors import DecodeError, UsageError, VerificationFailed

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()


def digest(n: int) -> bytes:
    return hashlib.sha256(n.to_bytes(4, "big")).digest()


def coverage(first_block: int = 0, blocks: int = 2, outputs: tuple[int, ...] = (0, 2), count: int = 4096) -> Coverage:
    results = tuple(digest(1000 * first_block + i) for i in range(blocks * len(outputs)))
    return Coverage(first_block, blocks, outputs, Positions.declare("columns", 30, count), results, 25)


PREDICATE = Predicate(
    prediction=LedgerReference.to(4, b"prediction"),
    model=LedgerReference.to(2, b"model"),
    records=LedgerReference.to(3, b"records"),
    key=LedgerReference.to(1, b"key"),
    scheme="ckks",
    parameter_set="linear-4096",
    proofs=(
        ProofReference.to(b"proof of two full blocks", coverage()),
        ProofReference.to(b"proof of the partial block", coverage(2, 1, (0, 2), 17)),
    ),
    error_bound=ErrorBound(2**80 + 1, 58, 6),
    issued_at="2026-03-01T12:00:00Z",
    request_nonce=digest(5),
)
ATTESTATION = sign_statement(PREDICATE, PRIVATE)


def test_pae_of_the_published_check_value() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 ", "lengths are in bytes"


def test_an_attestation_verifies_and_hands_on_the_signed_bytes() -> None:
    verified = verify_envelope(ATTESTATION, PUBLIC)
    assert verified.predicate == PREDICATE
    assert verified.payload == base64.b64decode(json.loads(ATTESTATION)["payload"])
    assert decode_statement(verified.payload) == PREDICATE
    assert encode_statement(PREDICATE) == verified.payload


def test_the_statement_has_the_fields_of_in_toto_and_of_the_predicate() -> None:
    statement = json.loads(encode_statement(PREDICATE))
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    assert (statement["_type"], statement["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    assert PREDICATE_TYPE.endswith("/attestation/prediction/v1")
    assert [subject["name"] for subject in statement["subject"]] == [
        "block-0/output-0",
        "block-0/output-2",
        "block-1/output-0",
        "block-1/output-2",
        "block-2/output-0",
        "block-2/output-2",
    ]
    assert statement["subject"][0]["digest"] == {"sha256": digest(0).hex()}
    predicate = statement["predicate"]
    assert set(predicate) == {
        *("prediction", "model", "records", "key", "scheme", "parameterSet", "proofs", "errorBound"),
        *("issuedAt", "requestNonce", "claims", "notClaimed"),
    }
    assert set(predicate["model"]) == {"index", "leaf", "digest"}
    assert set(predicate["proofs"][0]) == {"system", "digest", "mediaType", "size", "covers"}
    assert predicate["errorBound"] == {"error": str(2**80 + 1), "gridBits": 6, "scaleBits": 58}
    assert predicate["proofs"][0]["digest"] == hashlib.sha256(b"proof of two full blocks").hexdigest()
    assert predicate["claims"] == list(CLAIMS)
    assert predicate["notClaimed"] == list(NOT_CLAIMED)


def test_positions_are_those_of_the_packing() -> None:
    assert list(Positions.declare("columns", 30, 3).coefficients()) == [0, 1, 2]
    assert list(Positions.declare("rows", 30, 3).coefficients()) == [29, 59, 89]
    known = hashlib.sha256(b"sealproof/positions/v1\n" + bytes([29, 0, 0, 0, 59, 0, 0, 0])).digest()
    assert Positions.declare("rows", 30, 2).digest == known
    with pytest.raises(UsageError, match="digest"):
        Positions("columns", 30, 4, Positions.declare("columns", 30, 3).digest)
    for count, d in ((0, 1), (1, 0), (32769, 1), (2**53, 1), (4096, 30)):
        with pytest.raises(UsageError, match="fit no ring"):
            Positions.declare("rows", d, count)


# -- signatures -------------------------------------------------------------------------------------------------------


def signature_of(private_key: Ed25519PrivateKey, payload: bytes, keyid: str | None = None) -> EnvelopeSignature:
    signature = private_key.sign(pae(PAYLOAD_TYPE, payload))
    return EnvelopeSignature(base64.b64encode(signature).decode(), keyid)


def envelope(payload: bytes, *signatures: EnvelopeSignature, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    return Envelope(base64.b64encode(payload).decode(), payload_type, signatures)


PAYLOAD = encode_statement(PREDICATE)


def test_a_signature_of_another_key_is_refused() -> None:
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_envelope(ATTESTATION, OTHER.public_key().public_bytes_raw())
    unknown = encode_envelope(envelope(PAYLOAD, signature_of(OTHER, PAYLOAD)))
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_envelope(unknown, PUBLIC)


@pytest.mark.parametrize("key", [b"", b"\x01" * 31, b"\xff" * 32])
def test_an_unusable_public_key_is_a_refusal_and_no_traceback(key: bytes) -> None:
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_envelope(ATTESTATION, key)


def test_signatures_of_others_beside_ours_are_ignored_in_any_order() -> None:
    ours, other = signature_of(PRIVATE, PAYLOAD, "a"), signature_of(OTHER, PAYLOAD, "b")
    ecdsa = EnvelopeSignature(base64.b64encode(b"\x30" * 71).decode(), "c")
    for signatures in ((other, ecdsa, ours), (ours, other, ecdsa)):
        assert verify_envelope(encode_envelope(envelope(PAYLOAD, *signatures)), PUBLIC).predicate == PREDICATE


def test_the_key_id_is_a_hint_and_neither_makes_nor_breaks_a_signature() -> None:
    ours = hashlib.sha256(PUBLIC).hexdigest()
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_envelope(encode_envelope(envelope(PAYLOAD, signature_of(OTHER, PAYLOAD, ours))), PUBLIC)
    for keyid in (None, "", "someone else"):
        data = encode_envelope(envelope(PAYLOAD, signature_of(PRIVATE, PAYLOAD, keyid)))
        assert verify_envelope(data, PUBLIC).predicate == PREDICATE


def test_no_signature_too_many_and_duplicates_are_refused() -> None:
    ours = signature_of(PRIVATE, PAYLOAD, "a")
    for signatures in (
        (),
        (ours, ours),
        (ours, dataclasses.replace(ours, keyid="b")),
        (ours, dataclasses.replace(ours, keyid="b", sig=ours.sig.replace("+", "-").replace("/", "_"))),
        (ours, signature_of(OTHER, PAYLOAD, "a")),
        (ours, *(EnvelopeSignature(base64.b64encode(bytes([i])).decode(), None) for i in range(16))),
    ):
        raw = {
            "payload": base64.b64encode(PAYLOAD).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": s.sig, **({} if s.keyid is None else {"keyid": s.keyid})} for s in signatures],
        }
        with pytest.raises(DecodeError):
            decode_envelope(rfc8785.dumps(raw))
        with pytest.raises(UsageError):
            encode_envelope(envelope(PAYLOAD, *signatures))


def test_both_base64_alphabets_are_read_and_kept() -> None:
    # A statement is ASCII, whose base64 has neither + nor /; the signature of some statement has both.
    nonces = (dataclasses.replace(PREDICATE, request_nonce=digest(i)) for i in range(1000))
    payload, signature = next(
        (encode_statement(p), s)
        for p in nonces
        if {"+", "/"} <= set((s := signature_of(PRIVATE, encode_statement(p), "a")).sig)
    )
    standard = envelope(payload, signature)
    url_safe = dataclasses.replace(
        standard, signatures=(dataclasses.replace(signature, sig=signature.sig.replace("+", "-").replace("/", "_")),)
    )
    for data in (encode_envelope(standard), encode_envelope(url_safe)):
        assert encode_envelope(decode_envelope(data)) == data
        assert verify_envelope(data, PUBLIC).payload == payload
    mixed = dataclasses.replace(signature, sig=signature.sig.replace("+", "-"))
    with pytest.raises(UsageError, match="base64"):
        encode_envelope(dataclasses.replace(standard, signatures=(mixed,)))


@pytest.mark.parametrize("text", ["QQ", "QQ=", "QR==", "QQ==\n", " QQ==", "QQ==QQ==", "Q===", "é", "QQ==="])
def test_base64_that_is_not_canonical_is_refused(text: str) -> None:
    base = json.loads(ATTESTATION)
    for broken in ({**base, "payload": text}, {**base, "signatures": [{"sig": text}]}):
        with pytest.raises(DecodeError):
            decode_envelope(rfc8785.dumps(broken))


def test_a_good_signature_on_another_payload_type_is_refused() -> None:
    data = sign_payload(PAYLOAD, "application/json", PRIVATE)
    with pytest.raises(VerificationFailed, match=r"attestation\.payload-type"):
        verify_envelope(data, PUBLIC)
    relabelled = json.loads(data)
    relabelled["payloadType"] = PAYLOAD_TYPE
    with pytest.raises(VerificationFailed, match=r"attestation\.signature"):
        verify_envelope(rfc8785.dumps(relabelled), PUBLIC)


def test_a_signed_payload_that_is_no_statement_is_refused() -> None:
    for payload in (b"", b"{}", PAYLOAD + b"\n", PAYLOAD.replace(b'":', b'": ', 1)):
        with pytest.raises(DecodeError):
            verify_envelope(sign_payload(payload, PAYLOAD_TYPE, PRIVATE), PUBLIC)


def test_a_verified_statement_is_made_by_the_verifier_only() -> None:
    with pytest.raises(UsageError):
        VerifiedStatement(PAYLOAD, PREDICATE, PUBLIC, object())
    with pytest.raises(ValueError, match="made_by"):
        dataclasses.replace(verify_envelope(ATTESTATION, PUBLIC), payload=b"other")


# -- statements -------------------------------------------------------------------------------------------------------


def with_change(path: tuple[Any, ...], value: Any) -> bytes:
    statement = json.loads(PAYLOAD)
    target = statement
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    data = rfc8785.dumps(statement)
    assert data != PAYLOAD, "the case does not alter anything"
    return data


COVERS = ("predicate", "proofs", 0, "covers")
REFUSED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "another statement type": (("_type",), "https://in-toto.io/Statement/v0.1"),
    "another predicate type": (("predicateType",), PREDICATE_TYPE.replace("v1", "v2")),
    "a claim altered": (("predicate", "claims", 0), "The patient is healthy."),
    "a claim added": (("predicate", "claims"), [*CLAIMS, "The model is good medicine."]),
    "a claim dropped": (("predicate", "claims"), list(CLAIMS[:-1])),
    "a disclaimer dropped": (("predicate", "notClaimed"), list(NOT_CLAIMED[1:])),
    "no subjects": (("subject",), []),
    "a subject renamed": (("subject", 0, "name"), "block-0/output-1"),
    "a subject with another digest": (("subject", 0, "digest", "sha256"), digest(9).hex()),
    "subjects reordered": (("subject",), json.loads(PAYLOAD)["subject"][::-1]),
    "a second digest of a subject": (("subject", 0, "digest", "sha512"), "00" * 64),
    "a result altered": ((*COVERS, "results", 0), digest(9).hex()),
    "a result too few": ((*COVERS, "results"), [digest(9).hex()] * 3),
    "outputs repeated": ((*COVERS, "outputs"), [2, 2]),
    "no outputs": ((*COVERS, "outputs"), []),
    "blocks altered": ((*COVERS, "blocks"), 1),
    "very many blocks": ((*COVERS, "blocks"), 2**53 - 1),
    "overlapping proofs": ((*COVERS, "firstBlock"), 1),
    "positions of another count": ((*COVERS, "positions", "count"), 4095),
    "positions of another packing": ((*COVERS, "positions", "packing"), "rows"),
    "positions with another digest": ((*COVERS, "positions", "digest"), digest(9).hex()),
    "very many positions": ((*COVERS, "positions", "count"), 2**53 - 1),
    "no proofs": (("predicate", "proofs"), []),
    "another proof system": (("predicate", "proofs", 0, "system"), "sealproof-evaluation-v2"),
    "another media type": (("predicate", "proofs", 0, "mediaType"), "application/json"),
    "an empty proof": (("predicate", "proofs", 0, "size"), 0),
    "a scheme without proofs": (("predicate", "scheme"), "plain"),
    "a negative error": (("predicate", "errorBound", "error"), "-1"),
    "an error that is a number": (("predicate", "errorBound", "error"), 1),
    "no nonce": (("predicate", "requestNonce"), None),
    "a short nonce": (("predicate", "requestNonce"), "00" * 16),
    "a time with an offset": (("predicate", "issuedAt"), "2026-03-01T12:00:00+00:00"),
    "a day that does not exist": (("predicate", "issuedAt"), "2026-02-30T12:00:00Z"),
    "a field more": (("predicate", "verified"), True),
    "a field more in the statement": (("note",), "trust me"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_statement_that_says_anything_else_is_refused_although_signed(name: str) -> None:
    data = with_change(*REFUSED[name])
    with pytest.raises(DecodeError):
        decode_statement(data)
    with pytest.raises(DecodeError):
        verify_envelope(sign_payload(data, PAYLOAD_TYPE, PRIVATE), PUBLIC)


def test_every_result_is_covered_once() -> None:
    first, second = PREDICATE.proofs
    with pytest.raises(UsageError, match="covered by one proof"):
        dataclasses.replace(PREDICATE, proofs=(first, dataclasses.replace(second, covers=coverage(1, 1))))
    with pytest.raises(UsageError, match="covered by one proof"):
        dataclasses.replace(PREDICATE, proofs=())
    for outputs in ((2, 2), (2, 0), ()):
        with pytest.raises(UsageError, match="strictly increasing"):
            coverage(outputs=outputs)


def test_claims_cannot_be_chosen_by_the_issuer() -> None:
    with pytest.raises(UsageError, match="fixed sentences"):
        dataclasses.replace(PREDICATE, claims=(*CLAIMS, "The model is good medicine."))
    with pytest.raises(UsageError, match="fixed sentences"):
        dataclasses.replace(PREDICATE, not_claimed=())


def test_duplicate_keys_are_refused_in_envelope_and_statement() -> None:
    with pytest.raises(DecodeError):
        decode_envelope(ATTESTATION.replace(b'{"payload":', b'{"payload":"","payload":', 1))
    with pytest.raises(DecodeError):
        decode_statement(PAYLOAD.replace(b'"scheme":', b'"scheme":"ckks","scheme":', 1))


def test_an_envelope_above_the_limit_is_refused_unread() -> None:
    with pytest.raises(DecodeError, match=str(MAX_ENVELOPE_BYTES)):
        decode_envelope(b" " * (MAX_ENVELOPE_BYTES + 1))


def test_every_field_of_the_predicate_is_under_the_signature() -> None:
    for field in dataclasses.fields(Predicate):
        assert (
            field.name in {"scheme", "claims", "not_claimed"}
            or encode_statement(dataclasses.replace(PREDICATE, **{field.name: ALTERED[field.name]})) != PAYLOAD
        )


ALTERED: dict[str, Any] = {
    "prediction": LedgerReference.to(5, b"prediction"),
    "model": LedgerReference.to(2, b"model 2"),
    "records": LedgerReference.to(3, b"records 2"),
    "key": LedgerReference.to(0, b"key"),
    "parameter_set": "linear-2048",
    "proofs": PREDICATE.proofs[:1],
    "error_bound": ErrorBound(2**80, 58, 6),
    "issued_at": "2026-03-01T12:00:01Z",
    "request_nonce": digest(6),
    "approval": LedgerReference.to(3, b"approval"),
}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_attestations_are_refused_and_never_a_traceback(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ATTESTATION)))
    end = data.draw(st.integers(start, min(len(ATTESTATION), start + 3)))
    mutated = ATTESTATION[:start] + data.draw(st.binary(max_size=3)) + ATTESTATION[end:]
    try:
        verified = verify_envelope(mutated, PUBLIC)
    except (DecodeError, VerificationFailed):
        return
    assert verified.payload == PAYLOAD


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_statements_are_refused_or_other_statements(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PAYLOAD)))
    end = data.draw(st.integers(start, min(len(PAYLOAD), start + 3)))
    mutated = PAYLOAD[:start] + data.draw(st.binary(max_size=3)) + PAYLOAD[end:]
    try:
        predicate = decode_statement(mutated)
    except DecodeError:
        return
    assert encode_statement(predicate) == mutated
