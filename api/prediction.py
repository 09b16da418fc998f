"""A prediction, from ledger entries to the entry that logs it, its attestation and its bundle
(docs/spec/protocol.md, sections 5 and 9).

The statements come from `api.binding`, as the auditor's do. Memory does not grow with the cohort: inputs are read block
by block, results and proofs are stored as they are made, and only the noise and quotients of one proof are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.binding import (
    Located,
    ProofGroup,
    check_coverage,
    evaluation_statement,
    parameters_of,
    predicate,
    proof_groups,
)
from api.blobs import BlobStore
from api.consistency import ConsistencyProof
from api.entries import (
    ErrorBound,
    Key,
    Model,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    decode_digest_list,
    sign_entry,
)
from api.registry import Registry
from ledger import Log, TlogProof, VerifiedHead
from privacy import attestation
from privacy.bundle import BundleWriter
from privacy.ckks.bounds import Bounds, derive_bounds
from privacy.ckks.canonical import decode_input, decode_public_key, encode_result
from privacy.ckks.evaluate import Evaluation, draw_noise, evaluate
from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.evaluation_prover import OutputWitness, prove_evaluation
from privacy.ckks.evaluation_verifier import virtual_inputs
from privacy.ckks.keys import derive_p1
from privacy.ckks.packing import Packing
from privacy.errors import UsageError, VerificationFailed
from privacy.models.statements import ModelOpening

__all__ = [
    "Context",
    "PlannedProof",
    "attest",
    "check_entry_size",
    "input_digests",
    "plan_proofs",
    "predict",
    "write_bundle",
    "write_evidence",
]

Residues = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Context:
    """The entries that a prediction is about, looked up and checked by the registry."""

    key: Located[Key]
    model: Located[Model]
    records: Located[Records]

    @classmethod
    def of(cls, registry: Registry, records: int, model: int) -> Context:
        """The context of entries by index. Raises VerificationFailed(`ledger.reference`)."""
        found = registry.get(records, Records)
        return cls(registry.resolve(found.body.key, Key), registry.get(model, Model), found)


# -- planning ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PlannedProof:
    """One proof to make: blocks, outputs, and the bounds that hold for it."""

    group: ProofGroup
    outputs: tuple[int, ...]
    bounds: Bounds


def plan_proofs(records: Records, model: Model, most: int) -> tuple[PlannedProof, ...]:
    """How a prediction is divided over proofs of at most `most` blocks x outputs (at least one block each).

    Fewer blocks share a proof when the model's grid leaves no room for the blur of more.

    Raises:
        UsageError, VerificationFailed: not even one block can be proven, with the reason.
    """
    outputs = tuple(range(len(model.outputs)))
    while True:
        try:
            return tuple(
                PlannedProof(group, outputs, _bounds(records, model, group))
                for group in proof_groups(records, len(outputs), most)
            )
        except (UsageError, VerificationFailed):
            if most <= len(outputs):
                raise
            most //= 2


def _bounds(records: Records, model: Model, group: ProofGroup) -> Bounds:
    return derive_bounds(
        parameters_of(model.parameter_set),
        instances=group.blocks * len(model.outputs),
        published=group.count,
        d=records.d,
        b=max(o.b for o in model.outputs),
        b_bias=max(o.b_bias for o in model.outputs),
        grid_bits=model.grid_bits,
    )


def check_entry_size(context: Context, plan: tuple[PlannedProof, ...]) -> None:
    """Raise UsageError unless the entry of such a prediction fits into the ledger: all its result digests are in it."""
    blank = [
        PredictionProof(
            p.group.first_block,
            p.group.blocks,
            p.group.count,
            p.outputs,
            (bytes(32),) * (p.group.blocks * len(p.outputs)),
            bytes(32),
            1 << 32,
            p.bounds.f,
        )
        for p in plan
    ]
    body = _prediction(context, blank, plan, ((1 << 53) - 1, bytes(32)))
    try:
        sign_entry(body, Reference((1 << 53) - 1, bytes(32)), Ed25519PrivateKey.generate())
    except UsageError as error:
        raise UsageError(f"too many results for one prediction entry ({error}): divide the cohort") from error


# -- predicting -------------------------------------------------------------------------------------------------------


def input_digests(records: Records, blobs: BlobStore) -> tuple[bytes, ...]:
    """The canonical input digests behind a records entry, block by block. Raises NotFound, DecodeError."""
    return decode_digest_list(blobs.get(records.ciphertexts), records.blocks * _ciphertexts(records))


def _ciphertexts(records: Records) -> int:
    return records.d if Packing(records.packing) is Packing.COLUMNS else 1


def predict(
    context: Context,
    opening: ModelOpening,
    blobs: BlobStore,
    plan: tuple[PlannedProof, ...],
    head: tuple[int, bytes],
    progress: Callable[[int], None],
) -> Prediction:
    """Evaluate and prove; results and proofs are stored as blobs. `progress` counts to twice the number of blocks.

    `head` is the ledger head (size, root) under which nothing of the context is revoked: the caller has checked.

    Raises:
        NotFound, DecodeError: a blob is missing or is not what an entry says.
        VerificationFailed, UsageError: the entries do not belong together.
    """
    proofs = []
    done = 0
    digests = input_digests(context.records.body, blobs)
    for planned in plan:
        proofs.append(_prove(context, opening, blobs, planned, digests, head, _offset(progress, done)))
        done += 2 * planned.group.blocks
    return _prediction(context, proofs, plan, head)


def _offset(progress: Callable[[int], None], start: int) -> Callable[[int], None]:
    return lambda done: progress(start + done)


def _prove(
    context: Context,
    opening: ModelOpening,
    blobs: BlobStore,
    planned: PlannedProof,
    digests: tuple[bytes, ...],
    head: tuple[int, bytes],
    progress: Callable[[int], None],
) -> PredictionProof:
    group, outputs = planned.group, planned.outputs
    m = _ciphertexts(context.records.body)
    covered = digests[group.first_block * m : (group.first_block + group.blocks) * m]
    unknown = [bytes(32)] * (group.blocks * len(outputs))
    draft = evaluation_statement(context.key, context.model, context.records, group, outputs, covered, unknown, head)
    params = draft.params
    p0 = decode_public_key(params, blobs.get(context.key.body.p0))
    p1 = derive_p1(params, draft.clinic, draft.key_number)

    def inputs(block: int) -> Residues:
        return virtual_inputs(draft, _stored_inputs(draft, blobs, block))

    evaluations: list[Evaluation] = []
    results: list[bytes] = []
    for block in range(group.blocks):
        arrays = inputs(block)
        for output in outputs:
            weights = opening.outputs[output]
            noise = draw_noise(params, group.count, planned.bounds.f)
            found = evaluate(params, p0, p1, arrays, weights.weights, weights.bias, draft.positions, noise)
            evaluations.append(found)
            results.append(blobs.put(encode_result(params, found.result)))
        progress(block + 1)
    statement = replace(draft, result_digests=tuple(results))
    proof = prove_evaluation(
        statement,
        p0,
        p1,
        inputs,
        evaluations,
        [OutputWitness(o.weights, o.bias, o.rho) for o in (opening.outputs[i] for i in outputs)],
        lambda folded, _: progress(group.blocks + folded),
    )
    digest = blobs.put(proof)
    return PredictionProof(
        group.first_block, group.blocks, group.count, outputs, tuple(results), digest, len(proof), statement.bounds.f
    )


def _stored_inputs(statement: EvaluationStatement, blobs: BlobStore, block: int) -> Residues:
    """The stored ciphertexts (m, 2, L, N) of a block."""
    m, params = statement.ciphertexts, statement.params
    digests = statement.input_digests[block * m : (block + 1) * m]
    stored = np.empty((m, 2, params.L, params.N), dtype=np.uint64)
    for place, digest in enumerate(digests):
        stored[place] = decode_input(params, statement.key_id, blobs.get(digest))
    return stored


def _prediction(
    context: Context, proofs: list[PredictionProof], plan: tuple[PlannedProof, ...], head: tuple[int, bytes]
) -> Prediction:
    model, records = context.model, context.records
    prediction = Prediction(
        records=records.reference,
        model=model.reference,
        key=context.key.reference,
        proofs=tuple(proofs),
        error_bound=ErrorBound(
            error=max(planned.bounds.err for planned in plan),
            scale_bits=parameters_of(model.body.parameter_set).D,
            grid_bits=model.body.grid_bits,
        ),
        checkpoint_size=head[0],
        checkpoint_root=head[1],
    )
    check_coverage(prediction, records.body, len(model.body.outputs))
    return prediction


# -- attestation ------------------------------------------------------------------------------------------------------


def attest(
    log: Log,
    registry: Registry,
    index: int,
    request_nonce: bytes,
    issued_at: str,
    private_key: Ed25519PrivateKey,
    approval: int | None = None,
) -> bytes:
    """The signed attestation of the prediction in ledger entry `index`, by its author's key.

    `approval` is the entry by which hospitals approved the model, if this server wants one.
    """
    prediction = registry.get(index, Prediction).body
    records = registry.resolve(prediction.records, Records).body
    said = predicate(
        log.entry, index, prediction, records, issued_at=issued_at, request_nonce=request_nonce, approval=approval
    )
    return attestation.sign_statement(said, private_key)


# -- bundle -----------------------------------------------------------------------------------------------------------


def write_bundle(
    path: Path,
    log: Log,
    registry: Registry,
    blobs: BlobStore,
    index: int,
    envelope: bytes,
    *,
    inputs: bool,
    head: VerifiedHead | None = None,
) -> None:
    """Write the bundle of the prediction in ledger entry `index` to `path`, complete or not at all.

    All proofs of inclusion are under one checkpoint, that of `head` (default: the newest published one), and a
    consistency proof leads to it from the head that the prediction names. With `inputs`, the canonical input
    ciphertexts are in it too.

    Raises:
        NotFound: a blob is missing.
        StorageFull: there is no room for it.
        UsageError: too much for one bundle.
    """
    prediction = registry.get(index, Prediction)
    context = Context.of(registry, prediction.body.records.index, prediction.body.model.index)
    about = (prediction, context.key, context.model, context.records)
    digests = _blob_digests(prediction.body, context, blobs, inputs)
    entries = {located.reference.index for located in about}
    write_evidence(path, log, registry, blobs, envelope, entries, prediction.body.checkpoint_size, digests, head)


def write_evidence(
    path: Path,
    log: Log,
    registry: Registry,
    blobs: BlobStore,
    envelope: bytes,
    entries: Iterable[int],
    head_size: int,
    digests: Iterable[bytes],
    head: VerifiedHead | None,
) -> None:
    """Write a bundle of these entries, their authors and these blobs; `head_size` is what the prediction names.

    The approval that the attestation names, if any, is one of the entries.
    Raises as `write_bundle` does.
    """
    head = head or log.published()
    said = attestation.decode_statement(attestation.decode_envelope(envelope).payload_bytes())
    indices = set(entries) | ({said.approval.index} if said.approval is not None else set())
    indices |= {registry.author_of(index).reference.index for index in indices}
    with BundleWriter(path) as bundle:
        bundle.set_attestation(envelope)
        for number in sorted(indices):
            hashes = tuple(log.inclusion_proof(number, head.size))
            bundle.add_entry(number, log.entry(number), TlogProof(number, hashes, head.note).format())
        steps = tuple(log.consistency_proof(head_size, head.size))
        bundle.set_consistency_proof(ConsistencyProof(head_size, head.size, steps).format())
        total = 0
        for digest in digests:
            data = blobs.get(digest)
            total += len(data)
            blobs.check_room(len(data) + total)  # what is collected is written a second time, in its order
            bundle.add_blob(data)


def _blob_digests(prediction: Prediction, context: Context, blobs: BlobStore, inputs: bool) -> Iterator[bytes]:
    for proof in prediction.proofs:
        yield proof.digest
        yield from proof.results
    model, key, records = context.model.body, context.key.body, context.records.body
    yield from (model.certificate, model.schema, key.certificate, key.p0, records.ciphertexts)
    yield from (statement.proof for statement in model.statements)
    if inputs:
        yield from input_digests(records, blobs)
