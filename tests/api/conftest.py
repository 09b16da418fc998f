"""A running server, parties that sign their requests by hand, and one key and one model for the whole session.

Nothing here uses the SDK: requests are made with httpx and `api.signing` alone.
"""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.entries import Body, Key, Model, ModelOutput, Party, Policy, Records, Reference, encode_digest_list, sign_entry
from api.service import Service
from api.settings import Settings
from api.signing import sign_request
from privacy.ckks.canonical import encode_public_key
from privacy.ckks.key_certificate import certify_key
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, capacity, pack
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.models.certificate import ModelStatement, certify_model, commit_model, model_statement
from privacy.models.linear import LinearModel
from privacy.models.quantise import QuantisedModel, quantise
from privacy.models.schema import Feature, Schema
from privacy.models.statements import ModelOpening, encode_opening
from privacy.zk.group import ARKWORKS

CLINIC = "clinic-a"


@dataclass(frozen=True)
class Running:
    """A server on a local port. `service` is its inside, for looking at what it keeps."""

    url: str
    client: httpx.Client
    service: Service
    settings: Settings

    def state(self) -> tuple[int, frozenset[str], int]:
        """Log size, stored files, number of jobs: what a refusal must leave as it was."""
        data = self.settings.data
        kept = [data / "blobs", data / "models", data / "admitted", data / "tmp"]
        files = frozenset(str(path) for folder in kept for path in folder.rglob("*") if path.is_file())
        return self.service.log.size, files, self.service.jobs.count()


@contextmanager
def run_server(settings: Settings) -> Iterator[Running]:
    """A real HTTP server in a thread, stopped at the end."""
    import uvicorn

    from api.app import create_app

    app = create_app(settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="on", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            time.sleep(0.01)
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Running(url, client, app.state.service, settings)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


@dataclass(frozen=True)
class Caller:
    """A registered party that signs its requests."""

    name: str
    private_key: Ed25519PrivateKey
    client: httpx.Client
    reference: Reference

    def send(self, method: str, target: str, body: bytes = b"", **headers: str) -> httpx.Response:
        """A signed request; `headers` replace what was signed."""
        signed = sign_request(method, target, body, self.reference.index, self.private_key)
        return self.client.request(method, target, content=body, headers={**signed, **headers})

    def upload(self, data: bytes) -> bytes:
        digest = hashlib.sha256(data).digest()
        ok(self.send("PUT", f"/v1/blobs/{digest.hex()}", data))
        return digest

    def sign(self, body: Body) -> bytes:
        return sign_entry(body, self.reference, self.private_key)

    def submit(self, body: Body) -> Reference:
        return location(self.send("POST", "/v1/entries", self.sign(body)))

    def predict(self, records: int, model: int, nonce: str) -> httpx.Response:
        request = {"records": records, "model": model, "nonce": nonce}
        return self.send("POST", "/v1/predictions", json.dumps(request).encode())

    def wait(self, job: str) -> dict[str, Any]:
        """The finished job."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            state: dict[str, Any] = ok(self.client.get(f"/v1/jobs/{job}"))
            if state["state"] in ("done", "failed"):
                return state
            time.sleep(0.02)
        raise TimeoutError(f"job {job} does not end")


def ok(response: httpx.Response) -> Any:
    """The JSON of a response that must be a success."""
    assert response.is_success, response.text
    return response.json()


def refused(response: httpx.Response, status: int, type: str, check: str | None = None) -> dict[str, Any]:
    """The error of a response that must be this refusal."""
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error"}
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"type", "check", "message", "hint", "details"}
    assert (error["type"], error["check"]) == (type, check), error
    return error


def location(response: httpx.Response) -> Reference:
    found = ok(response)
    return Reference(found["index"], bytes.fromhex(found["leaf"]))


def register(client: httpx.Client, role: str, name: str, key: Ed25519PrivateKey | None = None) -> Caller:
    """A new party, or one that is known by this key."""
    private_key = key or Ed25519PrivateKey.generate()
    party = Party(role, name, private_key.public_key().public_bytes_raw())  # type: ignore[arg-type]
    reference = location(client.post("/v1/parties", content=sign_entry(party, None, private_key)))
    return Caller(name, private_key, client, reference)


# -- made once a session ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def params() -> ParameterSet:
    return parameter_set("linear-4096")


@dataclass(frozen=True, eq=False)
class CertifiedKey:
    """A clinic's CKKS key with what its entry needs. `keys` is secret."""

    keys: ClinicKeys
    p0: bytes
    certificate: bytes
    body: Key


@pytest.fixture(scope="session")
def certified_key(params: ParameterSet) -> CertifiedKey:
    keys = ClinicKeys.generate(params, CLINIC, 1)
    certificate, _ = certify_key(params, CLINIC, 1, keys.public.p0, keys.s, keys.e_pk)
    p0 = encode_public_key(params, keys.public.p0)
    points = commitments_of_key(params, keys, certificate)
    sha = hashlib.sha256
    body = Key(CLINIC, params.name, 1, sha(p0).digest(), *points, {}, sha(certificate).digest())
    return CertifiedKey(keys, p0, certificate, body)


def commitments_of_key(params: ParameterSet, keys: ClinicKeys, certificate: bytes) -> tuple[bytes, bytes]:
    from privacy.ckks.key_certificate import verify_key_certificate

    verified = verify_key_certificate(params, keys.clinic_id, keys.number, keys.public.p0, certificate)
    return ARKWORKS.encode(verified.C_plus), ARKWORKS.encode(verified.C_minus)


@dataclass(frozen=True, eq=False)
class CertifiedModel:
    """A model with two outputs on three features, and what its entry needs. `opening` is secret."""

    schema: Schema
    quantised: QuantisedModel
    statement: ModelStatement
    certificate: bytes
    opening: bytes
    body: Model


@pytest.fixture(scope="session")
def certified_model(params: ParameterSet) -> CertifiedModel:
    schema = Schema(
        "ward",
        1,
        (Feature("age", "a", 18, 100, "integer"), Feature("glucose", "mg/dL", 20, 600), Feature("smoker", "1", 0, 1)),
    )
    weights = [[0.01, -0.02, 0.5], [-0.03, 0.004, 0.25]]
    model = LinearModel("risk", weights, [0.1, -0.2], ("stroke", "sepsis"), "identity", schema)  # type: ignore[arg-type]
    return certify(model, params, "1.0")


def certify(model: LinearModel, params: ParameterSet, version: str) -> CertifiedModel:
    quantised = quantise(model, params)
    commitments, openings = commit_model(quantised)
    statement = model_statement(quantised, params, version, commitments)
    certificate = certify_model(statement, openings)
    body = Model(
        name=model.name,
        version=version,
        parameter_set=params.name,
        schema=model.schema.digest(),
        input_scale_bits=params.SX,
        weight_scale_bits=params.SW,
        grid_bits=quantised.grid_bits,
        outputs=tuple(ModelOutput(o.name, o.link, o.b, o.b_bias, o.C_W) for o in statement.outputs),
        certificate=hashlib.sha256(certificate).digest(),
        artefact=bytes(32),
        card={"purpose": "tests"},
        statements=(),
    )
    opening = encode_opening(ModelOpening.of(statement, openings))
    return CertifiedModel(model.schema, quantised, statement, certificate, opening, body)


# -- made once a module -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data=tmp_path_factory.mktemp("server") / "data", min_free_bytes=0)


@pytest.fixture(scope="module")
def service(settings: Settings) -> Iterator[Running]:
    """A server with an empty ledger (its own party entry apart)."""
    with run_server(settings) as running:
        yield running


@pytest.fixture(scope="module")
def clinic_party(service: Running) -> Caller:
    return register(service.client, "clinic", CLINIC)


@pytest.fixture(scope="module")
def owner_party(service: Running) -> Caller:
    return register(service.client, "owner", "oncology-lab")


@pytest.fixture(scope="module")
def key_entry(clinic_party: Caller, certified_key: CertifiedKey) -> Reference:
    clinic_party.upload(certified_key.p0)
    clinic_party.upload(certified_key.certificate)
    return clinic_party.submit(certified_key.body)


@pytest.fixture(scope="module")
def model_entry(owner_party: Caller, certified_model: CertifiedModel) -> Reference:
    """A model that is published and ready."""
    reference = publish(owner_party, certified_model)
    ok(owner_party.send("PUT", f"/v1/models/{reference.index}/opening", certified_model.opening))
    return reference


def publish(owner: Caller, model: CertifiedModel) -> Reference:
    owner.upload(model.schema.encode_json())
    owner.upload(model.certificate)
    return owner.submit(model.body)


def patients(count: int, seed: int = 1) -> np.ndarray:
    """Made-up records within the ranges of the session's schema."""
    rng = np.random.default_rng(seed)
    columns = [rng.integers(18, 100, count).astype(float), rng.uniform(20, 600, count), rng.uniform(0, 1, count)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Cohort:
    """Encrypted records, uploaded but not logged: `body` is the entry to submit."""

    values: np.ndarray
    body: Records


Upload = Callable[..., Cohort]


@pytest.fixture(scope="module")
def upload_cohort(
    params: ParameterSet,
    clinic_party: Caller,
    key_entry: Reference,
    certified_key: CertifiedKey,
    certified_model: CertifiedModel,
) -> Upload:
    """upload_cohort(count, packing="columns", policy=Policy("any", None)): encrypt and upload made-up patients."""

    def upload(count: int, packing: str = "columns", policy: Policy | None = None, seed: int = 1) -> Cohort:
        schema = certified_model.schema
        values = patients(count, seed)
        size = capacity(params, Packing(packing), schema.d)
        digests: list[bytes] = []
        blocks = range(0, count, size)
        for start in blocks:
            coefficients = pack(params, Packing(packing), schema.encode(values[start : start + size]))
            files = [item.seal_bytes for item in certified_key.keys.encrypt_block(coefficients)]
            found = ok(clinic_party.send("POST", f"/v1/ciphertexts?key={key_entry.index}", frames(files)))
            digests += [bytes.fromhex(digest) for digest in found["digests"]]
        body = Records(
            clinic=CLINIC,
            key=key_entry,
            parameter_set=params.name,
            schema=schema.digest(),
            packing=packing,  # type: ignore[arg-type]
            d=schema.d,
            count=count,
            blocks=len(blocks),
            ciphertexts=clinic_party.upload(encode_digest_list(digests)),
            handles=bytes(32),
            policy=policy or Policy("any", None),
        )
        return Cohort(values, body)

    return upload


def frames(files: list[bytes]) -> bytes:
    """The body of a ciphertext upload."""
    return b"".join(len(data).to_bytes(4, "little") + data for data in files)


@pytest.fixture(scope="module")
def joint(service: Running, clinic_party: Caller, owner_party: Caller) -> Any:
    """A network and committed records on the server, with the secrets behind them (`tests.support.joint_server`)."""
    from tests.support.joint_server import publish_joint

    return publish_joint(clinic_party, owner_party)


def with_data(settings: Settings, data: Path, **changes: Any) -> Settings:
    """The same settings for another folder."""
    return settings.model_copy(update={"data": data, **changes})
