"""The owner's side of multi-party computation: a network is committed and certified, its weights stay in the folder.

Called by `api.client.owner.Owner`. Unlike a linear model for encrypted records, no opening is handed to the server: the
owner's own node computes with the rows (`network_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Final

from api.binding import Located
from api.client.model_folder import MODEL_FILE, existing_folder, keep_model, kept, model_folder, opening_path
from api.client.owner_results import Audited, OutputPolicy
from api.client.session import Session
from api.entries import Network as NetworkEntry
from api.exposure import network_bits
from api.joint_binding import network_entry
from api.joint_binding import network_statement as statement_of_entry
from privacy.bundle import MAX_BLOB_BYTES
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.artefact import SALT_BYTES, artefact_commitment, new_salt
from privacy.models.certificate import weights_key
from privacy.models.linear import LinearModel
from privacy.models.network import Network, network_of
from privacy.models.network_artefact import any_model_digest, load_any_model, verify_any_model_opening
from privacy.models.network_certificate import (
    NetworkOpening,
    NetworkStatement,
    RowOpening,
    certify_network,
    check_network,
    commit_network,
    encode_network_opening,
    load_network_opening,
    network_certificate_size,
    network_statement,
    open_network,
    verify_network_certificate,
)
from privacy.models.network_quantise import CommittedLayer, QuantisedNetwork, network_error_bound, quantise_network
from privacy.mpc.joint_prover import Row
from privacy.mpc.params import MpcParameters, mpc_parameters
from privacy.private_files import read_private
from privacy.zk.group import ARKWORKS, POINT_BYTES
from privacy.zk.pedersen import commit_all

__all__ = ["audit_network", "audit_network_opening", "network_policy", "network_rows", "publish_network"]

PerLayer = int | Sequence[int] | None
_STEPS: Final = 4


def publish_network(
    session: Session,
    model: LinearModel | Network,
    *,
    version: str,
    card: Mapping[str, str],
    params: str,
    grid_bits: int,
    weight_scale_bits: PerLayer,
    weight_range_bits: PerLayer,
    bias_range_bits: PerLayer,
    report: Callable[[str, int, int], None],
) -> Located[NetworkEntry]:
    """Quantise, commit, certify and log a network; a linear model is one of one layer. See `Owner.publish`."""
    folder = model_folder(session.folder, model.name, version)
    chosen = mpc_parameters(params)
    report("publish", 0, _STEPS)
    quantised = quantise_network(
        network_of(model),
        chosen.input_scale_bits,
        grid_bits=grid_bits,
        weight_scale_bits=weight_scale_bits,
        weight_range_bits=weight_range_bits,
        bias_range_bits=bias_range_bits,
    )
    _check_shape(session, quantised, chosen, version, card)
    opening = _opening(keep_model(folder, "mpc", model, version), quantised, version)
    statement = _statement(quantised, chosen, version, opening)
    try:
        open_network(statement, network_of(model), opening.layers)
    except VerificationFailed as error:
        raise _other_settings(model.name, version) from error
    artefact = artefact_commitment(any_model_digest(model), kept(folder / "salt", new_salt))
    report("publish", 1, _STEPS)
    certificate = _certificate(folder / "certificate", statement, opening)
    report("publish", 2, _STEPS)
    server = session.server
    server.put_blob(model.schema.encode_json())
    body = network_entry(statement, server.put_blob(certificate), artefact, card)
    report("publish", 3, _STEPS)
    reference = session.log_once(body, folder, "model")
    report("publish", 4, _STEPS)
    return Located(reference, body)


def network_rows(session: Session, model: Located[NetworkEntry]) -> list[list[Row]]:
    """The rows of every layer, from the owner's folder: what its node computes with. Secret.

    Raises UsageError if the network was not published from this folder, DecodeError.
    """
    body = model.body
    layers = load_network_opening(opening_path(_folder(session, body), "mpc")).layers
    if tuple(map(_commitments, layers)) != tuple(layer.commitments for layer in body.layers):
        raise UsageError(f"what this folder holds of {body.name!r} {body.version!r} is not the network of the ledger")
    return [[Row(row.weights, row.bias, row.rho) for row in rows] for rows in layers]


def audit_network(session: Session, found: Located[NetworkEntry]) -> Audited:
    """Open the commitments of a published network from what the folder keeps. See `Owner.audit`."""
    folder = _folder(session, found.body)
    return audit_network_opening(
        found,
        load_any_model(folder / MODEL_FILE),
        load_network_opening(opening_path(folder, "mpc")),
        read_private(folder / "salt", SALT_BYTES, "salt"),
    )


def audit_network_opening(
    found: Located[NetworkEntry], model: LinearModel | Network, opening: NetworkOpening, salt: bytes
) -> Audited:
    """Check that a network entry commits to `model`, from its opening and salt. Raises VerificationFailed."""
    quantised = open_network(statement_of_entry(found.body, model.schema), network_of(model), opening.layers)
    verify_any_model_opening(found.body.artefact, model, salt)
    return Audited(found, any_model_digest(model), network_error_bound(quantised))


def network_policy(model: NetworkEntry) -> list[OutputPolicy]:
    """What is public about each output: its answers are exact, and every one depends on the whole network."""
    bits, per_answer = network_bits(model), Fraction(model.answer_bits)
    b, b_bias = (max(getattr(layer, what) for layer in model.layers) for what in ("b", "b_bias"))
    answers = -(-bits // model.answer_bits)
    return [OutputPolicy(name, model.link, b, b_bias, bits, per_answer, answers) for name in model.outputs]


def _folder(session: Session, body: NetworkEntry) -> Path:
    folder = existing_folder(session.folder, body.name, body.version)
    if not opening_path(folder, "mpc").exists():
        raise UsageError(f"this folder does not hold the opening of the network {body.name!r} {body.version!r}")
    return folder


def _check_shape(
    session: Session, quantised: QuantisedNetwork, params: MpcParameters, version: str, card: Mapping[str, str]
) -> None:
    """Refuse a network that could not be logged while nothing of it is kept yet, so that other settings may follow."""
    blank = [CommittedLayer(shape, (bytes(POINT_BYTES),) * shape.outputs) for shape in quantised.shapes]
    statement = network_statement(quantised, params, version, blank)
    try:
        check_network(statement)
        session.identity.sign(network_entry(statement, bytes(32), bytes(32), card))
    except VerificationFailed as error:
        raise UsageError(f"the network {quantised.name!r} cannot be published so: {error.detail}") from error
    if network_certificate_size(statement) > MAX_BLOB_BYTES:
        raise UsageError(
            f"the certificate of {quantised.name!r} would exceed {MAX_BLOB_BYTES} bytes: use fewer neurons"
        )


def _opening(path: Path, quantised: QuantisedNetwork, version: str) -> NetworkOpening:
    """The opening in `path`, drawn and kept first if there is none."""

    def draw() -> bytes:
        _, rows = commit_network(quantised)
        opening = NetworkOpening("sealproof/network-opening/v1", quantised.name, version, rows)
        return encode_network_opening(opening)

    kept(path, draw)
    return load_network_opening(path)


def _statement(
    quantised: QuantisedNetwork, params: MpcParameters, version: str, opening: NetworkOpening
) -> NetworkStatement:
    """The statement about the rows of an opening."""
    committed = zip(quantised.layers, opening.layers, strict=True)
    layers = [CommittedLayer(layer.shape, _commitments(rows)) for layer, rows in committed]
    return network_statement(quantised, params, version, layers)


def _commitments(rows: Sequence[RowOpening]) -> tuple[bytes, ...]:
    """C_lj of the rows of one layer."""
    keys = [weights_key(len(row.weights)) for row in rows]
    points = commit_all(keys, [row.values for row in rows], [row.rho for row in rows])
    return tuple(map(ARKWORKS.encode, points))


def _certificate(path: Path, statement: NetworkStatement, opening: NetworkOpening) -> bytes:
    """The certificate in `path`, made and kept first if there is none."""
    if not path.exists():
        return kept(path, lambda: certify_network(statement, opening.layers))
    certificate = kept(path, bytes)
    try:
        # One that was made before may be for other scales or ranges, which would only show when the server refuses it.
        verify_network_certificate(statement, certificate)
    except (DecodeError, VerificationFailed) as error:
        raise _other_settings(statement.name, statement.version) from error
    return certificate


def _other_settings(name: str, version: str) -> UsageError:
    return UsageError(
        f"{name!r} {version!r} was begun with other settings: repeat it with the same ones, or use a new version"
    )
