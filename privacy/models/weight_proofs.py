"""Proofs of what an owner says of one hidden weight, from C_W alone (docs/spec/protocol.md, section 8).

A zero weight is proven by proof S (`privacy.models.statements`). A sign and a bound are proven by proof X, as
low <= w_i <= high for public integers low <= high (`privacy.models.weight_statements`):

    PK{(w, bias, rho), beta, gamma: C_W = Com((w, bias); rho), beta and gamma are bits,
       w_i - low = sum_k 2^k beta_k,  high - w_i = sum_k 2^k gamma_k},  k < bit_length(high - low)

It is exact, without the certificate `bounded`: the two sums add up to high - low in F_r, and as all three are far below
r they do so as integers; neither is negative, so w_i is an integer of [low, high] and nothing else. One sum alone would
leave up to a factor of two above the range.

Hidden: every weight beyond what is said, perfectly. Not hidden: the statement itself, so a bound is to be chosen from
what the model should obey and never from the weight.
"""

from __future__ import annotations

from typing import Final

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.certificate import ModelStatement, VerifiedModel, WeightOpening, check_statement, weights_key
from privacy.models.statements import prove_zero_weight, verify_zero_weight
from privacy.models.weight_statements import DIRECTIONS, HasSign, Interval, IsWithin, IsZero, WeightStatement
from privacy.zk.group import ARKWORKS, POINT_BYTES, SCALAR_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.quadratic import QuadraticProof, QuadraticSystem, Segment, prove_quadratic
from privacy.zk.randomness import random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

__all__ = ["prove_statement", "statement_size", "verify_statement"]

_TAG: Final = b"sealproof/weight-statement/v1\n"
_LABEL: Final = b"model-weight-statement"
_WHAT: Final = "weight statement"


def statement_size(model: ModelStatement, stated: WeightStatement) -> int:
    """Bytes of the proof of a sign or bound: 32 for each weight, the bias and each of 2k bits, and a little."""
    coordinates = model.d + 1 + 2 * _interval(model, stated).bits
    return len(_TAG) + POINT_BYTES * 5 + SCALAR_BYTES * (coordinates + 3)


def prove_statement(
    model: ModelStatement, stated: WeightStatement, opening: WeightOpening, group: Group = ARKWORKS
) -> bytes:
    """Prove `stated` of the output that `opening` opens.

    Raises:
        UsageError: no such output or feature, a bound that says nothing, an opening of something else, or a statement
            that is false. The refusal does not name the weight.
        MissingDependency: a weight is to be proven zero, and zksk is not installed.
        VerificationFailed: the model is refused by `check_statement`.
    """
    check_statement(model)
    problem = _problem(model, stated)
    if problem is not None:
        raise UsageError(problem[1])
    if isinstance(stated, IsZero):
        return prove_zero_weight(model, stated.output, stated.feature, opening)
    key = weights_key(model.d, group)
    C_W = key.commit(opening.values, opening.rho)
    if group.encode(C_W) != model.outputs[stated.output].C_W:
        raise UsageError(f"output {model.outputs[stated.output].name!r}: the opening does not open C_W")
    interval = _interval(model, stated)
    value = opening.weights[stated.feature]
    if value not in interval:
        raise UsageError(f"this is false of the model: {_sentence(model, stated)}")
    bits = interval_bits(interval, value)
    bit_rho = random_scalar()
    C_bits = _bits_key(interval, group).commit(bits, bit_rho)
    proof = prove_quadratic(
        _transcript(model, stated),
        _segments(model, interval, C_W, C_bits, group),
        _system(model.d, stated.feature, interval),
        [opening.values, bits],
        [opening.rho, bit_rho],
    )
    return b"".join([_TAG, group.encode(C_bits), proof.encode(group)])


def verify_statement(model: VerifiedModel, stated: WeightStatement, proof: bytes) -> None:
    """Check that `stated` is true of the committed weights; whatever kind of statement it is. Needs no zksk.

    `stated` comes from the ledger, never from the proof.

    Raises:
        DecodeError: `proof` is not the encoding of a proof of this statement about a model of this shape.
        VerificationFailed: `zero-weight.index`, `model.statement-place`, `model.statement-direction`,
            `model.statement-bound`, `representation.challenge`, `quadratic.opening`, `quadratic.relation`.
    """
    statement, group = model.statement, model.group
    if isinstance(stated, IsZero):
        verify_zero_weight(model, stated.output, stated.feature, proof)
        return
    problem = _problem(statement, stated)
    if problem is not None:
        raise VerificationFailed(*problem)
    interval = _interval(statement, stated)
    size = statement_size(statement, stated)
    if len(proof) != size:
        raise DecodeError(_WHAT, f"expected {size} bytes, got {len(proof)}")
    reader = Reader(_WHAT, proof)
    reader.expect(_TAG)
    C_bits = reader.point(group)
    system = _system(statement.d, stated.feature, interval)
    decoded = QuadraticProof.read(reader, group, 2, system.size)
    reader.end()
    segments = _segments(statement, interval, model.commitments[stated.output], C_bits, group)
    decoded.verify(_transcript(statement, stated), segments, system)


def _problem(model: ModelStatement, stated: WeightStatement) -> tuple[str, str] | None:
    """The check and the reason why nothing of the kind can be said of this model, or None if it can."""
    if not 0 <= stated.output < len(model.outputs) or not 0 <= stated.feature < model.d:
        detail = f"the model has no weight of feature {stated.feature} in output {stated.output}"
        return "model.statement-place", detail
    if isinstance(stated, HasSign) and stated.direction not in DIRECTIONS:
        return "model.statement-direction", f"unknown direction {stated.direction!r}"
    if isinstance(stated, IsWithin) and not 1 <= stated.bound <= 1 << model.outputs[stated.output].b:
        b = model.outputs[stated.output].b
        return "model.statement-bound", f"a bound lies between 1 and 2^{b}, which is certified anyhow"
    return None


def _interval(model: ModelStatement, stated: WeightStatement) -> Interval:
    return stated.interval(model.outputs[stated.output].b)


def _sentence(model: ModelStatement, stated: WeightStatement) -> str:
    names = [output.name for output in model.outputs]
    return stated.sentence(model.schema, names, model.parameters.weight_scale_bits)


def interval_bits(interval: Interval, value: int) -> list[int]:
    """Bits of value - low, then those of high - value, lowest first."""
    return [(side >> k) & 1 for side in (value - interval.low, interval.high - value) for k in range(interval.bits)]


def _transcript(model: ModelStatement, stated: WeightStatement) -> Transcript:
    transcript = Transcript(_LABEL)
    model.absorb(transcript)
    stated.absorb(transcript)
    interval = _interval(model, stated)
    transcript.absorb_integers(b"statement.interval", [interval.low, interval.high, interval.bits])
    return transcript


def _bits_key(interval: Interval, group: Group) -> CommitmentKey:
    return commitment_key("model/statement-bits", 2 * interval.bits, group)


def _segments(model: ModelStatement, interval: Interval, C_W: Point, C_bits: Point, group: Group) -> list[Segment]:
    """(w, bias) as committed in C_W, then the bits of both sides."""
    return [Segment(weights_key(model.d, group), C_W), Segment(_bits_key(interval, group), C_bits)]


def _system(d: int, feature: int, interval: Interval) -> QuadraticSystem:
    """The bits are bits, those of each side spell its distance from the weight."""
    bits, first = interval.bits, d + 1
    system = QuadraticSystem(first + 2 * bits)
    system.add_bits(first, 2 * bits)
    below = [(first + k, -(1 << k)) for k in range(bits)]
    above = [(first + bits + k, -(1 << k)) for k in range(bits)]
    system.add(linear=[(feature, 1), *below], constant=-interval.low)
    system.add(linear=[(feature, -1), *above], constant=interval.high)
    return system
