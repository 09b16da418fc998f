"""The adapter to SEAL (through tenseal.sealapi): the only file that imports tenseal.

The clinic encrypts with it and the server expands seeds with it. The verifier never needs it. SEAL saves and loads by
path only, so everything goes through anonymous memory files: no secret touches a disk. Importing this module without
tenseal raises MissingDependency.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.ckks.packing import coefficients_to_slots
from privacy.ckks.params import ParameterSet
from privacy.ckks.seal_bytes import ParsedCiphertext, encode_ciphertext, parse_body, parse_ciphertext, uncompressed_file
from privacy.errors import DecodeError, MissingDependency, UsageError

try:
    from tenseal import sealapi
except ImportError as error:
    raise MissingDependency("tenseal", "ckks") from error

__all__ = [
    "EncryptedInput",
    "canonical_from_seal",
    "encrypt_block",
    "generate_secret_key",
    "secret_coefficients",
    "secret_key_to_seal",
]

_PLAINTEXT = struct.Struct("<32sQd16sQ")
_WORD = np.dtype("<u8")


@dataclass(frozen=True, eq=False)
class EncryptedInput:
    """One encrypted polynomial: what is sent, and its canonical form uint64 (2, L, N) as the receiver will see it."""

    seal_bytes: bytes
    array: NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class _Seal:
    """SEAL's objects for one parameter set."""

    context: Any
    encoder: Any
    evaluator: Any


@lru_cache(maxsize=4)
def _seal(params: ParameterSet) -> _Seal:
    settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    settings.set_poly_modulus_degree(params.N)
    primes = [*params.primes, params.special_prime]
    settings.set_coeff_modulus([sealapi.Modulus(q) for q in primes])
    context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise UsageError(f"SEAL refuses {params.name}: {context.parameters_error_message()}")
    return _Seal(context, sealapi.CKKSEncoder(context), sealapi.Evaluator(context))


@contextmanager
def _memory_file(content: bytes = b"") -> Iterator[tuple[int, str]]:
    """A file that exists in memory only: its descriptor and a path that SEAL can open."""
    descriptor = os.memfd_create("seal")
    try:
        if content:
            os.write(descriptor, content)
        yield descriptor, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _saved(seal_object: Any) -> bytes:
    with _memory_file() as (descriptor, path):
        seal_object.save(path)
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def generate_secret_key(params: ParameterSet) -> NDArray[np.int64]:
    """A fresh ternary secret s, int64 (N,) with entries -1, 0, 1, from SEAL's key generator."""
    return secret_coefficients(params, _saved(sealapi.KeyGenerator(_seal(params).context).secret_key()))


def _secret_body_length(params: ParameterSet) -> int:
    return _PLAINTEXT.size + (params.L + 1) * params.N * _WORD.itemsize


def secret_coefficients(params: ParameterSet, seal_bytes: bytes) -> NDArray[np.int64]:
    """The coefficients of a SEAL secret key file, int64 (N,) in {-1, 0, 1}. Raises DecodeError.

    SEAL keeps a secret key in NTT form over all primes. To invert the transform with SEAL's own tables, the words of
    the data primes are handed to it as c0 of a ciphertext. The key is accepted only if its file is the one that SEAL
    writes for the coefficients found, so all fields and all primes are checked.
    """
    what = "SEAL secret key"
    body = parse_body(seal_bytes, (_secret_body_length(params),), what)
    words = np.frombuffer(body, dtype=_WORD, offset=_PLAINTEXT.size).astype(np.uint64).reshape(params.L + 1, params.N)
    data = words[: params.L]
    for q, row in zip(params.primes, data, strict=True):
        if row.max() >= q:
            raise DecodeError(what, "a residue is not below its prime")
    coefficients = _coefficients(params, ParsedCiphertext(np.stack([data, np.ones_like(data)]), True, None))
    q0 = params.primes[0]
    values = coefficients[0, 0].astype(np.int64)
    s: NDArray[np.int64] = np.where(values > q0 // 2, values - q0, values)
    if np.abs(s).max() > 1:
        raise DecodeError(what, "a coefficient is not -1, 0 or 1")
    if _secret_body(params, s) != body:
        raise DecodeError(what, f"it is not a secret key of {params.name}")
    return s


def _secret_body(params: ParameterSet, s: NDArray[np.int64]) -> bytes:
    # A SEAL secret key is a plaintext at the key level. Encoding s at scale 1 rounds each coefficient to itself.
    plaintext = sealapi.Plaintext()
    seal = _seal(params)
    slots = coefficients_to_slots(s.astype(np.float64)).tolist()
    seal.encoder.encode(slots, list(seal.context.key_parms_id()), 1.0, plaintext)
    return parse_body(_saved(plaintext), (_secret_body_length(params),), "SEAL plaintext")


def _secret_key(params: ParameterSet, s: NDArray[np.int64]) -> Any:
    key = sealapi.SecretKey()
    with _memory_file(secret_key_to_seal(params, s)) as (_, path):
        key.load(_seal(params).context, path)
    return key


def secret_key_to_seal(params: ParameterSet, s: NDArray[np.int64]) -> bytes:
    """The uncompressed SEAL secret key file of the ternary secret s, int64 (N,). Raises UsageError for any other s."""
    if s.shape != (params.N,) or s.dtype != np.int64 or s.min() < -1 or s.max() > 1:
        raise UsageError(f"a secret key is {params.N} coefficients out of -1, 0, 1")
    return uncompressed_file(_secret_body(params, s))


def _coefficients(params: ParameterSet, ciphertext: ParsedCiphertext) -> NDArray[np.uint64]:
    """Both polynomials in coefficient form, uint64 (2, L, N), of a ciphertext in NTT form; a seed is expanded."""
    seal = _seal(params)
    loaded, transformed = sealapi.Ciphertext(), sealapi.Ciphertext()
    try:
        with _memory_file(encode_ciphertext(params, ciphertext)) as (_, path):
            loaded.load(seal.context, path)
        seal.evaluator.transform_from_ntt(loaded, transformed)
    except (RuntimeError, ValueError) as error:
        raise DecodeError("SEAL ciphertext", f"SEAL refuses it: {error}") from None
    return parse_ciphertext(params, _saved(transformed)).polynomials


def canonical_from_seal(params: ParameterSet, seal_bytes: bytes) -> NDArray[np.uint64]:
    """The canonical form, uint64 (2, L, N), of the SEAL file of an input ciphertext. Raises DecodeError.

    Accepts what `parse_ciphertext` accepts: compressed or not, seeded or expanded, NTT or coefficient form. SEAL sees
    only a file written anew from the parsed fields.
    """
    ciphertext = parse_ciphertext(params, seal_bytes)
    return _coefficients(params, ciphertext) if ciphertext.is_ntt else ciphertext.polynomials


def encrypt_block(
    params: ParameterSet, s: NDArray[np.int64], coefficients: NDArray[np.float64]
) -> list[EncryptedInput]:
    """Encrypt polynomials (m, N), given in answer units, under the secret s at scale 2^SX.

    Fresh symmetric encryptions with a seeded c1: about 46 kB each at N = 4096. Coefficient i decrypts to 2^SX times the
    given one, rounded in SEAL's double precision, plus noise of at most 21. Raises UsageError for a wrong shape, a
    number that is not finite, or one that does not fit the modulus.
    """
    if coefficients.ndim != 2 or coefficients.shape[1] != params.N:
        raise UsageError(f"expected coefficients (m, {params.N}), got shape {coefficients.shape}")
    if not bool(np.isfinite(coefficients).all()):
        raise UsageError("a coefficient is not a finite number")
    limit = params.Q / 2.0 ** (params.SX + 2)
    if coefficients.size and np.abs(coefficients).max() >= limit:
        raise UsageError(f"a coefficient is {np.abs(coefficients).max()}, the modulus of {params.name} holds {limit}")
    seal = _seal(params)
    encryptor = sealapi.Encryptor(seal.context, _secret_key(params, s))
    encrypted = []
    for slots in coefficients_to_slots(coefficients):
        plaintext = sealapi.Plaintext()
        seal.encoder.encode(slots.tolist(), 2.0**params.SX, plaintext)
        seal_bytes = _saved(encryptor.encrypt_symmetric(plaintext))
        encrypted.append(EncryptedInput(seal_bytes, canonical_from_seal(params, seal_bytes)))
    return encrypted
