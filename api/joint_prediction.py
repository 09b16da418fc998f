"""A joint prediction, from what the nodes delivered to the entry that logs it, its attestation and its bundle
(docs/spec/protocol.md, sections 7 and 9).

Clinic and owner compute and prove between them; the server sees neither records nor weights nor answers. It believes
nothing: every proof is verified against a statement that it builds from the ledger (`api.joint_binding`), as the
auditor's is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.blobs import BlobStore
from api.entries import (
    CommittedRecords,
    JointPrediction,
    JointProof,
    Network,
    Party,
    Reference,
    decode_point_list,
    sign_entry,
)
from api.joint_binding import (
    batch_of,
    check_joint_coverage,
    joint_predicate,
    joint_statement,
)
from api.prediction import write_evidence
from api.registry import Logged, Registry
from ledger import Log, VerifiedHead
from privacy import attestation
from privacy.canonical_json import Codec, Digest, PositiveInteger, Record
from privacy.errors import UsageError, VerificationFailed
from privacy.models.schema import Schema
from privacy.mpc.joint_proof import JointStatement, answers_digest, proof_size, verify_joint

__all__ = [
    "MAX_SEALED_BYTES",
    "Delivered",
    "DeliveredProof",
    "JointContext",
    "attest_joint",
    "check_delivered",
    "check_joint_size",
    "decode_delivered",
    "encode_delivered",
    "verify_delivered",
    "write_joint_bundle",
]

MAX_SEALED_BYTES: Final = 1 << 20
"""The owner's shares of all answers of one prediction, sealed for the clinic."""

_SHARE_BYTES: Final = 64
_BOX_BYTES: Final = 1024
_MAX_DELIVERED_BYTES: Final = 1 << 18


@dataclass(frozen=True)
class JointContext:
    """The entries that a joint prediction is about, looked up and checked by the registry."""

    model: Logged[Network]
    records: Logged[CommittedRecords]
    clinic: Logged[Party]
    owner: Logged[Party]

    @classmethod
    def of(cls, registry: Registry, records: int, model: int) -> JointContext:
        """The context of entries by index. Raises VerificationFailed(`ledger.reference`)."""
        network, committed = registry.get(model, Network), registry.get(records, CommittedRecords)
        return cls(network, committed, registry.author_of(records), registry.author_of(model))


@dataclass(frozen=True)
class DeliveredProof(Record):
    """A proof that is among the blobs, and the digest of the commitments to its answers, as the owner says."""

    digest: Digest
    size: PositiveInteger
    answers: Digest


@dataclass(frozen=True)
class Delivered(Record):
    """What the nodes of one session made: one proof for each batch of the records, in order."""

    session: Digest
    proofs: tuple[DeliveredProof, ...]


_DELIVERED: Final = Codec(Delivered, "joint result", _MAX_DELIVERED_BYTES)
encode_delivered = _DELIVERED.encode
decode_delivered = _DELIVERED.decode


# -- before it is computed --------------------------------------------------------------------------------------------


def check_joint_size(context: JointContext, blobs: BlobStore, max_blob_bytes: int) -> None:
    """Refuse what could not be delivered or logged after all the work.

    Raises:
        UsageError: more proofs than a prediction entry lists, a proof larger than a blob, or more answers than are
            sealed at once; the message says what would do.
        VerificationFailed, NotFound, DecodeError: the entries do not belong together, or a blob is missing.
    """
    records, outputs = context.records.body, len(context.model.body.outputs)
    most = (MAX_SEALED_BYTES - _BOX_BYTES) // (outputs * _SHARE_BYTES)
    if records.count > most:
        raise UsageError(f"{records.count} patients are too many for one joint prediction: at most {most}")
    blank = tuple(
        JointProof(batch.start, len(batch), bytes(32), 1 << 32, bytes(32))
        for batch in (batch_of(records, number) for number in range(len(records.certificates)))
    )
    try:
        sign_entry(
            _prediction(context, bytes(32), blank, ((1 << 53) - 1, bytes(32))),
            Reference((1 << 53) - 1, bytes(32)),
            Ed25519PrivateKey.generate(),
        )
    except UsageError as error:
        raise UsageError(f"too many proofs for one prediction entry ({error}): divide the cohort") from error
    first = next(_statements(context, blobs, bytes(32), (1, bytes(32))))
    first.check()
    size = proof_size(first.circuit, first.count)
    if size > max_blob_bytes:
        fits = max((n for n in range(1, first.count) if proof_size(first.circuit, n) <= max_blob_bytes), default=0)
        advice = f"submit cohorts of at most {fits} patients" if fits else "the network is too large"
        raise UsageError(f"a proof about {first.count} patients has {size} bytes, at most {max_blob_bytes}: {advice}")


# -- what the nodes delivered -----------------------------------------------------------------------------------------


def check_delivered(context: JointContext, delivered: Delivered, blobs: BlobStore) -> None:
    """There is one proof for each batch, and each was uploaded. Whether they hold is for `verify_delivered`.

    Raises VerificationFailed: `prediction.coverage`, `entry.blob`, `prediction.proof-size`.
    """
    batches = len(context.records.body.certificates)
    if len(delivered.proofs) != batches:
        raise VerificationFailed("prediction.coverage", f"{len(delivered.proofs)} proofs for {batches} batches")
    for proof in delivered.proofs:
        if not blobs.has(proof.digest):
            raise VerificationFailed("entry.blob", f"joint proof: upload the blob {proof.digest.hex()} first")
        if blobs.path(proof.digest).stat().st_size != proof.size:
            raise VerificationFailed("prediction.proof-size", f"the proof has not {proof.size} bytes")


def verify_delivered(
    context: JointContext,
    delivered: Delivered,
    blobs: BlobStore,
    head: tuple[int, bytes],
    progress: Callable[[int], None],
) -> JointPrediction:
    """Verify every proof; the body of the entry that logs the prediction. `progress` counts to the number of proofs.

    `head` is the ledger head (size, root) that both nodes were told.

    Raises:
        DecodeError: a blob is not a proof of this shape.
        VerificationFailed: a proof does not hold, or is about other answers than the owner says
            (`prediction.answers`).
        NotFound: a blob is missing.
    """
    check_delivered(context, delivered, blobs)
    proofs = []
    statements = _statements(context, blobs, delivered.session, head)
    for number, (proof, statement) in enumerate(zip(delivered.proofs, statements, strict=True)):
        found = answers_digest(verify_joint(statement, blobs.get(proof.digest)))
        if found != proof.answers:
            raise VerificationFailed("prediction.answers", "the proof is about other answers than the result says")
        proofs.append(JointProof(statement.first, statement.count, proof.digest, proof.size, found))
        progress(number + 1)
    return _prediction(context, delivered.session, tuple(proofs), head)


def _statements(
    context: JointContext, blobs: BlobStore, session: bytes, head: tuple[int, bytes]
) -> Iterator[JointStatement]:
    """What the proof of each batch must say."""
    records = context.records.body
    schema = Schema.decode_json(blobs.get(context.model.body.schema))
    commitments = decode_point_list(blobs.get(records.commitments), records.count)
    for number in range(len(records.certificates)):
        batch = batch_of(records, number)
        yield joint_statement(
            context.model,
            context.records,
            context.owner,
            context.clinic,
            schema,
            session,
            batch,
            commitments[batch.start : batch.stop],
            head,
        )


def _prediction(
    context: JointContext, session: bytes, proofs: tuple[JointProof, ...], head: tuple[int, bytes]
) -> JointPrediction:
    model = context.model.body
    prediction = JointPrediction(
        records=context.records.reference,
        model=context.model.reference,
        session=session,
        proofs=proofs,
        answer_scale_bits=model.answer_scale_bits,
        grid_bits=model.grid_bits,
        checkpoint_size=head[0],
        checkpoint_root=head[1],
    )
    check_joint_coverage(prediction, context.records.body, model)
    return prediction


# -- attestation and bundle -------------------------------------------------------------------------------------------


def attest_joint(
    log: Log,
    registry: Registry,
    index: int,
    request_nonce: bytes,
    issued_at: str,
    private_key: Ed25519PrivateKey,
    approval: int | None = None,
) -> bytes:
    """The signed attestation of the joint prediction in ledger entry `index`, by its author's key.

    `approval` is the entry by which hospitals approved the model, if this server wants one.
    """
    prediction = registry.get(index, JointPrediction).body
    model = registry.resolve(prediction.model, Network).body
    said = joint_predicate(
        log.entry, index, prediction, model, issued_at=issued_at, request_nonce=request_nonce, approval=approval
    )
    return attestation.sign_statement(said, private_key)


def write_joint_bundle(
    path: Path,
    log: Log,
    registry: Registry,
    blobs: BlobStore,
    index: int,
    envelope: bytes,
    head: VerifiedHead | None = None,
) -> None:
    """Write the bundle of the joint prediction in ledger entry `index` to `path`, complete or not at all.

    Its proofs are under `head`. Raises as `api.prediction.write_bundle` does.
    """
    prediction = registry.get(index, JointPrediction)
    model = registry.resolve(prediction.body.model, Network)
    records = registry.resolve(prediction.body.records, CommittedRecords)
    digests = [proof.digest for proof in prediction.body.proofs]
    digests += [model.body.certificate, model.body.schema, records.body.commitments, *records.body.certificates]
    entries = [located.reference.index for located in (prediction, model, records)]
    write_evidence(path, log, registry, blobs, envelope, entries, prediction.body.checkpoint_size, digests, head)
