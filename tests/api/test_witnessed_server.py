"""A server whose heads two hospitals cosign, on real sockets: what clients, auditors and other log clients then see."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.audit import verify_bundle
from api.client.clinic import Clinic
from api.client.owner import Owner
from api.client.tile_source import open_tiles
from api.client.transport import Server
from api.client.trust import parse_trust
from api.clock import clock_name
from ledger import Log, Signer, open_checkpoint
from ledger.cosignature import CosignatureVerifier
from ledger.errors import VerificationFailed as LogRefused
from ledger.fsck import fsck
from ledger.note import Note
from ledger.trust_policy import TlogPolicy
from privacy.errors import VerificationFailed
from privacy.models.linear import LinearModel
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.service import RunningServer, listening
from tests.support.witnesses import ORIGIN, RunningWitness, policy, witnesses

MODEL = LinearModel("heart", np.array([[0.02, 0.0, 0.9]]), np.array([-0.25]), ("risk",), "logit", SCHEMA)


class Place:
    """Two witnesses, the server's policy file (one of two), and a stricter one for auditors (both)."""

    def __init__(self, folder: Path, made: list[RunningWitness]) -> None:
        self.folder = folder
        self.witnesses = made
        self.log = made[0].log
        self.one = policy(self.log, made, 1)
        self.both = policy(self.log, made, 2)
        self.file = folder / "witnesses.policy"
        self.file.write_text(self.both)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("witnessed")
    with witnesses(folder, folder / "data", ["st-anna", "st-bruno"]) as made:
        yield Place(folder, made)


@pytest.fixture(scope="module")
def server(place: Place) -> Iterator[RunningServer]:
    with listening(place.folder / "data", witness_policy=place.file, witness_seconds=2) as found:
        yield found


def test_every_published_head_is_cosigned_and_dated(server: RunningServer, place: Place, tmp_path: Path) -> None:
    Owner.init(tmp_path / "owner", server.url, "lab-1", log_key=place.both)
    source = Server(server.url)
    note = source.checkpoint()
    assert note == httpx.get(f"{server.url}/log/checkpoint").content
    witnessed = TlogPolicy.parse(place.both).open(note, ORIGIN)
    assert [c.name for c in witnessed.cosigned] == ["st-anna", "st-bruno"]
    party = httpx.get(f"{server.url}/v1/ledger/entries/0").json()["body"]
    clock = CosignatureVerifier(clock_name(ORIGIN), bytes.fromhex(party["public_key"]))
    archive = [base64.b64decode(text) for text in httpx.get(f"{server.url}/v1/ledger/checkpoints").json()]
    assert archive == source.publications(0)
    assert [open_checkpoint(found, place.log, ORIGIN).size for found in archive][-1] == witnessed.head.size
    for found in archive:
        text = Note.parse(found).text.encode()
        (signature,) = (s for s in Note.parse(found).signatures if s.key_id == clock.key_id)
        clock.verify(text, signature.signature)


def test_a_prediction_is_verified_with_its_witnesses(server: RunningServer, place: Place, tmp_path: Path) -> None:
    with Owner.init(tmp_path / "owner", server.url, "lab-2", log_key=place.both) as owner:
        owner.publish(MODEL, version="1")
    with Clinic.init(tmp_path / "clinic", server.url, "st-clara", log_key=place.both) as clinic:
        records = clinic.submit(SCHEMA.cohort(PATIENTS, [f"p{i}" for i in range(5)]), model="heart")
        scores = clinic.predict(records, "heart", timeout=120)
    path = scores.verified.path
    for text in (place.one, place.both):
        verified = verify_bundle(path, parse_trust(text), ledger=Server(server.url))
        (log,) = (check for check in verified.checks if check.name == "log")
        assert "that witnesses cosigned: st-anna, st-bruno" in log.sentence
    stranger = RunningWitness("stranger", tmp_path / "stranger", place.log)
    with pytest.raises(VerificationFailed, match=r"policy\.quorum"):
        verify_bundle(path, parse_trust(policy(place.log, [stranger], 1)), ledger=Server(server.url))


def test_any_log_client_can_read_the_log(server: RunningServer, place: Place) -> None:
    with open_tiles(f"{server.url}/log") as tiles:
        report = fsck(tiles.fetch, str(place.log), fetch_many=tiles.fetch_many)
    assert report.size == open_checkpoint(Server(server.url).checkpoint(), place.log, ORIGIN).size
    size = report.size
    width = size % 256
    assert httpx.get(f"{server.url}/log/tile/0/000.p/{width}").status_code == 200
    for path in (
        f"0/000.p/{width + 1}",
        "0/000",
        "0/001.p/1",
        "entries/000",
        "8/000",
        "0/0",
        "0/000.p/0",
        "..%2f..%2fx",
    ):
        assert httpx.get(f"{server.url}/log/tile/{path}").status_code == 404, path
    assert "immutable" in httpx.get(f"{server.url}/log/tile/0/000.p/1").headers["cache-control"]


def test_without_one_witness_the_log_goes_on_and_a_strict_client_waits(
    server: RunningServer, place: Place, tmp_path: Path
) -> None:
    place.witnesses[1].stop()
    try:
        with Owner.init(tmp_path / "easy", server.url, "lab-3", log_key=place.one) as owner:
            assert owner.session.trust.head(ORIGIN) is not None
        with pytest.raises((LogRefused, VerificationFailed), match=r"policy\.quorum"):
            Owner.init(tmp_path / "strict", server.url, "lab-4", log_key=place.both)
    finally:
        place.witnesses[1].start()
    with Owner.init(tmp_path / "other", server.url, "lab-5", log_key=place.both) as owner:
        assert owner.session.trust.head(ORIGIN) is not None
    with Owner.init(tmp_path / "strict", server.url, "lab-4", log_key=place.both) as owner:
        assert owner.session.identity.party is not None


def test_a_fork_by_the_log_s_own_key_gets_no_cosignature(server: RunningServer, place: Place, tmp_path: Path) -> None:
    """Whoever has the log's key can sign any history. The witnesses remember the one that they saw."""
    from api.witness.client import clients_of

    size = open_checkpoint(Server(server.url).checkpoint(), place.log, ORIGIN).size
    fork = Log.create(tmp_path / "fork.sqlite", Signer.load(place.folder / "data" / "log.key"))
    fork.append_many([b"another history %d" % i for i in range(size + 3)])
    for client in clients_of(TlogPolicy.parse(place.both)):
        reply = client.add_checkpoint(size, fork.consistency_proof(size), fork.checkpoint())
        assert reply.signature is None
        reply = client.add_checkpoint(0, [], fork.checkpoint())
        assert reply.signature is None
        assert reply.known_size == size
    evidence = httpx.get(f"{place.witnesses[0].url}/evidence").json()
    assert fork.checkpoint().decode() in str(evidence) or evidence, "what convicts the log is kept"


def test_a_policy_without_this_log_or_without_addresses_is_refused_at_the_start(place: Place, tmp_path: Path) -> None:
    from api.service import Service
    from api.settings import Settings
    from privacy.errors import UsageError

    (tmp_path / "data").mkdir()
    file = tmp_path / "policy"
    for text, problem in (
        (place.both.replace(str(place.log), str(Signer.generate("another.example").verifier)), "no line for the log"),
        ("\n".join(line.partition(" http")[0] for line in place.both.split("\n")), "no witness with a URL"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=problem):
            Service(Settings(data=tmp_path / "data", witness_policy=file))
    with pytest.raises(UsageError, match="cannot read"):
        Service(Settings(data=tmp_path / "data", witness_policy=tmp_path / "none"))


def test_a_server_whose_ledger_is_an_old_copy_appends_nothing(place: Place, tmp_path: Path) -> None:
    data, copy = tmp_path / "server" / "data", tmp_path / "copy.sqlite"
    with witnesses(tmp_path, data, ["st-dora"]) as made:
        file = tmp_path / "policy"
        file.write_text(policy(made[0].log, made, 1))
        settings = {"witness_policy": file, "witness_seconds": 5}
        with listening(data, **settings) as server:
            Owner.init(tmp_path / "lab-1", server.url, "lab-1", log_key=server.log_key).close()
        copy.write_bytes((data / "ledger.sqlite").read_bytes())
        with listening(data, **settings) as server:
            Owner.init(tmp_path / "lab-2", server.url, "lab-2", log_key=server.log_key).close()
        (data / "ledger.sqlite").write_bytes(copy.read_bytes())
        with listening(data, **settings) as server:
            with pytest.raises(OSError, match="500"):
                Owner.init(tmp_path / "lab-3", server.url, "lab-3", log_key=server.log_key)
            size = open_checkpoint(Server(server.url).checkpoint(), made[0].log, ORIGIN).size
            assert size == 2, "what was published is still shown"


def test_nothing_is_shown_before_its_head_is_published(tmp_path: Path) -> None:
    """Appended and durable, and not yet shown to witnesses: no reader gets it, under whatever address."""
    from api.entries import Party, sign_entry
    from tests.support.service import running

    with running(tmp_path / "data") as server:
        service = server.client.app.state.service
        service.publisher.close()  # from now on nothing is published
        key = Ed25519PrivateKey.generate()
        entry = sign_entry(Party("owner", "lab", key.public_key().public_bytes_raw()), None, key)
        index = service._append(entry).index
        assert service.log.size == index + 1
        for path in (
            f"/v1/ledger/entries/{index}",
            f"/v1/ledger/entries?start=0&stop={index + 1}",
            f"/v1/ledger/proof/{index}",
            f"/v1/ledger/consistency?old={index}&new={index + 1}",
            f"/log/tile/0/000.p/{index + 1}",
            f"/log/tile/entries/000.p/{index + 1}",
        ):
            assert server.client.get(path).status_code == 404, path
        assert len(server.client.get("/v1/ledger/entries").json()) == index
