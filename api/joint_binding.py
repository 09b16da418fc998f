"""From ledger entries to the statements of multi-party proofs: one function for parties, server and auditor.

The counterpart of `api.binding` (docs/spec/protocol.md, sections 7 and 9). Both nodes, the server and the auditor build
each statement here from ledger entries, so they cannot disagree about what was proved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from api.binding import Located
from api.entries import CommittedRecords, JointPrediction, Network, NetworkLayer, Party, Reference
from privacy import attestation
from privacy.bundle import MAX_BLOB_BYTES
from privacy.errors import UsageError, VerificationFailed
from privacy.models.network_certificate import NetworkStatement, VerifiedNetwork, verify_network_certificate
from privacy.models.network_quantise import QUANTISATION_RULE, CommittedLayer, LayerShape, verify_bounds
from privacy.models.schema import Schema
from privacy.mpc.circuit import Circuit
from privacy.mpc.joint_proof import JointStatement, proof_size
from privacy.mpc.params import PATIENTS_PER_PROOF, MpcParameters, mpc_parameters
from privacy.mpc.records import RecordsStatement, verify_records
from privacy.zk.group import ARKWORKS, Group

__all__ = [
    "batch_of",
    "check_batches",
    "check_joint_coverage",
    "check_joint_fit",
    "check_joint_order",
    "joint_predicate",
    "joint_statement",
    "mpc_parameters_of",
    "network_entry",
    "network_statement",
    "records_statement",
    "verify_network_entry",
    "verify_records_batch",
]


def mpc_parameters_of(name: str) -> MpcParameters:
    """The parameter set that an entry names. Raises VerificationFailed(`entry.parameter-set`) for an unknown one."""
    try:
        return mpc_parameters(name)
    except UsageError as error:
        raise VerificationFailed("entry.parameter-set", str(error)) from error


# -- networks ---------------------------------------------------------------------------------------------------------


def network_statement(model: Network, schema: Schema) -> NetworkStatement:
    """What the network's certificate proves, from its entry and its schema.

    Raises:
        VerificationFailed: `network.schema`, `network.scales`, `network.overflow`, `network.size`,
            `network.answer-bits`, or `network.entry` for numbers that no network has.
    """
    params = mpc_parameters_of(model.parameter_set)
    if schema.digest() != model.schema:
        raise VerificationFailed("network.schema", "the schema is not the one of the network entry")
    if model.input_scale_bits != params.input_scale_bits:
        raise VerificationFailed("network.scales", "the scale of the inputs is not that of the parameter set")
    try:
        statement = NetworkStatement(
            name=model.name,
            version=model.version,
            schema=schema,
            parameters=params,
            quantisation_rule=QUANTISATION_RULE,
            grid_bits=model.grid_bits,
            link=model.link,
            output_names=model.outputs,
            layers=tuple(_committed(layer) for layer in model.layers),
        )
    except UsageError as error:
        raise VerificationFailed("network.entry", str(error)) from error
    bits = _answer_bits(statement)
    if model.answer_bits != bits:
        raise VerificationFailed("network.answer-bits", f"says {model.answer_bits} bits an answer, it must be {bits}")
    return statement


def network_entry(statement: NetworkStatement, certificate: bytes, artefact: bytes, card: Mapping[str, str]) -> Network:
    """The entry of a network with this statement: the inverse of `network_statement`.

    `certificate` is the digest of its certificate, `artefact` the blinded digest of the float artefact. Raises
    VerificationFailed(`network.overflow`, `network.size`).
    """
    return Network(
        name=statement.name,
        version=statement.version,
        parameter_set=statement.parameters.name,
        schema=statement.schema.digest(),
        input_scale_bits=statement.parameters.input_scale_bits,
        grid_bits=statement.grid_bits,
        answer_bits=_answer_bits(statement),
        link=statement.link,
        outputs=statement.output_names,
        layers=tuple(
            NetworkLayer(s.inputs, s.outputs, s.weight_scale_bits, s.b, s.b_bias, layer.commitments)
            for s, layer in zip(statement.shapes, statement.layers, strict=True)
        ),
        certificate=certificate,
        artefact=artefact,
        card=dict(card),
    )


def _answer_bits(statement: NetworkStatement) -> int:
    """bit_length(2 z_max). Layers that do not fit together or could overflow have no bound: they are refused first.

    So are networks whose proofs would not fit into bundles.
    """
    verify_bounds(statement.schema, statement.shapes, statement.parameters.input_scale_bits)
    circuit = Circuit.of(statement.schema, statement.shapes, statement.parameters.input_scale_bits)
    size = proof_size(circuit, PATIENTS_PER_PROOF)
    if size > MAX_BLOB_BYTES:
        raise VerificationFailed(
            "network.size",
            f"a proof about {PATIENTS_PER_PROOF} patients would have {size} bytes, at most {MAX_BLOB_BYTES} fit: use "
            "fewer neurons or, if a hidden layer needs 64 bits, smaller scales",
        )
    return (2 * statement.bounds[-1]).bit_length()


def _committed(layer: NetworkLayer) -> CommittedLayer:
    shape = LayerShape(layer.inputs, layer.outputs, layer.weight_scale_bits, layer.b, layer.b_bias)
    return CommittedLayer(shape, layer.commitments)


def verify_network_entry(model: Network, schema: bytes, certificate: bytes, group: Group = ARKWORKS) -> VerifiedNetwork:
    """Verify a network's certificate (with the overflow check) against its entry; blobs were fetched by digest.

    Raises DecodeError and VerificationFailed with the check.
    """
    return verify_network_certificate(network_statement(model, Schema.decode_json(schema)), certificate, group)


# -- records ----------------------------------------------------------------------------------------------------------


def batch_of(records: CommittedRecords, number: int) -> range:
    """The patients of batch `number` of the records: consecutive, full but for the last."""
    first = number * PATIENTS_PER_PROOF
    return range(first, min(first + PATIENTS_PER_PROOF, records.count))


def check_batches(records: CommittedRecords) -> None:
    """There is one certificate for each batch of patients. Raises VerificationFailed(`records.batches`)."""
    needed = -(-records.count // PATIENTS_PER_PROOF)
    if len(records.certificates) != needed:
        raise VerificationFailed(
            "records.batches", f"{records.count} patients need {needed} certificates, not {len(records.certificates)}"
        )


def records_statement(
    records: CommittedRecords, schema: Schema, batch: range, commitments: Sequence[bytes]
) -> RecordsStatement:
    """What the certificate of one batch proves; `commitments` are the C_x of its patients.

    Raises:
        VerificationFailed: `records.schema`, `records.features`, or `records.batches` for what is no batch of these.
    """
    if schema.digest() != records.schema:
        raise VerificationFailed("records.schema", "the schema is not the one of the records entry")
    if schema.d != records.d:
        raise VerificationFailed("records.features", f"{records.d} features, the schema has {schema.d}")
    try:
        return RecordsStatement(
            parameters=mpc_parameters_of(records.parameter_set),
            clinic=records.clinic,
            schema=schema,
            handles=records.handles,
            total=records.count,
            first=batch.start,
            commitments=tuple(commitments),
        )
    except UsageError as error:
        raise VerificationFailed("records.batches", str(error)) from error


def verify_records_batch(
    records: CommittedRecords,
    schema: Schema,
    batch: range,
    commitments: Sequence[bytes],
    certificate: bytes,
    group: Group = ARKWORKS,
) -> None:
    """Verify the certificate of one batch against the records entry; blobs were fetched by digest.

    Raises DecodeError and VerificationFailed with the check.
    """
    verify_records(records_statement(records, schema, batch, commitments), certificate, group)


# -- joint predictions ------------------------------------------------------------------------------------------------


def check_joint_order(model: Reference, records: Reference, prediction: Reference) -> None:
    """Ledger order {model, records} < prediction.

    Either of model and records may be the older one: commitments bind, whenever they were made. Raises
    VerificationFailed(`ledger.order`).
    """
    if not max(model.index, records.index) < prediction.index:
        raise VerificationFailed("ledger.order", f"prediction {prediction.index} is older than what it is about")


def check_joint_fit(model: Network, records: CommittedRecords) -> None:
    """A network and records are of one schema and one parameter set.

    Raises VerificationFailed: `records.schema`, `entry.parameter-set`, `records.features`.
    """
    if records.schema != model.schema:
        raise VerificationFailed("records.schema", "records and model have different schemas")
    if records.parameter_set != model.parameter_set:
        raise VerificationFailed("entry.parameter-set", "records and model name different parameter sets")
    if records.d != model.layers[0].inputs:
        raise VerificationFailed(
            "records.features", f"records of {records.d} features, the first layer takes {model.layers[0].inputs}"
        )


def check_joint_coverage(prediction: JointPrediction, records: CommittedRecords, model: Network) -> None:
    """The proofs cover patients 0 .. count - 1 in the batches of the records, each once; scales are the network's.

    Raises:
        VerificationFailed: `records.batches`, `prediction.coverage`, `prediction.scales`.
    """
    check_batches(records)
    if len(prediction.proofs) != len(records.certificates):
        raise VerificationFailed(
            "prediction.coverage", f"{len(prediction.proofs)} proofs for {len(records.certificates)} batches"
        )
    for number, proof in enumerate(prediction.proofs):
        batch = batch_of(records, number)
        if (proof.first, proof.count) != (batch.start, len(batch)):
            raise VerificationFailed(
                "prediction.coverage", f"proof {number} must cover patients {batch.start} to {batch.stop - 1}"
            )
    if (prediction.answer_scale_bits, prediction.grid_bits) != (model.answer_scale_bits, model.grid_bits):
        raise VerificationFailed("prediction.scales", "scale and grid of the answers are not those of the network")


def joint_statement(
    model: Located[Network],
    records: Located[CommittedRecords],
    owner: Located[Party],
    clinic: Located[Party],
    schema: Schema,
    session: bytes,
    batch: range,
    commitments: Sequence[bytes],
    head: tuple[int, bytes],
) -> JointStatement:
    """The statement of the joint proof about one batch; `commitments` are the C_x of its patients.

    `owner` and `clinic` are the authors of model and records, `head` is the ledger head that the prediction names.

    Raises:
        VerificationFailed: the entries do not belong together, with the check.
    """
    m, r = model.body, records.body
    check_joint_fit(m, r)
    check_batches(r)
    if r.clinic != clinic.body.name:
        raise VerificationFailed("records.clinic", f"records of {r.clinic!r} logged by {clinic.body.name!r}")
    network = network_statement(m, schema)
    number = batch.start // PATIENTS_PER_PROOF
    known = 0 <= number < len(r.certificates) and batch == batch_of(r, number)
    if not known or len(commitments) != len(batch):
        raise VerificationFailed("prediction.coverage", f"{len(commitments)} commitments for {batch} of the records")
    try:
        return JointStatement(
            parameters=mpc_parameters_of(m.parameter_set),
            session=session,
            clinic=clinic.body.name,
            clinic_id=clinic.reference.leaf,
            owner=owner.body.name,
            owner_id=owner.reference.leaf,
            model_id=model.reference.leaf,
            model_certificate=m.certificate,
            schema=schema,
            link=network.link,
            output_names=network.output_names,
            grid_bits=network.grid_bits,
            layers=network.layers,
            records_id=records.reference.leaf,
            records_certificate=r.certificates[number],
            handles=r.handles,
            first=batch.start,
            commitments=tuple(commitments),
            head_size=head[0],
            head_root=head[1],
        )
    except UsageError as error:
        raise VerificationFailed("prediction.shape", str(error)) from error


def joint_predicate(
    entry: Callable[[int], bytes],
    index: int,
    prediction: JointPrediction,
    model: Network,
    *,
    issued_at: str,
    request_nonce: bytes,
    approval: int | None = None,
) -> attestation.JointPredicate:
    """What the attestation of the joint prediction in entry `index` must say; `entry` gives the bytes of an entry.

    `approval` is the index of the entry by which hospitals approved the model, if there is one. The server signs this
    and the auditor compares with it, field by field.
    """

    def reference(number: int) -> attestation.LedgerReference:
        return attestation.LedgerReference.to(number, entry(number))

    outputs = tuple(range(len(model.outputs)))
    return attestation.JointPredicate(
        prediction=reference(index),
        model=reference(prediction.model.index),
        records=reference(prediction.records.index),
        scheme="mpc",
        parameter_set=model.parameter_set,
        session=prediction.session,
        proofs=tuple(
            attestation.JointProofReference(
                attestation.JOINT_PROOF_SYSTEM,
                proof.digest,
                attestation.JOINT_PROOF_MEDIA_TYPE,
                proof.size,
                attestation.JointCoverage(proof.first, proof.count, outputs, proof.answers),
            )
            for proof in prediction.proofs
        ),
        error_bound=attestation.ErrorBound(0, prediction.answer_scale_bits, prediction.grid_bits),
        issued_at=issued_at,
        request_nonce=request_nonce,
        approval=None if approval is None else reference(approval),
    )
