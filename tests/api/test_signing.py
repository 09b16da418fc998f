"""Signed requests: only the party's key, only this request, only now, only once."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.errors import NotAuthenticated
from api.nonces import NonceStore
from api.signing import (
    NONCE_HEADER,
    PARTY_HEADER,
    SIGNATURE_HEADER,
    TIME_HEADER,
    VerifiedRequest,
    load_private_key,
    parse_signed_request,
    request_bytes,
    save_private_key,
    sign_request,
    timestamp,
    verify_request,
)
from privacy.errors import DecodeError, UsageError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
BODY = b"body"
DIGEST = hashlib.sha256(BODY).digest()
TARGET = "/v1/ciphertexts?key=3"


def headers(**changes: str) -> dict[str, str]:
    return {**sign_request("POST", TARGET, BODY, 7, KEY, NOW), **changes}


def verify(found: dict[str, str], **changes: object) -> VerifiedRequest:
    arguments: dict[str, object] = {"method": "POST", "target": TARGET, "body_digest": DIGEST, "public_key": PUBLIC}
    arguments |= {"now": NOW, **changes}
    return verify_request(parse_signed_request(found), **arguments)  # type: ignore[arg-type]


def test_a_signed_request_verifies() -> None:
    assert verify(headers()).party == 7


def test_the_signed_bytes_are_as_specified() -> None:
    expected = (
        b"sealproof/request/v1\nPUT\n/v1/x?y=1\n2026-03-01T12:00:00Z\n" + b"0" * 32 + b"\n" + DIGEST.hex().encode()
    )
    assert request_bytes("PUT", "/v1/x?y=1", timestamp(NOW), "0" * 32, DIGEST) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"target": "/v1/ciphertexts?key=4"},
        {"target": "/v1/ciphertexts"},
        {"body_digest": bytes(32)},
        {"public_key": Ed25519PrivateKey.generate().public_key().public_bytes_raw()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_signature_is_for_one_request_by_one_key(change: dict[str, object]) -> None:
    with pytest.raises(NotAuthenticated, match=r"request\.signature"):
        verify(headers(), **change)


def test_time_and_nonce_are_under_the_signature() -> None:
    for change in ({TIME_HEADER: "2026-03-01T12:00:01Z"}, {NONCE_HEADER: "1" * 32}):
        with pytest.raises(NotAuthenticated, match=r"request\.signature"):
            verify(headers(**change))


@pytest.mark.parametrize("seconds", [-301, 301, 86_400])
def test_stale_and_future_requests_are_refused(seconds: int) -> None:
    with pytest.raises(NotAuthenticated, match=r"request\.time"):
        verify(headers(), now=NOW + timedelta(seconds=seconds))


def test_the_window_is_five_minutes_both_ways() -> None:
    for seconds in (-300, 300):
        verify(headers(), now=NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (PARTY_HEADER, "-1"),
        (PARTY_HEADER, "07"),
        (PARTY_HEADER, "9" * 16),
        (PARTY_HEADER, "٣"),
        (TIME_HEADER, "2026-03-01 12:00:00"),
        (TIME_HEADER, "2026-02-30T12:00:00Z"),
        (NONCE_HEADER, "0" * 31),
        (NONCE_HEADER, "A" * 32),
        (SIGNATURE_HEADER, "%%%"),
        (SIGNATURE_HEADER, "AAAA"),
        (SIGNATURE_HEADER, ""),
    ],
)
def test_malformed_headers_are_refused(header: str, value: str) -> None:
    with pytest.raises(NotAuthenticated, match=r"request\.headers"):
        parse_signed_request(headers(**{header: value}))


@pytest.mark.parametrize("header", [PARTY_HEADER, TIME_HEADER, NONCE_HEADER, SIGNATURE_HEADER])
def test_every_header_is_needed(header: str) -> None:
    found = headers()
    del found[header]
    with pytest.raises(NotAuthenticated, match=header):
        parse_signed_request(found)


def test_a_target_cannot_smuggle_a_line() -> None:
    with pytest.raises(UsageError):
        request_bytes("GET", "/a\n/b", timestamp(NOW), "0" * 32, DIGEST)


def test_only_the_verifier_makes_a_verified_request() -> None:
    with pytest.raises(UsageError):
        VerifiedRequest(7, "0" * 32, PUBLIC, object())


def test_a_nonce_is_spent_once_even_after_a_restart(tmp_path: Path) -> None:
    request = verify(headers())
    store = NonceStore(tmp_path / "nonces.sqlite")
    store.spend(request, NOW.timestamp())
    with pytest.raises(NotAuthenticated, match=r"request\.nonce"):
        store.spend(request, NOW.timestamp())
    store.close()
    again = NonceStore(tmp_path / "nonces.sqlite")
    with pytest.raises(NotAuthenticated, match=r"request\.nonce"):
        again.spend(request, NOW.timestamp() + 599)
    again.close()


def test_key_files_are_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "party.key"
    save_private_key(KEY, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_private_key(path).private_bytes_raw() == KEY.private_bytes_raw()
    with pytest.raises(UsageError, match="never overwritten"):
        save_private_key(Ed25519PrivateKey.generate(), path)
    assert load_private_key(path).private_bytes_raw() == KEY.private_bytes_raw()
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        load_private_key(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"sealproof/ed25519/v1 00\n", b"\xff" * 90, b"x" * 2000])
def test_other_files_are_not_keys(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "party.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(DecodeError):
        load_private_key(path)
    with pytest.raises(UsageError):
        load_private_key(tmp_path / "absent")
