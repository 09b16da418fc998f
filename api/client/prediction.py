"""What the auditor hands back: a prediction of which everything was verified, and its results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Final

from api.binding import Located, parameters_of
from api.entries import Approval, Key, Model, Party, Prediction, Records, Reference
from ledger.checkpoint import VerifiedHead
from privacy.bundle import BundleReader
from privacy.ckks.canonical import ResultCiphertext, decode_result
from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.packing import capacity
from privacy.errors import UsageError
from privacy.models.quantise import error_bound
from privacy.models.schema import Schema

__all__ = ["VERIFIED", "Check", "Result", "VerifiedPrediction", "rounded_up"]

VERIFIED: Final = object()
"""For `api.client.audit` alone, which makes a VerifiedPrediction at the end of all its steps."""


@dataclass(frozen=True)
class Check:
    """A step that passed: its name, what it showed in plain words, and how long it took."""

    name: str
    sentence: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Result:
    """One verified result: block and output it answers, first patient of the block, and the ciphertext."""

    block: int
    output: int
    first_patient: int
    ciphertext: ResultCiphertext


@dataclass(frozen=True)
class VerifiedPrediction:
    """A prediction whose bundle passed every check. Only `verify_bundle` makes one."""

    path: Path
    head: VerifiedHead
    prediction: Located[Prediction]
    records: Located[Records]
    model: Located[Model]
    key: Located[Key]
    server: Party
    owner: Party
    schema: Schema
    statements: tuple[EvaluationStatement, ...]
    issued_at: str
    request_nonce: bytes
    revoked_since: tuple[Reference, ...]
    """Key, model or records that were revoked after the prediction, as far as the ledger was asked."""
    approval: Located[Approval] | None
    """By which hospitals approved the model before the prediction; None if the attestation names none."""
    checks: tuple[Check, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not VERIFIED:
            raise UsageError("a VerifiedPrediction is made by verify_bundle only")

    @property
    def count(self) -> int:
        """Number of patients."""
        return self.records.body.count

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the model's outputs, in order."""
        return tuple(output.name for output in self.model.body.outputs)

    @property
    def evaluation_error(self) -> Fraction:
        """What the attestation states: decrypted answers are this close to the committed model's integer answers."""
        bound = self.prediction.body.error_bound
        return Fraction(bound.error, 1 << bound.scale_bits)

    def error_bound(self, output: int) -> Fraction:
        """How far an answer may be from the float model: the attested error, rounding, and honest input noise."""
        params = parameters_of(self.model.body.parameter_set)
        rounding = error_bound(self.schema, self.model.body.outputs[output].b, params)
        return self.evaluation_error + rounding.total

    def results(self) -> Iterator[Result]:
        """The results, block by block, read from the bundle again and only handed out with the digests verified.

        Raises OSError, DecodeError, and VerificationFailed("bundle.blob-digest") if the file was changed since.
        """
        with BundleReader(self.path) as reader:
            for proof, statement in zip(self.prediction.body.proofs, self.statements, strict=True):
                size = capacity(statement.params, statement.packing, statement.d)
                for instance, digest in enumerate(proof.results):
                    block = proof.first_block + instance // len(proof.outputs)
                    output = proof.outputs[instance % len(proof.outputs)]
                    ciphertext = decode_result(statement.params, reader.blob(digest))
                    yield Result(block, output, block * size, ciphertext)


def rounded_up(bound: Fraction) -> str:
    """A positive bound with two figures, never smaller than it is."""
    with localcontext(Context(prec=60, rounding=ROUND_CEILING)):
        exact = Decimal(bound.numerator) / bound.denominator
    return f"{Context(prec=2, rounding=ROUND_CEILING).create_decimal(exact):g}"
