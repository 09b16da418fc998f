"""Commitments to the rows of a network, and the certificate `bounded` (docs/spec/protocol.md, sections 3, 7 and 8).

Per neuron C_{l,j} = Com((w_j1, ..., w_jm, bias_j); rho_{l,j}) under the key of `weights_key(m)`, as for an output of a
linear model. The certificate is, for every layer, proof X over its rows as copies of one system,

    PK{(w, bias, rho) of every row: C_{l,j} = Com((w, bias); rho), -2^b <= w_i < 2^b, -2^b_bias <= bias < 2^b_bias}

with w_i + 2^b = sum_k 2^k beta_{i,k} in b + 1 bits beta, the bias likewise in b_bias + 1. It is exact: weights are
integers of that range and nothing else, no fraction mod r. Together with the public bounds, which the verifier checks
here too, no pre-activation of the network reaches 2^62, so that the committed network is one over the integers.

Hidden: the weights, perfectly in the commitments and in the proofs. Not hidden: the widths of the layers, and SW, b and
b_bias of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal, Protocol

from privacy.canonical_json import Codec, Name, Record
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.certificate import WeightOpening, check_text, offset_bits, weights_key
from privacy.models.linear import check_names
from privacy.models.network import Network
from privacy.models.network_quantise import (
    GRID_GUARD_BITS,
    QUANTISATION_RULE,
    CommittedLayer,
    LayerShape,
    QuantisedNetwork,
    error_of_shapes,
    layer_bounds,
    quantise_network,
    verify_bounds,
)
from privacy.models.schema import Schema
from privacy.private_files import read_limited, write_private
from privacy.zk.copies import CopyProof, CopyStatement, CopySystem, prove_copies
from privacy.zk.group import ARKWORKS, POINT_BYTES, Group, Point
from privacy.zk.pedersen import CommitmentKey, commit_all, commitment_key
from privacy.zk.quadratic import QuadraticSystem
from privacy.zk.randomness import random_scalar
from privacy.zk.transcript import Transcript
from privacy.zk.wire import Reader

__all__ = [
    "NetworkOpening",
    "NetworkParameters",
    "NetworkStatement",
    "RowOpening",
    "VerifiedNetwork",
    "certify_network",
    "check_network",
    "commit_network",
    "decode_network_opening",
    "encode_network_opening",
    "load_network_opening",
    "network_certificate_size",
    "network_statement",
    "open_network",
    "save_network_opening",
    "verify_network_certificate",
]

_TAG: Final = b"sealproof/network-certificate/v1\n"
_LABEL: Final = b"network-certificate"
_WHAT: Final = "network certificate"
_MAX_BITS: Final = 250
_MAX_OPENING_BYTES: Final = 1 << 27


class NetworkParameters(Protocol):
    """A parameter set as a network sees it: the scale 2^SX of inputs, and canonical bytes of everything in it."""

    @property
    def name(self) -> str: ...

    @property
    def input_scale_bits(self) -> int: ...

    def encode(self) -> bytes: ...


@dataclass(frozen=True)
class NetworkStatement:
    """Every public input of a network: what its certificate and its predictions are bound to.

    `parameters` fixes SX, `grid_bits` the disclosure grid g = 2^-grid_bits; the order of layers, of their rows and of
    outputs is part of the statement. Raises UsageError for a field that no network can have; `check_network` says
    whether it is sound.
    """

    name: str
    version: str
    schema: Schema
    parameters: NetworkParameters
    quantisation_rule: str
    grid_bits: int
    link: str
    output_names: tuple[str, ...]
    layers: tuple[CommittedLayer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "output_names", tuple(self.output_names))
        object.__setattr__(self, "layers", tuple(self.layers))
        for what in ("name", "version", "quantisation_rule"):
            check_text(f"network {what}", getattr(self, what))
        for output_name in self.output_names:
            check_text("output name", output_name)
        if type(self.grid_bits) is not int or not 0 <= self.grid_bits <= _MAX_BITS:
            raise UsageError(f"grid_bits = {self.grid_bits!r} is not a number of bits from 0 to {_MAX_BITS}")
        if not self.layers:
            raise UsageError("a network has at least one layer")
        if len(self.output_names) != self.layers[-1].shape.outputs:
            raise UsageError(f"{len(self.output_names)} names for {self.layers[-1].shape.outputs} outputs")

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """The shape of every layer."""
        return tuple(layer.shape for layer in self.layers)

    @property
    def answer_scale_bits(self) -> int:
        """S_L: answers are integers at 2^S_L."""
        return self.parameters.input_scale_bits + sum(shape.weight_scale_bits for shape in self.shapes)

    @property
    def bounds(self) -> tuple[int, ...]:
        """B_l of every layer, the answers' last."""
        return layer_bounds(self.schema, self.shapes, self.parameters.input_scale_bits)

    @property
    def error_bound(self) -> Fraction:
        """How far an answer may be from the float network in exact arithmetic, in answer units."""
        return error_of_shapes(self.schema, self.shapes, self.parameters.input_scale_bits)

    def absorb(self, transcript: Transcript) -> None:
        """Absorb every field, in order. The protocol tag is in the transcript already."""
        transcript.absorb(b"network.name", self.name.encode())
        transcript.absorb(b"network.version", self.version.encode())
        transcript.absorb(b"network.schema", self.schema.digest())
        transcript.absorb(b"network.parameters", self.parameters.encode())
        transcript.absorb(b"network.quantisation", self.quantisation_rule.encode())
        transcript.absorb(b"network.link", self.link.encode())
        transcript.absorb_integers(
            b"network.shape",
            [self.parameters.input_scale_bits, self.grid_bits, self.schema.d, len(self.layers), len(self.output_names)],
        )
        for name in self.output_names:
            transcript.absorb(b"output.name", name.encode())
        for layer in self.layers:
            shape = layer.shape
            numbers = [shape.inputs, shape.outputs, shape.weight_scale_bits, shape.b, shape.b_bias]
            transcript.absorb_integers(b"layer.shape", numbers)
            for C in layer.commitments:
                transcript.absorb_point(b"layer.C", C)


@dataclass(frozen=True)
class RowOpening(WeightOpening):
    """Opening of one C_{l,j}: integer weights at 2^SW_l, bias at 2^S_l, blinding. Secret; `repr` shows none of it."""


@dataclass(frozen=True)
class NetworkOpening(Record):
    """What the owner keeps of a committed network, one opening per row of each layer. Secret."""

    format: Literal["sealproof/network-opening/v1"]
    name: Name
    version: Name
    layers: tuple[tuple[RowOpening, ...], ...] = field(repr=False)

    @staticmethod
    def of(statement: NetworkStatement, layers: Sequence[Sequence[RowOpening]]) -> NetworkOpening:
        """The opening of the network of `statement`."""
        rows = tuple(map(tuple, layers))
        return NetworkOpening("sealproof/network-opening/v1", statement.name, statement.version, rows)


@dataclass(frozen=True)
class VerifiedNetwork:
    """A network whose certificate and bounds hold. Only `verify_network_certificate` makes one.

    `commitments` are the C_{l,j}, layer by layer, decoded as points of `group`.
    """

    statement: NetworkStatement
    group: Group
    commitments: tuple[tuple[Point, ...], ...] = field(compare=False, repr=False)
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedNetwork is made by verify_network_certificate only")


_CODEC: Final = Codec(NetworkOpening, "network opening", _MAX_OPENING_BYTES)
_VERIFIED: Final = object()


# --- commitments --------------------------------------------------------------------------------------------------


def commit_network(
    quantised: QuantisedNetwork, group: Group = ARKWORKS
) -> tuple[tuple[CommittedLayer, ...], tuple[tuple[RowOpening, ...], ...]]:
    """C_{l,j} of every row (public) and its opening (secret), under fresh blindings, layer by layer."""
    committed, opened = [], []
    for layer in quantised.layers:
        key = weights_key(layer.shape.inputs, group)
        rows = tuple(
            RowOpening(weights, bias, random_scalar()) for weights, bias in zip(layer.weights, layer.bias, strict=True)
        )
        points = commit_all([key] * len(rows), [row.values for row in rows], [row.rho for row in rows])
        committed.append(CommittedLayer(layer.shape, tuple(map(group.encode, points))))
        opened.append(rows)
    return tuple(committed), tuple(opened)


def network_statement(
    quantised: QuantisedNetwork, parameters: NetworkParameters, version: str, layers: Sequence[CommittedLayer]
) -> NetworkStatement:
    """The statement about a quantised network whose rows are committed in `layers`.

    Raises UsageError: `layers` have other shapes than the network, or `parameters` another scale of inputs.
    """
    if tuple(layer.shape for layer in layers) != quantised.shapes:
        raise UsageError("the committed layers have other shapes than the quantised network")
    if parameters.input_scale_bits != quantised.input_scale_bits:
        raise UsageError(
            f"the network was quantised for inputs at 2^{quantised.input_scale_bits}, the parameter set has "
            f"2^{parameters.input_scale_bits}"
        )
    return NetworkStatement(
        name=quantised.name,
        version=version,
        schema=quantised.schema,
        parameters=parameters,
        quantisation_rule=QUANTISATION_RULE,
        grid_bits=quantised.grid_bits,
        link=quantised.link,
        output_names=quantised.output_names,
        layers=tuple(layers),
    )


def check_network(statement: NetworkStatement) -> None:
    """What must hold of public numbers alone, for prover and verifier.

    Raises:
        VerificationFailed: `network.rule`, `network.link` (a link or names that the outputs cannot have),
            `network.overflow` when layers do not fit together or values could overflow, or `network.grid`.
    """
    if statement.quantisation_rule != QUANTISATION_RULE:
        raise VerificationFailed("network.rule", f"unknown quantisation rule {statement.quantisation_rule!r}")
    verify_bounds(statement.schema, statement.shapes, statement.parameters.input_scale_bits)
    try:
        check_names(statement.name, statement.output_names, statement.shapes[-1].outputs, statement.link)
    except UsageError as error:
        raise VerificationFailed("network.link", str(error)) from error
    most = statement.answer_scale_bits - GRID_GUARD_BITS
    if statement.grid_bits > most:
        raise VerificationFailed("network.grid", f"grid_bits = {statement.grid_bits}, at most {most} for this network")


# --- bounded ------------------------------------------------------------------------------------------------------


def network_certificate_size(statement: NetworkStatement) -> int:
    """Bytes of a certificate: 32 for each weight, each bias and each of their bits, and a little."""
    return len(_TAG) + sum(
        shape.outputs * POINT_BYTES + _segments_of(shape).proof_size(shape.outputs) for shape in statement.shapes
    )


def certify_network(
    statement: NetworkStatement, layers: Sequence[Sequence[WeightOpening]], group: Group = ARKWORKS
) -> bytes:
    """The certificate `bounded` of all rows; `layers` are their openings, layer by layer.

    Raises:
        UsageError: an opening that does not open its C_{l,j}, or a weight or bias out of range.
        VerificationFailed: the statement is refused by `check_network`.
    """
    check_network(statement)
    if [len(rows) for rows in layers] != [shape.outputs for shape in statement.shapes]:
        raise UsageError("the openings are not one for every row of every layer")
    parts = [_TAG]
    for number, (layer, rows) in enumerate(zip(statement.layers, layers, strict=True)):
        where = f"layer {number + 1}"
        widths = _widths(layer.shape)
        if any(len(row.values) != len(widths) for row in rows):
            raise UsageError(f"{where}: an opening has another number of weights than the layer")
        key, bits_key = weights_key(layer.shape.inputs, group), _bits_key(layer.shape, group)
        points = commit_all([key] * len(rows), [row.values for row in rows], [row.rho for row in rows])
        if tuple(map(group.encode, points)) != layer.commitments:
            raise UsageError(f"{where}: an opening does not open its commitment")
        # The refusal names neither the weight nor its place.
        pairs = [(value, width) for row in rows for value, width in zip(row.values, widths, strict=True)]
        if any(not -1 << (width - 1) <= value < 1 << (width - 1) for value, width in pairs):
            raise UsageError(f"{where}: a weight or a bias is out of its public range")
        bits = [[b for v, width in zip(row.values, widths, strict=True) for b in offset_bits(v, width)] for row in rows]
        bit_rhos = [random_scalar() for _ in rows]
        bit_points = commit_all([bits_key] * len(rows), bits, bit_rhos)
        proof = prove_copies(
            _transcript(statement, number),
            CopyStatement(_system(layer.shape), (key, bits_key), tuple(zip(points, bit_points, strict=True))),
            [(row.values, digits) for row, digits in zip(rows, bits, strict=True)],
            [(row.rho, bit_rho) for row, bit_rho in zip(rows, bit_rhos, strict=True)],
        )
        parts += [*map(group.encode, bit_points), proof.encode(group)]
    return b"".join(parts)


def verify_network_certificate(statement: NetworkStatement, data: bytes, group: Group = ARKWORKS) -> VerifiedNetwork:
    """Check the certificate of a network, and its public bounds under its schema.

    `statement` comes from the ledger and the verifier's own schema, never from the certificate.

    Raises:
        DecodeError: `data` is not the encoding of a certificate of this shape, or a C_{l,j} is not a point.
        VerificationFailed: what `check_network` raises, `quadratic.opening`, `quadratic.relation`.
    """
    check_network(statement)
    size = network_certificate_size(statement)
    if len(data) != size:
        raise DecodeError(_WHAT, f"expected {size} bytes, got {len(data)}")
    commitments = tuple(tuple(map(group.decode, layer.commitments)) for layer in statement.layers)
    reader = Reader(_WHAT, data)
    reader.expect(_TAG)
    proofs = []
    for shape in statement.shapes:
        bit_points = reader.points(group, shape.outputs)
        proofs.append((bit_points, CopyProof.read(reader, group, _segments_of(shape), shape.outputs)))
    reader.end()
    for number, (shape, points, (bit_points, proof)) in enumerate(
        zip(statement.shapes, commitments, proofs, strict=True)
    ):
        keys = (weights_key(shape.inputs, group), _bits_key(shape, group))
        copies = CopyStatement(_system(shape), keys, tuple(zip(points, bit_points, strict=True)))
        proof.verify(_transcript(statement, number), copies)
    return VerifiedNetwork(statement, group, commitments, _VERIFIED)


def _transcript(statement: NetworkStatement, layer: int) -> Transcript:
    """Each layer's proof stands alone: it is bound to the whole statement and to its place in it."""
    transcript = Transcript(_LABEL)
    statement.absorb(transcript)
    transcript.absorb_integers(b"layer", [layer])
    return transcript


def _widths(shape: LayerShape) -> list[int]:
    """Bits of each committed value of a row: b + 1 a weight, b_bias + 1 for the bias."""
    return [shape.b + 1] * shape.inputs + [shape.b_bias + 1]


def _bits_key(shape: LayerShape, group: Group) -> CommitmentKey:
    return commitment_key("network/bits", sum(_widths(shape)), group)


def _segments_of(shape: LayerShape) -> CopySystem:
    """The sizes of a row's system, without its constraints: (w, bias) as committed in C_{l,j}, then their bits."""
    widths = _widths(shape)
    return CopySystem(QuadraticSystem(len(widths) + sum(widths)), (len(widths), sum(widths)))


def _system(shape: LayerShape) -> CopySystem:
    """All bits are bits, and every value plus 2^(width-1) is the number that its bits spell."""
    copies = _segments_of(shape)
    widths = _widths(shape)
    bit = len(widths)
    copies.system.add_bits(bit, sum(widths))
    for value, width in enumerate(widths):
        digits = [(bit + k, -(1 << k)) for k in range(width)]
        copies.system.add(linear=[(value, 1), *digits], constant=1 << (width - 1))
        bit += width
    return copies


# --- opening to an auditor ----------------------------------------------------------------------------------------


def open_network(
    statement: NetworkStatement,
    network: Network,
    layers: Sequence[Sequence[WeightOpening]],
    group: Group = ARKWORKS,
) -> QuantisedNetwork:
    """Check that `statement` commits to this float network: rule and blindings reproduce every C_{l,j}.

    Of the openings `layers` only the blindings are used; the integers are computed again from the float weights.
    Returns them.

    Raises:
        VerificationFailed: `network.opening`, or the statement is refused by `check_network`.
    """
    check_network(statement)
    if (network.name, network.schema.digest()) != (statement.name, statement.schema.digest()):
        raise VerificationFailed("network.opening", "the float network has another name or schema than the committed")
    if (network.output_names, network.link) != (statement.output_names, statement.link):
        raise VerificationFailed("network.opening", "the float network has other outputs than the committed one")
    shapes = statement.shapes
    if [len(rows) for rows in layers] != [shape.outputs for shape in shapes]:
        raise VerificationFailed("network.opening", "the openings are not one for every row of every layer")
    scales = [shape.weight_scale_bits for shape in shapes]
    SX = statement.parameters.input_scale_bits
    try:
        quantised = quantise_network(
            network,
            SX,
            grid_bits=statement.grid_bits,
            weight_scale_bits=scales,
            weight_range_bits=[shape.b - shape.weight_scale_bits for shape in shapes],
            bias_range_bits=[shape.b_bias - SX - sum(scales[: i + 1]) for i, shape in enumerate(shapes)],
        )
    except UsageError as error:
        raise VerificationFailed("network.opening", f"the float network does not quantise: {error}") from error
    if quantised.shapes != shapes:
        raise VerificationFailed("network.opening", "the float network has layers of other widths than the committed")
    for number, (layer, committed, rows) in enumerate(zip(quantised.layers, statement.layers, layers, strict=True)):
        key = weights_key(layer.shape.inputs, group)
        values = [(*weights, bias) for weights, bias in zip(layer.weights, layer.bias, strict=True)]
        points = commit_all([key] * len(rows), values, [row.rho for row in rows])
        if tuple(map(group.encode, points)) != committed.commitments:
            raise VerificationFailed("network.opening", f"layer {number + 1}: a row is committed with other weights")
    return quantised


def encode_network_opening(opening: NetworkOpening) -> bytes:
    """Canonical bytes of an opening. Secret. Raises UsageError for one that has no encoding."""
    return _CODEC.encode(opening)


def decode_network_opening(data: bytes) -> NetworkOpening:
    """The opening whose `encode_network_opening` is exactly `data`. Raises DecodeError."""
    return _CODEC.decode(data)


def save_network_opening(opening: NetworkOpening, path: Path) -> None:
    """Write the opening to `path`, readable by its owner alone (0600); a reader sees the old file or the whole new one.

    Raises UsageError for an opening that has no encoding, and OSError; either way `path` is as it was.
    """
    write_private(path, _CODEC.encode(opening))


def load_network_opening(path: Path) -> NetworkOpening:
    """Read an opening written by `save_network_opening`.

    Raises UsageError for a file that cannot be read, DecodeError for one that is not exactly the encoding of an
    opening.
    """
    return _CODEC.decode(read_limited(path, _MAX_OPENING_BYTES))
