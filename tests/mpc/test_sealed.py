"""Sealed shares open for the key, the session and the bytes that they were sealed for, and in no other way."""

from __future__ import annotations

import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from api.mpc.sealed import KEY_BYTES, open_box, seal
from privacy.errors import SessionBroken, VerificationFailed
from privacy.mpc.answers import AnswerShare, decode_shares, encode_shares
from privacy.zk.group import ORDER

PRIVATE = X25519PrivateKey.generate()
PUBLIC = PRIVATE.public_key().public_bytes_raw()
SESSION = bytes(range(32))
SHARES = encode_shares([AnswerShare(secrets.randbelow(ORDER), secrets.randbelow(ORDER)) for _ in range(3)])
BOX = seal(SHARES, PUBLIC, SESSION)

SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
"""Points with which every key agrees on the same secret, which everybody knows."""


def refused(box: bytes, private: X25519PrivateKey = PRIVATE, session: bytes = SESSION) -> None:
    with pytest.raises(VerificationFailed) as caught:
        open_box(box, private, session)
    assert caught.value.check == "joint.box"
    assert not any(SHARES[i : i + 8].hex() in str(caught.value) for i in range(0, len(SHARES), 8))


def test_what_is_sealed_opens() -> None:
    assert open_box(BOX, PRIVATE, SESSION) == SHARES
    assert len(decode_shares(open_box(BOX, PRIVATE, SESSION))) == 3
    assert open_box(seal(b"", PUBLIC, SESSION), PRIVATE, SESSION) == b""


def test_a_box_is_not_made_twice() -> None:
    """Every box has a key of its own, so that the constant nonce of the cipher is used once with each."""
    boxes = {seal(SHARES, PUBLIC, SESSION) for _ in range(20)}
    assert len({box[:KEY_BYTES] for box in boxes}) == 20
    assert len({box[KEY_BYTES:] for box in boxes}) == 20


def test_a_box_tells_its_size_and_nothing_else() -> None:
    assert len(BOX) == KEY_BYTES + len(SHARES) + 16
    for place in range(0, len(SHARES), 32):
        assert SHARES[place : place + 16] not in BOX
    assert SESSION not in BOX
    assert PUBLIC not in BOX


def test_a_box_is_for_one_key() -> None:
    refused(BOX, X25519PrivateKey.generate())
    refused(seal(SHARES, X25519PrivateKey.generate().public_key().public_bytes_raw(), SESSION))


def test_a_box_is_for_one_session() -> None:
    refused(BOX, session=bytes(32))
    refused(seal(SHARES, PUBLIC, bytes(32)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(BOX) - 1), st.integers(0, 7))
def test_a_box_with_one_bit_changed_is_refused(place: int, bit: int) -> None:
    box = bytearray(BOX)
    box[place] ^= 1 << bit
    refused(bytes(box))


@pytest.mark.parametrize(
    "box", [b"", bytes(31), BOX[:32], BOX[:47], BOX[:-1], BOX + b"\0", bytes(200)], ids=lambda box: f"{len(box)} bytes"
)
def test_what_is_no_box_is_refused(box: bytes) -> None:
    refused(box)


def test_the_key_of_another_box_opens_nothing() -> None:
    """Boxes to one recipient in one session: the public keys are part of what the key is derived from."""
    other = seal(SHARES, PUBLIC, SESSION)
    refused(other[:KEY_BYTES] + BOX[KEY_BYTES:])


@pytest.mark.parametrize("key", [*SMALL_ORDER, bytes(31), bytes(33), b""])
def test_nothing_is_sealed_for_a_key_that_is_none(key: bytes) -> None:
    with pytest.raises(SessionBroken) as caught:
        seal(SHARES, key, SESSION)
    assert caught.value.check == "mpc.box-key"


@pytest.mark.parametrize("key", SMALL_ORDER)
def test_a_box_from_a_key_that_is_none_is_refused(key: bytes) -> None:
    refused(key + BOX[KEY_BYTES:])
