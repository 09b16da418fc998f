from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.ckks.seal_bytes import ParsedCiphertext, encode_ciphertext, parameters_id, parse_ciphertext
from privacy.errors import DecodeError

pytest.importorskip("tenseal.sealapi")
from privacy.ckks import backend

# Offsets in an uncompressed file: header 16, then the fields, the array (header, length, words), then the seed.
PARMS_ID, IS_NTT, SIZE, DEGREE, PRIMES, SCALE, CORRECTION = 16, 48, 49, 57, 65, 73, 81
ARRAY, WORDS, DATA = 89, 105, 113


@pytest.fixture(scope="module")
def sent(params: ParameterSet, clinic_keys: ClinicKeys) -> backend.EncryptedInput:
    return clinic_keys.encrypt_block(np.ones((1, params.N)))[0]


@pytest.fixture(scope="module")
def seeded(params: ParameterSet, sent: backend.EncryptedInput) -> bytes:
    return encode_ciphertext(params, parse_ciphertext(params, sent.seal_bytes))


@pytest.fixture(scope="module")
def expanded(params: ParameterSet, sent: backend.EncryptedInput) -> bytes:
    return encode_ciphertext(params, ParsedCiphertext(sent.array, False, None))


def compressed(file: bytes, **options: object) -> bytes:
    return rewrapped(zstandard.ZstdCompressor(**options).compress(file[16:]), 2)  # type: ignore[arg-type]


def rewrapped(body: bytes, compression: int) -> bytes:
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, compression, 0, 16 + len(body)) + body


def test_what_seal_writes_is_understood(params: ParameterSet, sent: backend.EncryptedInput, seeded: bytes) -> None:
    parsed = parse_ciphertext(params, sent.seal_bytes)
    assert sent.seal_bytes[5] == 2
    assert len(sent.seal_bytes) < 48_000
    assert parsed.seeded
    assert parsed.is_ntt
    assert parsed.polynomials.shape == (1, 2, 4096)
    again = parse_ciphertext(params, seeded)
    assert np.array_equal(again.polynomials, parsed.polynomials)
    assert again.seed == parsed.seed


def test_parms_ids_are_those_of_seal(params: ParameterSet) -> None:
    context = backend._seal(params).context
    assert struct.unpack("<4Q", parameters_id(params)) == tuple(context.first_parms_id())
    assert struct.unpack("<4Q", parameters_id(params, key_level=True)) == tuple(context.key_parms_id())


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\x5f"),  # magic
        (1, b"\x00"),
        (2, b"\x11"),  # header size
        (3, b"\x03"),  # version
        (4, b"\x04"),
        (5, b"\x01"),  # zlib
        (5, b"\x02"),  # says Zstandard and is not
        (5, b"\x03"),
        (6, b"\x01"),  # reserved
        (8, b"\x00"),  # size
        (15, b"\x01"),
        (PARMS_ID, b"\x00"),
        (PARMS_ID + 31, b"\x00"),
        (IS_NTT, b"\x00"),  # seeded but not in NTT form
        (IS_NTT, b"\x02"),
        (SIZE, b"\x01"),
        (SIZE, b"\x03"),
        (SIZE + 7, b"\x01"),
        (DEGREE, b"\x01"),
        (DEGREE + 1, b"\x20"),
        (PRIMES, b"\x01"),
        (PRIMES, b"\x03"),
        (SCALE, struct.pack("<d", 2.0**33)),
        (SCALE, struct.pack("<d", float("nan"))),
        (SCALE, struct.pack("<d", -(2.0**34))),
        (SCALE, struct.pack("<d", float("inf"))),
        (CORRECTION, b"\x00"),
        (CORRECTION, b"\x02"),
        (ARRAY, b"\x00"),
        (ARRAY + 5, b"\x02"),  # compressed inside
        (ARRAY + 8, b"\x00"),
        (WORDS, b"\x01"),
        (WORDS + 7, b"\x01"),
        (DATA, struct.pack("<Q", 68719230977)),  # residue = q_1
        (DATA, b"\xff" * 8),
        (DATA + 8 * 4096, struct.pack("<Q", 68719403009)),  # residue = q_2
        (DATA + 8 * 8192, b"\x00"),  # header of the seed
        (DATA + 8 * 8192 + 5, b"\x02"),
        (DATA + 8 * 8192 + 8, b"\x50"),
        (DATA + 8 * 8192 + 16, b"\x00"),  # generator
        (DATA + 8 * 8192 + 16, b"\x02"),
        (DATA + 8 * 8192 + 16, b"\xff"),
    ],
)
def test_every_field_is_checked(params: ParameterSet, seeded: bytes, offset: int, value: bytes) -> None:
    changed = seeded[:offset] + value + seeded[offset + len(value) :]
    assert changed != seeded
    for data in (changed, compressed(changed)) if offset >= 16 else (changed,):
        with pytest.raises(DecodeError):
            parse_ciphertext(params, data)
        with pytest.raises(DecodeError):
            backend.canonical_from_seal(params, data)


def test_the_largest_residues_are_accepted(params: ParameterSet, expanded: bytes) -> None:
    for index, q in ((0, params.primes[0]), (4096, params.primes[1]), (3 * 4096, params.primes[1])):
        start = DATA + 8 * index
        data = expanded[:start] + struct.pack("<Q", q - 1) + expanded[start + 8 :]
        assert parse_ciphertext(params, data).polynomials.reshape(-1)[index] == q - 1


def test_other_lengths_are_refused(params: ParameterSet, seeded: bytes, expanded: bytes) -> None:
    for file in (seeded, expanded):
        for body in (file[16:-1], file[16:] + b"\0", file[16:] + file[16:], b"", file[16:100]):
            for data in (rewrapped(body, 0), compressed(rewrapped(body, 0))):
                with pytest.raises(DecodeError):
                    parse_ciphertext(params, data)
        for data in (file[:-1], file + b"\0", file[:15], b""):
            with pytest.raises(DecodeError):
                parse_ciphertext(params, data)


def test_an_expanded_file_with_a_seed_after_it_is_refused(params: ParameterSet, seeded: bytes, expanded: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_ciphertext(params, rewrapped(expanded[16:] + seeded[-81:], 0))


def test_a_record_that_is_not_encrypted_is_refused(params: ParameterSet, expanded: bytes) -> None:
    clear = expanded[: DATA + 8 * 8192] + bytes(8 * 8192)
    with pytest.raises(DecodeError, match="not encrypted"):
        parse_ciphertext(params, clear)


def test_zlib_is_refused(params: ParameterSet, seeded: bytes) -> None:
    with pytest.raises(DecodeError, match="compression 1"):
        parse_ciphertext(params, rewrapped(zlib.compress(seeded[16:]), 1))


def test_compression_bombs_are_refused_before_they_are_inflated(params: ParameterSet, seeded: bytes) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(2**28))
    assert len(bomb) < 2**15
    with pytest.raises(DecodeError, match="claims 268435456 bytes"):
        parse_ciphertext(params, rewrapped(bomb, 2))
    silent = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2**20))
    with pytest.raises(DecodeError, match="claims"):
        parse_ciphertext(params, rewrapped(silent, 2))
    # A frame that claims the right size and holds more.
    right = zstandard.ZstdCompressor().compress(seeded[16:])
    longer = zstandard.ZstdCompressor().compress(bytes(len(seeded) - 16 + 2**16))
    size = struct.pack("<I", len(seeded) - 16)
    lying = longer[:4] + bytes([longer[4] & 0x3F | 0x80]) + size + longer[5 + {0x40: 2, 0x80: 4}[longer[4] & 0xC0] :]
    assert zstandard.frame_content_size(lying) == len(seeded) - 16
    with pytest.raises(DecodeError):
        parse_ciphertext(params, rewrapped(lying, 2))
    assert parse_ciphertext(params, rewrapped(right, 2)).seeded


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frame: frame + frame,
        lambda frame: frame + b"\0",
        lambda frame: frame[:-1],
        lambda frame: frame[:20],
        lambda frame: b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + frame,
        lambda frame: b"",
        lambda frame: frame[1:],
    ],
)
def test_there_must_be_exactly_one_whole_frame(params: ParameterSet, seeded: bytes, spoil) -> None:
    frame = zstandard.ZstdCompressor().compress(seeded[16:])
    with pytest.raises(DecodeError):
        parse_ciphertext(params, rewrapped(spoil(frame), 2))


def test_another_parameter_set_is_refused(params: ParameterSet, seeded: bytes) -> None:
    other = dataclasses.replace(params, primes=(params.primes[0], params.special_prime), special_prime=params.primes[1])
    with pytest.raises(DecodeError, match="parms_id"):
        parse_ciphertext(other, seeded)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_mutated_files_never_reach_seal_unless_they_are_sound(seeded: bytes, expanded: bytes, data) -> None:
    params = parameter_set("linear-4096")
    file = bytearray(data.draw(st.sampled_from([seeded, expanded])))
    interesting = st.one_of(
        st.integers(0, DATA + 16), st.integers(len(file) - 100, len(file) - 1), st.integers(0, 10**9)
    )
    for offset in data.draw(st.lists(interesting, min_size=1, max_size=3)):
        file[offset % len(file)] ^= data.draw(st.integers(1, 255))
    mutated = bytes(file)
    wire = compressed(mutated) if data.draw(st.booleans()) else mutated
    try:
        parsed = parse_ciphertext(params, wire)
    except DecodeError:
        with pytest.raises(DecodeError):
            backend.canonical_from_seal(params, wire)
        return
    assert encode_ciphertext(params, parsed)[16:] == mutated[16:]
    canonical = backend.canonical_from_seal(params, wire)
    assert (canonical < np.array(params.primes, dtype=np.uint64)[:, None]).all()


@settings(max_examples=100, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10**9), st.integers(1, 255)), min_size=1, max_size=3))
def test_mutated_compressed_files_are_refused_or_sound(sent: backend.EncryptedInput, flips) -> None:
    params = parameter_set("linear-4096")
    wire = bytearray(sent.seal_bytes)
    for offset, change in flips:
        wire[offset % len(wire)] ^= change
    try:
        canonical = backend.canonical_from_seal(params, bytes(wire))
    except DecodeError:
        return
    assert (canonical < np.array(params.primes, dtype=np.uint64)[:, None]).all()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_ciphertext(parameter_set("linear-4096"), data)
