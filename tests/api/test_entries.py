"""Ledger entries: only canonical bytes are read, only the author's signature counts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from api import entries
from api.entries import (
    ENTRY_DOMAIN,
    KINDS,
    MAX_ENTRY_BYTES,
    Body,
    Clearance,
    CommittedRecords,
    Disclosure,
    Entry,
    ErrorBound,
    Grant,
    JointPrediction,
    JointProof,
    Key,
    Model,
    ModelOutput,
    Network,
    NetworkLayer,
    Party,
    Policy,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    Refusal,
    Request,
    Revocation,
    Suspension,
    VerifiedEntry,
    ZeroWeight,
    decode_digest_list,
    decode_entry,
    encode_digest_list,
    sign_entry,
    verify_signature,
)
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.support import hospitals

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PUBLIC = PRIVATE.public_key().public_bytes_raw()
AUTHOR = Reference(0, b"\x01" * 32)


def digest(n: int) -> bytes:
    return hashlib.sha256(n.to_bytes(4, "big")).digest()


def proof(first_block: int = 0, blocks: int = 2, outputs: tuple[int, ...] = (0, 1)) -> PredictionProof:
    results = tuple(digest(100 + i) for i in range(blocks * len(outputs)))
    return PredictionProof(first_block, blocks, 569, outputs, results, digest(7), 168_000, 25)


BODIES: dict[str, Body] = {
    "party": Party("clinic", "Clinique Sainte-Élisabeth", PUBLIC),
    "key": Key("clinic", "linear-4096", 0, digest(1), b"\x80" * 48, b"\x81" * 48, {"C_e": b"\x82" * 48}, digest(2)),
    "model": Model(
        "risk",
        "1.0",
        "linear-4096",
        digest(3),
        34,
        24,
        6,
        (
            ModelOutput("malignant", "logistic", 28, 62, b"\x83" * 48),
            ModelOutput("benign", "identity", 28, 62, b"\x84" * 48),
        ),
        digest(4),
        digest(5),
        {"purpose": "teaching"},
        (ZeroWeight("zero-weight", 0, 3, digest(6)),),
    ),
    "records": Records(
        "clinic",
        Reference(1, digest(8)),
        "linear-4096",
        digest(3),
        "columns",
        30,
        569,
        1,
        digest(9),
        digest(10),
        Policy((Reference(2, digest(11)),), "2027-01-31T00:00:00Z"),
    ),
    "records-any": Records(
        "clinic",
        Reference(1, digest(8)),
        "linear-4096",
        digest(3),
        "rows",
        30,
        1,
        1,
        digest(9),
        digest(10),
        Policy("any", None),
    ),
    "prediction": Prediction(
        Reference(3, digest(12)),
        Reference(2, digest(11)),
        Reference(1, digest(8)),
        (proof(), proof(first_block=2, blocks=1)),
        ErrorBound(2**80 + 1, 58, 6),
        17,
        digest(13),
    ),
    "revocation": Revocation(Reference(1, digest(8)), "key lost"),
    "network": Network(
        "risk",
        "1.0",
        "mpc-64",
        digest(3),
        16,
        6,
        53,
        "identity",
        ("malignant", "benign"),
        (
            NetworkLayer(30, 1, 10, 14, 34, (b"\x83" * 48,)),
            NetworkLayer(1, 2, 10, 12, 44, (b"\x84" * 48, b"\x85" * 48)),
        ),
        digest(4),
        digest(5),
        {"purpose": "teaching"},
    ),
    "committed-records": CommittedRecords(
        "clinic",
        "mpc-64",
        digest(3),
        30,
        65,
        digest(9),
        (digest(14), digest(15)),
        digest(10),
        Policy((Reference(2, digest(11)),), "2027-01-31T00:00:00Z"),
    ),
    "joint-prediction": JointPrediction(
        Reference(3, digest(12)),
        Reference(2, digest(11)),
        digest(16),
        (JointProof(0, 64, digest(7), 168_000, digest(17)), JointProof(64, 1, digest(18), 9_000, digest(19))),
        36,
        6,
        17,
        digest(13),
    ),
    "party-mailbox": Party("consumer", "insurer", PUBLIC, digest(24)[:31] + b"\x05"),
    "disclosure": Disclosure(Reference(9, digest(21)), digest(22), digest(23)),
    "disclosure-granted": Disclosure(
        Reference(9, digest(21)), digest(22), digest(23), Reference(8, digest(25)), digest(26)
    ),
    "request": Request(Reference(1, digest(8)), digest(27), digest(28)),
    "request-by-hand": Request(Reference(1, digest(8)), digest(27), None),
    "grant": Grant(Reference(7, digest(29)), digest(30), "2027-01-31T00:00:00Z"),
    "grant-unasked": Grant(None, digest(30), "2027-01-31T00:00:00Z"),
    "refusal": Refusal(Reference(7, digest(29)), "no-such-answer"),
    "suspension": Suspension(Reference(1, digest(8)), Reference(2, digest(11)), digest(16), "the node stalled"),
    "clearance": Clearance(Reference(4, digest(20))),
    "approval": hospitals.approval(Reference(2, digest(11)), "log.example/sealproof"),
}


def signed(name: str) -> bytes:
    body = BODIES[name]
    return sign_entry(body, None if isinstance(body, Party) else AUTHOR, PRIVATE)


def canonical(fields: dict[str, Any]) -> bytes:
    return rfc8785.dumps(fields)


@pytest.mark.parametrize("name", BODIES)
def test_a_signed_entry_reads_back_as_itself_and_verifies(name: str) -> None:
    data = signed(name)
    entry = decode_entry(data)
    assert entry.body == BODIES[name]
    assert entry.encode() == data == canonical(json.loads(data))
    verified = verify_signature(entry, PUBLIC)
    assert verified.body is entry.body


def test_every_kind_has_an_example_here() -> None:
    assert {type(body) for body in BODIES.values()} == set(KINDS.values())


def test_the_signature_covers_domain_author_body_and_kind() -> None:
    data = signed("revocation")
    fields = json.loads(data)
    del fields["signature"]
    PRIVATE.public_key().verify(decode_entry(data).signature, ENTRY_DOMAIN + canonical(fields))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return [path]
    return [leaf for key, child in items for leaf in leaves(child, (*path, key))]


def altered(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return "2027-01-01T00:00:00Z"
    if isinstance(value, int):
        return value + 1
    last = value[-1]
    return value[:-1] + ("1" if last == "0" else "0" if last in "123456789abcdef" else "x")


@pytest.mark.parametrize("name", BODIES)
def test_altering_any_field_is_refused(name: str) -> None:
    data = signed(name)
    paths = leaves(json.loads(data))
    assert len(paths) >= 5
    for path in paths:
        fields = json.loads(data)
        target = fields
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = altered(target[path[-1]])
        with pytest.raises((DecodeError, VerificationFailed)):
            verify_signature(decode_entry(canonical(fields)), PUBLIC)


def test_another_partys_signature_is_refused() -> None:
    entry = decode_entry(sign_entry(BODIES["revocation"], AUTHOR, OTHER))
    with pytest.raises(VerificationFailed, match=r"entry\.signature"):
        verify_signature(entry, PUBLIC)
    verify_signature(entry, OTHER.public_key().public_bytes_raw())


def test_a_party_cannot_register_a_key_that_it_does_not_hold() -> None:
    with pytest.raises(UsageError):
        sign_entry(BODIES["party"], None, OTHER)
    stolen = dataclasses.replace(decode_entry(signed("party")), body=Party("clinic", "thief", PUBLIC))
    forged = dataclasses.replace(stolen, signature=OTHER.sign(stolen.signed_bytes()))
    for key in (PUBLIC, OTHER.public_key().public_bytes_raw()):
        with pytest.raises(VerificationFailed, match=r"entry\.signature"):
            verify_signature(decode_entry(forged.encode()), key)


@pytest.mark.parametrize("key", [b"", b"\x01" * 31, b"\xff" * 32, b"\x02" + bytes(31)])
def test_an_unusable_public_key_is_a_refusal_and_no_traceback(key: bytes) -> None:
    with pytest.raises(VerificationFailed, match=r"entry\.signature"):
        verify_signature(decode_entry(signed("revocation")), key)


def _edwards_double(point: tuple[int, int]) -> tuple[int, int]:
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    x, y = point
    t = d * x * x * y * y % p
    return 2 * x * y * pow(1 + t, -1, p) % p, (y * y + x * x) * pow(1 - t, -1, p) % p


def _x_of(y: int) -> int:
    p = 2**255 - 19
    d = -121665 * pow(121666, -1, p) % p
    square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
    root = pow(square, (p + 3) // 8, p)
    if root * root % p != square:
        root = root * pow(2, (p - 1) // 4, p) % p
    assert root * root % p == square
    return root


def test_keys_of_small_order_cannot_be_registered() -> None:
    small = entries._SMALL_ORDER_Y
    assert len(small) == 5
    for y in small:
        point = (_x_of(y), y)
        for _ in range(3):
            point = _edwards_double(point)
        assert point == (0, 1), "not of order dividing 8"
        for sign in (0, 1 << 255):
            with pytest.raises(UsageError, match="small order"):
                Party("clinic", "anyone", (y | sign).to_bytes(32, "little"))
    for alias in (2**255 - 19, 2**255 - 18):
        with pytest.raises(UsageError, match="not canonical"):
            Party("clinic", "anyone", alias.to_bytes(32, "little"))


def _opens_with_zero(key: bytes) -> bool:
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return True
    return False


def test_mailboxes_that_anyone_could_open_cannot_be_registered() -> None:
    p, small = 2**255 - 19, entries._SMALL_ORDER_U
    assert len(small) == 5
    for u in small:
        assert _opens_with_zero(u.to_bytes(32, "little"))
    # Beside the canonical encodings every other one that X25519 reads as one of these: u + p, and the ignored bit.
    aliases = {v | bit for u in small for v in (u, u + p) for bit in (0, 1 << 255) if v < 1 << 255}
    for alias in sorted(aliases):
        assert _opens_with_zero(alias.to_bytes(32, "little"))
        with pytest.raises(UsageError, match="small order"):
            Party("consumer", "anyone", PUBLIC, alias.to_bytes(32, "little"))
    good = X25519PrivateKey.generate().public_key().public_bytes_raw()
    assert Party("consumer", "insurer", PUBLIC, good).mailbox == good
    for other in (good[:31] + bytes([good[31] | 0x80]), (p + 9).to_bytes(32, "little")):
        with pytest.raises(UsageError, match="not canonical"):
            Party("consumer", "insurer", PUBLIC, other)


def test_a_party_entry_with_a_bad_mailbox_is_not_read() -> None:
    good = X25519PrivateKey.generate().public_key().public_bytes_raw()
    data = sign_entry(Party("consumer", "insurer", PUBLIC, good), None, PRIVATE)
    for bad in (bytes(32).hex().encode(), b"01" + b"00" * 31, b"ff" * 32, b"00" * 31):
        with pytest.raises(DecodeError):
            decode_entry(data.replace(good.hex().encode(), bad))
    with pytest.raises(DecodeError):  # an absent mailbox is not told
        decode_entry(data.replace(b'"%s"' % good.hex().encode(), b"null"))


def test_a_party_entry_without_a_mailbox_has_the_bytes_it_always_had() -> None:
    assert json.loads(signed("party"))["body"].keys() == {"role", "name", "public_key"}
    assert json.loads(signed("disclosure"))["body"].keys() == {"prediction", "statement", "proof"}


def test_a_verified_entry_is_made_by_the_verifier_only() -> None:
    entry = decode_entry(signed("revocation"))
    with pytest.raises(UsageError):
        VerifiedEntry(entry, PUBLIC, object())
    verified = verify_signature(entry, PUBLIC)
    with pytest.raises(ValueError, match="made_by"):
        dataclasses.replace(verified, public_key=bytes(32))


REVOCATION = signed("revocation")
NON_CANONICAL = {
    "blank": REVOCATION.replace(b'":', b'": ', 1),
    "trailing newline": REVOCATION + b"\n",
    "byte order mark": b"\xef\xbb\xbf" + REVOCATION,
    "duplicate key": REVOCATION.replace(b'"kind":', b'"kind":"sealproof/revocation/v1","kind":', 1),
    "duplicate key, other value": REVOCATION.replace(b'"reason":', b'"reason":"none","reason":', 1),
    "float index": REVOCATION.replace(b'"index":1,', b'"index":1.0,', 1),
    "exponent": REVOCATION.replace(b'"index":1,', b'"index":1e0,', 1),
    "minus zero": REVOCATION.replace(b'"index":0,', b'"index":-0,', 1),
    "NaN": REVOCATION.replace(b'"index":1,', b'"index":NaN,', 1),
    "index as text": REVOCATION.replace(b'"index":1,', b'"index":"1",', 1),
    "index as truth value": REVOCATION.replace(b'"index":1,', b'"index":true,', 1),
    "index beyond 2^53": REVOCATION.replace(b'"index":1,', b'"index":9007199254740992,', 1),
    "index of 5,000 digits": REVOCATION.replace(b'"index":1,', b'"index":1' + b"0" * 4999 + b",", 1),
    "negative index": REVOCATION.replace(b'"index":1,', b'"index":-1,', 1),
    "upper-case hex": REVOCATION.replace(digest(8).hex().encode(), digest(8).hex().upper().encode(), 1),
    "short hash": REVOCATION.replace(digest(8).hex().encode(), digest(8).hex().encode()[:-2], 1),
    "hash and newline": REVOCATION.replace(digest(8).hex().encode(), digest(8).hex().encode() + rb"\n", 1),
    "needless escape": REVOCATION.replace(b"key lost", rb"\u006bey lost", 1),
    "lone surrogate": REVOCATION.replace(b"key lost", rb"\ud800", 1),
    "not UTF-8": REVOCATION.replace(b"key lost", b"\xff", 1),
    "control character": REVOCATION.replace(b"key lost", rb"key\u0007lost", 1),
    "not normal form C": REVOCATION.replace(b"key lost", "e\u0301".encode(), 1),
    "unknown field": REVOCATION.replace(b'"kind":', b'"extra":1,"kind":', 1),
    "missing field": REVOCATION.replace(b',"reason":"key lost"', b"", 1).replace(b'"reason":"key lost",', b"", 1),
    "unknown kind": REVOCATION.replace(b"revocation/v1", b"revocation/v2", 1),
    "kind of another body": REVOCATION.replace(b"revocation/v1", b"party/v1", 1),
    "no author": canonical({**json.loads(REVOCATION), "author": None}),
    "signature without padding": REVOCATION.replace(b'=="}', b'"}', 1),
    "signature of 63 bytes": canonical({**json.loads(REVOCATION), "signature": "A" * 84}),
    "array": b"[]",
    "nothing": b"",
    "deep nesting": b"[" * 60_000,
    "party with an author": canonical({**json.loads(signed("party")), "author": {"index": 0, "leaf": "00" * 32}}),
    "impossible date": signed("records").replace(b"2027-01-31T", b"2027-02-31T", 1),
    "one-digit month": signed("records").replace(b"2027-01-31T", b"2027-1-31T", 1),
    "time with an offset": signed("records").replace(b"00:00:00Z", b"00:00:00+00:00", 1),
    "policy of another word": signed("records-any").replace(b'"any"', b'"all"', 1),
    "decimal with leading zero": signed("prediction").replace(b'"error":"1', b'"error":"01', 1),
    "decimal with sign": signed("prediction").replace(b'"error":"1', b'"error":"+1', 1),
    "negative error": signed("prediction").replace(b'"error":"1', b'"error":"-1', 1),
    "error as a number": signed("prediction").replace(b'"error":"1208925819614629174706177"', b'"error":1', 1),
}


@pytest.mark.parametrize("name", NON_CANONICAL)
def test_other_bytes_are_refused(name: str) -> None:
    data = NON_CANONICAL[name]
    assert data not in {signed(known) for known in BODIES}, "the case does not alter anything"
    with pytest.raises(DecodeError):
        decode_entry(data)


def test_an_entry_above_the_limit_is_neither_written_nor_read() -> None:
    model = BODIES["model"]
    assert isinstance(model, Model)
    large = dataclasses.replace(model, card={f"note-{i}": "x" * 4096 for i in range(16)})
    with pytest.raises(UsageError, match=str(MAX_ENTRY_BYTES)):
        sign_entry(large, AUTHOR, PRIVATE)
    with pytest.raises(DecodeError, match=str(MAX_ENTRY_BYTES)):
        decode_entry(b" " * (MAX_ENTRY_BYTES + 1))


def test_a_prediction_of_256_results_fits() -> None:
    prediction = BODIES["prediction"]
    assert isinstance(prediction, Prediction)
    entry = sign_entry(
        dataclasses.replace(prediction, proofs=(proof(0, 64, (0, 1, 2, 3)), proof(64, 1, (0, 1, 2, 3)))),
        AUTHOR,
        PRIVATE,
    )
    assert len(entry) < MAX_ENTRY_BYTES


def test_a_prediction_says_each_answer_once_and_every_result_has_its_digest() -> None:
    prediction = BODIES["prediction"]
    assert isinstance(prediction, Prediction)
    with pytest.raises(UsageError, match="same block"):
        dataclasses.replace(prediction, proofs=(proof(0, 2), proof(1, 1)))
    with pytest.raises(UsageError, match="at least one proof"):
        dataclasses.replace(prediction, proofs=())
    with pytest.raises(UsageError, match="result digests"):
        dataclasses.replace(proof(), results=(digest(1),))
    with pytest.raises(UsageError, match="increasing"):
        proof(outputs=(1, 1))
    with pytest.raises(UsageError, match="1 to 256"):
        proof(blocks=257, outputs=(0,))
    with pytest.raises(UsageError, match="1 to 256"):
        proof(outputs=())


def test_a_model_has_named_outputs_and_statements_about_them_only() -> None:
    model = BODIES["model"]
    assert isinstance(model, Model)
    with pytest.raises(UsageError, match="at least one output"):
        dataclasses.replace(model, outputs=(), statements=())
    with pytest.raises(UsageError, match="different names"):
        dataclasses.replace(model, outputs=model.outputs[:1] * 2)
    with pytest.raises(UsageError, match="does not have"):
        dataclasses.replace(model, statements=(ZeroWeight("zero-weight", 2, 0, digest(1)),))


@pytest.mark.parametrize(
    "body",
    [
        Revocation(Reference(-1, digest(1)), "no"),
        Revocation(Reference(1, digest(1)[:31]), "no"),
        Revocation(Reference(1, digest(1)), "two\nlines"),
        Revocation(Reference(1, digest(1)), " padded"),
        Revocation(Reference(2**53, digest(1)), "no"),
    ],
)
def test_a_body_that_could_not_be_read_is_not_signed(body: Body) -> None:
    with pytest.raises(UsageError):
        sign_entry(body, AUTHOR, PRIVATE)


def test_a_reference_is_the_rfc_6962_leaf_hash() -> None:
    assert Reference.to(5, REVOCATION) == Reference(5, hashlib.sha256(b"\0" + REVOCATION).digest())


def test_lists_of_digests_have_exactly_the_expected_length() -> None:
    digests = tuple(digest(i) for i in range(3))
    data = encode_digest_list(digests)
    assert decode_digest_list(data, 3) == digests
    for wrong in (data[:-1], data + b"\0", data[32:]):
        with pytest.raises(DecodeError):
            decode_digest_list(wrong, 3)
    with pytest.raises(UsageError):
        encode_digest_list([b"short"])


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(sorted(BODIES)), data=st.data())
def test_mutated_bytes_are_refused_and_never_a_traceback(name: str, data: st.DataObject) -> None:
    original = signed(name)
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, min(len(original), start + 3)))
    mutated = original[:start] + data.draw(st.binary(max_size=3)) + original[end:]
    try:
        entry = decode_entry(mutated)
        assert entry.encode() == mutated
        verify_signature(entry, PUBLIC)
    except (DecodeError, VerificationFailed):
        return
    assert mutated == original


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_entry(data)


def test_the_entry_refuses_a_kind_that_is_not_its_bodys() -> None:
    with pytest.raises(UsageError, match="does not fit"):
        Entry(AUTHOR, BODIES["revocation"], Key.KIND, bytes(64))
