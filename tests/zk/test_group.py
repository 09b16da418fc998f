"""The two implementations of BLS12-381 G1 agree, and neither takes a point or scalar that is not canonical."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import DecodeError, UsageError
from privacy.zk import group as group_module
from privacy.zk.group import ARKWORKS, FIELD, ORDER, POINT_BYTES, REFERENCE, group_by_name

GENERATOR = bytes.fromhex(
    "97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb"
)
# RFC 9380, appendix J.9.1, message "": x and y of the hash under the tag of that appendix.
RFC9380_TAG = b"QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"
RFC9380_XY = (
    "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1"
    "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265"
)
SCALARS = [0, 1, -1, 2, -3, 1 << 20, -(1 << 64), ORDER >> 1, ORDER - 1, 1 - ORDER, 0x1234567890ABCDEF << 180]


def points(group, count, label=b"test"):
    return [group.hash_to_curve(label + bytes([i])) for i in range(count)]


def naive_multiply(group, point, scalar):
    total = group.identity()
    for bit in bin(scalar % ORDER)[2:]:
        total = group.add(total, total)
        if bit == "1":
            total = group.add(total, point)
    return total


def compressed(x: int, flags: int = 0x80) -> bytes:
    raw = bytearray(x.to_bytes(POINT_BYTES, "big"))
    raw[0] |= flags
    return bytes(raw)


def first_x(on_curve: bool, start: int = 1) -> int:
    """Smallest x >= start that is (or is not) the coordinate of a curve point; a small one is never in the subgroup."""
    x = start
    while (pow(x**3 + 4, (FIELD - 1) // 2, FIELD) == 1) is not on_curve:
        x += 1
    return x


def unreduced_encoding() -> bytes:
    """x + p for a point of the subgroup whose x is small enough."""
    for i in range(256):
        encoded = ARKWORKS.encode(ARKWORKS.hash_to_curve(b"unreduced" + bytes([i])))
        x = int.from_bytes(encoded, "big") & ((1 << 381) - 1)
        if x + FIELD < 1 << 381:
            return compressed(x + FIELD, encoded[0] & 0xE0)
    raise AssertionError("no such point among 256: 1 in 2^90")


def test_both_hash_to_the_same_points_under_our_tag():
    for message in (b"", b"a", b"sealproof/v1/generator/test/0", bytes(300)):
        mine, other = ARKWORKS.hash_to_curve(message), REFERENCE.hash_to_curve(message)
        assert ARKWORKS.encode(mine) == REFERENCE.encode(other)


def test_hash_to_curve_is_rfc_9380(group, monkeypatch):
    monkeypatch.setattr(group_module, "HASH_TO_CURVE_TAG", RFC9380_TAG)
    assert group.export_affine(group.hash_to_curve(b"")).hex() == RFC9380_XY


def test_standard_generator_decodes_to_itself(group):
    assert group.encode(group.decode(GENERATOR)) == GENERATOR


def test_encodings_and_affine_coordinates_cross_over():
    for mine, other in zip(points(ARKWORKS, 4), points(REFERENCE, 4), strict=True):
        encoded, affine = ARKWORKS.encode(mine), ARKWORKS.export_affine(mine)
        assert REFERENCE.equal(REFERENCE.decode(encoded), other)
        assert ARKWORKS.equal(ARKWORKS.decode(REFERENCE.encode(other)), mine)
        assert REFERENCE.export_affine(other) == affine
        assert REFERENCE.equal(REFERENCE.import_affine(affine), other)
        assert ARKWORKS.equal(ARKWORKS.import_affine(affine), mine)


def test_sum_negation_and_identity(group):
    p, q = points(group, 2)
    assert group.equal(group.add(p, q), group.add(q, p))
    assert not group.equal(p, q)
    assert not group.equal(p, group.negate(p))
    assert group.equal(group.add(p, group.negate(p)), group.identity())
    assert group.equal(group.add(p, group.identity()), p)
    assert group.equal(group.sum([p, q, p]), group.msm([p, q], [2, 1]))
    assert group.equal(group.sum([]), group.identity())
    assert group.equal(group.msm([], []), group.identity())


@pytest.mark.parametrize("scalar", SCALARS)
def test_multiples_agree_with_double_and_add(group, scalar):
    (p,) = points(group, 1)
    assert group.equal(group.multiply(p, scalar), naive_multiply(group, p, scalar))


def test_msm_of_mixed_signs_and_sizes_agrees_between_implementations():
    scalars = [*SCALARS, 1 - ORDER, ORDER - 1]
    mine = ARKWORKS.msm(points(ARKWORKS, len(scalars)), scalars)
    other = REFERENCE.msm(points(REFERENCE, len(scalars)), scalars)
    assert ARKWORKS.encode(mine) == REFERENCE.encode(other)
    naive = ARKWORKS.sum(
        [naive_multiply(ARKWORKS, p, s) for p, s in zip(points(ARKWORKS, len(scalars)), scalars, strict=True)]
    )
    assert ARKWORKS.equal(mine, naive)


def test_msm_that_is_split_over_threads_gives_the_same_sum(monkeypatch):
    rng = random.Random(1)
    base = points(ARKWORKS, 3)
    count = group_module._SPLIT_TERMS + 7
    scalars = [rng.randrange(1 - ORDER, ORDER) for _ in range(count)]
    expected = ARKWORKS.msm(base, [sum(scalars[i::3]) % ORDER for i in range(3)])
    for workers in (1, 2, 3):
        monkeypatch.setattr(group_module, "_workers", lambda workers=workers: workers)
        assert ARKWORKS.equal(ARKWORKS.msm([base[i % 3] for i in range(count)], scalars), expected)


@pytest.mark.parametrize("long", [0, 1, 40])
def test_msm_that_sets_short_scalars_apart_gives_the_same_sum(long):
    rng = random.Random(2)
    base = points(ARKWORKS, 3)
    edge = 1 << group_module._SHORT_BITS
    scalars = [rng.randrange(1 - edge, edge) for _ in range(group_module._SPLIT_TERMS)] + [edge - 1, 1 - edge, 0]
    scalars += [rng.choice([edge, -edge, rng.randrange(1 - ORDER, ORDER)]) for _ in range(long)]
    rng.shuffle(scalars)
    expected = ARKWORKS.msm(base, [sum(scalars[i::3]) % ORDER for i in range(3)])
    assert ARKWORKS.equal(ARKWORKS.msm([base[i % 3] for i in range(len(scalars))], scalars), expected)


def test_msm_leaves_its_arguments_alone(group):
    base, scalars = points(group, 2), [-5, 7]
    before = [group.encode(p) for p in base]
    group.msm(base, scalars)
    assert scalars == [-5, 7]
    assert [group.encode(p) for p in base] == before


@pytest.mark.parametrize("scalar", [ORDER, -ORDER, ORDER + 1, 2**256 - 1, 2**256, -(2**300)])
def test_scalar_outside_the_field_is_refused_not_reduced(group, scalar):
    p, q = points(group, 2)
    with pytest.raises(UsageError, match="scalar"):
        group.msm([p, q], [1, scalar])


@pytest.mark.parametrize(("count", "scalars"), [(2, [1]), (1, [1, 2]), (0, [1]), (1, [])])
def test_msm_of_unequal_lengths_is_refused(group, count, scalars):
    with pytest.raises(UsageError, match="points but"):
        group.msm(points(group, count), scalars)


REFUSED = {
    "empty": b"",
    "one byte short": GENERATOR[:-1],
    "one byte long": GENERATOR + b"\0",
    "uncompressed length": bytes(96),
    "all zero": bytes(48),
    "all ones": b"\xff" * 48,
    "compression flag cleared": bytes([GENERATOR[0] & 0x7F]) + GENERATOR[1:],
    "identity": b"\xc0" + bytes(47),
    "identity with sign": b"\xe0" + bytes(47),
    "identity without flag": b"\x80" + bytes(47),
    "identity flag on a point": bytes([GENERATOR[0] | 0x40]) + GENERATOR[1:],
    "identity flag without compression": b"\x40" + bytes(47),
    "x equal to p": compressed(FIELD),
    "x above p": compressed((1 << 381) - 1),
    "unreduced x of a good point": unreduced_encoding(),
    "off the curve": compressed(first_x(on_curve=False)),
    "off the subgroup": compressed(first_x(on_curve=True)),
    "off the subgroup, other sign": compressed(first_x(on_curve=True), 0xA0),
    "point of order three": compressed(0),
    "point of order three, other sign": compressed(0, 0xA0),
}


@pytest.mark.parametrize("name", REFUSED)
def test_encoding_is_refused(group, name):
    with pytest.raises(DecodeError):
        group.decode(REFUSED[name])


def test_off_subgroup_example_really_is_on_the_curve():
    from py_ecc.bls.point_compression import decompress_G1
    from py_ecc.optimized_bls12_381 import b, is_on_curve

    assert is_on_curve(decompress_G1(int.from_bytes(REFUSED["off the subgroup"], "big")), b)


def test_good_point_plus_a_small_order_point_is_refused(group):
    from py_ecc.bls.point_compression import compress_G1
    from py_ecc.optimized_bls12_381 import FQ, add

    small = (FQ(0), FQ(2), FQ(1))
    shifted = compress_G1(add(REFERENCE.decode(GENERATOR), small)).to_bytes(48, "big")
    with pytest.raises(DecodeError):
        group.decode(shifted)


def test_reasons_are_told_apart():
    def reason(name):
        with pytest.raises(DecodeError) as caught:
            ARKWORKS.decode(REFUSED[name])
        return caught.value.reason

    assert "48 bytes, got 47" in reason("one byte short")
    assert "compression flag" in reason("compression flag cleared")
    assert "identity" in reason("identity")
    assert "not reduced" in reason("unreduced x of a good point")


def test_every_flipped_bit_of_an_encoding_is_refused_but_the_sign():
    for bit in range(8 * POINT_BYTES):
        raw = bytearray(GENERATOR)
        raw[bit // 8] ^= 0x80 >> bit % 8
        if bit == 2:
            assert ARKWORKS.equal(ARKWORKS.decode(bytes(raw)), ARKWORKS.negate(ARKWORKS.decode(GENERATOR)))
            continue
        with pytest.raises(DecodeError):
            ARKWORKS.decode(bytes(raw))


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.binary(max_size=100), st.binary(min_size=48, max_size=48).map(lambda b: b"\x88" + b[1:])))
def test_decoding_is_total_and_both_agree(data):
    def outcome(group):
        try:
            return group.encode(group.decode(data))
        except DecodeError:
            return None

    assert outcome(ARKWORKS) == outcome(REFERENCE)
    assert outcome(ARKWORKS) in (None, data)


def test_backends_by_name():
    assert group_by_name("arkworks") is ARKWORKS
    assert group_by_name("reference") is REFERENCE
    for name in ("", "Arkworks", "py_ecc"):
        with pytest.raises(UsageError, match="unknown backend"):
            group_by_name(name)
