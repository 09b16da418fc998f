"""Canonical form of ciphertexts and keys, and their digests (docs/spec/protocol.md, section 1). No FHE library.

One ciphertext has many transport encodings (compressed, seeded, NTT form). The ledger and every proof bind the
canonical form instead: coefficient domain, residues mod each q_l, little-endian u64. A digest is SHA-256 of a typed
header and the arrays:

    header = framed(protocol tag) framed(kind) framed(parameter set) framed(fields of the kind)...
    framed(x) = u32 length || x

Inputs have shape (2, L, N) and bind the key entry id, because a CKKS ciphertext commits to a record only under a key
that was fixed before it. Results are (P, c0 on P, all of c1).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.params import ParameterSet
from privacy.errors import DecodeError, UsageError
from privacy.zk.transcript import PROTOCOL_TAG

__all__ = [
    "ResultCiphertext",
    "check_residues",
    "decode_array",
    "decode_input",
    "decode_public_key",
    "decode_result",
    "encode_array",
    "encode_input",
    "encode_public_key",
    "encode_result",
    "input_digest",
    "public_key_digest",
    "result_digest",
]

Residues = NDArray[np.uint64]

_WORD = np.dtype("<u8")
_INPUT = b"input-ciphertext"
_RESULT = b"result-ciphertext"
_PUBLIC_KEY = b"public-key"
_KEY_ENTRY_ID_BYTES = 32


@dataclass(frozen=True, eq=False)
class ResultCiphertext:
    """What is published of a result: coefficients `positions` of c0, and all of c1.

    positions: int64, strictly increasing, in [0, N). c0: uint64 (L, |P|). c1: uint64 (L, N). Coefficient domain.
    The rest of c0 is never released (docs/spec/protocol.md, section 2).
    """

    positions: NDArray[np.int64]
    c0: Residues
    c1: Residues


def _framed(*fields: bytes) -> bytes:
    return b"".join(part for field in fields for part in (len(field).to_bytes(4, "little"), field))


def _shape_bytes(*dimensions: int) -> bytes:
    return b"".join(n.to_bytes(4, "little") for n in dimensions)


def _buffer(array: Residues) -> memoryview:
    """The little-endian bytes of an array, without a copy when it is contiguous on a little-endian machine."""
    return np.ascontiguousarray(array, dtype=_WORD).data.cast("B")


def _sha256(parts: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _first_bad_residue(params: ParameterSet, array: Residues) -> str | None:
    """None if every residue along axis -2 is below its prime, else a description of the prime that is exceeded."""
    for level, q in enumerate(params.primes):
        largest = array[..., level, :].max()
        if largest >= q:
            return f"a residue is {largest}, not below prime {level} ({q})"
    return None


def check_residues(params: ParameterSet, array: Residues, shape: tuple[int, ...], what: str) -> None:
    """Raise UsageError unless `array` is uint64 of exactly `shape` (axis -2 is the prime) with every residue < q_l."""
    if array.dtype != np.uint64:
        raise UsageError(f"{what}: expected uint64, got {array.dtype}")
    if array.shape != shape:
        raise UsageError(f"{what}: expected shape {shape}, got {array.shape}")
    problem = _first_bad_residue(params, array)
    if problem is not None:
        raise UsageError(f"{what}: {problem}")


def _check_result(params: ParameterSet, result: ResultCiphertext) -> None:
    P = result.positions
    if P.dtype != np.int64 or P.ndim != 1 or P.size == 0:
        raise UsageError("result positions: expected a non-empty int64 vector")
    if P[0] < 0 or P[-1] >= params.N or bool((np.diff(P) <= 0).any()):
        raise UsageError(f"result positions: must be strictly increasing in [0, {params.N})")
    check_residues(params, result.c0, (params.L, P.size), "result c0")
    check_residues(params, result.c1, (params.L, params.N), "result c1")


def _input_header(params: ParameterSet, key_entry_id: bytes) -> bytes:
    if len(key_entry_id) != _KEY_ENTRY_ID_BYTES:
        raise UsageError(f"key entry id: expected {_KEY_ENTRY_ID_BYTES} bytes, got {len(key_entry_id)}")
    return _framed(PROTOCOL_TAG, _INPUT, params.encode(), key_entry_id, _shape_bytes(2, params.L, params.N))


def _public_key_header(params: ParameterSet) -> bytes:
    return _framed(PROTOCOL_TAG, _PUBLIC_KEY, params.encode(), _shape_bytes(params.L, params.N))


def input_digest(params: ParameterSet, key_entry_id: bytes, array: Residues) -> bytes:
    """Digest of an input ciphertext `array`, uint64 (2, L, N), under the key entry `key_entry_id` (32 bytes).

    Raises UsageError for a wrong id length, type, shape, or a residue that is not below its prime.
    """
    header = _input_header(params, key_entry_id)
    check_residues(params, array, (2, params.L, params.N), "input ciphertext")
    return _sha256([header, _buffer(array)])


def result_digest(params: ParameterSet, result: ResultCiphertext) -> bytes:
    """Digest of a result: SHA-256 of exactly `encode_result(params, result)`. Raises UsageError as that does."""
    _check_result(params, result)
    return _sha256([_result_header(params, result.positions), _buffer(result.c0), _buffer(result.c1)])


def public_key_digest(params: ParameterSet, p0: Residues) -> bytes:
    """Digest of p0, uint64 (L, N). p1 is derived by everyone and so is not part of it. Raises UsageError."""
    check_residues(params, p0, (params.L, params.N), "public key p0")
    return _sha256([_public_key_header(params), _buffer(p0)])


def encode_input(params: ParameterSet, key_entry_id: bytes, array: Residues) -> bytes:
    """Typed header and words of an input: the blob whose SHA-256 is `input_digest`. Raises UsageError."""
    return _input_header(params, key_entry_id) + encode_array(params, array)


def decode_input(params: ParameterSet, key_entry_id: bytes, data: bytes) -> Residues:
    """The input under this key entry whose `encode_input` is `data`; read-only. Raises DecodeError."""
    header = _input_header(params, key_entry_id)
    return _after_header(params, header, data, (2, params.L, params.N), "input ciphertext")


def encode_public_key(params: ParameterSet, p0: Residues) -> bytes:
    """Typed header and words of p0: the blob whose SHA-256 is `public_key_digest`. Raises UsageError."""
    check_residues(params, p0, (params.L, params.N), "public key p0")
    return _public_key_header(params) + bytes(_buffer(p0))


def decode_public_key(params: ParameterSet, data: bytes) -> Residues:
    """p0, uint64 (L, N), whose `encode_public_key` is `data`; read-only. Raises DecodeError."""
    return _after_header(params, _public_key_header(params), data, (params.L, params.N), "public key p0")


def _after_header(params: ParameterSet, header: bytes, data: bytes, shape: tuple[int, ...], what: str) -> Residues:
    view = memoryview(data)
    if view[: len(header)] != header:
        raise DecodeError(what, f"the header is not that of this kind, key entry and {params.name}")
    expected = math.prod(shape) * _WORD.itemsize
    if len(view) - len(header) != expected:
        raise DecodeError(what, f"expected {expected} bytes after the header, got {len(view) - len(header)}")
    return _words(params, view[len(header) :], shape, what)


def encode_array(params: ParameterSet, array: Residues) -> bytes:
    """Canonical bytes of an input ciphertext, uint64 (2, L, N): its words, little-endian, without a header.

    Raises UsageError if it is not canonical.
    """
    check_residues(params, array, (2, params.L, params.N), "input ciphertext")
    return bytes(_buffer(array))


def _words(params: ParameterSet, data: memoryview, shape: tuple[int, ...], what: str) -> Residues:
    array = np.frombuffer(data, dtype=_WORD).astype(np.uint64, copy=False).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()
    problem = _first_bad_residue(params, array)
    if problem is not None:
        raise DecodeError(what, problem)
    array.flags.writeable = False
    return array


def decode_array(params: ParameterSet, data: bytes) -> Residues:
    """The input ciphertext, uint64 (2, L, N), with canonical bytes `data`; read-only, no copy. Raises DecodeError."""
    expected = 2 * params.L * params.N * _WORD.itemsize
    if len(data) != expected:
        raise DecodeError("input ciphertext", f"expected {expected} bytes, got {len(data)}")
    return _words(params, memoryview(data), (2, params.L, params.N), "input ciphertext")


def _result_prefix(params: ParameterSet, count: int) -> bytes:
    shapes = _shape_bytes(params.L, count, params.L, params.N)
    return _framed(PROTOCOL_TAG, _RESULT, params.encode(), shapes) + (4 * count).to_bytes(4, "little")


def _result_header(params: ParameterSet, positions: NDArray[np.int64]) -> bytes:
    return _result_prefix(params, positions.size) + positions.astype("<u4").tobytes()


def encode_result(params: ParameterSet, result: ResultCiphertext) -> bytes:
    """Canonical bytes of a result: typed header with the positions, c0 on them, c1. Raises UsageError."""
    _check_result(params, result)
    header = _result_header(params, result.positions)
    return b"".join([header, _buffer(result.c0), _buffer(result.c1)])


def decode_result(params: ParameterSet, data: bytes) -> ResultCiphertext:
    """The result whose canonical bytes are `data`. Arrays are read-only. Raises DecodeError."""
    what = "result ciphertext"
    # All lengths but |P| are fixed by the parameter set, so |P| follows from the total length and the header can be
    # compared whole; nothing is read from untrusted bytes before it is known to be there.
    empty = len(_result_prefix(params, 0)) + params.L * params.N * _WORD.itemsize
    count, rest = divmod(len(data) - empty, 4 + params.L * _WORD.itemsize)
    if rest != 0 or not 1 <= count <= params.N:
        raise DecodeError(what, f"no result of {params.name} has {len(data)} bytes")
    view = memoryview(data)
    prefix = _result_prefix(params, count)
    if view[: len(prefix)] != prefix:
        raise DecodeError(what, f"the header is not that of a {params.name} result with {count} positions")
    start_c0 = len(prefix) + 4 * count
    start_c1 = start_c0 + params.L * count * _WORD.itemsize
    positions = np.frombuffer(view[len(prefix) : start_c0], dtype="<u4").astype(np.int64)
    if positions[-1] >= params.N or bool((np.diff(positions) <= 0).any()):
        raise DecodeError(what, f"positions are not strictly increasing in [0, {params.N})")
    positions.flags.writeable = False
    c0 = _words(params, view[start_c0:start_c1], (params.L, count), what)
    c1 = _words(params, view[start_c1:], (params.L, params.N), what)
    return ResultCiphertext(positions, c0, c1)
