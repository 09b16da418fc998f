"""Disclosing one committed answer: all of it, to within a tolerance, or that it reaches a threshold
(docs/spec/protocol.md, section 7, Disclosure).

C_z = Com(z; rho) commits to the exact integer answer, |z| <= z_max, of one patient and output (a verified joint proof).
With Delta = 2^(scale_bits - grid_bits) steps of z to a point of the public grid:

    open       z and rho themselves: everybody can check Com(z; rho) = C_z
    exact      PK{ z, rho : C_z = Com(z; rho),  lo <= z < hi },   lo, hi = Delta (n -+ m): z is within m grid steps of n
    threshold  PK{ z, rho : C_z = Com(z; rho),  z >= Delta n }

by range proofs (X on bits) of z - lo and hi - 1 - z, or of z - Delta n, in [0, 2^k). k follows from public numbers
alone and all of them stay below 2^64, so nothing can wrap around r. n, m, kind and k are bound, and so are the
prediction, the place of the answer, the record's handle, and the recipient's nonce: a range proof for one question does
not answer another. The bytes of `open` are rho alone, so there only the statement that the clinic signs names the
recipient. `open` tells every bit of z, which are bits about the network; the other two tell what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.mpc.answers import AnswerOpening
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, SCALAR_BYTES, Group, Point
from privacy.zk.quadratic import RangeProof, prove_range
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader, pack_scalars

__all__ = [
    "AnswerStatement",
    "Kind",
    "disclose_answer",
    "disclose_answers",
    "statement_about",
    "verify_answer",
    "verify_answers",
]

Kind = Literal["open", "exact", "threshold"]

_TAG: Final = b"sealproof/answer-disclosure/v1\n"
_WHAT: Final = "disclosure"
_DIGEST_BYTES: Final = 32
_KINDS: Final = ("open", "exact", "threshold")


@dataclass(frozen=True)
class AnswerStatement:
    """Every public input of a disclosure.

    `prediction_id` is the leaf hash of the prediction entry, `handle` the blinded handle of the record, `patient` and
    `output` the place of `answer` (C_z), `bound` z_max. `value` is n, in grid steps; for `open` it is z itself.
    `tolerance` is m (1 or more for `exact`, else 0). `grant_id` is the leaf hash of the grant under which it is made;
    None as it was before grants, and is in no statement that is made now. Raises UsageError for a statement that cannot
    be made.
    """

    prediction_id: bytes
    handle: bytes
    patient: int
    output: int
    answer: bytes
    scale_bits: int
    grid_bits: int
    bound: int
    kind: Kind
    value: int
    tolerance: int
    recipient_nonce: bytes
    grant_id: bytes | None = None

    def __post_init__(self) -> None:
        digests = (self.prediction_id, self.handle, self.recipient_nonce, self.grant_id or bytes(_DIGEST_BYTES))
        if any(len(digest) != _DIGEST_BYTES for digest in digests) or len(self.answer) != POINT_BYTES:
            raise UsageError("ids, handle and nonce have 32 bytes, an answer's commitment 48")
        if self.kind not in _KINDS or self.patient < 0 or self.output < 0 or not 0 <= self.grid_bits <= self.scale_bits:
            raise UsageError(f"there is no disclosure of kind {self.kind!r} of this answer")
        if not 1 <= self.bound < 1 << 62:
            raise UsageError("the bound of an answer is at least 1 and below 2^62")
        if (self.kind == "exact") != (self.tolerance > 0) or self.tolerance < 0:
            raise UsageError("an exact disclosure has a tolerance of one grid step or more, others have none")
        if self.kind == "open" and abs(self.value) > self.bound:
            raise UsageError("no answer of this network is that large")
        if self.kind == "exact" and not (-self.bound <= self.low and self.high <= self.bound):
            raise UsageError("the interval leaves the range of the network's answers: choose a smaller tolerance")
        if self.kind == "threshold" and not -self.bound <= self.low <= self.bound:
            raise UsageError("no answer, or every answer, of this network reaches that threshold")

    @property
    def step(self) -> int:
        """Delta: integer steps from one grid point to the next."""
        return 1 << (self.scale_bits - self.grid_bits)

    @property
    def low(self) -> int:
        """The least z that the statement admits."""
        return self.value if self.kind == "open" else self.step * (self.value - self.tolerance)

    @property
    def high(self) -> int:
        """The first z beyond what an `exact` statement admits."""
        return self.step * (self.value + self.tolerance)

    @property
    def range_bits(self) -> int:
        """k. Not free: a k of the prover's choice would tell the size of z."""
        if self.kind == "exact":
            return (self.high - self.low - 1).bit_length()
        return (self.bound - self.low).bit_length()

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order."""
        transcript.absorb(b"prediction", self.prediction_id)
        transcript.absorb(b"handle", self.handle)
        transcript.absorb_integers(b"place", [self.patient, self.output])
        transcript.absorb_point(b"answer", self.answer)
        transcript.absorb_integers(b"scales", [self.scale_bits, self.grid_bits, self.bound])
        transcript.absorb(b"kind", self.kind.encode())
        transcript.absorb_integers(b"value", [self.value, self.tolerance])
        transcript.absorb(b"recipient", self.recipient_nonce)
        if self.grant_id is not None:
            transcript.absorb(b"grant", self.grant_id)

    @property
    def proof_bytes(self) -> int:
        """Bytes of every proof of this statement."""
        if self.kind == "open":
            return len(_TAG) + SCALAR_BYTES
        return len(_TAG) + _range_size(self.range_bits) * (2 if self.kind == "exact" else 1)


def statement_about(
    opening: AnswerOpening,
    kind: Kind,
    *,
    prediction_id: bytes,
    handle: bytes,
    patient: int,
    output: int,
    answer: bytes,
    scale_bits: int,
    grid_bits: int,
    bound: int,
    threshold: int = 0,
    tolerance: int = 0,
    recipient_nonce: bytes,
    grant_id: bytes | None = None,
) -> AnswerStatement:
    """What can truly be said of an answer: its value, its nearest grid point, or that it reaches `threshold` (in grid
    steps). Raises UsageError for a threshold that it does not reach: a false statement has no proof."""
    step = 1 << (scale_bits - grid_bits)
    value = {"open": opening.z, "exact": (opening.z + step // 2) // step, "threshold": threshold}[kind]
    if kind == "threshold" and opening.z < step * threshold:
        raise UsageError("the answer does not reach this threshold: there is nothing to prove")
    return AnswerStatement(
        prediction_id=prediction_id,
        handle=handle,
        patient=patient,
        output=output,
        answer=answer,
        scale_bits=scale_bits,
        grid_bits=grid_bits,
        bound=bound,
        kind=kind,
        value=value,
        tolerance=tolerance if kind == "exact" else 0,
        recipient_nonce=recipient_nonce,
        grant_id=grant_id,
    )


def disclose_answer(statement: AnswerStatement, opening: AnswerOpening, group: Group = ARKWORKS) -> bytes:
    """The proof of a true statement about the answer that `opening` opens.

    Raises UsageError if it opens something else or the statement is false.
    """
    key = answer_key(group)
    if group.encode(key.commit([opening.z], opening.rho)) != statement.answer:
        raise UsageError("the opening is not that of the answer")
    if statement.kind == "open":
        if opening.z != statement.value:
            raise UsageError("the statement is not true of the answer")
        return _TAG + pack_scalars([opening.rho])
    k, proofs = statement.range_bits, []
    values = [(opening.z - statement.low, opening.rho)]
    if statement.kind == "exact":
        values.append((statement.high - 1 - opening.z, -opening.rho % ORDER))
    for side, (value, rho) in enumerate(values):
        if not 0 <= value < 1 << k:
            raise UsageError("the statement is not true of the answer")
        proofs.append(prove_range(_transcript(statement, side), key, value, rho, k).encode(group))
    return b"".join([_TAG, *proofs])


def verify_answer(statement: AnswerStatement, data: bytes, group: Group = ARKWORKS) -> None:
    """Check a disclosure. `statement` comes from verified entries and what the discloser claims.

    Raises:
        DecodeError: `data` is not the encoding of such a proof, or the answer is no point.
        VerificationFailed: `disclosure.opening`, `quadratic.opening`, `quadratic.relation`.
    """
    answer = group.decode(statement.answer)
    key = answer_key(group)
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    if statement.kind == "open":
        (rho,) = reader.scalars(1)
        reader.end()
        if not group.equal(key.commit([statement.value], rho), answer):
            raise VerificationFailed("disclosure.opening", "the answer is another one")
        return
    k = statement.range_bits
    sides = _commitments(statement, answer, group)
    size = _range_size(k)
    if len(data) != statement.proof_bytes:
        raise DecodeError(_WHAT, f"expected {statement.proof_bytes} bytes, got {len(data)}")
    for side, commitment in enumerate(sides):
        proof = RangeProof.decode(reader.take(size), k, group)
        proof.verify(_transcript(statement, side), key, commitment, k)
    reader.end()


def disclose_answers(
    statements: Sequence[AnswerStatement], openings: Sequence[AnswerOpening], group: Group = ARKWORKS
) -> bytes:
    """The proofs of several true statements, one after the other. Raises as `disclose_answer` does."""
    pairs = zip(statements, openings, strict=True)
    return b"".join(disclose_answer(statement, opening, group) for statement, opening in pairs)


def verify_answers(statements: Sequence[AnswerStatement], data: bytes, group: Group = ARKWORKS) -> None:
    """Check several disclosures that `disclose_answers` wrote. Raises as `verify_answer` does."""
    reader = Reader(_WHAT, data)
    for statement in statements:
        verify_answer(statement, reader.take(statement.proof_bytes), group)
    reader.end()


def _commitments(statement: AnswerStatement, answer: Point, group: Group) -> list[Point]:
    """Com(z - lo; rho), and for `exact` Com(hi - 1 - z; -rho)."""
    (generator,) = answer_key(group).points
    sides = [group.add(answer, group.multiply(generator, -statement.low))]
    if statement.kind == "exact":
        sides.append(group.add(group.negate(answer), group.multiply(generator, statement.high - 1)))
    return sides


def _range_size(bits: int) -> int:
    """Bytes of a range proof: the commitment to the bits, two masks, T0, T1; bits + 1 responses, two blindings, tau."""
    return POINT_BYTES * 5 + SCALAR_BYTES * (bits + 1 + 2 + 1)


def _transcript(statement: AnswerStatement, side: int) -> Transcript:
    transcript = Transcript(b"answer-disclosure")
    statement.absorb(transcript)
    transcript.absorb_integers(b"side", [side])
    return transcript
