"""Opening a prediction about records of one's own: it is verified first, and only then decrypted or opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from api.client.audit import verify_bundle
from api.client.clinic_keys import KeyFolder
from api.client.joint_answers import open_joint_answers
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.requests import PredictionRequest
from api.client.scores import Scores, decrypt, read_openings
from api.client.session import Session
from api.client.submitted_records import SubmittedRecords, submitted_records
from api.client.verified_cache import VerifiedCache
from privacy.errors import UsageError, VerificationFailed
from privacy.mpc.answers import AnswerOpening

__all__ = ["OpenedPrediction", "open_prediction"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class OpenedPrediction:
    """A verified prediction about records of this clinic, and its answers. Secret.

    `openings` are those of committed answers, patient by patient and output by output; there are none of encrypted
    ones.
    """

    scores: Scores
    records: SubmittedRecords
    openings: tuple[AnswerOpening, ...] = field(default=(), repr=False)

    @property
    def verified(self) -> VerifiedPrediction | VerifiedJointPrediction:
        """The prediction."""
        return self.scores.verified


def open_prediction(
    session: Session,
    key: KeyFolder,
    path: Path,
    *,
    offline: bool = False,
    request: PredictionRequest | None = None,
    cache: VerifiedCache | None = None,
    progress: Progress | None = None,
) -> OpenedPrediction:
    """Verify the bundle at `path` and open it; with `request`, as the answer to that.

    Raises VerificationFailed with the check, UsageError, DecodeError, OSError; nothing was decrypted then.
    """
    server = None if offline else session.server
    verified = verify_bundle(
        path,
        session.trust,
        ledger=server,
        nonce=None if request is None else request.nonce,
        progress=progress,
        cache=cache,
    )
    if not isinstance(verified, VerifiedPrediction | VerifiedJointPrediction):
        raise UsageError(f"{path} is no prediction, so there is nothing to open: sealproof verify says what it shows")
    if isinstance(verified, VerifiedPrediction) and not (key.exists and verified.key.reference == key.reference):
        raise VerificationFailed("clinic.key", f"the prediction is under key entry {verified.key.reference.index}")
    own = {records.reference: records for records in submitted_records(session.folder)}
    records = own.get(verified.records.reference)
    if records is None:
        raise VerificationFailed("clinic.records", "the prediction is not about records of this clinic")
    if request is not None and (request.records, request.model) != (
        verified.records.reference,
        verified.model.reference,
    ):
        raise VerificationFailed("clinic.request", "the prediction is about other records or another model")
    ids = records.handles.ids
    if isinstance(verified, VerifiedPrediction):
        return OpenedPrediction(decrypt(verified, key.keys, ids), records)
    openings = open_joint_answers(session.folder, server, verified, None if request is None else request.job)
    return OpenedPrediction(read_openings(verified, openings, ids), records, openings)
