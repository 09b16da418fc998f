"""Owner and clinic against the real service: from CSV to verified scores, and again after crashes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api.client.clinic import Clinic, JobFailed, SubmittedRecords
from api.client.owner import Owner
from api.client.transport import Server, ServerRefused
from api.entries import Policy, Records, decode_entry
from privacy.ckks.packing import Packing, capacity
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.linear import LinearModel
from tests.support.bundles import PARAMS, PATIENTS, SCHEMA
from tests.support.service import RunningServer, listening

MODEL = LinearModel("heart", np.array([[0.02, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)
IDS = ("p-40", "p-71", "p-55", "p-18", "p-90")


def write_csv(path: Path) -> Path:
    rows = [",".join([patient, *map(repr, row)]) for patient, row in zip(IDS, PATIENTS.tolist(), strict=True)]
    path.write_text("\n".join([",".join(["id", *SCHEMA.names]), *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def owner(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Owner:
    owner = server.owner(tmp_path_factory.mktemp("owner") / "owner")
    owner.publish(MODEL, version="1", card={"purpose": "tests"}, zero_weights=[(0, 1)])
    return owner


@pytest.fixture(scope="module")
def clinic(server: RunningServer, owner: Owner, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    return server.clinic(tmp_path_factory.mktemp("clinic") / "clinic")


@pytest.fixture(scope="module")
def stranger(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    return server.clinic(tmp_path_factory.mktemp("stranger") / "clinic", "st-bruno")


@pytest.fixture(scope="module")
def records(clinic: Clinic, tmp_path_factory: pytest.TempPathFactory) -> SubmittedRecords:
    return clinic.submit(write_csv(tmp_path_factory.mktemp("csv") / "patients.csv"), model="heart")


def test_from_csv_to_verified_scores_over_a_real_connection(tmp_path: Path) -> None:
    with listening(tmp_path / "data") as service, service.clinic(tmp_path / "clinic") as clinic:
        with service.owner(tmp_path / "owner") as owner:
            owner.publish(MODEL, version="1")
        records = clinic.submit(write_csv(tmp_path / "patients.csv"), model="heart")
        scores = clinic.predict(records, "heart", timeout=120)
        assert scores.ids == IDS
        assert (np.abs(scores.raw.reveal_raw() - MODEL.predict_raw(PATIENTS)) <= float(scores.error_bounds[0])).all()
        assert np.allclose(scores.values, MODEL.predict(PATIENTS), atol=1 / 256)
        assert [check.name for check in scores.verified.checks][-1] == "proofs"


def test_a_client_opens_its_folder_again_and_reads_the_same_scores(
    server: RunningServer, clinic: Clinic, records: SubmittedRecords, tmp_path: Path
) -> None:
    again = Clinic.open(clinic.session.folder, client=server.client)
    assert (again.name, again.key) == (clinic.name, clinic.key)
    request = again.request(again.records()[0], "heart 1")
    assert again.requests() == [request]
    path = again.fetch(request, tmp_path / "whole.sealproof", inputs=True, timeout=120)
    online, offline = again.open_bundle(path, request), clinic.open_bundle(path, request, offline=True)
    assert np.array_equal(online.raw.reveal_raw(), offline.raw.reveal_raw())
    assert "not looked up" in offline.verified.checks[6].sentence
    with pytest.raises(VerificationFailed, match=r"bundle\.missing-inputs"):
        clinic.open_bundle(again.fetch(request, tmp_path / "short.sealproof"), request, offline=True)
    assert again.key_openings() == clinic.key_openings()


def test_nothing_in_the_folder_can_be_read_by_others(clinic: Clinic, records: SubmittedRecords) -> None:
    # Bundles hold nothing that only the clinic may see; their folder is closed all the same.
    paths = [path for path in clinic.session.folder.rglob("*") if path.suffix != ".sealproof"]
    assert len(paths) > 10
    for path in [clinic.session.folder, *paths]:
        assert path.stat().st_mode & 0o077 == 0, path


def log_size(clinic: Clinic) -> int:
    return int(clinic.session.server.checkpoint().split(b"\n")[1])


def test_the_same_cohort_is_submitted_once(clinic: Clinic, records: SubmittedRecords, tmp_path: Path) -> None:
    size = log_size(clinic)
    assert clinic.submit(write_csv(tmp_path / "again.csv"), model="heart") == records
    assert log_size(clinic) == size
    assert clinic.submit(write_csv(tmp_path / "again.csv"), model="heart", packing="columns") != records


def test_packing_is_rows_when_everybody_fits_into_one_block(clinic: Clinic, records: SubmittedRecords) -> None:
    body = decode_entry(clinic.session.server.entry(records.index)).body
    assert isinstance(body, Records)
    assert (body.packing, body.count, body.blocks) == ("rows", 5, 1)
    assert body.policy.models == (clinic.session.model("heart").reference,)
    count = capacity(PARAMS, Packing.ROWS, SCHEMA.d) + 1
    many = SCHEMA.cohort(np.tile(PATIENTS, (count // 5 + 1, 1))[:count])
    body = decode_entry(clinic.session.server.entry(clinic.submit(many, "heart").index)).body
    assert isinstance(body, Records)
    assert (body.packing, body.count, body.blocks) == ("columns", count, 1)


def test_a_submission_that_was_cut_off_continues(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is cut after the server has done what was asked, at request k of attempt k: nothing is done twice."""
    cohort = SCHEMA.cohort(np.tile(PATIENTS, (2 * PARAMS.N // 5, 1)))
    size, sent, real = log_size(clinic), [], Server._send
    cut_at = 0

    def send(self: Server, method: str, path: str, limit: int, **kwargs: Any) -> bytes:
        answer = real(self, method, path, limit, **kwargs)
        if method != "GET":
            sent.append(path.partition("?")[0].split("/")[2])
            if len(sent) == cut_at:
                raise ConnectionResetError("cut off")
        return answer

    monkeypatch.setattr(Server, "_send", send)
    attempts = [["ciphertexts"], ["ciphertexts", "ciphertexts"], ["ciphertexts", "blobs", "entries"]]
    for cut_at, expected in enumerate(attempts, start=1):  # noqa: B007  (read by `send`)
        sent.clear()
        with pytest.raises(ConnectionResetError):
            clinic.submit(cohort, "heart", packing="columns")
        assert sent == expected
    sent.clear()
    cut_at = 0
    records = clinic.submit(cohort, "heart", packing="columns")
    assert sent == ["blobs", "entries"]
    assert (records.index, log_size(clinic)) == (size, size + 1)
    body = decode_entry(clinic.session.server.entry(records.index)).body
    assert isinstance(body, Records)
    assert (body.blocks, body.handles) == (2, records.handles.root)


def test_the_answer_to_another_request_or_of_another_clinic_is_not_decrypted(
    clinic: Clinic, stranger: Clinic, records: SubmittedRecords, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = clinic.request(records, "heart"), clinic.request(records, "heart")
    path = clinic.fetch(first, tmp_path / "first.sealproof", timeout=120)
    decrypted: list[object] = []
    monkeypatch.setattr(
        "api.client.scores.ClinicKeys.decrypt_unverified", lambda keys, result: decrypted.append(result)
    )
    with pytest.raises(VerificationFailed, match=r"attestation\.nonce"):
        clinic.open_bundle(path, second)
    with pytest.raises(VerificationFailed, match=r"clinic\.key"):
        stranger.open_bundle(path)
    forgotten = Path(records.folder / "records.reference.json")
    kept = forgotten.read_bytes()
    forgotten.unlink()
    try:
        with pytest.raises(VerificationFailed, match=r"clinic\.records"):
            clinic.open_bundle(path, first)
    finally:
        forgotten.write_bytes(kept)
        forgotten.chmod(0o600)
    assert decrypted == []


def test_what_the_server_forbids_is_told_in_its_words(
    clinic: Clinic, stranger: Clinic, records: SubmittedRecords
) -> None:
    with pytest.raises(ServerRefused) as caught:
        stranger.request(records, "heart")
    assert caught.value.status == 403
    forbidden = clinic.submit(SCHEMA.cohort(PATIENTS[:2]), "heart", policy=Policy((), None))
    with pytest.raises((ServerRefused, JobFailed)) as refused:
        clinic.predict(forbidden, "heart", timeout=60)
    assert "policy" in str(refused.value)
    with pytest.raises(UsageError, match="no model"):
        clinic.session.model("liver")
    with pytest.raises(UsageError, match="is no model"):
        clinic.session.model(records.index)


def test_records_outside_the_schema_are_refused_before_anything_is_sent(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_csv(tmp_path / "bad.csv")
    path.write_text(path.read_text().replace("22.5", "220.5"))
    monkeypatch.setattr(Server, "upload_ciphertexts", None)
    monkeypatch.setattr(Server, "append", None)
    with pytest.raises(DecodeError, match=r"row 1 .*outside the range"):
        clinic.submit(path, "heart")
    with pytest.raises(UsageError, match="which model or which schema"):
        clinic.submit(path)


def test_the_owner_opens_the_commitment_and_nothing_else_opens_it(owner: Owner, server: RunningServer) -> None:
    audited = owner.audit("heart")
    assert audited.model.body.name == "heart"
    (policy,) = owner.policy("heart")
    # One of the three weights is proven to be 0, so it hides nothing.
    assert (policy.name, policy.b, policy.bits) == ("risk", 28, 2 * 29 + 63)
    assert policy.answers * policy.bits_per_answer >= policy.bits > (policy.answers - 1) * policy.bits_per_answer
    published = owner.publish(MODEL, version="1", card={"purpose": "tests"}, zero_weights=[(0, 1)])
    assert published.reference == audited.model.reference
    with pytest.raises(UsageError, match="other settings"):
        owner.publish(MODEL, version="1", zero_weights=[(0, 1)])
    other = LinearModel("heart", np.array([[0.03, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)
    with pytest.raises(UsageError, match="use a new version"):
        owner.publish(other, version="1")
    folder = next((owner.session.folder / "models").iterdir())
    kept = (folder / "salt").read_bytes()
    (folder / "salt").write_bytes(bytes(16))
    with pytest.raises(VerificationFailed, match=r"model\.artefact"):
        owner.audit("heart")
    (folder / "salt").write_bytes(kept)


def test_a_revoked_model_predicts_no_more(
    owner: Owner, clinic: Clinic, records: SubmittedRecords, server: RunningServer
) -> None:
    published = owner.publish(MODEL, version="2")
    allowed = clinic.submit(SCHEMA.cohort(PATIENTS[:1]), published)
    scores = clinic.predict(allowed, published, timeout=60)
    owner.revoke("heart 2", "withdrawn")
    with pytest.raises((ServerRefused, JobFailed), match="revoked"):
        clinic.predict(allowed, published, timeout=60)
    again = clinic.open_bundle(scores.verified.path)
    assert again.verified.revoked_since == (published.reference,)


def test_folders_are_not_mixed_up(server: RunningServer, owner: Owner, clinic: Clinic, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belongs to the owner"):
        Clinic.open(owner.session.folder, client=server.client)
    with pytest.raises(UsageError, match="belongs to the clinic"):
        Clinic.init(clinic.session.folder, server.url, "st-dora", log_key=server.log_key, client=server.client)
    with pytest.raises(UsageError, match="make one with init"):
        Clinic.open(tmp_path / "nowhere", client=server.client)
    with pytest.raises(UsageError, match="is not trusted yet"):
        Clinic.init(tmp_path / "new", server.url, "st-dora", client=server.client)
    with pytest.raises(UsageError, match="clinic id"):
        Clinic.init(tmp_path / "new", server.url, "st dora", log_key=server.log_key, client=server.client)
