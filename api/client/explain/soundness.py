"""With what chance a false proof passes: per attempt, added up from the errors that the protocol states.

docs/spec/protocol.md: section 3 for keys, 4 for the toolkit, 5 to 7 for the proofs. They hold unless somebody computes
discrete logarithms on BLS12-381 or breaks the hash functions. Every bound is rounded up.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.key_certificate import ROW_ERROR_BITS, derive_key_bounds
from privacy.ckks.params import ParameterSet
from privacy.mpc.joint_proof import JointStatement
from privacy.zk.group import ORDER
from privacy.zk.relations import CHALLENGE_BITS, KAPPA, T4_ROWS, J

__all__ = [
    "disclosure_error",
    "evaluation_error",
    "joint_disclosure_error",
    "joint_error",
    "key_error",
    "power_of_two",
]


def _two(exponent: int) -> Fraction:
    return Fraction(1, 1 << exponent)


_T1 = _two(CHALLENGE_BITS)
_T4 = _two(KAPPA * T4_ROWS)
_T5 = _T6 = _two(J)
_X = Fraction(2, ORDER)
"""Beyond the folding of constraints."""
_RANGE_BITS: Final = 64
"""No range of a committed answer is wider."""


def evaluation_error(statement: EvaluationStatement) -> Fraction:
    """Of an evaluation proof: T5 for u, T6 for both components, T4, the folding of relations and instances, T1."""
    folded = Fraction(2 * J * statement.params.L + J + T4_ROWS, ORDER)
    combined = _two(CHALLENGE_BITS) if statement.instances > 1 else Fraction(0)
    return _T5 + 2 * _T6 + _T4 + folded + combined + _T1


def key_error(params: ParameterSet) -> Fraction:
    """Of a key certificate: rows of the equation, T4, and X over 9 N constraints, the rows and the definition of xi."""
    constraints = 9 * params.N + sum(derive_key_bounds(params).rows) + T4_ROWS
    return _two(ROW_ERROR_BITS) + _T4 + Fraction(constraints, ORDER) + _X


def disclosure_error(params: ParameterSet, answers: int) -> Fraction:
    """Of a disclosure of encrypted answers: T5, T4, T1 with its folding, and X."""
    folded = Fraction(answers * params.L + J + T4_ROWS, ORDER)
    return _T5 + _T4 + _T1 + folded + Fraction(answers, ORDER) + _X


def joint_error(statement: JointStatement) -> Fraction:
    """Of a joint proof: X over the copies of a circuit, and the weights under which a verifier opens commitments."""
    constraints = len(statement.circuit.system.system) * statement.count
    return Fraction(constraints, ORDER) + _X + _two(CHALLENGE_BITS)


def joint_disclosure_error(proven: int) -> Fraction:
    """Of range proofs about so many committed answers: X over 64 bits and their sum, at most twice an answer."""
    return proven * 2 * (Fraction(_RANGE_BITS + 1, ORDER) + _X)


def power_of_two(error: Fraction) -> int:
    """The largest n for which an error above 0 is below 2^-n, or equal to it."""
    return (error.denominator // error.numerator).bit_length() - 1
