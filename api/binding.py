"""From ledger entries to the statements that proofs are about: one function for server and auditor.

Whatever a proof binds (docs/spec/protocol.md, section 9) is taken from ledger entries and recomputed here, never
from the proof, the attestation or a request. Server and auditor call the same functions, so they cannot disagree
about what was proved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from api.entries import BodyT, Key, Model, Prediction, PredictionProof, Records, Reference
from privacy import attestation
from privacy.ckks.canonical import decode_public_key
from privacy.ckks.evaluation_proof import EvaluationStatement
from privacy.ckks.evaluation_proof import OutputStatement as CommittedOutput
from privacy.ckks.key_certificate import VerifiedKey, verify_key_certificate
from privacy.ckks.packing import Packing, capacity
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models.certificate import QUANTISATION_RULE, ModelStatement, VerifiedModel, verify_model_certificate
from privacy.models.certificate import OutputStatement as ModelOutputStatement
from privacy.models.schema import Schema
from privacy.models.weight_proofs import verify_statement
from privacy.zk.group import ARKWORKS, Group

__all__ = [
    "Located",
    "ProofGroup",
    "check_coverage",
    "check_order",
    "evaluation_statement",
    "model_statement",
    "parameters_of",
    "predicate",
    "proof_groups",
    "statement_sentences",
    "verify_key_entry",
    "verify_model_entry",
    "verify_model_statements",
]


@dataclass(frozen=True)
class Located(Generic[BodyT]):
    """The body of a ledger entry whose signature and inclusion were checked, and where it stands."""

    reference: Reference
    body: BodyT


@dataclass(frozen=True)
class ProofGroup:
    """Blocks that one proof can cover: they publish the same coefficients."""

    first_block: int
    blocks: int
    count: int


def parameters_of(name: str) -> ParameterSet:
    """The parameter set that an entry names. Raises VerificationFailed for an unknown one."""
    try:
        return parameter_set(name)
    except UsageError as error:
        raise VerificationFailed("entry.parameter-set", str(error)) from error


def proof_groups(records: Records, outputs: int, most: int) -> list[ProofGroup]:
    """How the blocks of a records entry are divided over proofs: full blocks, `most` instances a proof, then the rest.

    A partial last block has a proof of its own, because all blocks of one proof publish the same positions.
    """
    params = parameters_of(records.parameter_set)
    size = capacity(params, Packing(records.packing), records.d)
    full, rest = divmod(records.count, size)
    step = max(1, most // outputs)
    groups = [ProofGroup(first, min(step, full - first), size) for first in range(0, full, step)]
    return [*groups, ProofGroup(full, 1, rest)] if rest else groups


def check_order(key: Reference, model: Reference, records: Reference, prediction: Reference | None) -> None:
    """Ledger order key < records, model < prediction (section 2: a key registered later opens anything).

    Raises:
        VerificationFailed: `ledger.order`.
    """
    if not key.index < records.index:
        raise VerificationFailed("ledger.order", f"key entry {key.index} is not older than records {records.index}")
    if prediction is not None and not max(model.index, records.index) < prediction.index:
        raise VerificationFailed("ledger.order", f"prediction {prediction.index} is older than what it is about")


def model_statement(model: Model, schema: Schema) -> ModelStatement:
    """What the model's certificate proves, from its entry and its schema.

    Raises:
        VerificationFailed: `model.schema` or `model.scales`.
    """
    params = parameters_of(model.parameter_set)
    if schema.digest() != model.schema:
        raise VerificationFailed("model.schema", "the schema is not the one of the model entry")
    if (model.input_scale_bits, model.weight_scale_bits) != (params.SX, params.SW):
        raise VerificationFailed("model.scales", "the scales are not those of the parameter set")
    try:
        return ModelStatement(
            name=model.name,
            version=model.version,
            schema=schema,
            parameters=params,
            quantisation_rule=QUANTISATION_RULE,
            grid_bits=model.grid_bits,
            outputs=tuple(ModelOutputStatement(o.name, o.link, o.b, o.b_bias, o.commitment) for o in model.outputs),
        )
    except UsageError as error:
        raise VerificationFailed("model.entry", str(error)) from error


def verify_model_entry(model: Model, schema: bytes, certificate: bytes, group: Group = ARKWORKS) -> VerifiedModel:
    """Verify a model's certificate (with the overflow check) against its entry; blobs were fetched by digest."""
    return verify_model_certificate(model_statement(model, Schema.decode_json(schema)), certificate, group)


def verify_model_statements(verified: VerifiedModel, model: Model, proofs: Sequence[bytes]) -> None:
    """Verify what a model's entry states of single weights; `proofs` were fetched by digest, in its order.

    Raises:
        DecodeError: a malformed proof.
        VerificationFailed: the check that failed.
    """
    for statement, proof in zip(model.statements, proofs, strict=True):
        verify_statement(verified, statement.stated, proof)


def statement_sentences(model: Model, schema: Schema) -> tuple[str, ...]:
    """What a model's entry states of single weights, in plain words and in its order; `schema` is that of the entry.

    Raises VerificationFailed: `model.statement-place` for a weight that the model does not have.
    """
    names = [output.name for output in model.outputs]
    if any(statement.feature >= schema.d or statement.output >= len(names) for statement in model.statements):
        raise VerificationFailed("model.statement-place", "a statement is about a weight that the model does not have")
    return tuple(s.stated.sentence(schema, names, model.weight_scale_bits) for s in model.statements)


def verify_key_entry(key: Key, p0: bytes, certificate: bytes, group: Group = ARKWORKS) -> VerifiedKey:
    """Verify a key's certificate and that its commitments are those of the entry; blobs were fetched by digest.

    Raises:
        DecodeError: a malformed blob.
        VerificationFailed: the check that failed.
    """
    params = parameters_of(key.parameter_set)
    if key.commitments:
        raise VerificationFailed("key.commitments", "the entry names commitments that this version knows nothing of")
    try:
        verified = verify_key_certificate(
            params, key.clinic, key.number, decode_public_key(params, p0), certificate, group
        )
    except UsageError as error:
        raise VerificationFailed("key.name", str(error)) from error
    found = (group.encode(verified.C_plus), group.encode(verified.C_minus))
    if found != (key.C_s_plus, key.C_s_minus):
        raise VerificationFailed("key.commitments", "the certificate is about other commitments than the entry")
    return verified


def evaluation_statement(
    key: Located[Key],
    model: Located[Model],
    records: Located[Records],
    covers: ProofGroup,
    outputs: Sequence[int],
    input_digests: Sequence[bytes],
    result_digests: Sequence[bytes],
    head: tuple[int, bytes],
) -> EvaluationStatement:
    """The statement of one evaluation proof. `input_digests` are those of the covered blocks, in order.

    Raises:
        VerificationFailed: the entries do not belong together, with the check.
    """
    k, m, r = key.body, model.body, records.body
    if r.key != key.reference:
        raise VerificationFailed("records.key", "the records entry was made under another key entry")
    if r.clinic != k.clinic:
        raise VerificationFailed("records.clinic", f"records of {r.clinic!r} under a key of {k.clinic!r}")
    if not k.parameter_set == m.parameter_set == r.parameter_set:
        raise VerificationFailed("entry.parameter-set", "key, model and records name different parameter sets")
    if r.schema != m.schema:
        raise VerificationFailed("records.schema", "records and model have different schemas")
    if any(o >= len(m.outputs) for o in outputs):
        raise VerificationFailed("prediction.outputs", "the model has no such output")
    try:
        statement = EvaluationStatement(
            params=parameters_of(k.parameter_set),
            packing=Packing(r.packing),
            d=r.d,
            count=covers.count,
            first_block=covers.first_block,
            blocks=covers.blocks,
            grid_bits=m.grid_bits,
            clinic=k.clinic,
            key_number=k.number,
            key_id=key.reference.leaf,
            p0_digest=k.p0,
            key_certificate=k.certificate,
            model_id=model.reference.leaf,
            model_certificate=m.certificate,
            schema=m.schema,
            outputs=tuple(
                CommittedOutput(m.outputs[o].name, m.outputs[o].b, m.outputs[o].b_bias, m.outputs[o].commitment)
                for o in outputs
            ),
            records_id=records.reference.leaf,
            handles=r.handles,
            head_size=head[0],
            head_root=head[1],
            input_digests=tuple(input_digests),
            result_digests=tuple(result_digests),
        )
        statement.bounds  # noqa: B018  (a shape without bounds cannot be proven: refused here, with the reason)
    except UsageError as error:
        raise VerificationFailed("prediction.shape", str(error)) from error
    return statement


def check_coverage(prediction: Prediction, records: Records, outputs: int) -> None:
    """Every block under every output is covered exactly once, in the positions that the records entry declares.

    Raises:
        VerificationFailed: `prediction.coverage`.
    """
    params = parameters_of(records.parameter_set)
    size = capacity(params, Packing(records.packing), records.d)
    blocks = -(-records.count // size)
    if blocks != records.blocks:
        raise VerificationFailed("records.blocks", f"{records.count} patients need {blocks} blocks")
    covered: set[tuple[int, int]] = set()
    for proof in prediction.proofs:
        for block in range(proof.first_block, proof.first_block + proof.blocks):
            expected = min(size, records.count - block * size)
            if proof.count != expected:
                raise VerificationFailed("prediction.coverage", f"block {block} has {expected} patients")
            answers = {(block, output) for output in proof.outputs}
            if covered & answers:
                raise VerificationFailed("prediction.coverage", f"block {block} is answered twice")
            covered |= answers
    # Counted, not compared with a set of all: an entry may claim 2^53 blocks.
    within = all(block < blocks and output < outputs for block, output in covered)
    if not within or len(covered) != blocks * outputs:
        raise VerificationFailed("prediction.coverage", "not every block is answered under every output")


def predicate(
    entry: Callable[[int], bytes],
    index: int,
    prediction: Prediction,
    records: Records,
    *,
    issued_at: str,
    request_nonce: bytes,
    approval: int | None = None,
) -> attestation.Predicate:
    """What the attestation of the prediction in entry `index` must say; `entry` gives the bytes of an entry.

    `approval` is the index of the entry by which hospitals approved the model, if there is one. The server signs this
    and the auditor compares with it, field by field.
    """

    def reference(number: int) -> attestation.LedgerReference:
        return attestation.LedgerReference.to(number, entry(number))

    def covers(proof: PredictionProof) -> attestation.Coverage:
        positions = attestation.Positions.declare(records.packing, records.d, proof.count)
        return attestation.Coverage(
            proof.first_block, proof.blocks, proof.outputs, positions, proof.results, proof.blur_bits
        )

    bound = prediction.error_bound
    return attestation.Predicate(
        prediction=reference(index),
        model=reference(prediction.model.index),
        records=reference(prediction.records.index),
        key=reference(prediction.key.index),
        scheme="ckks",
        parameter_set=records.parameter_set,
        proofs=tuple(
            attestation.ProofReference(
                attestation.PROOF_SYSTEM, proof.digest, attestation.PROOF_MEDIA_TYPE, proof.size, covers(proof)
            )
            for proof in prediction.proofs
        ),
        error_bound=attestation.ErrorBound(bound.error, bound.scale_bits, bound.grid_bits),
        issued_at=issued_at,
        request_nonce=request_nonce,
        approval=None if approval is None else reference(approval),
    )
