"""What the server checks of an entry before it logs it, beyond what entries alone can show (`api.registry`).

Certificates verify, everything behind a digest is here and is what it should be, and every ciphertext belongs to the
key that the records name. Others need not trust these checks: an auditor repeats them all.
"""

from __future__ import annotations

from api.binding import parameters_of, verify_key_entry, verify_model_entry, verify_model_statements
from api.blobs import BlobStore
from api.consent_rules import MAX_REQUEST_BOX_BYTES
from api.entries import (
    MAX_ENTRY_BYTES,
    Approval,
    Body,
    Clearance,
    CommittedRecords,
    Disclosure,
    Grant,
    Key,
    Model,
    Network,
    Records,
    Refusal,
    Request,
    Revocation,
    Suspension,
    decode_point_list,
)
from api.errors import NotFound, NotPermitted
from api.joint_binding import batch_of, check_batches, verify_network_entry, verify_records_batch
from api.prediction import input_digests
from privacy.ckks.canonical import decode_input
from privacy.errors import UsageError, VerificationFailed
from privacy.models.certificate import weights_key
from privacy.models.schema import Schema
from privacy.models.statements import ModelOpening
from privacy.zk.group import ARKWORKS

__all__ = ["check_behind", "check_opening", "check_result_count"]

_RESULT_BYTES = 64
"""A prediction entry lists the digest of every result in hex."""


def check_behind(body: Body, blobs: BlobStore) -> None:
    """Check the blobs behind an entry of a party; revocations, suspensions, clearances, approvals, grants and refusals
    have none.

    What a sealed box holds is for whoever can open it to check. The proof of a disclosure is for its recipient alone.

    Raises:
        NotPermitted: a kind of entry that nobody submits.
        VerificationFailed, DecodeError: the check that failed, `request.box` for a box that holds no request, or
            `entry.blob` for a blob that was not uploaded.
    """
    match body:
        case Key():
            verify_key_entry(body, _blob(blobs, body.p0, "p0"), _blob(blobs, body.certificate, "certificate"))
        case Model():
            _check_model(body, blobs)
        case Records():
            _check_records(body, blobs)
        case Network():
            schema = _blob(blobs, body.schema, "schema")
            verify_network_entry(body, schema, _blob(blobs, body.certificate, "certificate"))
        case CommittedRecords():
            _check_committed_records(body, blobs)
        case Request(box=bytes() as box):
            if len(_blob(blobs, box, "sealed request")) > MAX_REQUEST_BOX_BYTES:
                raise VerificationFailed("request.box", f"a sealed request has at most {MAX_REQUEST_BOX_BYTES} bytes")
        case Disclosure(delivery=bytes() as delivery):
            _blob(blobs, delivery, "sealed delivery")
        case Request() | Grant() | Refusal() | Disclosure():
            pass
        case Revocation() | Suspension() | Clearance() | Approval():
            pass
        case _:
            raise NotPermitted("entry.kind", f"a {body.KIND} is not submitted")


def _blob(blobs: BlobStore, digest: bytes, what: str) -> bytes:
    try:
        return blobs.get(digest)
    except NotFound as error:
        raise VerificationFailed("entry.blob", f"{what}: upload the blob {digest.hex()} first") from error


def _check_model(model: Model, blobs: BlobStore) -> None:
    schema = _blob(blobs, model.schema, "schema")
    verified = verify_model_entry(model, schema, _blob(blobs, model.certificate, "certificate"))
    proofs = [_blob(blobs, s.proof, f"{s.type} proof of feature {s.feature}") for s in model.statements]
    verify_model_statements(verified, model, proofs)


def check_result_count(results: int) -> None:
    """Raise UsageError for more results than any prediction entry can list, before they are planned one by one."""
    if results * _RESULT_BYTES > MAX_ENTRY_BYTES:
        raise UsageError(f"{results} results are too many for one prediction entry: divide the cohort")


def _check_records(records: Records, blobs: BlobStore) -> None:
    params = parameters_of(records.parameter_set)
    check_result_count(records.blocks)
    _blob(blobs, records.ciphertexts, "list of ciphertext digests")
    if blobs.has(records.schema):
        d = Schema.decode_json(blobs.get(records.schema)).d
        if d != records.d:
            raise VerificationFailed("records.schema", f"the schema has {d} features, the records have {records.d}")
    # Each once: a list of a million times one ciphertext is short to send and long to check.
    for digest in dict.fromkeys(input_digests(records, blobs)):
        decode_input(params, records.key.leaf, _blob(blobs, digest, "ciphertext"))


def _check_committed_records(records: CommittedRecords, blobs: BlobStore) -> None:
    check_batches(records)
    schema = Schema.decode_json(_blob(blobs, records.schema, "schema"))
    listed = _blob(blobs, records.commitments, "list of commitments")
    commitments = decode_point_list(listed, records.count)
    for number, digest in enumerate(records.certificates):
        batch = batch_of(records, number)
        certificate = _blob(blobs, digest, f"certificate of patients {batch.start} to {batch.stop - 1}")
        verify_records_batch(records, schema, batch, commitments[batch.start : batch.stop], certificate)


def check_opening(model: Model, d: int, opening: ModelOpening) -> None:
    """Check that an opening is that of the model's commitments, within its public bounds.

    Raises:
        VerificationFailed: `model.opening`.
    """
    if (opening.name, opening.version) != (model.name, model.version) or len(opening.outputs) != len(model.outputs):
        raise VerificationFailed("model.opening", "the opening is of another model or version")
    key = weights_key(d)
    for output, found in zip(model.outputs, opening.outputs, strict=True):
        within = all(-(1 << output.b) <= w < 1 << output.b for w in found.weights)
        if len(found.weights) != d or not within or not -(1 << output.b_bias) <= found.bias < 1 << output.b_bias:
            raise VerificationFailed("model.opening", f"output {output.name!r}: not {d} weights within the bounds")
        try:
            C_W = ARKWORKS.encode(key.commit(found.values, found.rho))
        except UsageError as error:
            raise VerificationFailed("model.opening", f"output {output.name!r}: {error}") from error
        if output.commitment != C_W:
            raise VerificationFailed("model.opening", f"output {output.name!r}: C_W commits to other weights")
