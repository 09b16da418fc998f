"""Attacks on asking and consenting: a consumer that fills a clinic's inbox with what cannot be read, and what the size
of a sealed request tells everybody.

Server, clients and commands are the real ones; the consumer writes what its key can sign and no client of ours would.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.cli.main import main
from api.client.delivery import REQUEST_BOX, pack_delivery, pack_request, unpack_delivery, unpack_request
from api.consent import MAX_DOCUMENT_BYTES, GrantDocument, Question, RequestDocument, Scope
from api.consent_rules import MAX_REQUEST_BOX_BYTES
from api.entries import Disclosure, Grant, Reference, Refusal, Request, decode_entry, sign_entry
from privacy.attestation import PAYLOAD_TYPE
from privacy.attestation_parts import LedgerReference
from privacy.attestation_shown import Shown, ShownAnswer, sign_shown, verify_shown
from privacy.dsse import decode_envelope, sign_payload
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.sealed import OVERHEAD_BYTES, open_sealed, seal
from tests.support.consumers import MODEL, Story, tell
from tests.support.service import listening

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    folder = tmp_path_factory.mktemp("adversary")
    with listening(folder / "server") as server:
        yield tell(server, folder)


def _send(told: Story, document: RequestDocument, box: bytes | None = None) -> int:
    """Log a request with this document, whatever it is about; `box`: not the sealed document, but this."""
    session, clinic = told.consumer.session, told.clinic.session.identity
    assert clinic.party is not None and clinic.mailbox is not None
    public = clinic.mailbox.public_key().public_bytes_raw()
    sealed = box or seal(document.encode(), public, purpose=REQUEST_BOX, context=clinic.party.leaf)
    digest = session.server.put_blob(sealed)
    return session.server.append(session.identity.sign(Request(clinic.party, document.digest, digest))).index


def _document(told: Story, **changes: Any) -> RequestDocument:
    clinic, consumer = told.clinic.session.identity, told.consumer.session.identity
    assert clinic.party is not None and consumer.party is not None
    made = RequestDocument(
        "sealproof/request/v1",
        consumer.origin,
        clinic.party,
        consumer.party,
        Scope(None, told.model.reference, None),
        "a study",
        next(_NUMBERS).to_bytes(32, "big"),
        (Question("p0", 0, None, "threshold", 1, 0),),
    )
    return replace(made, **changes)


# -- the inbox --------------------------------------------------------------------------------------------------------


def test_requests_about_nothing_hide_no_other(
    told: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scope names entries that the log does not have, or has not yet: the server refuses to show them."""
    model, nobody = told.model.reference, Reference(10**6, bytes(32))
    scopes = [
        Scope(nobody, None, None),
        Scope(Reference(2**53 - 1, bytes(32)), None, None),
        Scope(None, nobody, None),
        Scope(None, Reference(0, bytes(32)), None),
        Scope(None, replace(model, leaf=bytes(32)), None),
        Scope(None, model, nobody),
        Scope(None, model, told.records.reference),
        Scope(model, None, None),
    ]
    first = told.ask(*told.patients()).index
    indices = [_send(told, _document(told, scope=scope)) for scope in scopes]
    last = told.ask(*told.patients()).index
    command = ["sealproof", "clinic", "requests", "--json", "--folder", str(told.clinic.session.folder)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    rows = {row["request"]: row for row in json.loads(capsys.readouterr().out)["requests"]}
    assert rows[first]["problem"] is None and rows[last]["problem"] is None
    readable = indices[6]
    for index in indices:
        assert (rows[index]["problem"] is None) == (index == readable)
        if index != readable:
            with pytest.raises(UsageError):
                told.clinic.grant(index)
        told.clinic.refuse(index)


def test_what_a_request_says_steers_no_terminal(
    told: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = "p1\x1b[2J\x9b31m\nrequest 99 of st-peter, open\r\u202e\u2028\x00"
    index = _send(told, _document(told, questions=(Question(record, 0, None, "threshold", -(2**52), 0),)))
    monkeypatch.setattr("sys.argv", ["sealproof", "clinic", "requests", "-f", str(told.clinic.session.folder)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(character == "\n" or character.isprintable() for character in printed)
    assert "\nrequest 99" not in printed
    told.clinic.refuse(index)


def test_a_model_that_is_called_like_another_is_told_apart_by_its_entry(
    told: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An owner in league with a consumer gives a model of its own the name and version of one that clinics know."""
    with told.server.owner(tmp_path / "double", "heart-lad") as owner:
        double = owner.publish(MODEL, version="1")
    index = _send(told, _document(told, scope=Scope(None, double.reference, None)))
    honest = told.ask(*told.patients()).index
    monkeypatch.setattr(
        "sys.argv", ["sealproof", "clinic", "requests", "--json", "-f", str(told.clinic.session.folder)]
    )
    with pytest.raises(SystemExit):
        main()
    rows = {row["request"]: row for row in json.loads(capsys.readouterr().out)["requests"]}
    assert rows[honest]["about"] == f"any prediction of heart 1 (entry {told.model.reference.index})"
    assert rows[index]["about"] == f"any prediction of heart 1 (entry {double.reference.index})"
    held = told.clinic.grant(index)
    with pytest.raises(UsageError, match="has no prediction that the grant covers"):
        told.clinic.disclose(held.index)
    told.clinic.revoke_grant(held.index)


def test_a_request_that_another_has_made_is_not_taken_for_ones_own(told: Story, tmp_path: Path) -> None:
    """Box and document of somebody else, logged again: that reads as no request, and the other's is the other's."""
    asked = told.ask(*told.patients())
    thief = told.another(tmp_path / "thief", "acme-thief")
    entry = decode_entry(thief.session.server.entry(asked.index)).body
    copied = thief.session.server.append(thief.session.identity.sign(entry)).index
    rows = {row.index: row for row in told.clinic.incoming()}
    assert rows[copied].document is None and "another log, clinic or consumer" in str(rows[copied].problem)
    with pytest.raises(UsageError, match="is not known"):
        told.clinic.grant(copied)
    assert told.clinic.grant(asked.index).document.consumer == told.consumer.session.identity.party
    told.clinic.refuse(copied)


# -- sizes ------------------------------------------------------------------------------------------------------------


def test_the_size_of_a_sealed_request_tells_neither_kind_nor_id_nor_purpose(told: Story) -> None:
    """Everybody can download a box. Without the zeros its length is that of the id and the question, to the byte."""
    short, long = told.patients(), "patient-1949-03-12-anna-maria-" + "x" * 80
    model, plain, sealed = told.model, [], []
    for record, purpose, options in (
        (short[0], "a", {"kind": "exact"}),
        (short[0], "a", {"kind": "threshold", "threshold": 0.9}),
        (long, "a", {"kind": "exact", "tolerance": 0.25}),
        (short[0], "life insurance, policy 4711, after a claim in 2024", {"kind": "exact"}),
    ):
        asked = told.consumer.request(
            told.clinic.name, [told.question(record, **options)], purpose=purpose, model=model
        )
        body = decode_entry(told.consumer.session.server.entry(asked.index)).body
        assert isinstance(body, Request) and body.box is not None
        plain.append(len(asked.document.encode()))
        sealed.append(len(told.consumer.session.server.blob(body.box)))
        (row,) = [row for row in told.clinic.incoming() if row.index == asked.index]
        assert row.document == asked.document
        told.consumer.withdraw(asked)
    assert len(set(plain)) == 4
    assert set(sealed) == {(1 << 12) + OVERHEAD_BYTES}


def test_the_largest_request_has_a_box() -> None:
    document = b"{" * MAX_DOCUMENT_BYTES
    assert len(pack_request(document)) + OVERHEAD_BYTES == MAX_REQUEST_BOX_BYTES
    for size in (1, 4095, 4096, 4097):
        assert len(pack_request(document[:size])) % 4096 == 0
        assert unpack_request(pack_request(document[:size])) == document[:size]


# -- whatever bytes ---------------------------------------------------------------------------------------------------

REF, ZEROS, TIME = Reference(3, bytes(32)), bytes(32), "2026-01-01T00:00:00Z"
NASTY = [
    b"null", b"1e400", b"-0", b"9007199254740993", b'"\\ud800"', b'"\\u0000"', b"[]", b"{}", b"[" * 5000,
    b'{"a":' * 3000, b"\xff", b"\xef\xbb\xbf", b"NaN", b"1" * 5000, b'"-0"', b'"e\xcc\x81"', b"0.0",
    b'"9999-12-31T23:59:60Z"', b'"0000-00-00T00:00:00Z"',
]  # fmt: skip
_VALUE = re.compile(rb':("[^"]*"|-?\d+|null|\[[^\[\]]*\]|\{[^{}]*\})')


def _mutated(data: bytes, draw: random.Random) -> bytes:
    changed, at = bytearray(data), draw.randrange(len(data))
    match draw.randrange(6):
        case 0:
            changed[at] ^= 1 << draw.randrange(8)
        case 1:
            del changed[at:]
        case 2:
            changed[at:at] = draw.choice(NASTY)
        case 3:
            del changed[at : at + draw.randrange(40)]
        case 4:
            values = list(_VALUE.finditer(data))
            if values:
                start, end = draw.choice(values).span(1)
                changed[start:end] = draw.choice(NASTY)
        case 5:
            changed += draw.choice(NASTY)
    return bytes(changed)


def _formats() -> Iterator[tuple[Callable[[bytes], object], bytes]]:
    signing, mailbox = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
    public = signing.public_key().public_bytes_raw()
    questions = (Question("p7", 0, None, "threshold", 45, 0), Question("p7", 0, 1, "exact", 0, 3))
    scope = Scope(None, REF, None)
    request = RequestDocument("sealproof/request/v1", "log", REF, REF, scope, "why", ZEROS, questions)
    grant = GrantDocument(
        "sealproof/grant/v1", "log", REF, REF, request.digest, scope, "why", ZEROS, questions, TIME, ZEROS
    )
    named = LedgerReference.to(3, b"entry")
    answer = ShownAnswer(0, 0, None, "exact", 3, 1, ZEROS, "p7", bytes(16), (ZEROS,))
    proof = Shown.proof_reference(b"proof")
    shown = sign_shown(Shown(named, named, "ckks", (answer,), 58, 6, ZEROS, proof, TIME), signing)
    yield RequestDocument.decode, request.encode()
    yield GrantDocument.decode, grant.encode()
    yield lambda data: verify_shown(data, public), shown
    payload = decode_envelope(shown).payload_bytes()
    yield lambda data: verify_shown(sign_payload(data, PAYLOAD_TYPE, signing), public), payload
    yield unpack_delivery, pack_delivery(shown, b"proof", grant.encode())
    box = seal(b"text", mailbox.public_key().public_bytes_raw(), purpose=b"use", context=b"context")
    yield lambda data: open_sealed(data, mailbox, purpose=b"use", context=b"context"), box
    for body in (
        Disclosure(REF, ZEROS, ZEROS, REF, ZEROS),
        Grant(REF, ZEROS, TIME),
        Request(REF, ZEROS, ZEROS),
        Refusal(REF, "declined"),
    ):
        yield decode_entry, sign_entry(body, REF, signing)


def test_whatever_bytes_are_decoded_or_refused() -> None:
    """Documents, entries, statements, deliveries and boxes that were damaged or made up: never another error."""
    draw = random.Random(20261124)
    for decode, honest in _formats():
        decode(honest)
        refused = 0
        for _ in range(400):
            data = _mutated(honest, draw)
            try:
                decode(data)
            except (DecodeError, VerificationFailed):
                refused += 1
            # What is left is such as another letter of a purpose.
        assert refused > 300
