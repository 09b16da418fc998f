"""What the auditor hands back of multi-party computation: committed answers of which everything was verified."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from fractions import Fraction
from pathlib import Path

from api.binding import Located
from api.client.prediction import VERIFIED, Check
from api.entries import Approval, CommittedRecords, JointPrediction, Network, Party, Reference
from ledger.checkpoint import VerifiedHead
from privacy.errors import UsageError
from privacy.models.network_certificate import NetworkStatement
from privacy.models.schema import Schema
from privacy.mpc.joint_proof import JointStatement

__all__ = ["VerifiedJointPrediction"]


@dataclass(frozen=True)
class VerifiedJointPrediction:
    """A joint prediction whose bundle passed every check. Only `verify_bundle` makes one.

    `answers` are the commitments C_z (48 bytes each), patient by patient and within a patient output by output. Each
    opens to one integer answer at 2^answer_scale_bits; the openings are the clinic's.
    """

    path: Path
    head: VerifiedHead
    prediction: Located[JointPrediction]
    records: Located[CommittedRecords]
    model: Located[Network]
    server: Party
    owner: Party
    clinic: Party
    schema: Schema
    network: NetworkStatement
    statements: tuple[JointStatement, ...]
    answers: tuple[bytes, ...] = field(repr=False)
    issued_at: str
    request_nonce: bytes
    revoked_since: tuple[Reference, ...]
    """Model or records that were revoked after the prediction, as far as the ledger was asked."""
    approval: Located[Approval] | None
    """By which hospitals approved the model before the prediction; None if the attestation names none."""
    checks: tuple[Check, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not VERIFIED:
            raise UsageError("a VerifiedJointPrediction is made by verify_bundle only")

    @property
    def count(self) -> int:
        """Number of patients."""
        return self.records.body.count

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the network's outputs, in order."""
        return self.model.body.outputs

    @property
    def answer_scale_bits(self) -> int:
        """Answers are integers at 2^answer_scale_bits."""
        return self.prediction.body.answer_scale_bits

    def answer(self, patient: int, output: int) -> bytes:
        """C_z of one patient and output. Raises UsageError for one that is not there."""
        if not 0 <= patient < self.count or not 0 <= output < len(self.output_names):
            raise UsageError(f"there is no output {output} of patient {patient}")
        return self.answers[patient * len(self.output_names) + output]

    def z_bound(self, output: int) -> int:
        """z_max: no answer of this output exceeds it in magnitude. It follows from public numbers only."""
        self._check_output(output)
        return self.network.bounds[-1]

    def error_bound(self, output: int) -> Fraction:
        """How far an answer may be from the float network, from public numbers only: rounding, and nothing else."""
        self._check_output(output)
        return self.network.error_bound

    def _check_output(self, output: int) -> None:
        if not 0 <= output < len(self.output_names):
            raise UsageError(f"there is no output {output}")
