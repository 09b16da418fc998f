"""Owner and clinic of multi-party computation against the real service: what is sent, what is kept, and again after
crashes. The nodes' part is played by one prover who knows both sides; the nodes themselves have tests of their own."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.binding import Located
from api.client.clinic import Clinic, JobFailed, SubmittedRecords
from api.client.committed_records import OPENINGS, RecordOpenings
from api.client.joint_answers import keep_shares
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.owner import Owner
from api.client.session import Session
from api.client.transport import Server, ServerError, ServerRefused, UploadedProof
from api.entries import CommittedRecords, Model, Network, Policy, decode_entry, decode_point_list
from api.joint_binding import joint_statement
from api.mpc.sealed import seal
from ledger import Checkpoint
from ledger.note import Note
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.artefact import artefact_digest
from privacy.models.linear import LinearModel
from privacy.models.network import Dense
from privacy.models.network import Network as FloatNetwork
from privacy.models.network_quantise import quantise_network, reference_network, to_network_answers
from privacy.mpc.answers import AnswerShare, encode_shares
from privacy.mpc.joint_proof import answer_key, answers_digest
from privacy.mpc.params import batches, mpc_parameters
from privacy.zk.group import ARKWORKS, ORDER
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.joint_bundles import prove_alone
from tests.support.service import RunningServer

IDS = ("p-40", "p-71", "p-55", "p-18", "p-90")
HIDDEN = Dense(np.array([[0.02, -0.05, 0.9], [-0.01, 0.04, -0.5]]), np.array([-0.25, 0.5]))
LAST = Dense(np.array([[0.75, -1.25]]), np.array([0.125]))
NETWORK = FloatNetwork("joint-heart", (HIDDEN, LAST), ("risk",), "logit", SCHEMA)
LINEAR = LinearModel(
    "joint-linear",
    np.array([[0.02, 0.0, 0.9], [0.01, 0.1, -0.5]]),
    np.array([-0.25, 0.5]),
    ("a", "b"),
    "softmax",
    SCHEMA,
)


@pytest.fixture(scope="module")
def owner(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Owner:
    return server.owner(tmp_path_factory.mktemp("owner") / "owner", "joint-lab")


@pytest.fixture(scope="module")
def published(owner: Owner) -> Located[Network]:
    return owner.publish(NETWORK, version="1", card={"purpose": "tests"})


@pytest.fixture(scope="module")
def clinic(server: RunningServer, published: Located[Network], tmp_path_factory: pytest.TempPathFactory) -> Clinic:
    folder = tmp_path_factory.mktemp("clinic") / "clinic"
    return Clinic.init(folder, server.url, "st-clara", log_key=server.log_key, ckks=False, client=server.client)


@pytest.fixture(scope="module")
def records(clinic: Clinic, tmp_path_factory: pytest.TempPathFactory) -> SubmittedRecords:
    return clinic.submit(write_csv(tmp_path_factory.mktemp("csv") / "patients.csv"), "joint-heart")


def write_csv(path: Path) -> Path:
    rows = [",".join([patient, *map(repr, row)]) for patient, row in zip(IDS, PATIENTS.tolist(), strict=True)]
    path.write_text("\n".join([",".join(["id", *SCHEMA.names]), *rows]) + "\n")
    return path


def log_size(session: Session) -> int:
    return int(session.server.checkpoint().split(b"\n")[1])


class Wire:
    """What is sent to the server. `cut_at` k: the line is cut after the server has done what request k asked."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.cut_at = 0
        real = Server._send

        def send(server: Server, method: str, path: str, limit: int, **options: Any) -> bytes:
            answer = real(server, method, path, limit, **options)
            if method != "GET":
                self.sent.append((path.split("/")[2], options.get("body") or b""))
                if len(self.sent) == self.cut_at:
                    raise ConnectionResetError("cut off")
            return answer

        patch.setattr(Server, "_send", send)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.sent]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


class BothNodes:
    """Computes a job as both nodes would, with what clinic and owner keep."""

    def __init__(self, clinic: Clinic, owner: Owner) -> None:
        self.clinic, self.owner = clinic, owner

    def run_job(self, job: str) -> None:
        dealer = ("127.0.0.1:7300", bytes(32))
        self.owner.session.server.offers("127.0.0.1:7200", *dealer, 0)
        (offer,) = [o for o in self.clinic.session.server.offers(None, *dealer, 0) if o.job == job]
        assert (offer.role, offer.peer_address) == ("A", "127.0.0.1:7200")
        session = self.clinic.session
        model, records = session.model(offer.model), _located(session, offer.records)
        parties = [_located(session, index) for index in (offer.owner, offer.clinic)]
        checkpoint = Checkpoint.parse(Note.parse(offer.checkpoint).text)
        openings = self.clinic.committed_openings(offer.records)
        name, proofs, shares = secrets.token_bytes(32), [], []
        for batch in batches(len(openings)):
            points = decode_point_list(session.server.blob(records.body.commitments), len(openings))
            part = slice(batch.start, batch.stop)
            head = (checkpoint.size, checkpoint.root)
            statement = joint_statement(
                model, records, *parties, session.schema(model), name, batch, points[part], head
            )
            proof, answers = prove_alone(statement, self.owner.network_rows(model), openings[part])
            pairs = list(zip(answers.z, answers.rho, strict=True))
            C_z = [ARKWORKS.encode(answer_key().commit([z % ORDER], rho)) for z, rho in pairs]
            digest = self.owner.session.server.put_blob(proof)
            proofs.append(UploadedProof(digest, len(proof), answers_digest(C_z)))
            shares += pairs
        key = X25519PrivateKey.generate()
        theirs = [AnswerShare(secrets.randbelow(ORDER), secrets.randbelow(ORDER)) for _ in shares]
        ours = [
            AnswerShare((z - b.z) % ORDER, (rho - b.rho) % ORDER) for (z, rho), b in zip(shares, theirs, strict=True)
        ]
        keep_shares(session.folder, name, job, key, ours)
        box = seal(encode_shares(theirs), key.public_key().public_bytes_raw(), name)
        for _ in range(2):  # as after an answer that was lost
            self.owner.session.server.post_result(job, name, proofs, box)


def _located(session: Session, index: int) -> Any:
    reference, entry = session.fetch(index)
    return Located(reference, entry.body)


# -- publishing -------------------------------------------------------------------------------------------------------


def test_a_network_is_published_and_found_by_its_name(
    owner: Owner, clinic: Clinic, published: Located[Network]
) -> None:
    body = published.body
    assert (body.name, body.version, body.link, body.outputs) == ("joint-heart", "1", "logit", ("risk",))
    assert [(layer.inputs, layer.outputs) for layer in body.layers] == [(3, 2), (2, 1)]
    for which in ("joint-heart", "joint-heart 1", published.reference.index, published):
        assert clinic.session.model(which) == published
    assert clinic.session.schema(published) == SCHEMA
    (row,) = [row for row in clinic.session.server.models() if row.index == published.reference.index]
    assert (row.name, row.scheme, row.owner) == ("joint-heart", "mpc", "joint-lab")


def test_no_weight_of_a_network_leaves_the_folder(server: RunningServer, wire: Wire, tmp_path: Path) -> None:
    other = server.owner(tmp_path / "owner", "joint-quiet-lab")
    wire.sent.clear()
    found = other.publish(replace_name(NETWORK, "quiet"), version="1")
    assert wire.kinds == ["blobs", "blobs", "entries"]
    sent = b"".join(body for _, body in wire.sent)
    for rows in other.network_rows(found):
        for row in rows:
            assert row.rho.to_bytes(32, "little") not in sent
            assert str(row.rho).encode() not in sent
    (folder,) = (other.session.folder / "models").iterdir()
    for name in ("network-opening.json", "model.json", "salt"):
        assert (folder / name).read_bytes() not in sent
        assert (folder / name).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700


def replace_name(network: FloatNetwork, name: str) -> FloatNetwork:
    return FloatNetwork(name, network.layers, network.output_names, network.link, network.schema)


def test_publishing_that_was_cut_off_continues_with_the_same_commitments(owner: Owner, wire: Wire) -> None:
    """The line is cut after request k of attempt k; nothing is drawn twice and one entry is logged."""
    network = replace_name(NETWORK, "cut-off")
    size, kept = log_size(owner.session), set()
    for cut_at in (1, 2, 3):
        wire.sent.clear()
        wire.cut_at = cut_at
        with pytest.raises(ConnectionResetError):
            owner.publish(network, version="1")
        folder = next(
            p.parent for p in owner.session.folder.rglob("network-opening.json") if b"cut-off" in p.read_bytes()
        )
        files = ("network-opening.json", "model.json", "salt", "certificate")
        kept.add(tuple((folder / name).read_bytes() for name in files))
    wire.cut_at = 0
    found = owner.publish(network, version="1")
    assert len(kept) == 1
    assert log_size(owner.session) == size + 1
    assert owner.publish(network, version="1") == found
    assert log_size(owner.session) == size + 1
    assert [len(rows) for rows in owner.network_rows(found)] == [2, 1]


def test_a_crash_before_the_opening_is_kept_loses_nothing(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    network = replace_name(NETWORK, "early")

    def crash(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("api.client.network_owner.encode_network_opening", crash)
        with pytest.raises(KeyboardInterrupt):
            owner.publish(network, version="1")
    found = owner.publish(network, version="1")
    assert owner.audit(found).model == found


def test_a_name_and_version_stand_for_one_model(owner: Owner, published: Located[Network]) -> None:
    assert owner.publish(NETWORK, version="1", card={"purpose": "tests"}) == published
    with pytest.raises(UsageError, match="other settings"):
        owner.publish(NETWORK, version="1", card={"purpose": "others"})
    for settings in ({"weight_range_bits": 5}, {"weight_scale_bits": 9}, {"bias_range_bits": [8, 9]}):
        with pytest.raises(UsageError, match="other settings"):
            owner.publish(NETWORK, version="1", card={"purpose": "tests"}, **settings)
    changed = replace(NETWORK, layers=(HIDDEN, Dense(np.array([[0.75, -1.26]]), np.array([0.125]))))
    with pytest.raises(UsageError, match="use a new version"):
        owner.publish(changed, version="1")
    linear = LinearModel("joint-heart", np.array([[0.1, 0.0, 0.9]]), np.array([0.5]), ("risk",), "logit", SCHEMA)
    with pytest.raises(UsageError, match="another scheme: use a new version"):
        owner.publish(linear, version="1")


def test_options_of_the_other_scheme_are_refused(owner: Owner) -> None:
    with pytest.raises(UsageError, match="scheme ckks takes linear models"):
        owner.publish(NETWORK, version="9", scheme="ckks")
    for options in ({"weight_bits": 28}, {"bias_bits": 62}, {"zero_weights": [(0, 1)]}):
        with pytest.raises(UsageError, match="with scheme ckks"):
            owner.publish(NETWORK, version="9", **options)
    with pytest.raises(UsageError, match="are for scheme mpc"):
        owner.publish(LINEAR, version="9", weight_range_bits=4)
    with pytest.raises(UsageError, match="unknown parameter set"):
        owner.publish(NETWORK, version="9", params="linear-4096")


def test_a_network_that_cannot_be_logged_is_refused_while_nothing_of_it_is_kept(owner: Owner, wire: Wire) -> None:
    network = replace_name(NETWORK, "refused")
    wide = FloatNetwork(
        "refused",
        (Dense(np.ones((256, 3)) / 8, np.zeros(256)), Dense(np.ones((1, 256)) / 8, np.zeros(1))),
        ("y",),
        "identity",
        SCHEMA,
    )
    for model, options, said in (
        (network, {"grid_bits": 60}, "grid_bits = 60"),
        (network, {"weight_range_bits": 26}, "could overflow"),
        (network, {"weight_range_bits": [1, -3]}, "range"),
        (network, {"card": {f"line-{i}": "x" * 4000 for i in range(20)}}, "at most 65535"),
        (wide, {}, "bytes"),
    ):
        with pytest.raises(UsageError, match=said):
            owner.publish(model, version="1", **options)
    assert wire.sent == []
    openings = owner.session.folder.rglob("network-opening.json")
    assert not [path for path in openings if b'"refused"' in path.read_bytes()]
    assert owner.publish(network, version="1", weight_scale_bits=8).body.layers[0].weight_scale_bits == 8


def test_the_owner_opens_a_network_and_nothing_else_opens_it(owner: Owner, published: Located[Network]) -> None:
    audited = owner.audit("joint-heart")
    assert audited.model == published
    (folder,) = [
        path.parent
        for path in owner.session.folder.rglob("salt")
        if b"joint-heart" in (path.parent / "model.json").read_bytes()
    ]
    assert audited.artefact_digest == hashlib.sha256((folder / "model.json").read_bytes()).digest()
    quantised = quantise_network(NETWORK, 16)
    errors = np.abs(
        to_network_answers(reference_network(quantised, PATIENTS), quantised) - NETWORK.predict_raw(PATIENTS)
    )
    assert errors.max() <= audited.rounding[0]
    kept = (folder / "salt").read_bytes()
    (folder / "salt").write_bytes(bytes(16))
    with pytest.raises(VerificationFailed, match=r"model\.artefact"):
        owner.audit("joint-heart")
    (folder / "salt").write_bytes(kept)
    opening = json.loads((folder / "network-opening.json").read_bytes())
    damaged = json.dumps(opening).replace(opening["layers"][0][0]["rho"], "7")
    good = (folder / "network-opening.json").read_bytes()
    (folder / "network-opening.json").write_bytes(
        json.dumps(json.loads(damaged), separators=(",", ":"), sort_keys=True).encode()
    )
    try:
        with pytest.raises(VerificationFailed, match=r"network\.opening"):
            owner.audit("joint-heart")
        with pytest.raises(UsageError, match="not the network of the ledger"):
            owner.network_rows("joint-heart")
    finally:
        (folder / "network-opening.json").write_bytes(good)


def test_what_is_public_about_a_network(owner: Owner, published: Located[Network]) -> None:
    (policy,) = owner.policy("joint-heart")
    first, last = published.body.layers
    assert policy.bits == 2 * (3 * (first.b + 1) + first.b_bias + 1) + 2 * (last.b + 1) + last.b_bias + 1
    assert policy.bits_per_answer == published.body.answer_bits
    assert policy.answers * policy.bits_per_answer >= policy.bits > (policy.answers - 1) * policy.bits_per_answer


def test_rows_are_those_of_ones_own_networks(owner: Owner, server: RunningServer, tmp_path: Path) -> None:
    stranger = server.owner(tmp_path / "owner", "joint-stranger-lab")
    with pytest.raises(UsageError, match="does not hold the opening"):
        stranger.network_rows("joint-heart")
    with pytest.raises(UsageError, match="does not hold the opening"):
        stranger.audit("joint-heart")
    encrypted = stranger.publish(replace_linear("encrypted"), version="1")
    assert isinstance(encrypted.body, Model)
    with pytest.raises(UsageError, match="on encrypted records"):
        stranger.network_rows(encrypted)


# -- a clinic without a key -------------------------------------------------------------------------------------------


def test_a_clinic_without_a_key_says_how_to_make_one(clinic: Clinic, owner: Owner, server: RunningServer) -> None:
    again = Clinic.open(clinic.session.folder, client=server.client)
    assert not again.has_key
    assert not (clinic.session.folder / "keys").exists()
    linear = owner.publish(replace_linear("for-keys"), version="1")
    for call in (
        lambda: again.key,
        lambda: again.key_openings(),
        lambda: again.submit(SCHEMA.cohort(PATIENTS), linear),
        lambda: again.submit(SCHEMA.cohort(PATIENTS), schema=SCHEMA),
    ):
        with pytest.raises(UsageError, match=r"has no logged CKKS key.*without --mpc-only"):
            call()


def replace_linear(name: str) -> LinearModel:
    return LinearModel(name, LINEAR.weights, LINEAR.bias, LINEAR.output_names, LINEAR.link, SCHEMA)


def test_a_key_is_added_by_init_and_kept_by_it(
    server: RunningServer, published: Located[Network], tmp_path: Path
) -> None:
    def init(ckks: bool) -> Clinic:
        return Clinic.init(
            tmp_path / "clinic", server.url, "st-edith", log_key=server.log_key, ckks=ckks, client=server.client
        )

    party = init(ckks=False).session.identity.party
    made = init(ckks=True)
    assert made.has_key
    assert made.session.identity.party == party
    size = log_size(made.session)
    assert init(ckks=False).key == init(ckks=True).key == made.key
    assert log_size(made.session) == size


# -- records ----------------------------------------------------------------------------------------------------------


def test_committed_records_are_about_the_cohort(
    clinic: Clinic, records: SubmittedRecords, published: Located[Network]
) -> None:
    body = decode_entry(clinic.session.server.entry(records.index)).body
    assert isinstance(body, CommittedRecords)
    assert (body.clinic, body.d, body.count, len(body.certificates)) == ("st-clara", 3, 5, 1)
    assert body.policy.models == (published.reference,)
    assert body.handles == records.handles.root
    assert records.handles.ids == IDS
    assert records.committed
    openings = clinic.committed_openings(records.index)
    points = decode_point_list(clinic.session.server.blob(body.commitments), 5)
    assert tuple(opening.commit() for opening in openings) == points
    assert clinic.records() == [records]


def test_no_record_leaves_the_folder(clinic: Clinic, wire: Wire) -> None:
    cohort = SCHEMA.cohort(PATIENTS + np.array([1.0, 0.5, 0.0]), IDS)
    found = clinic.submit(cohort, "joint-heart")
    assert wire.kinds == ["blobs", "blobs", "blobs", "entries"]
    sent = b"".join(body for _, body in wire.sent)
    for name in (OPENINGS, "handles.json"):
        stored = json.loads((found.folder / name).read_bytes())
        for field in ("values", "blindings", "salts"):
            assert stored.get(field, "absent").encode() not in sent
    for opening in clinic.committed_openings(found.index):
        assert opening.rho.to_bytes(32, "little") not in sent
        assert np.array(opening.values, dtype="<i8").tobytes() not in sent
    assert not any(patient.encode() in sent for patient in IDS)
    assert "rho=" not in repr(RecordOpenings.load(found.folder / OPENINGS))


def test_nothing_in_the_folder_can_be_read_by_others(clinic: Clinic, records: SubmittedRecords) -> None:
    for path in [clinic.session.folder, *clinic.session.folder.rglob("*")]:
        if path.suffix != ".sealproof":
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_same_cohort_is_committed_once(
    clinic: Clinic, records: SubmittedRecords, wire: Wire, tmp_path: Path
) -> None:
    size = log_size(clinic.session)
    assert clinic.submit(write_csv(tmp_path / "again.csv"), model="joint-heart") == records
    assert wire.kinds == ["blobs", "blobs"]
    assert log_size(clinic.session) == size
    other = clinic.submit(write_csv(tmp_path / "again.csv"), schema=SCHEMA, scheme="mpc")
    assert other != records
    body = decode_entry(clinic.session.server.entry(other.index)).body
    assert isinstance(body, CommittedRecords)
    assert body.policy == Policy("any", None)


def test_a_submission_that_was_cut_off_continues_with_the_same_openings(clinic: Clinic, wire: Wire) -> None:
    """The line is cut after request k of attempt k. Three batches: a crash loses one certificate at most."""
    cohort = SCHEMA.cohort(np.tile(PATIENTS, (26, 1)))
    size, before, kept = log_size(clinic.session), set(clinic.session.folder.glob("records/*")), set()
    attempts = [["blobs"], ["blobs", "blobs"], ["blobs", "blobs", "blobs"], ["blobs", "blobs", "entries"]]
    for wire.cut_at, expected in enumerate(attempts, start=1):
        wire.cut_at = min(wire.cut_at, 3)
        wire.sent.clear()
        with pytest.raises(ConnectionResetError):
            clinic.submit(cohort, "joint-heart")
        assert wire.kinds == expected
        (folder,) = set(clinic.session.folder.glob("records/*")) - before
        kept.add((folder / OPENINGS).read_bytes() + (folder / "handles.json").read_bytes())
    assert len(kept) == 1
    wire.sent.clear()
    wire.cut_at = 0
    found = clinic.submit(cohort, "joint-heart")
    assert found.folder == folder
    assert wire.kinds == ["blobs", "blobs", "entries"]
    assert log_size(clinic.session) == size + 1
    body = decode_entry(clinic.session.server.entry(found.index)).body
    assert isinstance(body, CommittedRecords)
    assert (body.count, len(body.certificates)) == (130, 3)
    assert len(clinic.committed_openings(found.index)) == 130


def test_openings_are_kept_before_anything_is_sent(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = SCHEMA.cohort(PATIENTS[:1])

    def put_blob(server: Server, data: bytes) -> bytes:
        (path,) = [
            p for p in clinic.session.folder.glob(f"records/*/{OPENINGS}") if len(RecordOpenings.load(p).records) == 1
        ]
        assert (path.parent / "handles.json").exists()
        raise ConnectionResetError("cut off")

    monkeypatch.setattr(Server, "put_blob", put_blob)
    with pytest.raises(ConnectionResetError):
        clinic.submit(cohort, "joint-heart")


def test_records_that_do_not_fit_are_refused_before_anything_is_sent(
    clinic: Clinic, owner: Owner, tmp_path: Path, wire: Wire
) -> None:
    path = write_csv(tmp_path / "bad.csv")
    path.write_text(path.read_text().replace("22.5", "220.5"))
    with pytest.raises(DecodeError, match=r"row 1 .*outside the range"):
        clinic.submit(path, "joint-heart")
    with pytest.raises(UsageError, match="packing is about encrypted records"):
        clinic.submit(SCHEMA.cohort(PATIENTS), "joint-heart", packing="rows")
    with pytest.raises(UsageError, match="submitted for scheme mpc"):
        clinic.submit(SCHEMA.cohort(PATIENTS), "joint-heart", scheme="ckks")
    with pytest.raises(UsageError, match="divide the cohort"):
        clinic.submit(SCHEMA.cohort(np.tile(PATIENTS, (13_000, 1))), "joint-heart")
    assert wire.sent == []


def test_damaged_openings_are_refused(records: SubmittedRecords, tmp_path: Path) -> None:
    stored = json.loads((records.folder / OPENINGS).read_bytes())
    for changes in (
        {"values": stored["values"][:-8]},
        {"values": "!"},
        {"blindings": ""},
        {"blindings": stored["blindings"][:-4]},
        {"commitments": stored["commitments"][:-64]},
        {"d": 2},
        {"format": "sealproof/record-openings/v2"},
        {"more": 1},
    ):
        path = tmp_path / "openings.json"
        path.write_bytes(json.dumps({**stored, **changes}, separators=(",", ":"), sort_keys=True).encode())
        path.chmod(0o600)
        with pytest.raises(DecodeError):
            RecordOpenings.load(path)
    shutil.copyfile(records.folder / OPENINGS, tmp_path / "copy.json")
    (tmp_path / "copy.json").chmod(0o644)
    with pytest.raises(UsageError, match="accessible to others"):
        RecordOpenings.load(tmp_path / "copy.json")


def test_openings_are_those_of_ones_own_committed_cohorts(clinic: Clinic, published: Located[Network]) -> None:
    for index in (published.reference.index, 10_000):
        with pytest.raises(UsageError, match="is no cohort that this clinic committed"):
            clinic.committed_openings(index)


# -- predictions ------------------------------------------------------------------------------------------------------


def exact(network: FloatNetwork, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    quantised = quantise_network(network, mpc_parameters("mpc-64").input_scale_bits)
    return to_network_answers(reference_network(quantised, values), quantised)


@pytest.fixture(scope="module")
def scores(clinic: Clinic, owner: Owner, records: SubmittedRecords) -> Any:
    return clinic.predict(records, "joint-heart", node=BothNodes(clinic, owner), timeout=120)


def test_scores_of_a_network_are_its_exact_integer_answers(scores: Any) -> None:
    assert isinstance(scores.verified, VerifiedJointPrediction)
    assert scores.ids == IDS
    assert (scores.outputs, scores.links) == (("risk",), ("logit",))
    assert np.array_equal(scores.raw.reveal_raw(), exact(NETWORK, PATIENTS))
    assert (np.abs(scores.raw.reveal_raw() - NETWORK.predict_raw(PATIENTS)) <= float(scores.error_bounds[0])).all()
    assert np.allclose(scores.values, NETWORK.predict(PATIENTS), atol=1e-2)
    assert not scores.raw.reveal_raw().flags.writeable
    assert not any(patient in repr(scores) for patient in IDS)


def test_a_bundle_is_opened_again_from_the_folder_alone(clinic: Clinic, scores: Any, server: RunningServer) -> None:
    again = Clinic.open(clinic.session.folder, client=server.client)
    found = again.open_bundle(scores.verified.path, offline=True)
    assert np.array_equal(found.raw.reveal_raw(), scores.raw.reveal_raw())
    (request,) = [r for r in again.requests() if r.nonce == scores.verified.request_nonce]
    assert np.array_equal(again.open_bundle(scores.verified.path, request).raw.reveal_raw(), scores.raw.reveal_raw())
    assert again.state(request).state == "done"


def test_another_clinic_or_folder_opens_nothing(
    clinic: Clinic, scores: Any, server: RunningServer, tmp_path: Path
) -> None:
    stranger = Clinic.init(
        tmp_path / "stranger", server.url, "st-frida", log_key=server.log_key, ckks=False, client=server.client
    )
    with pytest.raises(VerificationFailed, match=r"clinic\.records"):
        stranger.open_bundle(scores.verified.path)
    copied = tmp_path / "copied"
    shutil.copytree(clinic.session.folder, copied)
    shutil.rmtree(copied / "joint")
    with pytest.raises(UsageError, match="has no shares of session"):
        Clinic.open(copied, client=server.client).open_bundle(scores.verified.path)


def test_a_box_that_does_not_open_the_answers_shows_none(
    clinic: Clinic, scores: Any, server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(clinic.session.folder, copied)
    (box,) = (copied / "joint").glob(f"{scores.verified.prediction.body.session.hex()}.box")
    good = box.read_bytes()
    box.unlink()
    monkeypatch.setattr(Server, "sealed", lambda server, job: good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(VerificationFailed, match=r"joint\.box"):
        Clinic.open(copied, client=server.client).open_bundle(scores.verified.path)
    assert not box.exists()


def test_a_linear_model_is_a_network_of_one_layer(clinic: Clinic, owner: Owner) -> None:
    found = owner.publish(LINEAR, version="1", scheme="mpc")
    assert isinstance(found.body, Network)
    assert owner.audit(found).artefact_digest == artefact_digest(LINEAR)
    assert [len(layer.commitments) for layer in found.body.layers] == [2]
    cohort = SCHEMA.cohort(PATIENTS[:2])
    records = clinic.submit(cohort, found)
    scores = clinic.predict(records, found, node=BothNodes(clinic, owner), timeout=120)
    assert scores.links == ("softmax", "softmax")
    assert np.allclose(scores.values.sum(axis=1), 1)
    off = np.abs(scores.raw.reveal_raw() - LINEAR.predict_raw(PATIENTS[:2]))
    assert (off <= float(max(scores.error_bounds))).all()
    owner.revoke(found, "withdrawn")
    with pytest.raises(ServerRefused, match="revoked"):
        clinic.request(records, found)
    again = clinic.open_bundle(scores.verified.path)
    assert again.verified.revoked_since == (found.reference,)


def test_without_nodes_a_prediction_waits_and_says_so(clinic: Clinic, records: SubmittedRecords) -> None:
    stages: list[str] = []
    with pytest.raises(ServerError, match=r"is computing after 0 s \(do the nodes of clinic and owner run\?\)"):
        clinic.predict(records, "joint-heart", timeout=0, progress=lambda stage, done, total: stages.append(stage))
    assert stages[-1] == "compute with the owner's node"
    request = max(clinic.requests(), key=lambda r: clinic.state(r).state == "computing")
    assert clinic.state(request).state == "computing"
    clinic.session.server.post_failure(request.job, "mpc.stalled", "given up by a test")
    with pytest.raises(JobFailed, match="given up by a test"):
        clinic.fetch(request, timeout=5)


def test_records_go_with_models_of_their_scheme(
    server: RunningServer, owner: Owner, clinic: Clinic, records: SubmittedRecords
) -> None:
    linear = owner.publish(replace_linear("other-scheme"), version="1")
    with pytest.raises(UsageError, match="takes encrypted records"):
        clinic.request(records, linear)
    with pytest.raises(UsageError, match="takes committed records"):
        clinic.request(SubmittedRecords(records.reference, clinic.session.folder), "joint-heart")
