"""What the service refuses, and that nothing at all is written then: not in the log, no blob, no job."""

from __future__ import annotations

import hashlib
import json
import secrets
import select
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.entries import Party, Policy, Records, Reference, Revocation, ZeroWeight, sign_entry
from api.limits import RateLimiter
from api.service import admit_party
from api.settings import Settings
from api.signing import NONCE_HEADER, SIGNATURE_HEADER, TIME_HEADER, sign_request
from api.submission import check_behind
from ledger import LogLocked, leaf_hash
from privacy.errors import UsageError, VerificationFailed
from privacy.models.statements import decode_opening, encode_opening
from tests.api.conftest import (
    CLINIC,
    Caller,
    CertifiedKey,
    CertifiedModel,
    Cohort,
    Running,
    Upload,
    frames,
    location,
    ok,
    refused,
    register,
    run_server,
    with_data,
)

BLOB = b"some bytes"
TARGET = "/v1/blobs/" + hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def other_clinic(service: Running) -> Caller:
    return register(service.client, "clinic", "clinic-b")


@pytest.fixture
def unchanged(
    service: Running, clinic_party: Caller, owner_party: Caller, other_clinic: Caller, cohort: Cohort
) -> Iterator[None]:
    """Whatever happens in the test, the server keeps what it kept."""
    before = service.state()
    yield
    assert service.state() == before


@pytest.fixture(scope="module")
def cohort(upload_cohort: Upload, model_entry: Reference) -> Cohort:
    """Uploaded records that were not submitted."""
    return upload_cohort(3)


# -- who asks ---------------------------------------------------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("unchanged")


@pytest.mark.parametrize("header", ["Sealproof-Party", "Sealproof-Time", "Sealproof-Nonce", "Sealproof-Signature"])
def test_requests_without_a_header(service: Running, clinic_party: Caller, header: str) -> None:
    headers = sign_request("PUT", TARGET, BLOB, clinic_party.reference.index, clinic_party.private_key)
    del headers[header]
    response = service.client.put(TARGET, content=BLOB, headers=headers)
    refused(response, 401, "not-authenticated", "request.headers")


def test_requests_by_nobody(service: Running) -> None:
    for index in (999, service.service.log.size):
        headers = sign_request("PUT", TARGET, BLOB, index, Ed25519PrivateKey.generate())
        response = service.client.put(TARGET, content=BLOB, headers=headers)
        refused(response, 401, "not-authenticated", "request.party")


def test_requests_signed_by_another_key(clinic_party: Caller) -> None:
    impostor = replace(clinic_party, private_key=Ed25519PrivateKey.generate())
    refused(impostor.send("PUT", TARGET, BLOB), 401, "not-authenticated", "request.signature")


def test_a_body_changed_on_the_way(clinic_party: Caller) -> None:
    signed = sign_request("PUT", TARGET, BLOB, clinic_party.reference.index, clinic_party.private_key)
    response = clinic_party.client.put(TARGET, content=BLOB + b"!", headers=signed)
    refused(response, 401, "not-authenticated", "request.signature")


def test_a_query_changed_on_the_way(clinic_party: Caller, key_entry: Reference) -> None:
    target = f"/v1/ciphertexts?key={key_entry.index}"
    signed = sign_request("POST", target, b"x", clinic_party.reference.index, clinic_party.private_key)
    response = clinic_party.client.post("/v1/ciphertexts?key=0", content=b"x", headers=signed)
    refused(response, 401, "not-authenticated", "request.signature")


def test_old_requests(clinic_party: Caller) -> None:
    response = clinic_party.send("PUT", TARGET, BLOB, **{TIME_HEADER: "2020-01-01T00:00:00Z"})
    refused(response, 401, "not-authenticated", "request.time")


def test_a_replayed_request(clinic_party: Caller, cohort: Cohort) -> None:
    body = json.dumps({"records": 0, "model": 0, "nonce": "00" * 32}).encode()
    signed = sign_request("POST", "/v1/predictions", body, clinic_party.reference.index, clinic_party.private_key)
    first = clinic_party.client.post("/v1/predictions", content=body, headers=signed)
    assert first.status_code == 422
    again = clinic_party.client.post("/v1/predictions", content=body, headers=signed)
    refused(again, 401, "not-authenticated", "request.nonce")


def test_a_bad_signature_spends_no_nonce(clinic_party: Caller) -> None:
    signed = sign_request("POST", "/v1/entries", b"{}", clinic_party.reference.index, clinic_party.private_key)
    forged = {**signed, SIGNATURE_HEADER: "A" * 86 + "=="}
    response = clinic_party.client.post("/v1/entries", content=b"{}", headers=forged)
    refused(response, 401, "not-authenticated", "request.signature")
    assert signed[NONCE_HEADER] == forged[NONCE_HEADER]
    refused(clinic_party.client.post("/v1/entries", content=b"{}", headers=signed), 400, "malformed")


# -- parties ----------------------------------------------------------------------------------------------------------


def party_entry(role: str, name: str) -> bytes:
    key = Ed25519PrivateKey.generate()
    return sign_entry(Party(role, name, key.public_key().public_bytes_raw()), None, key)  # type: ignore[arg-type]


def test_nobody_registers_as_a_server(service: Running) -> None:
    response = service.client.post("/v1/parties", content=party_entry("server", "me too"))
    refused(response, 403, "not-permitted", "party.role")


def test_a_taken_name(service: Running, clinic_party: Caller) -> None:
    response = service.client.post("/v1/parties", content=party_entry("owner", CLINIC))
    refused(response, 422, "verification-failed", "party.name")


def test_a_party_that_did_not_sign(service: Running) -> None:
    entry = json.loads(party_entry("clinic", "clinic-c"))
    entry["body"]["name"] = "clinic-d"
    body = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
    refused(service.client.post("/v1/parties", content=body), 422, "verification-failed", "entry.signature")


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"[" * 60_000, b'{"kind":"sealproof/party/v1"}'])
def test_bytes_that_are_no_entry(service: Running, body: bytes) -> None:
    refused(service.client.post("/v1/parties", content=body), 400, "malformed")


def test_other_entries_do_not_come_as_parties(service: Running, owner_party: Caller, model_entry: Reference) -> None:
    entry = owner_party.sign(Revocation(model_entry, "x"))
    response = service.client.post("/v1/parties", content=entry)
    refused(response, 403, "not-permitted", "entry.kind")


# -- uploads ----------------------------------------------------------------------------------------------------------


def test_a_blob_under_another_digest(clinic_party: Caller) -> None:
    response = clinic_party.send("PUT", f"/v1/blobs/{'00' * 32}", BLOB)
    refused(response, 422, "verification-failed", "blob.digest")


def raw(service: Running, head: dict[str, str], target: str, parts: Iterator[bytes]) -> tuple[int, str, int]:
    """Send a request by hand until an answer comes: the status, the answer, and how much of the body was sent."""
    address = ("127.0.0.1", httpx.URL(service.url).port)
    with socket.create_connection(address, timeout=10) as connection:
        lines = [f"POST {target} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in head.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode())
        sent = 0
        for part in parts:
            if select.select([connection], [], [], 0.05)[0]:
                break
            connection.sendall(part)
            sent += len(part)
        answer = b""
        while b"\r\n\r\n" not in answer or b"error" not in answer:
            received = connection.recv(65_536)
            if not received:
                break
            answer += received
    return int(answer.split()[1]), answer.decode(), sent


def test_announced_bodies_that_are_too_large_are_not_read(service: Running, clinic_party: Caller) -> None:
    head = sign_request("POST", "/v1/entries", b"", clinic_party.reference.index, clinic_party.private_key)
    status, answer, sent = raw(service, {**head, "Content-Length": str(1 << 40)}, "/v1/entries", iter([b""]))
    assert (status, sent) == (413, 0)
    assert "too-large" in answer


def test_streamed_bodies_are_cut_off_at_the_limit(service: Running, clinic_party: Caller) -> None:
    head = sign_request("POST", "/v1/entries", b"", clinic_party.reference.index, clinic_party.private_key)
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    parts = (chunk for _ in range(1000))
    status, answer, sent = raw(service, {**head, "Transfer-Encoding": "chunked"}, "/v1/entries", parts)
    assert status == 413
    assert "too-large" in answer
    assert sent < 20 * len(chunk)  # the limit is four chunks


def test_strangers_do_not_make_the_server_read(service: Running) -> None:
    head = sign_request("POST", "/v1/entries", b"", 999, Ed25519PrivateKey.generate())
    status, _, sent = raw(service, {**head, "Content-Length": "60000"}, "/v1/entries", iter([b"", b""]))
    assert (status, sent) == (401, 0)


def mangled(files: list[bytes]) -> dict[str, bytes]:
    good = files[0]
    return {
        "empty": b"",
        "cut off": frames([good])[:-1],
        "no bytes": bytes(4),
        "length beyond the end": (2**32 - 1).to_bytes(4, "little") + good,
        "trailing byte": frames([good]) + b"\0",
        "not SEAL": frames([b"x" * 100]),
        "one good, one bad": frames([good, good[:-5] + b"12345"]),
        "changed header": frames([good[:20] + bytes([good[20] ^ 1]) + good[21:]]),
    }


@pytest.mark.parametrize("name", mangled([b"x" * 64]))
def test_ciphertexts_that_are_none(
    name: str, clinic_party: Caller, key_entry: Reference, certified_key: CertifiedKey, certified_model: CertifiedModel
) -> None:
    import numpy as np

    files = [item.seal_bytes for item in certified_key.keys.encrypt_block(np.zeros((1, 4096)))]
    response = clinic_party.send("POST", f"/v1/ciphertexts?key={key_entry.index}", mangled(files)[name])
    assert response.status_code in (400, 422), response.text


def test_too_many_ciphertexts(service: Running, clinic_party: Caller, key_entry: Reference) -> None:
    body = frames([b"x"] * (service.settings.max_ciphertexts + 1))
    refused(clinic_party.send("POST", f"/v1/ciphertexts?key={key_entry.index}", body), 413, "too-large")


def test_ciphertexts_under_the_key_of_another_clinic(other_clinic: Caller, key_entry: Reference) -> None:
    response = other_clinic.send("POST", f"/v1/ciphertexts?key={key_entry.index}", frames([b"x"]))
    refused(response, 403, "not-permitted", "key.author")


def test_ciphertexts_under_what_is_no_key(clinic_party: Caller) -> None:
    for index in (0, 10_000):
        response = clinic_party.send("POST", f"/v1/ciphertexts?key={index}", frames([b"x"]))
        refused(response, 422, "verification-failed", "ledger.reference")


# -- entries ----------------------------------------------------------------------------------------------------------


def test_a_stranger_does_not_submit_for_the_author(
    other_clinic: Caller, clinic_party: Caller, certified_key: CertifiedKey
) -> None:
    entry = clinic_party.sign(replace(certified_key.body, number=9))
    response = other_clinic.send("POST", "/v1/entries", entry)
    refused(response, 403, "not-permitted", "entry.author")


def test_a_prediction_is_not_submitted(clinic_party: Caller, cohort: Cohort) -> None:
    refused(clinic_party.send("POST", "/v1/entries", party_entry("clinic", "x")), 403, "not-permitted", "entry.author")


def test_a_key_whose_certificate_is_of_another_number(clinic_party: Caller, certified_key: CertifiedKey) -> None:
    response = clinic_party.send("POST", "/v1/entries", clinic_party.sign(replace(certified_key.body, number=2)))
    assert response.status_code == 422
    assert response.json()["error"]["check"].startswith(("quadratic.", "key."))


def test_a_key_whose_commitments_are_others(
    clinic_party: Caller, certified_key: CertifiedKey, key_entry: Reference, service: Running
) -> None:
    swapped = replace(certified_key.body, C_s_plus=certified_key.body.C_s_minus)
    with pytest.raises(VerificationFailed, match=r"key\.commitments"):
        check_behind(swapped, service.service.blobs)


def test_a_key_number_twice(clinic_party: Caller, certified_key: CertifiedKey, key_entry: Reference) -> None:
    response = clinic_party.send("POST", "/v1/entries", clinic_party.sign(replace(certified_key.body, p0=bytes(32))))
    refused(response, 422, "verification-failed", "key.number")


def test_blobs_must_be_there_first(owner_party: Caller, certified_model: CertifiedModel) -> None:
    for field in ("schema", "certificate"):
        body = replace(certified_model.body, version="2", **{field: bytes(32)})
        response = owner_party.send("POST", "/v1/entries", owner_party.sign(body))
        error = refused(response, 422, "verification-failed", "entry.blob")
        assert "00" * 32 in error["message"]


def test_a_certificate_of_another_version(owner_party: Caller, certified_model: CertifiedModel) -> None:
    body = replace(certified_model.body, version="2")
    response = owner_party.send("POST", "/v1/entries", owner_party.sign(body))
    assert response.status_code == 422
    assert response.json()["error"]["check"].startswith("quadratic.")


def test_a_zero_weight_claim_without_proof(owner_party: Caller, certified_model: CertifiedModel) -> None:
    claim = ZeroWeight("zero-weight", 0, 1, bytes(32))
    body = replace(certified_model.body, card={"claim": "x"}, version="1.0", statements=(claim,))
    response = owner_party.send("POST", "/v1/entries", owner_party.sign(replace(body, name="risk2")))
    assert response.status_code == 422


Change = Callable[[Records], dict[str, Any]]
RECORDS: dict[str, tuple[str | None, Change]] = {
    "more patients than blocks": ("records.blocks", lambda r: {"count": 5000}),
    "more features than ciphertexts": ("records.schema", lambda r: {"d": 4}),
    "a list that is not here": ("entry.blob", lambda r: {"ciphertexts": bytes(32)}),
    "another clinic's name": ("records.clinic", lambda r: {"clinic": "clinic-b"}),
    "a list for more blocks": (None, lambda r: {"count": 5000, "blocks": 2}),
    "a policy for no model": ("ledger.reference", lambda r: {"policy": Policy((r.key,), None)}),
    "another key": ("ledger.reference", lambda r: {"key": replace(r.key, leaf=bytes(32))}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_records_that_do_not_fit(name: str, clinic_party: Caller, cohort: Cohort) -> None:
    check, change = RECORDS[name]
    body = replace(cohort.body, **change(cohort.body))
    response = clinic_party.send("POST", "/v1/entries", clinic_party.sign(body))
    if check is None:
        refused(response, 400, "malformed")
    else:
        refused(response, 422, "verification-failed", check)


def test_only_the_author_revokes(owner_party: Caller, key_entry: Reference) -> None:
    response = owner_party.send("POST", "/v1/entries", owner_party.sign(Revocation(key_entry, "competition")))
    refused(response, 422, "verification-failed", "revocation.author")


# -- openings ---------------------------------------------------------------------------------------------------------


def test_an_opening_of_other_weights(
    owner_party: Caller, model_entry: Reference, certified_model: CertifiedModel
) -> None:
    opening = decode_opening(certified_model.opening)
    first = opening.outputs[0]
    target = f"/v1/models/{model_entry.index}/opening"
    for changed in (
        replace(first, weights=(first.weights[0] + 1, *first.weights[1:])),
        replace(first, rho=first.rho ^ 1),
        replace(first, weights=first.weights[:-1]),
        replace(first, bias=1 << 70),
    ):
        data = encode_opening(replace(opening, outputs=(changed, *opening.outputs[1:])))
        refused(owner_party.send("PUT", target, data), 422, "verification-failed", "model.opening")
    for changed_opening in (replace(opening, version="7"), replace(opening, outputs=opening.outputs[:1])):
        data = encode_opening(changed_opening)
        refused(owner_party.send("PUT", target, data), 422, "verification-failed", "model.opening")
    refused(owner_party.send("PUT", target, b"{}"), 400, "malformed")


def test_an_opening_by_somebody_else(
    clinic_party: Caller, model_entry: Reference, certified_model: CertifiedModel
) -> None:
    response = clinic_party.send("PUT", f"/v1/models/{model_entry.index}/opening", certified_model.opening)
    refused(response, 403, "not-permitted", "model.author")


def test_an_opening_is_never_handed_out(service: Running, model_entry: Reference) -> None:
    refused(service.client.get(f"/v1/models/{model_entry.index}/opening"), 405, "method-not-allowed")
    (path,) = (service.settings.data / "models").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0


# -- predictions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"records":1,"model":2}', b'{"records":"1","model":2,"nonce":"%s"}' % (b"0" * 64)],
)
def test_malformed_prediction_requests(clinic_party: Caller, body: bytes) -> None:
    refused(clinic_party.send("POST", "/v1/predictions", body), 400, "malformed")


def test_predictions_on_what_is_not_there(clinic_party: Caller, key_entry: Reference, model_entry: Reference) -> None:
    for records, model in ((key_entry.index, model_entry.index), (10_000, model_entry.index)):
        response = clinic_party.predict(records, model, secrets.token_hex(32))
        refused(response, 422, "verification-failed", "ledger.reference")


# -- the server as a whole --------------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_folder(service: Running) -> None:
    from api.service import Service

    with pytest.raises(LogLocked):
        Service(service.settings)


def test_a_folder_of_another_origin(service: Running) -> None:
    from api.service import Service

    with pytest.raises(UsageError, match="never changes"):
        Service(service.settings.model_copy(update={"origin": "elsewhere"}))


def test_closed_registration_asks_the_operator(settings: Settings, tmp_path: Path) -> None:
    closed = with_data(settings, tmp_path / "data", registration="closed", origin="closed/log")
    entry = party_entry("clinic", "clinic-x")
    with run_server(closed) as running:
        before = running.state()
        response = running.client.post("/v1/parties", content=entry)
        refused(response, 403, "not-permitted", "party.registration")
        assert running.state() == before
        admit_party(closed.data, entry)  # while the server runs
        assert location(running.client.post("/v1/parties", content=entry)).leaf == leaf_hash(entry)
        other = running.client.post("/v1/parties", content=party_entry("clinic", "clinic-y"))
        refused(other, 403, "not-permitted", "party.registration")
    with pytest.raises(UsageError):
        admit_party(closed.data, party_entry("server", "x"))


def test_closed_registration_admits_consumers_with_the_mailbox_that_the_operator_saw(
    settings: Settings, tmp_path: Path
) -> None:
    closed = with_data(settings, tmp_path / "data", registration="closed", origin="closed/log")
    key = Ed25519PrivateKey.generate()
    mailboxes = [X25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2)]
    seen, other = (
        sign_entry(Party("consumer", "insurer", key.public_key().public_bytes_raw(), mailbox), None, key)
        for mailbox in mailboxes
    )
    with run_server(closed) as running:
        refused(running.client.post("/v1/parties", content=seen), 403, "not-permitted", "party.registration")
        assert admit_party(closed.data, seen).role == "consumer"
        refused(running.client.post("/v1/parties", content=other), 403, "not-permitted", "party.registration")
        ok(running.client.post("/v1/parties", content=seen))


def test_a_full_disk_is_refused_before_it_is_full(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_server(with_data(settings, tmp_path / "data")) as running:
        clinic = register(running.client, "clinic", "clinic-a")
        before = running.state()
        monkeypatch.setattr(running.service.blobs, "_min_free", 1 << 60)
        refused(clinic.send("PUT", TARGET, BLOB), 507, "storage-full")
        refused(running.client.post("/v1/parties", content=party_entry("clinic", "clinic-b")), 507, "storage-full")
        assert running.state() == before


def test_too_many_requests(settings: Settings, tmp_path: Path) -> None:
    slow = with_data(settings, tmp_path / "data", requests_per_minute=3)
    with run_server(slow) as running:
        clinic = register(running.client, "clinic", "clinic-a")
        other = register(running.client, "clinic", "clinic-b")
        for _ in range(3):
            ok(clinic.send("PUT", TARGET, BLOB))
        response = clinic.send("PUT", TARGET, BLOB)
        refused(response, 429, "rate-limited")
        assert int(response.headers["retry-after"]) >= 1
        ok(other.send("PUT", TARGET, BLOB))  # one party does not use up another's share


def test_a_bucket_fills_again() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    for _ in range(60):
        limiter.take("a")
    with pytest.raises(Exception, match="too many"):
        limiter.take("a")
    now = 1.5
    limiter.take("a")
    with pytest.raises(Exception, match="too many"):
        limiter.take("a")
