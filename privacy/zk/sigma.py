"""Proof S: zksk's prover and verifier over BLS12-381 (docs/spec/protocol.md, section 4).

The only file that imports zksk and petlib. It uses zksk for linear representations (`DLRep` and their conjunction)
and for nothing else: the disjunctions and range proofs of zksk 0.0.2 accept forgeries and reveal which branch is
true. Statements and a verifier that needs no zksk are in `privacy.zk.representation`.

zksk's statement hash is taken over the text of its points, so the text of a point here is its whole canonical
encoding.
"""

from __future__ import annotations

import secrets as operating_system
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

with warnings.catch_warnings():
    # zksk's docstrings hold escapes that newer Pythons warn about whenever they compile the file.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", SyntaxWarning)
    from petlib.bn import Bn
    from petlib.pack import register_coders
    from zksk import DLRep, Secret
    from zksk.base import NIZK
    from zksk.composition import AndProofStmt
    from zksk.expr import wsum_secrets

from privacy.errors import UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS, ORDER, Group, Point
from privacy.zk.representation import POINT_EXTENSION, LinearRepresentation, RepresentationProof, context_message

__all__ = ["LinearRepresentation", "prove_representation", "verify_representation"]


def prove_representation(statement: LinearRepresentation, secrets: Mapping[str, int], context: bytes) -> bytes:
    """Prove PK{x: every equation of the statement}, bound to a transcript digest.

    Args:
        statement: the equations.
        secrets: an integer for each name of the statement, taken mod r; other names are ignored.
        context: 32-byte digest of the transcript that has absorbed what the proof must be bound to.

    Raises:
        UsageError: a secret is missing, the secrets do not satisfy the statement, or `context` is not a digest.
    """
    message = context_message(context)
    missing = [name for name in statement.names() if name not in secrets]
    if missing:
        raise UsageError(f"no value for secret {missing[0]!r}")
    values = {name: secrets[name] % ORDER for name in statement.names()}
    if not statement.satisfied_by(values):
        raise UsageError("the secrets do not satisfy the statement: nothing to prove")
    while True:
        # zksk's challenge is a SHA-256 value. Only one below r is a scalar of the wire format (11 of 24 are).
        zksk_secrets = {name: Secret(name=name) for name in values}
        nizk = _zksk_statement(statement, zksk_secrets).prove(
            {zksk_secrets[name]: _big_number(value) for name, value in values.items()}, message
        )
        if int(nizk.challenge) < ORDER:
            break
    rows = [nizk.responses] if len(statement.equations) == 1 else nizk.responses
    response: dict[str, int] = {}
    for equation, row in zip(statement.equations, rows, strict=True):
        for (_, name), value in zip(equation.terms, row, strict=True):
            response.setdefault(name, int(value))
    return RepresentationProof(int(nizk.challenge), tuple(response.values())).encode()


def verify_representation(statement: LinearRepresentation, proof: bytes, context: bytes) -> None:
    """Check a proof with zksk's own verifier; `privacy.zk.representation` has the one that auditors use.

    Count and range of the responses are checked before zksk sees them, and one response stands for each secret,
    because zksk reads responses by position and accepts any integers.

    Raises:
        DecodeError: the bytes are not the encoding of a proof for this statement.
        VerificationFailed: `representation.zksk`.
        UsageError: `context` is not a digest.
    """
    message = context_message(context)
    decoded = RepresentationProof.decode(proof, statement)
    response = {name: _big_number(value) for name, value in zip(statement.names(), decoded.responses, strict=True)}
    rows = [[response[name] for _, name in equation.terms] for equation in statement.equations]
    zksk_statement = _zksk_statement(statement, {name: Secret(name=name) for name in statement.names()})
    nizk = NIZK(
        challenge=_big_number(decoded.challenge),
        responses=rows[0] if len(rows) == 1 else rows,
        stmt_hash=zksk_statement.prehash_statement().digest(),
    )
    try:
        accepted = zksk_statement.verify(nizk, message)
    except Exception as error:  # zksk's errors have no common class, and petlib raises Exception itself
        raise VerificationFailed("representation.zksk", f"zksk refused it: {error!r}") from error
    if accepted is not True:
        raise VerificationFailed("representation.zksk", "the responses do not fit the challenge")


def _zksk_statement(statement: LinearRepresentation, secrets: Mapping[str, Any]) -> Any:
    group = _ZkskGroup(statement.group)
    parts = [
        DLRep(
            _ZkskPoint(group, equation.target),
            wsum_secrets(
                [secrets[name] for _, name in equation.terms],
                [_ZkskPoint(group, point) for point, _ in equation.terms],
            ),
        )
        for equation in statement.equations
    ]
    return parts[0] if len(parts) == 1 else AndProofStmt(*parts)


def _big_number(value: int) -> Any:
    # Bn's constructor takes machine words only.
    return Bn.from_hex(format(value, "x"))


class _Order:
    """r, whose `random` comes from the operating system: petlib ignores a failed draw under `python -O`."""

    def __init__(self) -> None:
        self._number = _big_number(ORDER)  # owns what `bn`, petlib's handle, points to
        self.bn = self._number.bn

    def random(self) -> Any:
        return _big_number(operating_system.randbelow(ORDER))


_ORDER: Final = _Order()


@dataclass(frozen=True)
class _ZkskGroup:
    """What zksk asks of a group."""

    group: Group

    def order(self) -> _Order:
        return _ORDER

    def infinite(self) -> _ZkskPoint:
        return _ZkskPoint(self, self.group.identity())

    def wsum(self, weights: Sequence[Any], points: Sequence[_ZkskPoint]) -> _ZkskPoint:
        scalars = [int(weight) % ORDER for weight in weights]
        return _ZkskPoint(self, self.group.msm([point.value for point in points], scalars))


@dataclass(frozen=True, repr=False, eq=False)
class _ZkskPoint:
    """What zksk asks of a point."""

    group: _ZkskGroup
    value: Point

    def encode(self) -> bytes:
        return self.group.group.encode(self.value)

    def __repr__(self) -> str:
        return self.encode().hex()

    def __add__(self, other: _ZkskPoint) -> _ZkskPoint:
        return _ZkskPoint(self.group, self.group.group.add(self.value, other.value))

    def __rmul__(self, scalar: Any) -> _ZkskPoint:
        return _ZkskPoint(self.group, self.group.group.multiply(self.value, int(scalar) % ORDER))


def _decode_point(data: bytes) -> _ZkskPoint:
    return _ZkskPoint(_ZkskGroup(ARKWORKS), ARKWORKS.decode(data))


register_coders(_ZkskPoint, POINT_EXTENSION, _ZkskPoint.encode, _decode_point)
