"""Exposure recounted from a ledger: anyone who has the entries gets the server's numbers.

Per clinic, model entry and output. Predictions under several keys of a clinic add up, and so does a prediction that is
repeated, because it releases fresh equations. Answers of multi-party computation are exact and not blurred: each tells
at most bit_length(2 z_max) bits, and what there is to tell is the whole network, since every output depends on all of
its hidden layers. What entries cannot show is not counted: two clinics that work together, or one set of weights
published as two models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from api.binding import ProofGroup, parameters_of
from api.entries import CommittedRecords, JointPrediction, Model, Network, Prediction, Records, Reference
from api.registry import Logged, Registry
from privacy.ckks.exposure import Exposure, model_bits, proof_bits
from privacy.errors import VerificationFailed

__all__ = ["ExposureRow", "bits_of_groups", "hidden_bits", "joint_bits", "network_bits", "recount"]


@dataclass(frozen=True)
class ExposureRow:
    """What one clinic was told of one output of one model, in `predictions` predictions."""

    clinic: str
    model: Reference
    output: int
    output_name: str
    predictions: int
    exposure: Exposure


def bits_of_groups(
    records: Records, model: Model, covers: Iterable[tuple[ProofGroup, Sequence[int]]]
) -> dict[int, Fraction]:
    """Bits released of each output by proofs that cover these blocks under these outputs. Raises as `proof_bits`."""
    params = parameters_of(model.parameter_set)
    total = dict.fromkeys(range(len(model.outputs)), Fraction(0))
    for group, outputs in covers:
        bits = proof_bits(
            params,
            blocks=group.blocks,
            outputs=len(outputs),
            count=group.count,
            d=records.d,
            b=max(model.outputs[o].b for o in outputs),
            b_bias=max(model.outputs[o].b_bias for o in outputs),
            grid_bits=model.grid_bits,
        )
        for output in outputs:
            total[output] += bits
    return total


def hidden_bits(model: Model, d: int, output: int) -> int:
    """Bits that one output of a linear model has to hide: those of `model_bits`, less what its statements tell.

    A weight that is proven to lie in an interval has the bits of that interval; several about one weight count as the
    narrowest. Statements about features that records with d features do not have count nothing.
    """
    stated = model.outputs[output]
    bits = model_bits(d, stated.b, stated.b_bias)
    left: dict[int, int] = {}
    for statement in model.statements:
        if statement.output == output and statement.feature < d:
            known = statement.stated.interval(stated.b).bits
            left[statement.feature] = min(left.get(statement.feature, stated.b + 1), known)
    return bits - sum(stated.b + 1 - bits_left for bits_left in left.values())


def joint_bits(model: Network, patients: int) -> dict[int, Fraction]:
    """Bits released of each output by exact answers to so many patients."""
    return dict.fromkeys(range(len(model.outputs)), Fraction(patients * model.answer_bits))


def network_bits(model: Network) -> int:
    """Bits of a whole network: in every layer rows of weights in [-2^b, 2^b) and a bias in [-2^b_bias, 2^b_bias)."""
    return sum(layer.outputs * (layer.inputs * (layer.b + 1) + layer.b_bias + 1) for layer in model.layers)


def recount(registry: Registry, clinic: str | None = None, model: int | None = None) -> list[ExposureRow]:
    """Exposure of every clinic, model and output with a prediction, or of one clinic, or of one model (by index).

    Models are linear models and networks. Raises VerificationFailed when `model` is the index of neither.
    """
    wanted = None if model is None else _model(registry, model).reference
    sums: dict[tuple[str, int], _Sum] = {}

    def count(clinic_name: str, known: Reference, d: int, bits: dict[int, Fraction]) -> None:
        sums.setdefault((clinic_name, known.index), _Sum(d, {})).add(bits)

    for prediction in registry.all(Prediction):
        if wanted is None or prediction.body.model == wanted:
            records = registry.resolve(prediction.body.records, Records)
            if clinic is None or records.body.clinic == clinic:
                linear = registry.resolve(prediction.body.model, Model)
                bits = _bits_of_prediction(prediction, records, linear)
                count(records.body.clinic, linear.reference, records.body.d, bits)
    for joint in registry.all(JointPrediction):
        if wanted is None or joint.body.model == wanted:
            committed = registry.resolve(joint.body.records, CommittedRecords)
            if clinic is None or committed.body.clinic == clinic:
                network = registry.resolve(joint.body.model, Network)
                bits = joint_bits(network.body, committed.body.count)
                count(committed.body.clinic, network.reference, committed.body.d, bits)
    return [
        ExposureRow(name, entry.reference, number, output, total.predictions, Exposure(total.released[number], bits))
        for (name, index), total in sorted(sums.items(), key=lambda item: item[0])
        for entry in [_model(registry, index)]
        for number, (output, bits) in enumerate(_outputs(entry.body, total.d))
    ]


def _model(registry: Registry, index: int) -> Logged[Model] | Logged[Network]:
    try:
        return registry.get(index, Network)
    except VerificationFailed:
        return registry.get(index, Model)


def _outputs(model: Model | Network, d: int) -> list[tuple[str, int]]:
    """Name and bits of every output."""
    if isinstance(model, Network):
        return [(name, network_bits(model)) for name in model.outputs]
    return [(output.name, hidden_bits(model, d, place)) for place, output in enumerate(model.outputs)]


@dataclass
class _Sum:
    """Bits by output so far. d is that of the records, which is the schema's and so the model's."""

    d: int
    released: dict[int, Fraction]
    predictions: int = 0

    def add(self, bits: dict[int, Fraction]) -> None:
        self.predictions += 1
        for output, amount in bits.items():
            self.released[output] = self.released.get(output, Fraction(0)) + amount


def _bits_of_prediction(
    prediction: Logged[Prediction], records: Logged[Records], model: Logged[Model]
) -> dict[int, Fraction]:
    proofs = prediction.body.proofs
    covers = [(ProofGroup(p.first_block, p.blocks, p.count), p.outputs) for p in proofs]
    return bits_of_groups(records.body, model.body, covers)
