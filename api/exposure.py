"""Exposure recounted from a ledger: anyone who has the entries gets the server's numbers.

Per clinic, model entry and output. Predictions under several keys of a clinic add up, and so does a prediction that is
repeated, because it releases fresh equations. What entries cannot show is not counted: two clinics that work together,
or one set of weights published as two models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from api.binding import ProofGroup, parameters_of
from api.entries import Model, Prediction, Records, Reference
from api.registry import Logged, Registry
from privacy.ckks.exposure import Exposure, model_bits, proof_bits

__all__ = ["ExposureRow", "bits_of_groups", "recount"]


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


def recount(registry: Registry, clinic: str | None = None, model: int | None = None) -> list[ExposureRow]:
    """Exposure of every clinic, model and output with a prediction, or of one clinic, or of one model (by index).

    Raises VerificationFailed when `model` is not the index of a model.
    """
    wanted = None if model is None else registry.get(model, Model).reference
    sums: dict[tuple[str, int], _Sum] = {}
    for prediction in registry.all(Prediction):
        if wanted is not None and prediction.body.model != wanted:
            continue
        records = registry.resolve(prediction.body.records, Records)
        if clinic is not None and records.body.clinic != clinic:
            continue
        known = registry.resolve(prediction.body.model, Model)
        place = (records.body.clinic, known.reference.index)
        sums.setdefault(place, _Sum(records.body.d, {})).add(_bits_of_prediction(prediction, records, known))
    rows = []
    for (name, index), total in sorted(sums.items()):
        entry = registry.get(index, Model)
        for number, output in enumerate(entry.body.outputs):
            exposure = Exposure(total.released[number], model_bits(total.d, output.b, output.b_bias))
            rows.append(ExposureRow(name, entry.reference, number, output.name, total.predictions, exposure))
    return rows


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
