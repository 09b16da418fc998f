"""Encrypted answers whose decryptions a test chooses, at a degree where proofs take milliseconds; and what is said of
them. No security at this degree, the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Literal

import numpy as np

from privacy.ckks.canonical import ResultCiphertext, result_digest
from privacy.ckks.disclosure import DisclosedAnswer, DisclosureStatement
from privacy.ckks.disclosure_prover import prove_disclosure
from privacy.ckks.key_certificate import KeyCertificate, KeyOpenings, certify_key
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.ckks.polynomial import negacyclic_multiply_mod
from privacy.zk.group import ARKWORKS
from privacy.zk.randomness import SecretStream

BASE = parameter_set("linear-4096")
GRID_BITS = 6
STEP = 1 << (BASE.D - GRID_BITS)
UNIT = 1 << BASE.D
"""A decryption of 1.0."""

Kind = Literal["exact", "threshold"]


@cache
def small_parameters(N: int) -> ParameterSet:
    """linear-4096's primes at another degree."""
    return ParameterSet(f"test-{N}", N, BASE.primes, BASE.special_prime, BASE.SX, BASE.SW)


@dataclass(frozen=True)
class Clinic:
    """A key with the openings and commitments of its certificate."""

    keys: ClinicKeys
    openings: KeyOpenings
    certificate: bytes
    C_plus: bytes
    C_minus: bytes

    @property
    def params(self) -> ParameterSet:
        return self.keys.params

    @classmethod
    def of(cls, keys: ClinicKeys, certificate: bytes, openings: KeyOpenings) -> Clinic:
        read = KeyCertificate.decode(keys.params, certificate)
        return cls(keys, openings, certificate, ARKWORKS.encode(read.C_plus), ARKWORKS.encode(read.C_minus))

    def encrypt(self, decryptions: Sequence[int], positions: Sequence[int] | None = None) -> ResultCiphertext:
        """A result whose published coefficients decrypt to these integers mod Q."""
        params, stream = self.params, SecretStream()
        P = np.array(range(len(decryptions)) if positions is None else positions, dtype=np.int64)
        c1 = np.array([[stream.below(q) for _ in range(params.N)] for q in params.primes], dtype=np.uint64)
        product = negacyclic_multiply_mod(params, c1, self.keys.s)[:, P]
        c0 = [
            [(M - int(x)) % q for M, x in zip(decryptions, row, strict=True)]
            for q, row in zip(params.primes, product, strict=True)
        ]
        return ResultCiphertext(P, np.array(c0, dtype=np.uint64), c1)


@cache
def clinic(name: str = "st-anna", N: int = 64) -> Clinic:
    """A certified key; the same for every call, so tests must not change it."""
    params, stream = small_parameters(N), SecretStream()
    keys = ClinicKeys(params, name, 1, stream.ternary(N), stream.centred_binomial(N))
    return Clinic.of(keys, *certify_key(params, name, 1, keys.public.p0, keys.s, keys.e_pk))


@dataclass(frozen=True)
class Answers:
    """Results of one clinic; coefficient `positions[k]` of result b decrypts to `decryptions[b][k]`."""

    clinic: Clinic
    decryptions: tuple[tuple[int, ...], ...]
    results: tuple[ResultCiphertext, ...]

    @classmethod
    def encrypt(cls, clinic: Clinic, *decryptions: Sequence[int]) -> Answers:
        made = tuple(clinic.encrypt(M) for M in decryptions)
        return cls(clinic, tuple(map(tuple, decryptions)), made)

    @property
    def digests(self) -> tuple[bytes, ...]:
        return tuple(result_digest(self.clinic.params, result) for result in self.results)

    @property
    def lookup(self) -> Callable[[bytes], ResultCiphertext]:
        return dict(zip(self.digests, self.results, strict=True)).__getitem__

    def answer(self, place: int, kind: Kind = "exact", b: int = 0, versus: int | None = None, **fields: Any) -> Any:
        """A true statement about one answer: the grid point that is nearest, or the largest that is reached.

        Result b is output b of everybody, and patient k is coefficient k.
        """
        M = self.decryptions[b][place] - (0 if versus is None else self.decryptions[versus][place])
        value = (M + STEP // 2) // STEP if kind == "exact" else M // STEP
        told: dict[str, Any] = {
            "handle": name(f"record {place}"),
            "patient": place,
            "output": b,
            "versus": versus,
            "results": tuple(self.digests[x] for x in (b, versus) if x is not None),
            "position": place,
            "kind": kind,
            "value": value,
            "tolerance": 1 if kind == "exact" else 0,
        }
        return DisclosedAnswer(**{**told, **fields})

    def statement(self, *answers: DisclosedAnswer, **fields: Any) -> DisclosureStatement:
        """Everything around the answers."""
        told: dict[str, Any] = {
            "params": self.clinic.params,
            "grid_bits": GRID_BITS,
            "key_id": name("key"),
            "key_certificate": sha256(self.clinic.certificate).digest(),
            "C_plus": self.clinic.C_plus,
            "C_minus": self.clinic.C_minus,
            "model_id": name("model"),
            "records_id": name("records"),
            "prediction_id": name("prediction"),
            "grant_id": name("grant"),
            "recipient_nonce": name("nonce"),
            "answers": answers,
        }
        return DisclosureStatement(**{**told, **fields})

    def prove(self, statement: DisclosureStatement) -> bytes:
        return prove_disclosure(statement, self.lookup, self.clinic.keys.s, self.clinic.openings)


def name(what: str) -> bytes:
    """32 bytes that stand for something."""
    return sha256(what.encode()).digest()
