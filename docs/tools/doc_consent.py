"""Examples of requests, grants and what is shown under them, from fixed seeds. None of these keys may be used."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from doc_seeds import ORIGIN, PLACEHOLDER, WHEN, fenced, seed, signing_key

from api import entries
from api.client.delivery import DELIVERY_BOX, REQUEST_BOX, pack_delivery, pack_request
from api.client.handles import RecordHandles
from api.consent import GrantDocument, Question, RequestDocument, Scope
from api.entries import Reference
from privacy import sealed
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown

__all__ = ["ConsentExample", "add_consent_entries", "box_example", "documents", "mailbox", "shown_envelope"]

Add = Callable[[str, entries.Body, int | None, str], Reference]

CLINIC, CONSUMER = "example-clinic", "example insurer"
UNTIL = "2026-03-01T00:00:00Z"


@dataclass(frozen=True)
class ConsentExample:
    """What stands behind the digests of the entries: documents, the signed statement, and the two boxes."""

    request: RequestDocument
    grant: GrantDocument
    envelope: bytes
    request_box: bytes
    delivery_box: bytes


def mailbox(name: str) -> X25519PrivateKey:
    """The documentation's mailbox key of a party; worthless, as everybody has it."""
    return X25519PrivateKey.from_private_bytes(seed(f"mailbox of {name}"))


def _ephemeral(purpose: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(seed(f"sender's key of {purpose.decode().strip()}"))


def _box(message: bytes, name: str, purpose: bytes, context: bytes) -> bytes:
    """A box as `privacy.sealed.seal` makes it, but for the sender's key, which is fixed. Opened again to compare."""
    sender, receiver = _ephemeral(purpose), mailbox(name)
    public, recipient = sender.public_key().public_bytes_raw(), receiver.public_key().public_bytes_raw()
    key = sealed._key(sender.exchange(receiver.public_key()), public, recipient, purpose, context)
    box = public + ChaCha20Poly1305(key).encrypt(bytes(12), message, context)
    assert sealed.open_sealed(box, receiver, purpose=purpose, context=context) == message
    return box


def add_consent_entries(
    log: Sequence[bytes], add: Add, prediction: Reference, clinic: int, answer: bytes, handles: RecordHandles
) -> ConsentExample:
    """Log a consumer, what it asks, the clinic's consent, and what is shown: that patient 1 of `prediction` reaches a
    threshold; and a second request, which is refused. `answer` is the C_z of that patient."""
    predicted = entries.decode_entry(log[prediction.index]).body
    assert isinstance(predicted, entries.JointPrediction)
    asked_clinic = Reference.to(clinic, log[clinic])
    public = signing_key(CONSUMER).public_key().public_bytes_raw()
    letters = mailbox(CONSUMER).public_key().public_bytes_raw()
    consumer = add("party", entries.Party("consumer", CONSUMER, public, letters), None, CONSUMER)
    question = _question(predicted, handles)
    scope, purpose = Scope(None, predicted.model, predicted.records), "An example."
    request = RequestDocument(
        "sealproof/request/v1",
        ORIGIN,
        asked_clinic,
        consumer,
        scope,
        purpose,
        seed("recipient nonce"),
        (question,),
    )
    request_box = _box(pack_request(request.encode()), CLINIC, REQUEST_BOX, asked_clinic.leaf)
    body = entries.Request(asked_clinic, request.digest, hashlib.sha256(request_box).digest())
    asked = add("request", body, consumer.index, CONSUMER)
    grant = GrantDocument(
        "sealproof/grant/v1",
        ORIGIN,
        asked_clinic,
        consumer,
        request.digest,
        scope,
        purpose,
        request.nonce,
        request.questions,
        UNTIL,
        seed("salt of the grant"),
    )
    granted = add("grant", entries.Grant(asked, grant.digest, UNTIL), clinic, CLINIC)
    envelope = shown_envelope(log, prediction.index, granted.index, answer, handles)
    delivery = pack_delivery(envelope, PLACEHOLDER, grant.encode())
    delivery_box = _box(delivery, CONSUMER, DELIVERY_BOX, granted.leaf)
    statement, proof, box = (hashlib.sha256(data).digest() for data in (envelope, PLACEHOLDER, delivery_box))
    add("disclosure", entries.Disclosure(prediction, statement, proof, granted, box), clinic, CLINIC)
    second = add("request", entries.Request(asked_clinic, seed("another request"), None), consumer.index, CONSUMER)
    add("refusal", entries.Refusal(second, "no-consent"), clinic, CLINIC)
    return ConsentExample(request, grant, envelope, request_box, delivery_box)


def _question(predicted: entries.JointPrediction, handles: RecordHandles) -> Question:
    """Does patient 1 reach 0.5?"""
    return Question(handles.ids[1], 0, None, "threshold", 1 << (predicted.grid_bits - 1), 0)


def shown_envelope(log: Sequence[bytes], index: int, grant: int, answer: bytes, handles: RecordHandles) -> bytes:
    """The envelope in which the examples' clinic says, under the grant in entry `grant`, that patient 1 of prediction
    `index` reaches the threshold that was asked for."""
    predicted = entries.decode_entry(log[index]).body
    assert isinstance(predicted, entries.JointPrediction)
    question = _question(predicted, handles)
    said = ShownAnswer(
        patient=1,
        output=question.output,
        versus=question.versus,
        kind=question.kind,
        value=question.value,
        tolerance=question.tolerance,
        result=hashlib.sha256(answer).digest(),
        record_id=question.record,
        salt=handles.salts[1],
        path=tuple(handles.path(1)),
    )
    shown = Shown(
        prediction=LedgerReference.to(index, log[index]),
        grant=LedgerReference.to(grant, log[grant]),
        scheme="mpc",
        answers=(said,),
        scale_bits=predicted.answer_scale_bits,
        grid_bits=predicted.grid_bits,
        recipient_nonce=seed("recipient nonce"),
        proof=Shown.proof_reference(PLACEHOLDER),
        issued_at=WHEN,
    )
    return sign_shown(shown, signing_key(CLINIC))


def documents(example: ConsentExample) -> str:
    """The request and the grant in the clear."""
    shown = (("request", example.request), ("grant", example.grant))
    return "\n\n".join(
        f"{name}, {len(document.encode())} bytes, SHA-256 `{document.digest.hex()}`:\n\n"
        f"{fenced('json', document.encode())}"
        for name, document in shown
    )


def box_example(example: ConsentExample) -> str:
    """How the two boxes of the examples can be made again, byte for byte."""
    rows = []
    for what, name, purpose, box in (
        ("the request", CLINIC, REQUEST_BOX, example.request_box),
        ("the delivery", CONSUMER, DELIVERY_BOX, example.delivery_box),
    ):
        recipient = mailbox(name).public_key().public_bytes_raw()
        rows.append(
            f"{what}, sealed for the X25519 key `{recipient.hex()}` of {name}, with the sender's secret key "
            f"`{_ephemeral(purpose).private_bytes_raw().hex()}`: {len(box):,} bytes, SHA-256 "
            f"`{hashlib.sha256(box).hexdigest()}`, which the entry names."
        )
    return "\n\n".join(rows)
