"""A clinic shows one committed answer to somebody, and nothing else.

    clinic.disclose(bundle, "patient-7", kind="threshold", threshold=0.7, nonce=nonce, path=Path("insurer.sealproof"))

The recipient chooses a nonce (32 random bytes) and gets one file, which it verifies with `sealproof verify --nonce`.
About one answer a clinic says one thing of a kind: two thresholds would bracket a score, which nobody agreed to. What
was said is kept in the folder `disclosures`, before it is logged, so that a repetition finds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from api.client.audit import verify_bundle
from api.client.handles import RecordHandles
from api.client.joint_answers import open_joint_answers
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.session import Session, log_errors
from api.client.verified_cache import VerifiedCache
from api.consistency import ConsistencyProof
from api.entries import Disclosure, Reference
from api.signing import timestamp
from ledger import TlogProof
from privacy.attestation_disclosure import Disclosed, sign_disclosure
from privacy.attestation_parts import LedgerReference
from privacy.bundle import BundleReader, BundleWriter
from privacy.canonical_json import Codec, DecimalInteger, Record, UnsignedInteger
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import Link, raw_threshold
from privacy.mpc.disclosure import AnswerStatement, Kind, disclose_answer, statement_about
from privacy.private_files import create_private, private_folder, read_private, write_private

__all__ = ["disclose"]

_MAX_BYTES: Final = 1 << 20
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class _Said(Record):
    """What was said about an answer, whoever it was said to."""

    format: Literal["sealproof/disclosed-answer/v1"]
    value: DecimalInteger
    tolerance: UnsignedInteger


_SAID: Final = Codec(_Said, "disclosed answer", 1 << 12)


def disclose(
    session: Session,
    records: dict[Reference, Path],
    bundle: Path,
    record_id: str,
    *,
    kind: Kind,
    nonce: bytes,
    path: Path,
    output: str | int = 0,
    threshold: float | None = None,
    tolerance: float | None = None,
) -> Path:
    """Write a disclosure of the answer about `record_id` to `path`, logged before it is written.

    `records`: folders of the clinic's committed records, by entry. `bundle`: of a prediction by two-party computation.
    `threshold` is a probability for a logit, else a raw answer; `tolerance` in answer units, a multiple of the grid
    (default: one step). `nonce`: the recipient's, 32 bytes.

    Raises:
        UsageError: no such record or output, a threshold that the answer does not reach, something else was said about
            this answer before, or a bundle that is no prediction of this clinic.
        VerificationFailed, DecodeError, ServerError.
    """
    verified = verify_bundle(bundle, session.trust, ledger=session.server, cache=VerifiedCache())
    if not isinstance(verified, VerifiedJointPrediction):
        raise UsageError(f"{bundle} is no prediction by two-party computation: only its answers can be disclosed")
    folder = records.get(verified.records.reference)
    if folder is None:
        raise VerificationFailed("clinic.records", "the prediction is not about records of this clinic")
    handles = RecordHandles.load(folder / "handles.json")
    if record_id not in handles.ids:
        raise UsageError("the prediction has no record with this id")
    patient, place = handles.ids.index(record_id), _output(verified, output)
    openings = open_joint_answers(session.folder, session.server, verified)
    opening = openings[patient * len(verified.output_names) + place]
    link, grid = verified.model.body.link, verified.model.body.grid_bits
    statement = statement_about(
        opening,
        kind,
        prediction_id=verified.prediction.reference.leaf,
        handle=handles.handles[patient],
        patient=patient,
        output=place,
        answer=verified.answer(patient, place),
        scale_bits=verified.answer_scale_bits,
        grid_bits=grid,
        bound=verified.z_bound(place),
        threshold=_threshold(kind, link, threshold, grid),
        tolerance=_tolerance(kind, tolerance, grid),
        recipient_nonce=nonce,
    )
    kept = _remember(session, verified, statement)
    if not (kept / "statement.json").exists():
        proof = disclose_answer(statement, opening)
        with BundleReader(bundle) as reader:
            entry = reader.entry(verified.prediction.reference.index)
        signed = sign_disclosure(
            Disclosed(
                prediction=LedgerReference.to(verified.prediction.reference.index, entry),
                scheme="mpc",
                kind=kind,
                patient=patient,
                output=place,
                answer=statement.answer,
                value=statement.value,
                tolerance=statement.tolerance,
                scale_bits=statement.scale_bits,
                grid_bits=grid,
                record_id=record_id,
                salt=handles.salts[patient],
                path=tuple(handles.path(patient)),
                recipient_nonce=nonce,
                proof=Disclosed.proof_reference(proof),
                issued_at=timestamp(),
            ),
            session.identity.private_key,
        )
        write_private(kept / "proof", proof)
        write_private(kept / "statement.json", signed)
    signed = read_private(kept / "statement.json", _MAX_BYTES, "disclosure")
    proof = read_private(kept / "proof", _MAX_BYTES, "disclosure")
    body = Disclosure(verified.prediction.reference, hashlib.sha256(signed).digest(), hashlib.sha256(proof).digest())
    reference = session.log_once(body, kept, "disclosure")
    _write(session, bundle, path, reference, (kept / "disclosure.entry.json").read_bytes(), (signed, proof))
    return path


def _output(verified: VerifiedJointPrediction, output: str | int) -> int:
    names = verified.output_names
    place = names.index(output) if output in names else output
    if not isinstance(place, int) or not 0 <= place < len(names):
        raise UsageError(f"there is no output {output!r}; there is {', '.join(names)}")
    return place


def _threshold(kind: Kind, link: str, threshold: float | None, grid_bits: int) -> int:
    if (kind == "threshold") != (threshold is not None):
        raise UsageError("a threshold belongs to a disclosure of that kind, and to no other")
    # The network's certificate was verified, which refuses unknown links.
    return 0 if threshold is None else raw_threshold(_link(link), threshold, grid_bits)


def _link(link: str) -> Link:
    known: dict[str, Link] = {"identity": "identity", "logit": "logit", "softmax": "softmax", "margin": "margin"}
    return known[link]


def _tolerance(kind: Kind, tolerance: float | None, grid_bits: int) -> int:
    if kind != "exact":
        if tolerance is not None:
            raise UsageError("a tolerance belongs to an exact disclosure, and to no other")
        return 0
    if tolerance is None:
        return 1
    steps = Fraction(tolerance) * (1 << grid_bits) if math.isfinite(tolerance) else Fraction(0)
    if steps.denominator != 1 or steps < 1:
        raise UsageError(f"a tolerance is a multiple of the model's grid, 2^-{grid_bits}")
    return int(steps)


def _remember(session: Session, verified: VerifiedJointPrediction, statement: AnswerStatement) -> Path:
    """The folder of this statement to this recipient. Raises UsageError if another was made about the same answer."""
    code = hashlib.sha256(session.identity.private_key.private_bytes_raw())
    about = (verified.records.reference.leaf, statement.handle, verified.model.reference.leaf)
    for part in (*about, b"%d" % statement.output, statement.kind.encode()):
        code.update(len(part).to_bytes(4, "little") + part)
    folder = private_folder(private_folder(session.folder / "disclosures") / code.hexdigest()[:32])
    said = _Said("sealproof/disclosed-answer/v1", statement.value, statement.tolerance)
    path = folder / "said.json"
    with contextlib.suppress(FileExistsError):
        create_private(path, _SAID.encode(said))  # of two that are made at the same time one is the first
    if _SAID.decode(read_private(path, 1 << 12, "disclosed answer")) != said:
        raise UsageError(
            f"something else was disclosed about this answer before (kind {statement.kind!r}): a second statement of a "
            "kind could be combined with the first, and is not made"
        )
    recipient = hashlib.sha256(statement.recipient_nonce + statement.prediction_id).hexdigest()[:32]
    return private_folder(folder / recipient)


def _write(
    session: Session, source: Path, path: Path, reference: Reference, entry: bytes, blobs: tuple[bytes, ...]
) -> None:
    """The prediction's bundle with the disclosure's entry and blobs, all proven under one present checkpoint."""
    server = session.server
    with BundleReader(source) as reader:
        entries = {index: reader.entry(index) for index in reader.entry_indices()} | {reference.index: entry}
        with log_errors():
            old = ConsistencyProof.parse(reader.consistency_proof()).old
        for _ in range(_ATTEMPTS):  # the log may grow while its proofs are fetched
            proofs = {index: server.proof(index) for index in entries}
            with log_errors():
                parsed = {index: TlogProof.parse(proof) for index, proof in proofs.items()}
            if len({proof.checkpoint for proof in parsed.values()}) == 1:
                break
        else:
            raise UsageError("the ledger is growing too fast: try again")
        with log_errors():
            size = session.trust.follow(
                next(iter(parsed.values())).checkpoint, session.identity.origin, server.consistency
            ).size
        with BundleWriter(path) as bundle:
            bundle.set_attestation(reader.attestation())
            for index, data in entries.items():
                bundle.add_entry(index, data, proofs[index])
            bundle.set_consistency_proof(ConsistencyProof(old, size, tuple(server.consistency(old, size))).format())
            for digest in reader.blob_digests():
                bundle.add_blob(reader.blob(digest))
            for blob in blobs:
                bundle.add_blob(blob)
