"""Commitment to the weights of a model, and the certificate `bounded` (docs/spec/protocol.md, sections 3 and 8).

Per output C_W = Com((w_1, ..., w_d, bias); rho) under the key of `weights_key`. The certificate is

    PK{(w, bias, rho) of every output: C_W = Com((w, bias); rho), -2^b <= w_i < 2^b, -2^b_bias <= bias < 2^b_bias}

by proof X over all outputs at once: w_i + 2^b = sum_k 2^k beta_{i,k} with b + 1 bits beta, the bias likewise with
b_bias + 1. It is exact: weights are integers of that range and nothing else, no fraction mod r or mod Q. Together with
the public overflow check, which the verifier makes here too, no answer of the model can wrap mod Q, so that the
committed model is a linear function over the integers and not any function mod Q.

Hidden: the weights, perfectly in the commitment and in the proof. Not hidden: d, b and b_bias.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from typing import Final, Protocol, get_args

from privacy.canonical_json import DecimalInteger, Record
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.linear import MAX_OUTPUTS, Link
from privacy.models.quantise import QuantisedModel, ScaleParameters, verify_overflow
from privacy.models.schema import Schema
from privacy.zk.group import ARKWORKS, ORDER, POINT_BYTES, SCALAR_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commitment_key
from privacy.zk.quadratic import QuadraticProof, QuadraticSystem, Segment, prove_quadratic
from privacy.zk.randomness import random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

__all__ = [
    "QUANTISATION_RULE",
    "ModelParameters",
    "ModelStatement",
    "OutputStatement",
    "VerifiedModel",
    "WeightOpening",
    "certificate_size",
    "certify_model",
    "check_statement",
    "commit_model",
    "model_statement",
    "verify_model_certificate",
    "weights_key",
]

QUANTISATION_RULE: Final = "sealproof/quantisation/v1"
"""The rule of `privacy.models.quantise`: a model under any other is refused."""

_TAG: Final = b"sealproof/model-certificate/v1\n"
_LABEL: Final = b"model-certificate"
_WHAT: Final = "model certificate"
_MAX_TEXT: Final = 128
_MAX_BITS: Final = 250
"""Above this a range would not fit F_r. The overflow check is much stricter, for every modulus there is."""


class ModelParameters(ScaleParameters, Protocol):
    """A parameter set as a model sees it: scales, modulus, and canonical bytes of everything in it."""

    def encode(self) -> bytes: ...


@dataclass(frozen=True)
class OutputStatement:
    """Public side of one output: -2^b <= w_i < 2^b, -2^b_bias <= bias < 2^b_bias, and the 48 bytes of C_W.

    Raises UsageError for a field that no output can have.
    """

    name: str
    link: str
    b: int
    b_bias: int
    C_W: bytes

    def __post_init__(self) -> None:
        check_text("output name", self.name)
        for bits in (self.b, self.b_bias):
            if type(bits) is not int or not 1 <= bits <= _MAX_BITS:
                raise UsageError(f"output {self.name!r}: {bits!r} is not a number of bits from 1 to {_MAX_BITS}")
        if not isinstance(self.C_W, bytes) or len(self.C_W) != POINT_BYTES:
            raise UsageError(f"output {self.name!r}: C_W must be {POINT_BYTES} bytes")


@dataclass(frozen=True)
class ModelStatement:
    """Every public input of a model: what its certificate, its zero-weight proofs and its predictions are bound to.

    `parameters` fixes SX, SW and Q, `grid_bits` the disclosure grid g = 2^-grid_bits; the order of `outputs` is part of
    the statement. Raises UsageError for a field that no model can have; `check_statement` says whether it is sound.
    """

    name: str
    version: str
    schema: Schema
    parameters: ModelParameters
    quantisation_rule: str
    grid_bits: int
    outputs: tuple[OutputStatement, ...]

    def __post_init__(self) -> None:
        for what in ("name", "version", "quantisation_rule"):
            check_text(f"model {what}", getattr(self, what))
        if type(self.grid_bits) is not int or not 0 <= self.grid_bits <= _MAX_BITS:
            raise UsageError(f"grid_bits = {self.grid_bits!r} is not a number of bits from 0 to {_MAX_BITS}")
        if not 1 <= len(self.outputs) <= MAX_OUTPUTS:
            raise UsageError(f"a model has 1 to {MAX_OUTPUTS} outputs, this one has {len(self.outputs)}")
        if len({output.name for output in self.outputs}) != len(self.outputs):
            raise UsageError("outputs must have different names")

    @property
    def d(self) -> int:
        """Number of weights of each output."""
        return self.schema.d

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order. The protocol tag is in the transcript already."""
        transcript.absorb(b"model.name", self.name.encode())
        transcript.absorb(b"model.version", self.version.encode())
        transcript.absorb(b"model.schema", self.schema.digest())
        transcript.absorb(b"model.parameters", self.parameters.encode())
        scales = [self.parameters.input_scale_bits, self.parameters.weight_scale_bits]
        transcript.absorb_integers(b"model.scales", [*scales, self.parameters.Q])
        transcript.absorb(b"model.quantisation", self.quantisation_rule.encode())
        transcript.absorb_integers(b"model.shape", [self.grid_bits, self.d, len(self.outputs)])
        for output in self.outputs:
            transcript.absorb(b"output.name", output.name.encode())
            transcript.absorb(b"output.link", output.link.encode())
            transcript.absorb_integers(b"output.bits", [output.b, output.b_bias])
            transcript.absorb_point(b"output.C_W", output.C_W)


@dataclass(frozen=True)
class WeightOpening(Record):
    """Opening of one C_W: integer weights at 2^SW, bias at 2^D, blinding. Secret; `repr` shows none of it.

    Raises UsageError for a blinding outside [0, r).
    """

    weights: tuple[DecimalInteger, ...] = field(repr=False)
    bias: DecimalInteger = field(repr=False)
    rho: DecimalInteger = field(repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rho < ORDER:
            raise UsageError("the blinding of a commitment lies in [0, r)")

    @property
    def values(self) -> tuple[int, ...]:
        """The committed vector (w_1, ..., w_d, bias)."""
        return (*self.weights, self.bias)


@dataclass(frozen=True)
class VerifiedModel:
    """A model whose certificate and overflow check hold. Only `verify_model_certificate` makes one.

    `commitments` are the C_W of the outputs, in order, decoded as points of `group`.
    """

    statement: ModelStatement
    group: Group
    commitments: tuple[Point, ...] = field(compare=False, repr=False)
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedModel is made by verify_model_certificate only")


_VERIFIED: Final = object()


def weights_key(d: int, group: Group = ARKWORKS) -> CommitmentKey:
    """The key of C_W: d generators for the weights, and one of another purpose for the bias.

    Were the bias the (d+1)st generator of the same purpose, a commitment to d weights would also open as d + 1.
    """
    return commitment_key("model/weights", d, group) + commitment_key("model/bias", 1, group)


def commit_model(
    quantised: QuantisedModel, group: Group = ARKWORKS
) -> tuple[tuple[bytes, ...], tuple[WeightOpening, ...]]:
    """C_W of every output (48 bytes each, public) and its opening (secret), under fresh blindings."""
    openings = tuple(WeightOpening(output.weights, output.bias, random_scalar()) for output in quantised.outputs)
    key = weights_key(quantised.schema.d, group)
    return tuple(group.encode(key.commit(opening.values, opening.rho)) for opening in openings), openings


def model_statement(
    quantised: QuantisedModel, parameters: ModelParameters, version: str, commitments: Sequence[bytes]
) -> ModelStatement:
    """The statement about a quantised model whose outputs are committed in `commitments`.

    Raises UsageError: not one commitment per output, or `parameters` have other scales than the model.
    """
    if len(commitments) != len(quantised.outputs):
        raise UsageError(f"{len(commitments)} commitments for {len(quantised.outputs)} outputs")
    scales = (parameters.input_scale_bits, parameters.weight_scale_bits)
    if scales != (quantised.input_scale_bits, quantised.weight_scale_bits):
        raise UsageError(f"the model was quantised for other scales than those of the parameter set, {scales}")
    return ModelStatement(
        name=quantised.name,
        version=version,
        schema=quantised.schema,
        parameters=parameters,
        quantisation_rule=QUANTISATION_RULE,
        grid_bits=quantised.grid_bits,
        outputs=tuple(
            OutputStatement(output.name, quantised.link, output.b, output.b_bias, C_W)
            for output, C_W in zip(quantised.outputs, commitments, strict=True)
        ),
    )


def check_statement(statement: ModelStatement) -> None:
    """What must hold of public numbers alone, for prover and verifier.

    Raises:
        VerificationFailed: `model.rule`, `model.link`, or `model.overflow` when answers could wrap mod Q.
    """
    if statement.quantisation_rule != QUANTISATION_RULE:
        raise VerificationFailed("model.rule", f"unknown quantisation rule {statement.quantisation_rule!r}")
    links = {output.link for output in statement.outputs}
    unknown = links - set(get_args(Link))
    if unknown:
        raise VerificationFailed("model.link", f"unknown link {min(unknown)!r}")
    if "softmax" in links and (len(links) > 1 or len(statement.outputs) < 2):
        raise VerificationFailed("model.link", "softmax is a link of all outputs, of two or more")
    for output in statement.outputs:
        verify_overflow(statement.schema, output.b, output.b_bias, statement.parameters, statement.grid_bits)


def certificate_size(statement: ModelStatement) -> int:
    """Bytes of a certificate: 32 for each weight, each bias and each of their bits, and a little."""
    outputs = len(statement.outputs)
    scalars = _witness_size(statement) + 2 * outputs + 1
    return len(_TAG) + POINT_BYTES * (3 * outputs + 2) + SCALAR_BYTES * scalars


def certify_model(statement: ModelStatement, openings: Sequence[WeightOpening], group: Group = ARKWORKS) -> bytes:
    """The certificate `bounded` of all outputs, `openings` in their order.

    Raises:
        UsageError: an opening that does not open its C_W, or a weight or bias out of range.
        VerificationFailed: the statement is refused by `check_statement`.
    """
    check_statement(statement)
    if len(openings) != len(statement.outputs):
        raise UsageError(f"{len(openings)} openings for {len(statement.outputs)} outputs")
    key = weights_key(statement.d, group)
    commitments, bit_commitments = [], []
    witness: list[Sequence[int]] = []
    blindings: list[int] = []
    for output, opening in zip(statement.outputs, openings, strict=True):
        C_W = key.commit(opening.values, opening.rho)
        if group.encode(C_W) != output.C_W:
            raise UsageError(f"output {output.name!r}: the opening does not open C_W")
        widths = _widths(statement.d, output)
        # The refusal names neither the weight nor its place.
        if any(not -1 << (width - 1) <= v < 1 << (width - 1) for v, width in zip(opening.values, widths, strict=True)):
            raise UsageError(f"output {output.name!r}: a weight or the bias is out of its public range")
        bits = [bit for v, width in zip(opening.values, widths, strict=True) for bit in offset_bits(v, width)]
        bit_rho = random_scalar()
        commitments.append(C_W)
        bit_commitments.append(_bits_key(statement.d, output, group).commit(bits, bit_rho))
        witness += [opening.values, bits]
        blindings += [opening.rho, bit_rho]
    segments = _segments(statement, commitments, bit_commitments, group)
    proof = prove_quadratic(_transcript(statement), segments, _system(statement), witness, blindings)
    return b"".join([_TAG, *(group.encode(point) for point in bit_commitments), proof.encode(group)])


def verify_model_certificate(statement: ModelStatement, data: bytes, group: Group = ARKWORKS) -> VerifiedModel:
    """Check the certificate of a model and the public overflow check of its schema.

    `statement` comes from the ledger and the verifier's own schema, never from the certificate.

    Raises:
        DecodeError: `data` is not the encoding of a certificate of this shape, or a C_W is not a point.
        VerificationFailed: `model.rule`, `model.link`, `model.overflow`, `quadratic.opening`, `quadratic.relation`.
    """
    check_statement(statement)
    commitments = tuple(group.decode(output.C_W) for output in statement.outputs)
    size = certificate_size(statement)
    if len(data) != size:
        raise DecodeError(_WHAT, f"expected {size} bytes, got {len(data)}")
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    bit_commitments = reader.points(group, len(statement.outputs))
    proof = QuadraticProof.read(reader, group, 2 * len(statement.outputs), _witness_size(statement))
    reader.end()
    segments = _segments(statement, commitments, bit_commitments, group)
    proof.verify(_transcript(statement), segments, _system(statement))
    return VerifiedModel(statement, group, commitments, _VERIFIED)


def _transcript(statement: ModelStatement) -> Transcript:
    transcript = Transcript(_LABEL)
    statement.absorb(transcript)
    return transcript


def _widths(d: int, output: OutputStatement) -> list[int]:
    """Bits of each committed value: b + 1 a weight, b_bias + 1 for the bias."""
    return [output.b + 1] * d + [output.b_bias + 1]


def _witness_size(statement: ModelStatement) -> int:
    return sum(statement.d + 1 + sum(_widths(statement.d, output)) for output in statement.outputs)


def offset_bits(value: int, width: int) -> list[int]:
    """Bits of value + 2^(width-1), lowest first."""
    shifted = value + (1 << (width - 1))
    return [(shifted >> k) & 1 for k in range(width)]


def _bits_key(d: int, output: OutputStatement, group: Group) -> CommitmentKey:
    return commitment_key("model/bits", sum(_widths(d, output)), group)


def _segments(
    statement: ModelStatement, commitments: Sequence[Point], bit_commitments: Sequence[Point], group: Group
) -> list[Segment]:
    """Per output: (w, bias) as committed in C_W, then their bits."""
    segments = []
    for output, C_W, C_bits in zip(statement.outputs, commitments, bit_commitments, strict=True):
        segments.append(Segment(weights_key(statement.d, group), C_W))
        segments.append(Segment(_bits_key(statement.d, output, group), C_bits))
    return segments


def _system(statement: ModelStatement) -> QuadraticSystem:
    """All bits are bits, and every value plus 2^(width-1) is the number that its bits spell."""
    system = QuadraticSystem(_witness_size(statement))
    at = 0
    for output in statement.outputs:
        widths = _widths(statement.d, output)
        bit = at + len(widths)
        system.add_bits(bit, sum(widths))
        for value, width in enumerate(widths, start=at):
            digits = [(bit + k, -(1 << k)) for k in range(width)]
            system.add(linear=[(value, 1), *digits], constant=1 << (width - 1))
            bit += width
        at = bit
    return system


def check_text(what: str, text: object) -> None:
    """Raises UsageError unless `text` can be a name in a statement."""
    if not isinstance(text, str) or not 1 <= len(text) <= _MAX_TEXT or not text.isprintable() or text != text.strip():
        raise UsageError(f"{what} {text!r} must be 1 to {_MAX_TEXT} printable characters, no space at either end")
    if not unicodedata.is_normalized("NFC", text):
        raise UsageError(f"{what} {text!r} is not in Unicode normal form C")
