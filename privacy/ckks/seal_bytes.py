"""SEAL's ciphertext files, parsed strictly and without SEAL (docs/spec/protocol.md, section 2).

Nothing from outside reaches SEAL before `parse_ciphertext` has accepted it, and what SEAL is then given is written anew
by `encode_ciphertext` from the parsed fields. SEAL's own loader is not a validator of hostile bytes.

A file is a 16-byte header and a body, which may be compressed with Zstandard (integers little-endian):

    header      u16 magic 0xA15E, u8 header size 16, u8 major, u8 minor, u8 compression, u16 zero, u64 size with header
    body        32 B parms_id, u8 is_ntt, u64 polynomials, u64 N, u64 primes, f64 scale, u64 correction factor 1
                header, u64 words, the words                          (an uncompressed SEAL array)
                header, u8 generator, 64 B seed                       (only if just c0 is there: c1 comes from the seed)
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

from privacy.ckks.params import ParameterSet
from privacy.errors import DecodeError

__all__ = [
    "ParsedCiphertext",
    "encode_ciphertext",
    "parameters_id",
    "parse_body",
    "parse_ciphertext",
    "uncompressed_file",
]

_MAGIC = 0xA15E
_VERSION = (4, 3)
_NONE, _ZSTD = 0, 2
_HEADER = struct.Struct("<HBBBBHQ")
_FIELDS = struct.Struct("<32sBQQQdQ")
_ARRAY = struct.Struct("<16sQ")
_SEED = struct.Struct("<16sB64s")
_WORD = np.dtype("<u8")
_SCHEME_CKKS = 2
_BLAKE2XB = 1
_SEED_BYTES = 64
_WHAT = "SEAL ciphertext"


@dataclass(frozen=True, eq=False)
class ParsedCiphertext:
    """A fresh two-polynomial ciphertext at scale 2^SX over all data primes.

    `polynomials` is uint64 (1, L, N) with `seed` (64 bytes), or (2, L, N) with `seed` None; residues are below their
    primes; values are in SEAL's NTT order if `is_ntt`, else coefficients. A seeded ciphertext is always in NTT form.
    """

    polynomials: NDArray[np.uint64]
    is_ntt: bool
    seed: bytes | None

    @property
    def seeded(self) -> bool:
        """Whether c1 has to be expanded from the seed."""
        return self.seed is not None


def parameters_id(params: ParameterSet, *, key_level: bool = False) -> bytes:
    """SEAL's parms_id of the data level, or of the key level (with the special prime).

    It is BLAKE2b-256 of scheme, N, primes and plain modulus (0 for CKKS) as words.
    """
    primes = (*params.primes, params.special_prime) if key_level else params.primes
    words = (_SCHEME_CKKS, params.N, *primes, 0)
    return hashlib.blake2b(struct.pack(f"<{len(words)}Q", *words), digest_size=32).digest()


def _header(compression: int, body_length: int) -> bytes:
    return _HEADER.pack(_MAGIC, _HEADER.size, *_VERSION, compression, 0, _HEADER.size + body_length)


def _body_length(params: ParameterSet, polynomials: int) -> int:
    seed = _SEED.size if polynomials == 1 else 0
    return _FIELDS.size + _ARRAY.size + polynomials * params.L * params.N * _WORD.itemsize + seed


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise DecodeError(_WHAT, reason)


def parse_body(data: bytes, body_lengths: tuple[int, ...], what: str) -> bytes:
    """The uncompressed body of a SEAL file whose body must have one of `body_lengths`. Raises DecodeError.

    At most the largest of these lengths is ever allocated, whatever the file claims.
    """
    if len(data) < _HEADER.size:
        raise DecodeError(what, f"{len(data)} bytes are no SEAL file")
    compression = data[5]
    if compression not in (_NONE, _ZSTD):
        raise DecodeError(what, f"compression {compression}: only none (0) and Zstandard (2) are accepted")
    if data[: _HEADER.size] != _header(compression, len(data) - _HEADER.size):
        raise DecodeError(
            what, f"bad header {data[: _HEADER.size].hex()} for {len(data)} bytes of SEAL {_VERSION[0]}.{_VERSION[1]}"
        )
    body = data[_HEADER.size :]
    if compression == _ZSTD:
        try:
            # The frame's own content size decides what is allocated, so it is read, and limited, first.
            claimed = zstandard.frame_content_size(body)
            if claimed not in body_lengths:
                raise DecodeError(what, f"the compressed body claims {claimed} bytes, expected {body_lengths}")
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=claimed, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise DecodeError(what, f"Zstandard: {error}") from None
    if len(body) not in body_lengths:
        raise DecodeError(what, f"the body has {len(body)} bytes, expected {body_lengths}")
    return body


def uncompressed_file(body: bytes) -> bytes:
    """The SEAL file with this body, not compressed."""
    return _header(_NONE, len(body)) + body


def parse_ciphertext(params: ParameterSet, data: bytes) -> ParsedCiphertext:
    """Parse the SEAL file of a fresh input ciphertext under `params`, every field checked. Raises DecodeError."""
    body = parse_body(data, (_body_length(params, 1), _body_length(params, 2)), _WHAT)
    polynomials = 1 if len(body) == _body_length(params, 1) else 2
    parms_id, is_ntt, size, N, L, scale, correction = _FIELDS.unpack_from(body)
    _require(parms_id == parameters_id(params), f"parms_id {parms_id.hex()} is not that of {params.name}")
    _require(is_ntt in (0, 1), f"is_ntt is {is_ntt}")
    _require(size == 2, f"{size} polynomials, expected 2")
    _require(N == params.N, f"ring degree {N}, expected {params.N}")
    _require(L == params.L, f"{L} primes, expected {params.L}")
    _require(scale == 2.0**params.SX, f"scale {scale!r}, expected 2^{params.SX}")
    _require(correction == 1, f"correction factor {correction}, expected 1")

    words = polynomials * params.L * params.N
    array_header, claimed = _ARRAY.unpack_from(body, _FIELDS.size)
    _require(array_header == _header(_NONE, 8 + words * _WORD.itemsize), "bad header of the coefficient array")
    _require(claimed == words, f"{claimed} coefficients, expected {words}")
    start = _FIELDS.size + _ARRAY.size
    values = np.frombuffer(body, dtype=_WORD, count=words, offset=start).astype(np.uint64)
    values = values.reshape(polynomials, params.L, params.N)
    largest = values.max(axis=(0, 2))
    for q, value in zip(params.primes, largest.tolist(), strict=True):
        _require(value < q, f"residue {value} is not below {q}")

    seed = None
    if polynomials == 1:
        seed_header, generator, seed = _SEED.unpack_from(body, start + words * _WORD.itemsize)
        _require(seed_header == _header(_NONE, 1 + _SEED_BYTES), "bad header of the seed")
        _require(generator == _BLAKE2XB, f"seed for generator {generator}, expected BLAKE2xb ({_BLAKE2XB})")
        _require(is_ntt == 1, "a seeded ciphertext must be in NTT form")
    else:
        # SEAL refuses to compute with c1 = 0, and rightly so: such a "ciphertext" is the record in clear.
        _require(bool(values[1].any()), "c1 is zero: the record is not encrypted")
    values.flags.writeable = False
    return ParsedCiphertext(values, is_ntt == 1, seed)


def encode_ciphertext(params: ParameterSet, ciphertext: ParsedCiphertext) -> bytes:
    """The uncompressed SEAL file of `ciphertext`; `parse_ciphertext` gives it back."""
    values = np.ascontiguousarray(ciphertext.polynomials, dtype=_WORD).tobytes()
    fields = _FIELDS.pack(parameters_id(params), ciphertext.is_ntt, 2, params.N, params.L, 2.0**params.SX, 1)
    array = _ARRAY.pack(_header(_NONE, 8 + len(values)), len(values) // _WORD.itemsize) + values
    seed = b"" if ciphertext.seed is None else _SEED.pack(_header(_NONE, 1 + _SEED_BYTES), _BLAKE2XB, ciphertext.seed)
    return uncompressed_file(fields + array + seed)
