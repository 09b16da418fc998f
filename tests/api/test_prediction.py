"""A prediction over HTTP: answers decrypt to the committed model's, and every proof in its bundle verifies."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np
import pytest

from api.binding import Located, ProofGroup, evaluation_statement
from api.consistency import ConsistencyProof
from api.entries import Key, Model, Prediction, Records, Reference, decode_digest_list, decode_entry
from ledger import TlogProof, Verifier, verify_consistency
from privacy.attestation import verify_envelope
from privacy.bundle import BundleReader
from privacy.ckks.canonical import decode_input, decode_public_key, decode_result
from privacy.ckks.evaluation_verifier import verify_evaluation
from privacy.ckks.keys import derive_p1
from privacy.ckks.params import ParameterSet
from privacy.models.quantise import reference, to_answers
from tests.api.conftest import Caller, CertifiedKey, CertifiedModel, Running, Upload, ok, refused

NONCE = secrets.token_hex(32)


@pytest.fixture(scope="module", params=[("columns", 5), ("rows", 1370)], ids=["columns", "rows in two blocks"])
def done(
    request: pytest.FixtureRequest, upload_cohort: Upload, clinic_party: Caller, model_entry: Reference
) -> tuple[int, np.ndarray]:
    """A finished prediction: the index of its entry, and the records in the clear."""
    packing, count = request.param
    cohort = upload_cohort(count, packing)
    records = clinic_party.submit(cohort.body)
    nonce = hashlib.sha256(packing.encode()).hexdigest()
    job = clinic_party.wait(ok(clinic_party.predict(records.index, model_entry.index, nonce))["job"])
    assert job["error"] is None
    assert (job["state"], job["done"]) == ("done", job["total"])
    return job["prediction"], cohort.values


@pytest.fixture(scope="module")
def bundle(done: tuple[int, np.ndarray], service: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    response = service.client.get(f"/v1/predictions/{done[0]}/bundle?inputs=true")
    assert response.headers["content-type"] == "application/octet-stream"
    path = tmp_path_factory.mktemp("bundle") / "p.sealproof"
    path.write_bytes(response.content)
    return path


def located(reader: BundleReader, to: Reference) -> Located:
    return Located(to, decode_entry(reader.entry(to.index)).body)


def test_answers_are_the_models_and_proofs_verify(
    done: tuple[int, np.ndarray],
    bundle: Path,
    params: ParameterSet,
    certified_key: CertifiedKey,
    certified_model: CertifiedModel,
) -> None:
    index, values = done
    answers: dict[int, list[float]] = {0: [], 1: []}
    with BundleReader(bundle) as reader:
        prediction = decode_entry(reader.entry(index)).body
        assert isinstance(prediction, Prediction)
        key, model, records = (located(reader, r) for r in (prediction.key, prediction.model, prediction.records))
        assert isinstance(key.body, Key) and isinstance(model.body, Model) and isinstance(records.body, Records)
        m = 3 if records.body.packing == "columns" else 1
        digests = decode_digest_list(reader.blob(records.body.ciphertexts), m * records.body.blocks)
        for proof in prediction.proofs:
            group = ProofGroup(proof.first_block, proof.blocks, proof.count)
            covered = digests[proof.first_block * m : (proof.first_block + proof.blocks) * m]
            head = (prediction.checkpoint_size, prediction.checkpoint_root)
            statement = evaluation_statement(key, model, records, group, proof.outputs, covered, proof.results, head)

            def inputs(block: int) -> np.ndarray:
                part = covered[block * m : (block + 1) * m]  # noqa: B023
                return np.stack([decode_input(params, prediction.key.leaf, reader.blob(x)) for x in part])

            results = [decode_result(params, reader.blob(x)) for x in proof.results]
            p0 = decode_public_key(params, reader.blob(key.body.p0))
            p1 = derive_p1(params, key.body.clinic, key.body.number)
            verified = verify_evaluation(statement, reader.blob(proof.digest), p0, p1, inputs, results.__getitem__)
            assert proof.blur_bits == verified.blur_bits
            for number, result in enumerate(results):
                answers[number % 2].extend(certified_key.keys.decrypt_unverified(result))
    quantised = certified_model.quantised
    expected = to_answers(reference(quantised, values), quantised)
    bound = prediction.error_bound.error / 2**prediction.error_bound.scale_bits
    noise = max(float(b.input_noise) for b in quantised.error_bounds)
    assert bound < 2**-12
    assert np.abs(np.array([answers[0], answers[1]]).T - expected).max() <= bound + noise


def test_the_bundle_is_under_one_checkpoint(done: tuple[int, np.ndarray], bundle: Path, service: Running) -> None:
    health = ok(service.client.get("/v1/health"))
    verifier = Verifier.parse(health["log_key"])
    with BundleReader(bundle) as reader:
        reader.check()
        heads = set()
        for index in reader.entry_indices():
            verified = TlogProof.parse(reader.inclusion_proof(index)).verify(
                reader.entry(index), verifier, health["origin"]
            )
            assert verified.index == index
            heads.add(verified.head.note)
        assert len(heads) == 1
        prediction = decode_entry(reader.entry(done[0])).body
        assert isinstance(prediction, Prediction)
        proof = ConsistencyProof.parse(reader.consistency_proof())
        assert (proof.old, proof.new) == (prediction.checkpoint_size, verified.head.size)
        verify_consistency(proof.old, proof.new, proof.hashes, prediction.checkpoint_root, verified.head.root)
        kinds = [decode_entry(reader.entry(i)).kind.split("/")[1] for i in reader.entry_indices()]
        assert sorted(kinds) == ["key", "model", "party", "party", "party", "prediction", "records"]


def test_the_attestation_is_signed_by_the_server_and_repeats_the_nonce(
    done: tuple[int, np.ndarray], bundle: Path, service: Running
) -> None:
    with BundleReader(bundle) as reader:
        statement = verify_envelope(reader.attestation(), service.service.party.body.public_key)
        prediction = decode_entry(reader.entry(done[0])).body
    predicate = statement.predicate
    assert isinstance(prediction, Prediction)
    assert predicate.prediction.index == done[0]
    packing = predicate.proofs[0].covers.positions.packing
    assert predicate.request_nonce == hashlib.sha256(packing.encode()).digest()
    assert [p.digest for p in predicate.proofs] == [p.digest for p in prediction.proofs]
    assert predicate.error_bound.error == prediction.error_bound.error


def test_without_inputs_the_bundle_refers_to_them(
    done: tuple[int, np.ndarray], bundle: Path, service: Running, tmp_path: Path
) -> None:
    path = tmp_path / "small.sealproof"
    path.write_bytes(service.client.get(f"/v1/predictions/{done[0]}/bundle").content)
    with BundleReader(path) as small, BundleReader(bundle) as whole:
        missing = set(whole.blob_digests()) - set(small.blob_digests())
        assert missing
        for digest in missing:
            blob = service.client.get(f"/v1/blobs/{digest.hex()}").content
            assert hashlib.sha256(blob).digest() == digest


def test_no_bundle_is_left_on_the_server(done: tuple[int, np.ndarray], bundle: Path, service: Running) -> None:
    assert list((service.settings.data / "tmp").iterdir()) == []


def test_a_repeated_request_is_the_same_prediction(
    clinic_party: Caller, upload_cohort: Upload, model_entry: Reference, service: Running
) -> None:
    records = clinic_party.submit(upload_cohort(2, seed=9).body)
    job = ok(clinic_party.predict(records.index, model_entry.index, NONCE))["job"]
    clinic_party.wait(job)
    before = service.state()
    assert ok(clinic_party.predict(records.index, model_entry.index, NONCE))["job"] == job
    refused(clinic_party.predict(records.index, model_entry.index + 1, NONCE), 409, "conflict")
    assert service.state() == before


def test_a_job_or_bundle_that_does_not_exist(service: Running) -> None:
    refused(service.client.get("/v1/jobs/" + "0" * 32), 404, "not-found")
    refused(service.client.get("/v1/predictions/0/bundle"), 404, "not-found")
