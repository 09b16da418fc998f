"""A log with its parties, and bundles made step by step from library calls, so that a test can change one step.

Nothing of the server is used here: whoever holds a server's key can write what these functions write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import binding
from api.binding import Located
from api.client.verified_cache import VerifiedCache
from api.consistency import ConsistencyProof
from api.entries import (
    ErrorBound,
    Key,
    Model,
    ModelOutput,
    Party,
    Policy,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    ZeroWeight,
    encode_digest_list,
    sign_entry,
)
from ledger import Log, Signer, Verifier
from privacy import attestation as att
from privacy.bundle import BundleReader, BundleWriter
from privacy.ckks.canonical import encode_input, encode_public_key, encode_result, input_digest
from privacy.ckks.evaluate import draw_noise, evaluate
from privacy.ckks.evaluation_prover import OutputWitness, prove_evaluation
from privacy.ckks.evaluation_verifier import virtual_inputs
from privacy.ckks.key_certificate import KeyOpenings, certify_key
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, blocks, capacity, pack
from privacy.ckks.params import parameter_set
from privacy.models.certificate import WeightOpening, certify_model, commit_model, model_statement
from privacy.models.linear import LinearModel
from privacy.models.quantise import quantise
from privacy.models.schema import Feature, Schema
from privacy.models.statements import prove_zero_weight

PARAMS = parameter_set("linear-4096")
ORIGIN = "log.example/sealproof"
NONCE = bytes(range(32))
ISSUED_AT = "2026-01-02T03:04:05Z"
SCHEMA = Schema(
    "heart",
    1,
    (Feature("age", "a", 0, 120, "integer"), Feature("bmi", "kg/m2", 10, 60), Feature("smoker", "1", 0, 1, "boolean")),
)
PATIENTS = np.array([[40, 22.5, 0], [71, 31.0, 1], [55, 27.25, 1], [18, 19.0, 0], [90, 24.5, 0]])


@dataclass(frozen=True)
class Actor:
    """A registered party and its key."""

    private_key: Ed25519PrivateKey
    reference: Reference


class World:
    """A log. Every entry is signed by its author and appended."""

    def __init__(self, folder: Path, signer: Signer | None = None) -> None:
        self.signer = signer or Signer.generate(ORIGIN)
        self.log = Log.create(folder / f"log-{id(self)}.sqlite", self.signer)
        self.cache = VerifiedCache(folder / "verified")

    @property
    def verifier(self) -> Verifier:
        return self.signer.verifier

    @property
    def head(self) -> tuple[int, bytes]:
        return self.log.size, self.log.head().root

    def register(self, role: Literal["clinic", "owner", "server", "consumer"], name: str) -> Actor:
        private_key = Ed25519PrivateKey.generate()
        data = sign_entry(Party(role, name, private_key.public_key().public_bytes_raw()), None, private_key)
        return Actor(private_key, Reference.to(self.log.append(data).index, data))

    def append(self, author: Actor, body: Any) -> Located[Any]:
        data = sign_entry(body, author.reference, author.private_key)
        return Located(Reference.to(self.log.append(data).index, data), body)

    # What an auditor may ask a server for.
    def checkpoint(self) -> bytes:
        return self.log.checkpoint()

    def entries(self, start: int, stop: int) -> list[bytes]:
        return list(self.log.entries(start, stop))

    def consistency(self, old: int, new: int) -> list[bytes]:
        return self.log.consistency_proof(old, new)

    def blob(self, digest: bytes) -> bytes:
        raise FileNotFoundError(digest.hex())


@dataclass(frozen=True)
class KeyMaterial:
    """A clinic's key, its certificate and openings, and the blobs of its entry."""

    keys: ClinicKeys
    certificate: bytes
    openings: KeyOpenings
    p0: bytes

    def body(self, **changes: Any) -> Key:
        from privacy.ckks.key_certificate import KeyCertificate
        from privacy.zk.group import ARKWORKS

        decoded = KeyCertificate.decode(PARAMS, self.certificate)
        body = Key(
            clinic=self.keys.clinic_id,
            parameter_set=PARAMS.name,
            number=self.keys.number,
            p0=self.keys.public.digest,
            C_s_plus=ARKWORKS.encode(decoded.C_plus),
            C_s_minus=ARKWORKS.encode(decoded.C_minus),
            commitments={},
            certificate=sha256(self.certificate).digest(),
        )
        return replace(body, **changes)


@cache
def key_material(clinic: str = "st-anna", number: int = 1) -> KeyMaterial:
    keys = ClinicKeys.generate(PARAMS, clinic, number)
    certificate, openings = certify_key(PARAMS, clinic, number, keys.public.p0, keys.s, keys.e_pk)
    return KeyMaterial(keys, certificate, openings, encode_public_key(PARAMS, keys.public.p0))


@dataclass(frozen=True)
class ModelMaterial:
    """A committed model: float weights, openings, certificate, and one zero-weight proof for each weight that is 0."""

    model: LinearModel
    openings: tuple[WeightOpening, ...]
    statement: Any
    certificate: bytes
    zero: tuple[tuple[int, int, bytes], ...]

    def body(self, **changes: Any) -> Model:
        statement = self.statement
        body = Model(
            name=statement.name,
            version=statement.version,
            parameter_set=PARAMS.name,
            schema=SCHEMA.digest(),
            input_scale_bits=PARAMS.SX,
            weight_scale_bits=PARAMS.SW,
            grid_bits=statement.grid_bits,
            outputs=tuple(ModelOutput(o.name, o.link, o.b, o.b_bias, o.C_W) for o in statement.outputs),
            certificate=sha256(self.certificate).digest(),
            artefact=bytes(32),
            card={},
            statements=tuple(ZeroWeight("zero-weight", o, f, sha256(p).digest()) for o, f, p in self.zero),
        )
        return replace(body, **changes)

    @property
    def blobs(self) -> list[bytes]:
        return [self.certificate, SCHEMA.encode_json(), *(proof for _, _, proof in self.zero)]


@cache
def model_material(
    weights: tuple[tuple[float, ...], ...] = ((0.02, 0.0, 0.9),), version: str = "1", link: str | None = None
) -> ModelMaterial:
    names = tuple(f"y{k}" for k in range(len(weights)))
    read: Any = link or ("logit" if len(weights) == 1 else "identity")
    model = LinearModel("heart", np.array(weights), np.full(len(weights), -0.25), names, read, SCHEMA)
    quantised = quantise(model, PARAMS)
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, PARAMS, version, commitments)
    zero = tuple(
        (o, f, prove_zero_weight(statement, o, f, openings[o]))
        for o, row in enumerate(weights)
        for f, weight in enumerate(row)
        if weight == 0
    )
    return ModelMaterial(model, openings, statement, certify_model(statement, openings), zero)


@dataclass(frozen=True)
class Submitted:
    """A records entry and what is behind it: canonical inputs (blocks, m, 2, L, N) under the key entry."""

    entry: Located[Records]
    inputs: list[np.ndarray[Any, Any]]
    key_id: bytes

    @property
    def digests(self) -> list[bytes]:
        return [input_digest(PARAMS, self.key_id, array) for block in self.inputs for array in block]

    @property
    def blobs(self) -> list[bytes]:
        inputs = [encode_input(PARAMS, self.key_id, array) for block in self.inputs for array in block]
        return [encode_digest_list(self.digests), *inputs]


def encrypt(material: KeyMaterial, packing: Packing, patients: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    encoded = SCHEMA.encode(patients)
    size = capacity(PARAMS, packing, SCHEMA.d)
    return [
        np.stack(
            [
                item.array
                for item in material.keys.encrypt_block(pack(PARAMS, packing, encoded[block.start : block.stop]))
            ]
        )
        for block in blocks(len(encoded), size)
    ]


def submit(
    world: World,
    clinic: Actor,
    key: Located[Key],
    inputs: list[np.ndarray[Any, Any]],
    count: int,
    packing: Packing = Packing.ROWS,
    **changes: Any,
) -> Submitted:
    draft = Submitted(Located(key.reference, None), inputs, key.reference.leaf)  # type: ignore[arg-type]
    body = Records(
        clinic=key.body.clinic,
        key=key.reference,
        parameter_set=PARAMS.name,
        schema=SCHEMA.digest(),
        packing=packing.value,
        d=SCHEMA.d,
        count=count,
        blocks=len(inputs),
        ciphertexts=sha256(encode_digest_list(draft.digests)).digest(),
        handles=sha256(b"handles").digest(),
        policy=Policy("any", None),
    )
    return replace(draft, entry=world.append(clinic, replace(body, **changes)))


@dataclass(frozen=True)
class Predicted:
    """A prediction that is not logged yet, and the blobs behind it."""

    body: Prediction
    blobs: list[bytes]


def predict(
    key_material: KeyMaterial,
    model_material: ModelMaterial,
    key: Located[Key],
    model: Located[Model],
    records: Submitted,
    head: tuple[int, bytes],
    most: int = 64,
) -> Predicted:
    """Evaluate and prove as an honest server does."""
    outputs = list(range(len(model.body.outputs)))
    witnesses = [OutputWitness(o.weights, o.bias, o.rho) for o in model_material.openings]
    p0, p1 = key_material.keys.public.p0, key_material.keys.public.p1
    per_block = len(records.inputs[0])
    proofs, blobs, errors = [], [], []
    for group in binding.proof_groups(records.entry.body, len(outputs), most):
        span = range(group.first_block, group.first_block + group.blocks)
        digests = records.digests[span.start * per_block : span.stop * per_block]

        def statement(results: Sequence[bytes], group: Any = group, digests: Any = digests) -> Any:
            return binding.evaluation_statement(key, model, records.entry, group, outputs, digests, results, head)

        shape = statement([bytes(32)] * (group.blocks * len(outputs)))
        evaluations = [
            evaluate(
                PARAMS,
                p0,
                p1,
                virtual_inputs(shape, records.inputs[block]),
                witnesses[o].weights,
                witnesses[o].bias,
                shape.positions,
                draw_noise(PARAMS, group.count, shape.bounds.f),
            )
            for block in span
            for o in outputs
        ]
        results = [encode_result(PARAMS, evaluation.result) for evaluation in evaluations]
        final = statement([sha256(result).digest() for result in results])
        proof = prove_evaluation(
            final,
            p0,
            p1,
            lambda b, span=span, shape=shape: virtual_inputs(shape, records.inputs[span[b]]),
            evaluations,
            witnesses,
        )
        proofs.append(
            PredictionProof(
                group.first_block,
                group.blocks,
                group.count,
                tuple(outputs),
                tuple(sha256(result).digest() for result in results),
                sha256(proof).digest(),
                len(proof),
                final.bounds.f,
            )
        )
        blobs += [*results, proof]
        errors.append(final.bounds.err)
    bound = ErrorBound(max(errors), PARAMS.D, model.body.grid_bits)
    body = Prediction(records.entry.reference, model.reference, key.reference, tuple(proofs), bound, *head)
    return Predicted(body, blobs)


def predicate(world: World, prediction: Located[Prediction], **changes: Any) -> att.Predicate:
    """What an honest server attests of a logged prediction."""
    body = prediction.body

    def reference(to: Reference) -> att.LedgerReference:
        return att.LedgerReference.to(to.index, world.log.entry(to.index))

    records_entry = binding_body(world, body.records)
    proofs = tuple(
        att.ProofReference(
            att.PROOF_SYSTEM,
            p.digest,
            att.PROOF_MEDIA_TYPE,
            p.size,
            att.Coverage(
                p.first_block,
                p.blocks,
                p.outputs,
                att.Positions.declare(records_entry.packing, records_entry.d, p.count),
                p.results,
                p.blur_bits,
            ),
        )
        for p in body.proofs
    )
    bound = body.error_bound
    made = att.Predicate(
        prediction=reference(prediction.reference),
        model=reference(body.model),
        records=reference(body.records),
        key=reference(body.key),
        scheme="ckks",
        parameter_set=PARAMS.name,
        proofs=proofs,
        error_bound=att.ErrorBound(bound.error, bound.scale_bits, bound.grid_bits),
        issued_at=ISSUED_AT,
        request_nonce=NONCE,
    )
    return replace(made, **changes)


def binding_body(world: World, reference: Reference) -> Any:
    from api.entries import decode_entry

    return decode_entry(world.log.entry(reference.index)).body


def write_bundle(
    path: Path,
    world: World,
    prediction: Located[Prediction],
    envelope: bytes,
    parties: Iterable[Actor],
    blobs: Iterable[bytes],
    consistency: bytes | None = None,
    indices: Iterable[int] | None = None,
) -> Path:
    """The bundle of a prediction under the log's present checkpoint."""
    body = prediction.body
    named = [prediction.reference, body.records, body.model, body.key, *(actor.reference for actor in parties)]
    with BundleWriter(path) as writer:
        writer.set_attestation(envelope)
        for index in {r.index for r in named} if indices is None else indices:
            writer.add_entry(index, world.log.entry(index), world.log.tlog_proof(index))
        size = body.checkpoint_size
        if consistency is None:
            hashes = tuple(world.log.consistency_proof(size)) if size <= world.log.size else ()
            consistency = ConsistencyProof(size, world.log.size, hashes).format()
        writer.set_consistency_proof(consistency)
        for blob in blobs:
            writer.add_blob(blob)
    return path


@dataclass
class Story:
    """An honest world up to a prediction that is proven and not yet logged. Tests log, attest and bundle it."""

    world: World
    server: Actor
    clinic: Actor
    owner: Actor
    key_material: KeyMaterial
    model_material: ModelMaterial
    key: Located[Key]
    model: Located[Model]
    records: Submitted
    predicted: Predicted
    extra_blobs: list[bytes] = field(default_factory=list)

    @property
    def blobs(self) -> list[bytes]:
        km, mm = self.key_material, self.model_material
        return [km.p0, km.certificate, *mm.blobs, *self.records.blobs, *self.predicted.blobs, *self.extra_blobs]

    @property
    def parties(self) -> list[Actor]:
        return [self.server, self.clinic, self.owner]

    def log(self, **changes: Any) -> Located[Prediction]:
        """Log the prediction, with these fields altered, as the holder of the server's key can."""
        return self.world.append(self.server, replace(self.predicted.body, **changes))

    def attest(self, prediction: Located[Prediction], **changes: Any) -> bytes:
        return att.sign_statement(predicate(self.world, prediction, **changes), self.server.private_key)

    def bundle(
        self,
        path: Path,
        prediction: Located[Prediction] | None = None,
        envelope: bytes | None = None,
        blobs: Iterable[bytes] | None = None,
        **kwargs: Any,
    ) -> Path:
        """The bundle; every part that is not given is the honest one."""
        prediction = prediction or self.log()
        envelope = envelope or self.attest(prediction)
        chosen = self.blobs if blobs is None else blobs
        return write_bundle(path, self.world, prediction, envelope, self.parties, chosen, **kwargs)


def tell(
    folder: Path,
    *,
    packing: Packing = Packing.ROWS,
    patients: np.ndarray[Any, Any] = PATIENTS,
    keys: KeyMaterial | None = None,
    model: ModelMaterial | None = None,
    signer: Signer | None = None,
    records_changes: dict[str, Any] | None = None,
    most: int = 64,
) -> Story:
    """An honest story: parties, key, model, records, prediction."""
    world = World(folder, signer)
    keys, model = keys or key_material(), model or model_material()
    server = world.register("server", "scores.example")
    clinic = world.register("clinic", keys.keys.clinic_id)
    owner = world.register("owner", "heart-lab")
    key = world.append(clinic, keys.body())
    logged_model = world.append(owner, model.body())
    inputs = encrypt(keys, packing, patients)
    records = submit(world, clinic, key, inputs, len(patients), packing, **(records_changes or {}))
    predicted = predict(keys, model, key, logged_model, records, world.head, most)
    return Story(world, server, clinic, owner, keys, model, key, logged_model, records, predicted)


def write_members(path: Path, found: dict[str, bytes]) -> None:
    """A bundle of exactly these members."""
    with BundleWriter(path) as writer:
        writer.set_attestation(found["attestation.json"])
        writer.set_consistency_proof(found["log/consistency"])
        for name, data in found.items():
            section, _, rest = name.partition("/")
            if section == "blobs":
                writer.add_blob(data)
            elif name.endswith(".json") and section == "entries":
                index = int(rest.removesuffix(".json"))
                writer.add_entry(index, data, found[f"entries/{index}.tlog-proof"])


def members(path: Path) -> dict[str, bytes]:
    """All members of a bundle by name."""
    with BundleReader(path) as reader:
        found = {"attestation.json": reader.attestation(), "log/consistency": reader.consistency_proof()}
        for index in reader.entry_indices():
            found[f"entries/{index}.json"] = reader.entry(index)
            found[f"entries/{index}.tlog-proof"] = reader.inclusion_proof(index)
        return found | {f"blobs/{digest.hex()}": reader.blob(digest) for digest in reader.blob_digests()}
