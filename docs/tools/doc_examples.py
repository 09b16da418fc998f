"""Examples of every format, made by the product's own code from fixed seeds. None of these keys may be used."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import doc_consent
import doc_ledger
import numpy as np
from doc_joint import add_joint_entries, joint_payload, network
from doc_seeds import ORIGIN, PLACEHOLDER, WHEN, fenced, hex_lines, point, seed, signing_key

from api import entries
from api.consistency import ConsistencyProof
from api.signing import request_bytes
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash
from ledger.note import Signer
from ledger.proof import TlogProof
from privacy import attestation
from privacy.bundle import BundleWriter
from privacy.ckks import canonical
from privacy.ckks.packing import Packing, positions
from privacy.ckks.params import parameter_set
from privacy.dsse import decode_envelope
from privacy.models.artefact import encode_model
from privacy.models.linear import LinearModel
from privacy.models.network_artefact import encode_network
from privacy.models.schema import Feature, Schema

__all__ = ["PARTS", "Example", "example"]

PARAMS = parameter_set("linear-4096")


def schema() -> Schema:
    """A schema with one feature of each type."""
    return Schema(
        "ward",
        1,
        (
            Feature("age", "a", 0.0, 120.0),
            Feature("visits", "1", 0.0, 50.0, "integer"),
            Feature("smoker", "1", 0.0, 1.0, "boolean", "identity"),
        ),
    )


def model() -> LinearModel:
    """A float model on that schema."""
    return LinearModel("risk", np.array([[0.02, 0.125, 0.75]]), np.array([-1.5]), ("y",), "logit", schema())


@dataclass(frozen=True)
class Example:
    """A small ledger with one entry of each kind, and what stands beside it."""

    names: tuple[str, ...]
    entries: tuple[bytes, ...]
    checkpoint: bytes
    verifier_key: str
    tlog_proof: bytes
    consistency: bytes
    payload: bytes
    envelope: bytes
    joint_payload: bytes
    consent: doc_consent.ConsentExample


@cache
def example() -> Example:
    """The documentation's ledger."""
    log: list[bytes] = []
    names: list[str] = []

    def add(name: str, body: entries.Body, author: int | None, key: str) -> entries.Reference:
        reference = None if author is None else entries.Reference.to(author, log[author])
        log.append(entries.sign_entry(body, reference, signing_key(key)))
        names.append(name)
        return entries.Reference.to(len(log) - 1, log[-1])

    def register(role: str, name: str) -> None:
        public = signing_key(name).public_key().public_bytes_raw()
        letters = doc_consent.mailbox(name).public_key().public_bytes_raw() if role == "clinic" else None
        add("party", entries.Party(role, name, public, letters), None, name)  # type: ignore[arg-type]

    register("server", "example server")
    register("clinic", "example-clinic")
    register("owner", "example owner")
    server, clinic, owner = range(3)
    key = add(
        "key",
        entries.Key(
            clinic="example-clinic",
            parameter_set=PARAMS.name,
            number=0,
            p0=seed("p0"),
            C_s_plus=point("s plus"),
            C_s_minus=point("s minus"),
            commitments={},
            certificate=seed("key certificate"),
        ),
        clinic,
        "example-clinic",
    )
    published = add(
        "model",
        entries.Model(
            name="risk",
            version="1",
            parameter_set=PARAMS.name,
            schema=schema().digest(),
            input_scale_bits=PARAMS.SX,
            weight_scale_bits=PARAMS.SW,
            grid_bits=6,
            outputs=(entries.ModelOutput("y", "logit", 28, 62, point("C_W")),),
            certificate=seed("model certificate"),
            artefact=seed("artefact"),
            card={"purpose": "An example."},
            statements=(
                entries.ZeroWeight("zero-weight", 0, 2, seed("zero-weight proof")),
                entries.Sign("sign", 0, 0, "non-negative", seed("proof of a sign")),
                entries.Bounded("bounded", 0, 1, 1 << 22, seed("proof of a bound")),
            ),
        ),
        owner,
        "example owner",
    )
    cohort = add(
        "records",
        entries.Records(
            clinic="example-clinic",
            key=key,
            parameter_set=PARAMS.name,
            schema=schema().digest(),
            packing="columns",
            d=3,
            count=2,
            blocks=1,
            ciphertexts=seed("list of input digests"),
            handles=seed("handles"),
            policy=entries.Policy((published,), "2027-01-31T00:00:00Z"),
        ),
        clinic,
        "example-clinic",
    )
    result = seed("result ciphertext")
    proof = PLACEHOLDER
    head = Frontier().extend(map(leaf_hash, log))[0]
    prediction = add(
        "prediction",
        entries.Prediction(
            records=cohort,
            model=published,
            key=key,
            proofs=(
                entries.PredictionProof(
                    0, 1, 2, (0,), (result,), hashlib.sha256(proof).digest(), len(proof), blur_bits=25
                ),
            ),
            error_bound=entries.ErrorBound(1 << 45, PARAMS.D, 6),
            checkpoint_size=head.size,
            checkpoint_root=head.root(),
        ),
        server,
        "example server",
    )
    add("revocation", entries.Revocation(key, "The clinic's machine was stolen."), clinic, "example-clinic")

    def present() -> tuple[int, bytes]:
        tree = Frontier().extend(map(leaf_hash, log))[0]
        return tree.size, tree.root()

    consent = add_joint_entries(log, add, schema(), present, {"server": server, "clinic": clinic, "owner": owner})
    joint = names.index("joint-prediction")
    add("approval", doc_ledger.approval(published), owner, "example owner")

    frontier, nodes = Frontier().extend(map(leaf_hash, log))
    signer = Signer(ORIGIN, seed("log"))
    checkpoint = sign_checkpoint(Checkpoint(ORIGIN, frontier.size, frontier.root()), signer)
    stored = {(node.level, node.number): node.hash for node in nodes}
    node = lambda level, number: stored[level, number]  # noqa: E731
    hashes = inclusion_proof(prediction.index, frontier.size, node)
    growth = ConsistencyProof(head.size, frontier.size, tuple(consistency_proof(head.size, frontier.size, node)))
    predicate = attestation.Predicate(
        prediction=attestation.LedgerReference.to(prediction.index, log[prediction.index]),
        model=attestation.LedgerReference.to(published.index, log[published.index]),
        records=attestation.LedgerReference.to(cohort.index, log[cohort.index]),
        key=attestation.LedgerReference.to(key.index, log[key.index]),
        scheme="ckks",
        parameter_set=PARAMS.name,
        proofs=(
            attestation.ProofReference.to(
                proof,
                attestation.Coverage(0, 1, (0,), attestation.Positions.declare("columns", 3, 2), (result,), 25),
            ),
        ),
        error_bound=attestation.ErrorBound(1 << 45, PARAMS.D, 6),
        issued_at=WHEN,
        request_nonce=seed("request nonce"),
    )
    return Example(
        names=tuple(names),
        entries=tuple(log),
        checkpoint=checkpoint,
        verifier_key=str(signer.verifier),
        tlog_proof=TlogProof(prediction.index, tuple(hashes), checkpoint).format(),
        consistency=growth.format(),
        payload=attestation.encode_statement(predicate),
        envelope=attestation.sign_statement(predicate, signing_key("example server")),
        joint_payload=joint_payload(log, joint),
        consent=consent,
    )


def ledger_entries() -> str:
    """One entry of each kind, exact bytes; of parties one without and one with a mailbox."""
    shown: dict[tuple[str, bool], str] = {}
    for index, (name, data) in enumerate(zip(example().names, example().entries, strict=True)):
        form = name, name == "party" and b'"mailbox"' in data
        if form not in shown:
            title = f"`sealproof/{name}/v1`, entry {index}, {len(data)} bytes, leaf hash `{leaf_hash(data).hex()}`:"
            shown[form] = f"{title}\n\n{fenced('json', data)}"
    return "\n\n".join(shown.values())


def checkpoint() -> str:
    """The checkpoint over those entries, and the key that signed it."""
    return f"Verifier key `{example().verifier_key}`.\n\n{fenced('text', example().checkpoint)}"


def tlog_proof() -> str:
    """The proof file of the prediction entry."""
    return fenced("text", example().tlog_proof)


def consistency() -> str:
    """From the head that the prediction names to the checkpoint."""
    return fenced("text", example().consistency)


def statement() -> str:
    """The statement about that prediction: the payload of its envelope."""
    return fenced("json", example().payload)


def joint_statement() -> str:
    """The statement about the joint prediction."""
    return fenced("json", example().joint_payload)


def disclosure_statement() -> str:
    """What the examples' clinic signs when it discloses an answer of it."""
    return fenced("json", decode_envelope(example().consent.envelope).payload_bytes())


def consent_documents() -> str:
    """What the examples' consumer asks, and what the clinic consents to."""
    return doc_consent.documents(example().consent)


def sealed_boxes() -> str:
    """How both travel."""
    return doc_consent.box_example(example().consent)


def schema_json() -> str:
    """The example's schema."""
    return f"{fenced('json', schema().encode_json())}\n\nDigest: `{schema().digest().hex()}`."


def model_json() -> str:
    """The example's float model."""
    return fenced("json", encode_model(model()))


def network_json() -> str:
    """The example's float network."""
    return fenced("json", encode_network(network(schema())))


def canonical_headers() -> str:
    """Headers of the three canonical binary objects."""
    key_id = leaf_hash(example().entries[example().names.index("key")])
    empty = np.zeros((2, PARAMS.L, PARAMS.N), dtype=np.uint64)
    P = positions(PARAMS, Packing.ROWS, 3, 2)
    result = canonical.ResultCiphertext(P, empty[0][:, P], empty[0])
    words = 8 * PARAMS.L * PARAMS.N
    shown = (
        ("input under the key entry of the examples below", canonical.encode_input(PARAMS, key_id, empty), 2 * words),
        (
            f"result, rows, d = 3, two patients: P = {P.tolist()}",
            canonical.encode_result(PARAMS, result),
            words + 8 * PARAMS.L * P.size,
        ),
        ("public key p0", canonical.encode_public_key(PARAMS, empty[0]), words),
    )
    out = []
    for name, data, body in shown:
        header = data[: len(data) - body]
        out.append(f"{name}: header of {len(header)} bytes, then {body:,} bytes of words.\n\n{hex_lines(header)}")
    return "\n\n".join(out)


def signed_request() -> str:
    """A request of the example's clinic: the bytes under the signature, and the signature."""
    body, time, nonce = b'{"model":4,"nonce":"00","records":5}', WHEN, seed("nonce")[:16].hex()
    message = request_bytes("POST", "/v1/predictions", time, nonce, hashlib.sha256(body).digest())
    signature = base64.b64encode(signing_key("example-clinic").sign(message)).decode()
    return f"{fenced('text', message)}\n\nSigned by party 1: `{signature}`."


def bundle_members() -> str:
    """What `unzip -l` shows of a bundle."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "example.sealproof"
        with BundleWriter(path) as writer:
            writer.set_attestation(example().envelope)
            index = example().names.index("prediction")
            writer.add_entry(index, example().entries[index], example().tlog_proof)
            writer.add_blob(PLACEHOLDER)
            writer.set_consistency_proof(example().consistency)
        with zipfile.ZipFile(path) as archive:
            lines = "\n".join(f"{info.file_size:>6}  {info.filename}" for info in archive.infolist())
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"```text\n{lines}\n```\n\nSHA-256 of this file, wherever and whenever it is made: `{digest}`."


PARTS: Mapping[str, Callable[[], str]] = {
    "ledger-entries": ledger_entries,
    "checkpoint": checkpoint,
    "tlog-proof": tlog_proof,
    "consistency": consistency,
    "statement": statement,
    "joint-statement": joint_statement,
    "disclosure-statement": disclosure_statement,
    "consent-documents": consent_documents,
    "sealed-boxes": sealed_boxes,
    "schema": schema_json,
    "model": model_json,
    "network-model": network_json,
    "canonical-headers": canonical_headers,
    "bundle": bundle_members,
    "signed-request": signed_request,
}
