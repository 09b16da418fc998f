"""The same work without attestation: bare SEAL through tenseal.sealapi, and TenSEAL as its tutorials use it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tenseal
from numpy.typing import NDArray
from tenseal import sealapi

from privacy.ckks.backend import secret_key_to_seal
from privacy.ckks.packing import coefficients_to_slots
from privacy.ckks.params import ParameterSet

__all__ = ["BareSeal", "TensealVectors"]


def _load(target: Any, context: Any, data: bytes) -> Any:
    descriptor = os.memfd_create("seal")
    try:
        os.write(descriptor, data)
        target.load(context, f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return target


def _save(source: Any) -> bytes:
    descriptor = os.memfd_create("seal")
    try:
        source.save(f"/proc/self/fd/{descriptor}")
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


class BareSeal:
    """A SEAL user with our parameters and packing: no digests, no canonical form, no re-randomisation, no proof."""

    def __init__(self, params: ParameterSet, s: NDArray[np.int64]) -> None:
        settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(params.N)
        settings.set_coeff_modulus([sealapi.Modulus(q) for q in (*params.primes, params.special_prime)])
        self._params = params
        self._context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)
        self._encoder = sealapi.CKKSEncoder(self._context)
        self._evaluator = sealapi.Evaluator(self._context)
        key = _load(sealapi.SecretKey(), self._context, secret_key_to_seal(params, s))
        self._encryptor = sealapi.Encryptor(self._context, key)
        self._decryptor = sealapi.Decryptor(self._context, key)

    def encrypt(self, coefficients: NDArray[np.float64]) -> list[bytes]:
        """Encode, encrypt and serialise polynomials (d, N)."""
        files = []
        for slots in coefficients_to_slots(coefficients):
            plaintext = sealapi.Plaintext()
            self._encoder.encode(slots.tolist(), 2.0**self._params.SX, plaintext)
            files.append(_save(self._encryptor.encrypt_symmetric(plaintext)))
        return files

    def load(self, files: list[bytes]) -> list[Any]:
        """Ciphertexts ready to compute with: a server's cache, not measured."""
        return [_load(sealapi.Ciphertext(), self._context, data) for data in files]

    def evaluate(self, ciphertexts: list[Any], weights: NDArray[np.float64], bias: float) -> Any:
        """sum_i w_i ct_i + bias by multiply_plain and add."""
        total = None
        for ciphertext, weight in zip(ciphertexts, weights.tolist(), strict=True):
            plaintext, product = sealapi.Plaintext(), sealapi.Ciphertext()
            self._encoder.encode(weight, 2.0**self._params.SW, plaintext)
            self._evaluator.multiply_plain(ciphertext, plaintext, product)
            if total is None:
                total = product
            else:
                self._evaluator.add_inplace(total, product)
        slots = coefficients_to_slots(np.full(self._params.N, bias))
        plaintext = sealapi.Plaintext()
        self._encoder.encode(slots.tolist(), 2.0**self._params.D, plaintext)
        self._evaluator.add_plain_inplace(total, plaintext)
        return total

    def error(self, result: Any, expected: NDArray[np.float64]) -> float:
        """Largest distance, over all slots, between a decrypted result and the polynomial `expected` (N,)."""
        plaintext = sealapi.Plaintext()
        self._decryptor.decrypt(result, plaintext)
        slots = np.array(self._encoder.decode_complex(plaintext))
        return float(np.abs(slots - coefficients_to_slots(expected)).max())


class TensealVectors:
    """TenSEAL's own way: one ckks_vector a record, dot product by rotations, its tutorials' N = 8192 parameters."""

    def __init__(self) -> None:
        self._context = tenseal.context(
            tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=8192, coeff_mod_bit_sizes=[60, 40, 40, 60]
        )
        self._context.global_scale = 2.0**40
        self._context.generate_galois_keys()

    def encrypt(self, record: NDArray[np.float64]) -> Any:
        """An encrypted record."""
        return tenseal.ckks_vector(self._context, record.tolist())

    def serialised(self, record: NDArray[np.float64]) -> bytes:
        """An encrypted record, ready to upload."""
        return bytes(self.encrypt(record).serialize())

    def evaluate(self, vector: Any, weights: NDArray[np.float64], bias: float) -> Any:
        """<w, x> + bias."""
        return vector.dot(weights.tolist()) + bias
