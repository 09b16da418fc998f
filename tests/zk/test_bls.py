"""BLS signatures: what the standards say, two implementations that agree, and the ways to sign for somebody else."""

from __future__ import annotations

import pickle
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk import bls
from privacy.zk.bls import (
    PAIRING,
    POSSESSION_TAG,
    PUBLIC_BYTES,
    REFERENCE_PAIRING,
    SIGNATURE_BYTES,
    SIGNATURE_TAG,
    ProvenKey,
    SecretKey,
    aggregate,
    public_key_eip2537,
    signature_eip2537,
    verify,
    verify_aggregate,
    verify_possession,
)
from privacy.zk.group import ARKWORKS, FIELD, ORDER

BOTH = [PAIRING, REFERENCE_PAIRING]
GENERATOR = bytes.fromhex(
    "93e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e"
    "024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb8"
)
# RFC 9380, appendix J.9.1.
RFC9380_TAG = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"
RFC9380 = {
    b"": "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1"
    "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
    b"abc": "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903"
    "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
}
# Round 1000 of the public beacon drand quicknet: suite BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_, key in G2.
DRAND_TAG = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
DRAND_KEY = bytes.fromhex(
    "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)
DRAND_SIGNATURE = bytes.fromhex(
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"
)
DRAND_MESSAGE = sha256((1000).to_bytes(8, "big")).digest()

MESSAGE = b"what the committee agrees on"
ALICE, BOB, CAROL = SecretKey(0x1234567890ABCDEF << 180), SecretKey(ORDER - 2), SecretKey(3)


def proven(*secrets: SecretKey) -> list[ProvenKey]:
    return [verify_possession(secret.public, secret.prove_possession()) for secret in secrets]


def signed(*secrets: SecretKey, message: bytes = MESSAGE) -> bytes:
    return aggregate([secret.sign(message) for secret in secrets])


# -- standards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", BOTH, ids=lambda p: p.name)
def test_hash_to_curve_is_rfc_9380(pairing):
    for message, expected in RFC9380.items():
        assert pairing.group.export_affine(pairing.hash_to_curve(message, RFC9380_TAG)).hex() == expected


@pytest.mark.parametrize("pairing", BOTH, ids=lambda p: p.name)
def test_a_signature_of_a_public_beacon_verifies(pairing, monkeypatch):
    with pytest.raises(VerificationFailed, match=r"bls\.signature"):
        verify(DRAND_KEY, DRAND_MESSAGE, DRAND_SIGNATURE, pairing)
    monkeypatch.setattr(bls, "SIGNATURE_TAG", DRAND_TAG)
    verify(DRAND_KEY, DRAND_MESSAGE, DRAND_SIGNATURE, pairing)


def test_only_that_message_of_the_beacon_verifies(monkeypatch):
    monkeypatch.setattr(bls, "SIGNATURE_TAG", DRAND_TAG)
    for key, message, signature in (
        (DRAND_KEY, sha256((1001).to_bytes(8, "big")).digest(), DRAND_SIGNATURE),
        (GENERATOR, DRAND_MESSAGE, DRAND_SIGNATURE),
        (DRAND_KEY, DRAND_MESSAGE, ARKWORKS.encode(ARKWORKS.negate(ARKWORKS.decode(DRAND_SIGNATURE)))),
    ):
        with pytest.raises(VerificationFailed):
            verify(key, message, signature)


@pytest.mark.parametrize("pairing", BOTH, ids=lambda p: p.name)
def test_the_secret_1_has_the_standard_generator_as_its_key(pairing):
    assert SecretKey(1).public == GENERATOR
    assert pairing.encode(pairing.multiple_of_generator(1)) == GENERATOR


def test_points_are_written_as_eip_2537_says():
    # The generators as the EIP gives them.
    key = public_key_eip2537(GENERATOR)
    assert key[16:64].hex() == GENERATOR[48:].hex()
    assert key[64:80] == bytes(16)
    assert key[80:128].hex() == f"{GENERATOR[0] & 0x1F:02x}{GENERATOR[1:48].hex()}"
    assert key[144:192].hex().startswith("0ce5d527727d6e118cc9cdc6da2e351aadfd9baa8cbdd3a7")
    point = signature_eip2537(ARKWORKS.encode(ARKWORKS.multiply(ARKWORKS.hash_to_curve(b"x"), 5)))
    assert (len(key), len(point), point[:16], point[64:80]) == (256, 128, bytes(16), bytes(16))


def test_tags_are_our_own_and_of_the_length_that_the_contract_has():
    assert len({SIGNATURE_TAG, POSSESSION_TAG, DRAND_TAG}) == 3
    assert len(SIGNATURE_TAG) == len(POSSESSION_TAG) == 0x3E


# -- two implementations ----------------------------------------------------------------------------------------------


def test_both_implementations_agree_on_keys_hashes_and_coordinates():
    for scalar in (1, 2, ORDER - 1, 0x1234567890ABCDEF << 180):
        mine, other = (pairing.multiple_of_generator(scalar) for pairing in BOTH)
        assert PAIRING.encode(mine) == REFERENCE_PAIRING.encode(other)
        assert PAIRING.affine(mine) == REFERENCE_PAIRING.affine(other)
        assert REFERENCE_PAIRING.encode(REFERENCE_PAIRING.decode(PAIRING.encode(mine))) == PAIRING.encode(mine)
    a, b = (p.add(p.multiple_of_generator(5), p.multiple_of_generator(7)) for p in BOTH)
    assert PAIRING.encode(a) == REFERENCE_PAIRING.encode(b) == SecretKey(12).public
    for tag in (SIGNATURE_TAG, POSSESSION_TAG):
        mine, other = (p.group.encode(p.hash_to_curve(MESSAGE, tag)) for p in BOTH)
        assert mine == other


@pytest.mark.parametrize("pairing", BOTH, ids=lambda p: p.name)
def test_both_verify_what_a_committee_signed_and_refuse_another_message(pairing):
    keys = [verify_possession(secret.public, secret.prove_possession(), pairing) for secret in (ALICE, BOB)]
    signature = signed(ALICE, BOB)
    verify_aggregate(keys, MESSAGE, signature, pairing)
    with pytest.raises(VerificationFailed, match=r"bls\.signature"):
        verify_aggregate(keys, MESSAGE + b"!", signature, pairing)


# -- what holds, and what does not ------------------------------------------------------------------------------------


def test_signatures_are_the_same_every_time_and_of_the_stated_size():
    assert ALICE.sign(MESSAGE) == ALICE.sign(MESSAGE) != ALICE.sign(MESSAGE + b"!")
    assert (len(ALICE.sign(MESSAGE)), len(ALICE.public)) == (SIGNATURE_BYTES, PUBLIC_BYTES)
    verify(ALICE.public, MESSAGE, ALICE.sign(MESSAGE))


def test_an_aggregate_is_of_exactly_these_keys():
    keys, signature = proven(ALICE, BOB, CAROL), signed(ALICE, BOB, CAROL)
    verify_aggregate(keys, MESSAGE, signature)
    verify_aggregate(keys[::-1], MESSAGE, signature)
    for wrong in (keys[:2], keys[1:], keys[:1], proven(ALICE, BOB, SecretKey(4))):
        with pytest.raises(VerificationFailed, match=r"bls\.signature"):
            verify_aggregate(wrong, MESSAGE, signature)


def test_a_member_is_not_counted_twice():
    """S + S is a fine signature of pk + pk: one member would make any quorum."""
    doubled = signed(ALICE, ALICE)
    (key,) = proven(ALICE)
    with pytest.raises(VerificationFailed, match=r"bls\.repeated"):
        verify_aggregate([key, key], MESSAGE, doubled)
    total = PAIRING.add(PAIRING.decode(key.public), PAIRING.decode(key.public))
    verify(PAIRING.encode(total), MESSAGE, doubled)


def test_a_rogue_key_signs_for_others_only_without_its_proof_of_possession():
    """pk' = x g2 - pk_alice: the sum with Alice's key is x g2, whose secret is the attacker's."""
    x = SecretKey(77)
    negated = PAIRING.encode(PAIRING.multiple_of_generator(1) * _scalar(ORDER - ALICE._scalar))
    rogue = PAIRING.encode(PAIRING.add(PAIRING.decode(x.public), PAIRING.decode(negated)))
    forged = x.sign(MESSAGE)

    # Without proofs, "Alice and the attacker signed" holds.
    total = PAIRING.add(PAIRING.decode(ALICE.public), PAIRING.decode(rogue))
    assert PAIRING.equal_pairings(
        (ARKWORKS.decode(forged), PAIRING.multiple_of_generator(1)),
        (PAIRING.hash_to_curve(MESSAGE, SIGNATURE_TAG), total),
    )
    # No proof that the attacker can make is one of the rogue key.
    with pytest.raises(UsageError, match="made by verify_possession only"):
        ProvenKey(rogue, object())
    for proof in (x.prove_possession(), ALICE.prove_possession(), forged, ALICE.sign(public_key_eip2537(rogue))):
        for pairing in BOTH[: 1 + (proof is forged)]:
            with pytest.raises(VerificationFailed, match=r"bls\.possession"):
                verify_possession(rogue, proof, pairing)
    difference = ARKWORKS.add(
        ARKWORKS.decode(x.prove_possession()), ARKWORKS.negate(ARKWORKS.decode(ALICE.prove_possession()))
    )
    with pytest.raises(VerificationFailed, match=r"bls\.possession"):
        verify_possession(rogue, ARKWORKS.encode(difference))


def _scalar(value: int):
    import py_arkworks_bls12381 as arkworks

    return arkworks.Scalar.from_le_bytes(value.to_bytes(32, "little"))


def test_a_signature_is_no_proof_of_possession_and_the_other_way_round():
    encoded = public_key_eip2537(ALICE.public)
    with pytest.raises(VerificationFailed, match=r"bls\.possession"):
        verify_possession(ALICE.public, ALICE.sign(encoded))
    with pytest.raises(VerificationFailed, match=r"bls\.signature"):
        verify(ALICE.public, encoded, ALICE.prove_possession())


def test_a_proof_of_possession_is_of_one_key_only():
    opposite = SecretKey(ORDER - CAROL._scalar)
    for other in (ALICE, opposite):
        with pytest.raises(VerificationFailed, match=r"bls\.possession"):
            verify_possession(other.public, CAROL.prove_possession())


def test_keys_that_cancel_have_no_signature():
    """With s and -s proved, the identity would be everybody's signature of every message."""
    opposite = SecretKey(ORDER - CAROL._scalar)
    keys = proven(CAROL, opposite)
    with pytest.raises(UsageError, match="cancel"):
        signed(CAROL, opposite)
    for pairing in BOTH:
        with pytest.raises(VerificationFailed, match=r"bls\.cancelled"):
            verify_aggregate(keys, MESSAGE, ALICE.sign(MESSAGE), pairing)
    with pytest.raises(DecodeError, match="identity"):
        verify_aggregate(proven(CAROL, ALICE), MESSAGE, b"\xc0" + bytes(47))


def test_nobody_signs_nothing():
    with pytest.raises(UsageError):
        aggregate([])
    with pytest.raises(UsageError):
        verify_aggregate([], MESSAGE, ALICE.sign(MESSAGE))


# -- encodings --------------------------------------------------------------------------------------------------------


def compressed(x1: int, x0: int, flags: int = 0x80) -> bytes:
    raw = bytearray(x1.to_bytes(48, "big") + x0.to_bytes(48, "big"))
    raw[0] |= flags
    return bytes(raw)


def off_subgroup() -> bytes:
    """A point of the twist with small x: the subgroup is 2^-254 of the curve."""
    from py_ecc.bls.point_compression import decompress_G2

    for x in range(1, 100):
        data = compressed(0, x)
        try:
            decompress_G2((int.from_bytes(data[:48], "big"), x))
        except ValueError:
            continue
        return data
    raise AssertionError("no such point: 2^-100")


REFUSED = {
    "empty": b"",
    "one byte short": GENERATOR[:-1],
    "one byte long": GENERATOR + b"\0",
    "a point of G1": DRAND_SIGNATURE,
    "uncompressed length": bytes(192),
    "all zero": bytes(96),
    "all ones": b"\xff" * 96,
    "compression flag cleared": bytes([GENERATOR[0] & 0x7F]) + GENERATOR[1:],
    "identity": b"\xc0" + bytes(95),
    "identity with sign": b"\xe0" + bytes(95),
    "identity without flag": b"\x80" + bytes(95),
    "identity with a remainder": b"\xc0" + bytes(94) + b"\x01",
    "identity flag on a point": bytes([GENERATOR[0] | 0x40]) + GENERATOR[1:],
    "c1 equal to p": compressed(FIELD, 2),
    "c0 equal to p": compressed(2, FIELD),
    "c0 above p": compressed(2, (1 << 384) - 1),
    "flags on the second half": GENERATOR[:48] + bytes([GENERATOR[48] | 0x80]) + GENERATOR[49:],
    "off the subgroup": off_subgroup(),
    "off the subgroup, other sign": bytes([off_subgroup()[0] ^ 0x20]) + off_subgroup()[1:],
}


@pytest.mark.parametrize("pairing", BOTH, ids=lambda p: p.name)
@pytest.mark.parametrize("name", REFUSED)
def test_a_public_key_that_is_no_canonical_point_is_refused(pairing, name):
    with pytest.raises(DecodeError, match="public key"):
        pairing.decode(REFUSED[name])


@pytest.mark.parametrize("name", ["identity", "one byte short", "off the subgroup"])
def test_such_a_key_is_refused_wherever_one_is_taken(name):
    key = REFUSED[name]
    for use in (
        lambda: verify(key, MESSAGE, ALICE.sign(MESSAGE)),
        lambda: verify_possession(key, ALICE.prove_possession()),
        lambda: public_key_eip2537(key),
    ):
        with pytest.raises(DecodeError):
            use()


@pytest.mark.parametrize("bad", [b"", bytes(48), b"\xc0" + bytes(47), GENERATOR, b"\x80" + bytes(46) + b"\x01"])
def test_a_signature_that_is_no_canonical_point_is_refused(bad):
    for use in (
        lambda: verify(ALICE.public, MESSAGE, bad),
        lambda: verify_possession(ALICE.public, bad),
        lambda: verify_aggregate(proven(ALICE), MESSAGE, bad),
        lambda: aggregate([ALICE.sign(MESSAGE), bad]),
        lambda: signature_eip2537(bad),
    ):
        with pytest.raises(DecodeError, match="signature"):
            use()


def test_every_flipped_bit_of_a_key_is_refused_but_the_sign():
    for bit in range(8 * PUBLIC_BYTES):
        raw = bytearray(GENERATOR)
        raw[bit // 8] ^= 0x80 >> bit % 8
        if bit == 2:
            assert PAIRING.encode(PAIRING.decode(bytes(raw))) == SecretKey(ORDER - 1).public
            continue
        with pytest.raises(DecodeError):
            PAIRING.decode(bytes(raw))


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.binary(min_size=96, max_size=96).map(lambda b: b"\x88" + b[1:])))
def test_decoding_a_key_is_total_and_both_agree(data):
    def outcome(pairing):
        try:
            return pairing.encode(pairing.decode(data))
        except DecodeError:
            return None

    assert outcome(PAIRING) == outcome(REFERENCE_PAIRING)
    assert outcome(PAIRING) in (None, data)


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_a_secret_key_is_a_scalar_from_1_and_below_r():
    for scalar in (0, ORDER, -1, ORDER + 1):
        with pytest.raises(UsageError, match="scalar"):
            SecretKey(scalar)
    for data in (b"", bytes(32), bytes(31) + b"", ORDER.to_bytes(32, "big"), b"\xff" * 32, b"\x01" * 33):
        with pytest.raises(DecodeError, match="secret key"):
            SecretKey.from_bytes(data)
    assert SecretKey.from_bytes(ALICE.to_bytes()).public == ALICE.public


def test_a_secret_key_is_neither_shown_nor_pickled():
    made = SecretKey.generate()
    assert made.to_bytes().hex() not in repr(made)
    assert str(made._scalar) not in repr(made)
    with pytest.raises(UsageError, match="not pickled"):
        pickle.dumps(made)
    assert made.to_bytes() != SecretKey.generate().to_bytes()
