"""Proof S: linear representations, statements and verifier (docs/spec/protocol.md, section 4).

PK{x : T_e = sum_i x_{e,i} G_{e,i} for every equation e}; equal names mean equal secrets. This is Schnorr's proof:
commitments A_e, challenge c, responses z = k + c x, accepted when c is the hash of the statement, of
A_e = sum z_i G_{e,i} - c T_e and of the caller's transcript digest. Soundness error 2/r per attempt, for points of
the prime-order group. Nothing about the secrets is revealed.

The hash is byte for byte that of zksk 0.0.2 (SHA-256 over its statement text and its msgpack encoding), so that the
proofs of `privacy.zk.sigma` verify here without zksk: the auditor's path imports this file only.

Encoding of a proof: c, then one response for each name in order of first use, 32 bytes each, little-endian, all
below r. zksk's challenge is a whole SHA-256 value; the prover starts again until it is below r, so that every scalar
has one encoding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, SCALAR_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey
from privacy.zk.wire import Reader, pack_scalars

__all__ = [
    "CONTEXT_BYTES",
    "POINT_EXTENSION",
    "Equation",
    "LinearRepresentation",
    "RepresentationProof",
    "context_message",
    "equality_of_openings",
    "opening",
    "opening_secrets",
    "verify_representation",
    "zero_weight",
]

CONTEXT_BYTES: Final = 32
POINT_EXTENSION: Final = 48
"""Type number of a point among msgpack's extension types; petlib uses 0 to 2 itself."""

_WHAT: Final = "representation proof"


@dataclass(frozen=True)
class Equation:
    """target = sum secret_i * generator_i; terms are (generator, name of the secret)."""

    target: Point
    terms: tuple[tuple[Point, str], ...]


@dataclass(frozen=True)
class LinearRepresentation:
    """The conjunction of equations, points of one group. A name used twice is one secret.

    Raises:
        UsageError: no equation, an equation without terms, or the identity as a generator (it would bind nothing).
    """

    equations: tuple[Equation, ...]
    group: Group = ARKWORKS

    def __post_init__(self) -> None:
        if not self.equations or not all(equation.terms for equation in self.equations):
            raise UsageError("a linear representation needs an equation, and every equation needs a term")
        identity = self.group.identity()
        if any(self.group.equal(point, identity) for point in self.generators()):
            raise UsageError("the identity cannot be a generator of a linear representation")

    def generators(self) -> Iterator[Point]:
        """Generators of all equations, in order."""
        return (point for equation in self.equations for point, _ in equation.terms)

    def names(self) -> tuple[str, ...]:
        """Distinct secrets in order of first use: the order of the responses on the wire."""
        return tuple(dict.fromkeys(name for equation in self.equations for _, name in equation.terms))

    def satisfied_by(self, secrets: Mapping[str, int]) -> bool:
        """Whether these secrets (|x| < r) make every equation true."""
        return all(
            self.group.equal(
                self.group.msm([point for point, _ in equation.terms], [secrets[name] for _, name in equation.terms]),
                equation.target,
            )
            for equation in self.equations
        )

    def proof_id(self) -> str:
        """The text zksk hashes: class name, bases, numbers of the secrets, target; points as hexadecimal."""
        numbers = {name: number for number, name in enumerate(self.names())}
        parts = []
        for equation in self.equations:
            bases = ", ".join(self.group.encode(point).hex() for point, _ in equation.terms)
            secrets = ", ".join(str(numbers[name]) for _, name in equation.terms)
            parts.append(f"['DLRep', [{bases}], [{secrets}], {self.group.encode(equation.target).hex()}]")
        return parts[0] if len(parts) == 1 else f"('AndProofStmt', [{', '.join(parts)}])"


@dataclass(frozen=True)
class RepresentationProof:
    """Challenge and responses, each in [0, r); responses in the order of `LinearRepresentation.names`."""

    challenge: int
    responses: tuple[int, ...]

    def encode(self) -> bytes:
        """32 bytes a scalar."""
        return pack_scalars((self.challenge, *self.responses))

    @staticmethod
    def decode(data: bytes, statement: LinearRepresentation) -> RepresentationProof:
        """Strict inverse of `encode` for the number of secrets of a statement.

        Raises:
            DecodeError: wrong length, or a scalar that is not below r.
        """
        count = 1 + len(statement.names())
        if len(data) != count * SCALAR_BYTES:
            raise DecodeError(_WHAT, f"expected {count * SCALAR_BYTES} bytes, got {len(data)}")
        challenge, *responses = Reader(_WHAT, data).scalars(count)
        return RepresentationProof(challenge, tuple(responses))


def verify_representation(statement: LinearRepresentation, proof: bytes, context: bytes) -> None:
    """Check a proof made by `privacy.zk.sigma.prove_representation`, without zksk.

    `context` is the 32-byte digest of the transcript that has absorbed everything the proof must be bound to.

    Raises:
        DecodeError: the bytes are not the encoding of a proof for this statement.
        VerificationFailed: `representation.challenge`.
        UsageError: `context` is not a digest.
    """
    message = context_message(context)
    decoded = RepresentationProof.decode(proof, statement)
    response = dict(zip(statement.names(), decoded.responses, strict=True))
    commitments = [
        statement.group.msm(
            [*(point for point, _ in equation.terms), equation.target],
            [*(response[name] for _, name in equation.terms), -decoded.challenge],
        )
        for equation in statement.equations
    ]
    if _challenge(statement, commitments, message) != decoded.challenge:
        raise VerificationFailed("representation.challenge", "the responses do not fit the challenge")


def context_message(context: bytes) -> str:
    """zksk's `message` for a transcript digest. Its length is fixed because zksk hashes it without one."""
    if len(context) != CONTEXT_BYTES:
        raise UsageError(f"the context of a representation proof is a digest of {CONTEXT_BYTES} bytes")
    return context.hex()


def _challenge(statement: LinearRepresentation, commitments: Sequence[Point], message: str) -> int:
    text = statement.proof_id().encode()
    state = hashlib.sha256(_text_header(len(text)) + text)
    state.update(b"\xc0")  # msgpack's nil: a linear representation has no precommitment
    if len(commitments) > 1:
        state.update(_array_header(len(commitments)))
    for commitment in commitments:
        encoded = statement.group.encode(commitment)
        state.update(bytes([0xC7, len(encoded), POINT_EXTENSION]) + encoded)
    state.update(message.encode())
    return int.from_bytes(state.digest(), "big")


def _text_header(length: int) -> bytes:
    # A single equation with one term already has 200 characters: msgpack's shortest form never occurs.
    if length < 1 << 8:
        return bytes([0xD9, length])
    if length < 1 << 16:
        return b"\xda" + length.to_bytes(2, "big")
    return b"\xdb" + length.to_bytes(4, "big")


def _array_header(length: int) -> bytes:
    if length < 1 << 4:
        return bytes([0x90 | length])
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def opening(key: CommitmentKey, commitment: Point) -> LinearRepresentation:
    """PK{(v, rho): C = Com(v; rho)}. Secrets: `opening_secrets(v, rho)`."""
    return LinearRepresentation((_equation(key, commitment, "rho0"),), key.group)


def equality_of_openings(
    first_key: CommitmentKey, first: Point, second_key: CommitmentKey, second: Point
) -> LinearRepresentation:
    """PK{(v, rho, sigma): C = Com(v; rho) and D = Com'(v; sigma)}, equality in F_r.

    Secrets: `opening_secrets(v, rho, sigma)`.

    Raises:
        UsageError: the keys differ in length or group.
    """
    if len(first_key) != len(second_key) or first_key.group is not second_key.group:
        raise UsageError(f"equality of openings under keys of {len(first_key)} and {len(second_key)} generators")
    equations = (_equation(first_key, first, "rho0"), _equation(second_key, second, "rho1"))
    return LinearRepresentation(equations, first_key.group)


def zero_weight(key: CommitmentKey, commitment: Point, index: int) -> LinearRepresentation:
    """PK{(w, rho): C_W = Com(w; rho) and w_index = 0} (docs/spec/protocol.md, section 8).

    A representation of C_W over the remaining generators: since commitments bind, the weight left out is zero.
    Secrets: `opening_secrets(w, rho)`.

    Raises:
        UsageError: the key has no such coordinate.
    """
    if not 0 <= index < len(key):
        raise UsageError(f"zero weight {index} of a commitment to {len(key)} values")
    return LinearRepresentation((_equation(key, commitment, "rho0", omit=index),), key.group)


def opening_secrets(values: Sequence[int], *blindings: int) -> dict[str, int]:
    """Secrets v0, v1, ... and rho0, rho1, ... of the statements above."""
    secrets = {f"v{i}": value for i, value in enumerate(values)}
    return secrets | {f"rho{i}": blinding for i, blinding in enumerate(blindings)}


def _equation(key: CommitmentKey, commitment: Point, blinding: str, omit: int | None = None) -> Equation:
    terms = [(point, f"v{i}") for i, point in enumerate(key.points) if i != omit]
    return Equation(commitment, (*terms, (key.blinding, blinding)))
