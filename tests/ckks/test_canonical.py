from __future__ import annotations

import dataclasses
import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.ckks.canonical import (
    ResultCiphertext,
    decode_array,
    decode_result,
    encode_array,
    encode_result,
    input_digest,
    public_key_digest,
    result_digest,
)
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import DecodeError, UsageError

ENTRY = bytes(range(32))


def framed(*fields: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(field)) + field for field in fields)


def with_residue(array: np.ndarray, index: tuple[int, ...], value: int) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


def test_input_digest_is_the_hash_of_the_documented_bytes(params: ParameterSet, random_input: np.ndarray) -> None:
    shape = struct.pack("<3I", 2, 2, 4096)
    words = struct.pack(f"<{random_input.size}Q", *random_input.ravel().tolist())
    expected = framed(b"sealproof/v1", b"input-ciphertext", params.encode(), ENTRY, shape) + words
    assert input_digest(params, ENTRY, random_input) == hashlib.sha256(expected).digest()


def test_public_key_digest_is_the_hash_of_the_documented_bytes(params: ParameterSet, random_input: np.ndarray) -> None:
    p0 = random_input[0]
    words = struct.pack(f"<{p0.size}Q", *p0.ravel().tolist())
    expected = framed(b"sealproof/v1", b"public-key", params.encode(), struct.pack("<2I", 2, 4096)) + words
    assert public_key_digest(params, p0) == hashlib.sha256(expected).digest()


def test_result_digest_is_the_hash_of_the_documented_bytes(
    params: ParameterSet, random_result: ResultCiphertext
) -> None:
    P = random_result.positions.tolist()
    shapes = struct.pack("<4I", 2, len(P), 2, 4096)
    header = framed(b"sealproof/v1", b"result-ciphertext", params.encode(), shapes, struct.pack(f"<{len(P)}I", *P))
    words = [*random_result.c0.ravel().tolist(), *random_result.c1.ravel().tolist()]
    expected = header + struct.pack(f"<{len(words)}Q", *words)
    assert encode_result(params, random_result) == expected
    assert result_digest(params, random_result) == hashlib.sha256(expected).digest()


def test_digests_do_not_depend_on_memory_layout(params: ParameterSet, random_input: np.ndarray) -> None:
    strided = np.repeat(random_input, 2, axis=-1)[..., ::2]
    assert not strided.flags.c_contiguous
    assert input_digest(params, ENTRY, strided) == input_digest(params, ENTRY, random_input)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ParameterSet) if field.name != "N"])
def test_every_field_of_the_parameter_set_is_in_every_digest(
    params: ParameterSet, random_input: np.ndarray, random_result: ResultCiphertext, field: str
) -> None:
    value = getattr(params, field)
    other = "other" if field == "name" else (value[0], value[1] + 2) if field == "primes" else value + 1
    changed = dataclasses.replace(params, **{field: other})
    assert input_digest(changed, ENTRY, random_input) != input_digest(params, ENTRY, random_input)
    assert result_digest(changed, random_result) != result_digest(params, random_result)
    assert public_key_digest(changed, random_input[0]) != public_key_digest(params, random_input[0])


def test_the_same_ciphertext_under_another_key_entry_is_another_input(
    params: ParameterSet, random_input: np.ndarray
) -> None:
    assert input_digest(params, ENTRY, random_input) != input_digest(params, ENTRY[::-1], random_input)
    with pytest.raises(UsageError, match="32 bytes"):
        input_digest(params, ENTRY[:31], random_input)


@pytest.mark.parametrize("index", [(0, 0, 0), (0, 1, 17), (1, 0, 4095), (1, 1, 4095)])
def test_one_changed_residue_changes_the_input_digest(
    params: ParameterSet, random_input: np.ndarray, index: tuple[int, ...]
) -> None:
    changed = with_residue(random_input, index, (int(random_input[index]) + 1) % params.primes[index[1]])
    assert input_digest(params, ENTRY, changed) != input_digest(params, ENTRY, random_input)


def test_moving_a_published_position_changes_the_result_digest(
    params: ParameterSet, random_result: ResultCiphertext
) -> None:
    moved = dataclasses.replace(random_result, positions=np.array([0, 3, 5, 1000, params.N - 1]))
    assert result_digest(params, moved) != result_digest(params, random_result)


@pytest.mark.parametrize("level", [0, 1])
def test_a_residue_equal_to_its_prime_is_refused_everywhere(
    params: ParameterSet, random_input: np.ndarray, random_result: ResultCiphertext, level: int
) -> None:
    q = params.primes[level]
    largest = with_residue(random_input, (1, level, 7), q - 1)
    too_large = with_residue(random_input, (1, level, 7), q)
    encoded = bytearray(encode_array(params, largest))
    assert np.array_equal(decode_array(params, bytes(encoded)), largest)
    offset = 8 * ((params.L + level) * params.N + 7)
    encoded[offset : offset + 8] = q.to_bytes(8, "little")
    with pytest.raises(DecodeError, match=str(q)):
        decode_array(params, bytes(encoded))
    for refuse in (
        lambda: input_digest(params, ENTRY, too_large),
        lambda: encode_array(params, too_large),
        lambda: public_key_digest(params, too_large[1]),
        lambda: result_digest(params, dataclasses.replace(random_result, c1=too_large[1])),
        lambda: result_digest(params, dataclasses.replace(random_result, c0=random_result.c0 + np.uint64(q))),
    ):
        with pytest.raises(UsageError, match=r"residue"):
            refuse()
    wire = bytearray(encode_result(params, random_result))
    for offset in (len(wire) - 8 * (2 - level) * params.N, len(wire) - 8 * (2 * params.N + 5 * (2 - level))):
        changed = wire.copy()
        changed[offset : offset + 8] = q.to_bytes(8, "little")
        with pytest.raises(DecodeError, match=str(q)):
            decode_result(params, bytes(changed))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda a: a.astype(np.int64), "uint64"),
        (lambda a: a.astype(np.float64), "uint64"),
        (lambda a: a[:1], "shape"),
        (lambda a: a[:, :, :-1], "shape"),
        (lambda a: a.transpose(1, 0, 2)[None], "shape"),
    ],
)
def test_arrays_of_another_type_or_shape_have_no_digest(params: ParameterSet, random_input, bad, reason) -> None:
    with pytest.raises(UsageError, match=reason):
        input_digest(params, ENTRY, bad(random_input))
    with pytest.raises(UsageError, match=reason):
        encode_array(params, bad(random_input))


@pytest.mark.parametrize("positions", [[], [-1], [4096], [1, 1], [2, 1], [0, 2**32], [[0]], [0.0]])
def test_positions_that_are_not_strictly_increasing_inside_the_ring_are_refused(
    params: ParameterSet, random_input: np.ndarray, positions: list[int]
) -> None:
    P = np.array(positions, dtype=np.float64 if positions == [0.0] else np.int64)
    result = ResultCiphertext(P, random_input[0][:, : P.size].copy(), random_input[1])
    with pytest.raises(UsageError, match="positions"):
        encode_result(params, result)


@pytest.mark.parametrize("positions", [(0, 0, 4, 5, 6), (0, 3, 2, 5, 6), (0, 1, 2, 3, 4096), (2**32 - 1, 0, 1, 2, 3)])
def test_positions_on_the_wire_are_checked_too(
    params: ParameterSet, random_result: ResultCiphertext, positions: tuple[int, ...]
) -> None:
    wire = encode_result(params, random_result)
    start = wire.index(struct.pack("<5I", *random_result.positions.tolist()))
    with pytest.raises(DecodeError, match="positions"):
        decode_result(params, wire[:start] + struct.pack("<5I", *positions) + wire[start + 20 :])


@pytest.mark.parametrize("length", [0, 1, 8, 131071, 131073, 131080, 262144])
def test_an_input_of_another_length_is_refused(params: ParameterSet, length: int) -> None:
    with pytest.raises(DecodeError, match="131072"):
        decode_array(params, bytes(length))


def test_a_result_with_bytes_missing_or_added_is_refused(params: ParameterSet, random_result: ResultCiphertext) -> None:
    wire = encode_result(params, random_result)
    one_more = 4 + 8 * params.L
    for bad in (b"", wire[:-1], wire + b"\0", wire[1:], wire + bytes(one_more), wire[:-one_more], wire[:100]):
        with pytest.raises(DecodeError):
            decode_result(params, bad)


def test_a_result_of_another_parameter_set_is_refused(params: ParameterSet, random_result: ResultCiphertext) -> None:
    other = dataclasses.replace(params, name="linear-4097")
    with pytest.raises(DecodeError, match="header"):
        decode_result(params, encode_result(other, random_result))


@pytest.mark.parametrize("offset", range(8))
def test_decoding_round_trips_from_any_alignment(
    params: ParameterSet, random_result: ResultCiphertext, random_input: np.ndarray, offset: int
) -> None:
    wire = encode_result(params, random_result)
    decoded = decode_result(params, memoryview(bytes(offset) + wire)[offset:])  # type: ignore[arg-type]
    assert encode_result(params, decoded) == wire
    assert decoded.c1.flags.aligned
    again = decode_array(params, memoryview(bytes(offset) + encode_array(params, random_input))[offset:])  # type: ignore[arg-type]
    assert np.array_equal(again, random_input)
    assert again.flags.aligned


def test_what_was_decoded_cannot_be_changed(params: ParameterSet, random_result: ResultCiphertext) -> None:
    decoded = decode_result(params, encode_result(params, random_result))
    for array in (decoded.positions, decoded.c0, decoded.c1):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def _sample_wire() -> bytes:
    params = parameter_set("linear-4096")
    c1 = np.arange(2 * 4096, dtype=np.uint64).reshape(2, 4096)
    return encode_result(params, ResultCiphertext(np.array([1, 2, 9]), c1[:, :3].copy(), c1))


@settings(max_examples=150, deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(-40, 40),
)
def test_mutated_results_decode_to_what_encodes_the_same_or_not_at_all(changes, cut) -> None:
    params = parameter_set("linear-4096")
    data = bytearray(_sample_wire())
    for offset, value in changes:
        data[offset] = value
    mutated = bytes(data[:cut] if cut < 0 else data + bytes(cut))
    try:
        decoded = decode_result(params, mutated)
    except DecodeError:
        return
    assert encode_result(params, decoded) == mutated
