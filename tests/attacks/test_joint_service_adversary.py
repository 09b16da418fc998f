"""A server that lies to nodes, an owner that seals the wrong thing, a clinic that breaks off: two-party computation
above its proofs. And what a clinic sends, looked through byte by byte.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.client.audit import verify_bundle
from api.client.clinic import PredictionRequest
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.questions import Kind, question_of
from api.client.transport import Server
from api.client.trust import TrustStore
from api.consent import Scope
from api.entries import JointPrediction, JointProof, Network, Revocation, sign_entry
from api.exposure import network_bits
from api.joint_binding import network_statement
from api.mpc import delivered, session
from api.mpc.delivered import DeliveredStore
from api.mpc.link import LinkChannel
from api.mpc.mirror import Mirror
from api.mpc.node import _Keeper
from api.mpc.sealed import open_box
from ledger import Verifier
from privacy.errors import DecodeError, PrivacyError, UsageError, VerificationFailed
from privacy.models.network import Dense
from privacy.models.network import Network as FloatNetwork
from privacy.mpc import answers as answers_module
from privacy.mpc import joint_proof, joint_prover
from privacy.mpc.answers import AnswerShare, decode_shares, encode_shares, open_answers
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ORDER
from privacy.zk.pedersen import CommitmentKey
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.pairs import IDS, ROLES, Pair, Role, at, be_quick, die, pair_of
from tests.support.service import RunningServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture
def pair(server: RunningServer, tmp_path: Path) -> Iterator[Pair]:
    with pair_of(server, tmp_path) as found:
        yield found


@dataclass
class Held:
    """What a node has of its sessions, whatever becomes of them."""

    session: bytes = b""
    answers: list[bytes] = field(default_factory=list)
    shares: list[AnswerShare] = field(default_factory=list)
    key: X25519PrivateKey | None = None


def watch(patch: pytest.MonkeyPatch) -> dict[Role, Held]:
    """Of the newest session of each node."""
    held: dict[Role, Held] = {"A": Held(), "B": Held()}
    begin, batch, keep_key = _Keeper.begin, _Keeper.batch, _Keeper.keep_key

    def spy_begin(keeper: Any, name: bytes) -> Any:
        held[keeper._node._role] = Held(name)
        return begin(keeper, name)

    def spy_batch(keeper: Any, number: int, proof: bytes, answers: Any, shares: Any) -> None:
        held[keeper._node._role].answers += answers
        held[keeper._node._role].shares += shares
        batch(keeper, number, proof, answers, shares)

    def spy_key(keeper: Any, name: bytes, private: X25519PrivateKey) -> None:
        held["A"].key = private
        keep_key(keeper, name, private)

    patch.setattr(_Keeper, "begin", spy_begin)
    patch.setattr(_Keeper, "batch", spy_batch)
    patch.setattr(_Keeper, "keep_key", spy_key)
    return held


def body_of(pair: Pair) -> Network:
    assert isinstance(pair.model.body, Network)
    return pair.model.body


def bound_of(pair: Pair) -> int:
    return network_statement(body_of(pair), SCHEMA).bounds[-1]


def true_answers(pair: Pair) -> list[int]:
    """What the owner's integers say of the clinic's."""
    ((row,),) = pair.owner.network_rows(pair.model)
    openings = pair.clinic.committed_openings(pair.records.index)
    return [sum(w * x for w, x in zip(row.weights, o.values, strict=True)) + row.bias for o in openings]


# -- a server that lies to nodes --------------------------------------------------------------------------------------


def test_a_server_that_tells_the_two_nodes_different_things_gets_no_session(pair: Pair, tmp_path: Path) -> None:
    """Each is told something that it would do by itself; together they would prove neither."""
    other = pair.clinic.submit(SCHEMA.cohort(PATIENTS[::-1].copy(), IDS), pair.model)

    def newer_head() -> bytes:
        pair.server.owner(tmp_path / "newcomer", f"newcomer-{pair.records.index}")
        return pair.clinic.session.server.checkpoint()

    told: list[tuple[str, Callable[[], dict[str, Any]]]] = [
        ("records", lambda: {"records": other.index}),
        ("job", lambda: {"job": "0a" * 16}),
        ("request", lambda: {"nonce": bytes(32)}),
        ("ledger head", lambda: {"checkpoint": newer_head()}),
    ]
    for name, changes in told:
        request = pair.ask()
        offers = pair.offers(request)
        ended = pair.meet(request, {**offers, "B": replace(offers["B"], **changes())})
        assert ended.checks == ("mpc.terms", "mpc.terms"), name
        assert all(f"the {name} differs" in str(error) for error in ended.errors.values())
        assert pair.state(request).state == "failed"
    assert pair.suspended_here() == {"A": [], "B": []}
    pair.check_open()


def test_a_job_that_the_clinic_did_not_ask_for_is_not_computed(pair: Pair) -> None:
    """Policy and signatures would allow it: a server could have cohorts evaluated as it likes."""
    other = pair.clinic.submit(SCHEMA.cohort(PATIENTS[::-1].copy(), IDS), pair.model)
    request = pair.ask()
    offers = pair.offers(request)
    for changes in ({"nonce": bytes(32)}, {"records": other.index}):
        error = pair.nodes["A"].do(replace(offers["A"], **changes))  # type: ignore[arg-type]
        assert getattr(error, "check", None) == "offer.request"
    assert pair.suspended_here() == {"A": [], "B": []}


@pytest.mark.parametrize("role", ROLES)
def test_a_server_that_shows_an_old_head_does_not_hide_a_revocation(
    pair: Pair, role: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is signed, and older than the revocation that this very party has logged: it remembers that one."""
    request = pair.ask()
    offers = pair.offers(request)
    old = pair.clinic.session.server.checkpoint()
    revoked = pair.records.reference if role == "A" else pair.model.reference
    (pair.clinic if role == "A" else pair.owner).session.revoke(revoked, "withdrawn")
    monkeypatch.setattr(Server, "checkpoint", lambda server: old)
    error = pair.nodes[role].do(offers[role])
    assert getattr(error, "check", None) == "ledger.revoked"
    # Who reads no further than the server admits to does not find it.
    monkeypatch.setattr(TrustStore, "head", lambda store, origin: None)
    mirror = Mirror(pair.nodes[role].session)
    mirror.follow(old)
    mirror.registry.check_not_revoked(revoked)


def test_a_server_that_leaves_an_entry_out_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspension, say. The head that the log signed has it."""
    honest = Server.entries

    def fewer(server: Server, start: int, stop: int) -> list[bytes]:
        return honest(server, start, stop)[:-1]

    def another(server: Server, start: int, stop: int) -> list[bytes]:
        found = honest(server, start, stop)
        return [*found[:-1], pair.clinic.session.identity.sign(Revocation(pair.records.reference, "not on the log"))]

    request = pair.ask()
    offers = pair.offers(request)
    for lie in (fewer, another, lambda *arguments: []):
        for role in ROLES:
            mirror = Mirror(pair.nodes[role].session)
            with monkeypatch.context() as patch:
                patch.setattr(Server, "entries", lie)
                with pytest.raises(PrivacyError):
                    mirror.follow(offers[role].checkpoint)
            assert mirror.registry.size == 0
            mirror.follow(offers[role].checkpoint)


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"offers":[{}]}', b'{"offers":[]}' * 2, b"\xff" * 100, b"[]"])
def test_offers_that_are_garbage_are_none(pair: Pair, answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "_send", lambda *arguments, **options: answer)
    with pytest.raises(DecodeError):
        pair.nodes["A"]._offers(0)


# -- a server that hands the box out early ----------------------------------------------------------------------------


@dataclass
class Accomplice:
    """A server that gives what it was delivered to the clinic, and logs nothing."""

    boxes: list[bytes] = field(default_factory=list)

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        def post_result(server: Server, job: str, name: bytes, proofs: Any, box: bytes) -> None:
            self.boxes.append(box)

        patch.setattr(Server, "post_result", post_result)


def steal(pair: Pair, held: Held, box: bytes) -> list[int]:
    """The answers of a session that no ledger knows of."""
    assert held.key is not None
    theirs = decode_shares(open_box(box, held.key, held.session))
    return [opening.z for opening in open_answers(held.answers, held.shares, theirs, bound_of(pair))]


def solve(pair: Pair, answers: list[int]) -> list[int]:
    """Three weights and a bias from exact answers: a linear system, over the rationals."""
    openings = pair.clinic.committed_openings(pair.records.index)
    rows = [[Fraction(x) for x in (*o.values, 1, z)] for o, z in zip(openings, answers, strict=True)]
    for column in range(4):
        pivot = next(row for row in rows[column:] if row[column])
        rows.remove(pivot)
        rows.insert(column, pivot)
        for row in rows:
            if row is not pivot:
                factor = row[column] / pivot[column]
                row[:] = [a - factor * b for a, b in zip(row, pivot, strict=True)]
    return [int(rows[k][4] / rows[k][k]) for k in range(4)]


def end(pair: Pair, request: PredictionRequest) -> None:
    """The job is over for the server, so that the next one begins."""
    pair.clinic.session.server.post_failure(request.job, "mpc.stalled", "nothing was delivered")


@pytest.fixture(scope="module")
def cohort(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Fraction:
    """The share of a network's bits that one session about the whole cohort tells."""
    with pair_of(server, tmp_path_factory.mktemp("measure")) as found:
        return Fraction(len(PATIENTS) * body_of(found).answer_bits, network_bits(body_of(found)))


def test_answers_that_no_ledger_knows_of_are_counted_by_the_owners_node(
    server: RunningServer, tmp_path: Path, cohort: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a server as accomplice a clinic gets its answers and the log shows none. Four give a linear model away."""
    held, accomplice = watch(monkeypatch), Accomplice()
    accomplice.patch(monkeypatch)
    with pair_of(server, tmp_path, exposure_cap=cohort) as pair:
        ended = pair.session()
        assert ended.errors == {"A": None, "B": None}
        end(pair, ended.request)
        ((row,),) = pair.owner.network_rows(pair.model)
        assert solve(pair, steal(pair, held["A"], accomplice.boxes[0])) == [*row.weights, row.bias]
        assert pair.predictions() == 0
        # With the ledger's count alone it would go on for ever.
        with monkeypatch.context() as patch:
            patch.setattr(DeliveredStore, "unpublished", lambda *arguments: 0)
            ended = pair.session()
            assert ended.errors["B"] is None
            end(pair, ended.request)
        assert pair.session().checks[1] == "exposure.cap"
        assert len(accomplice.boxes) == 2


def test_answers_that_the_ledger_knows_as_something_less_are_counted_in_full(
    server: RunningServer, tmp_path: Path, cohort: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accomplice logs the session, and the owner's node finds it there: as one about a single patient."""
    held, accomplice = watch(monkeypatch), Accomplice()
    service = server.client.app.state.service
    with pair_of(server, tmp_path, exposure_cap=cohort * Fraction(3, 2)) as pair:
        one = pair.clinic.submit(SCHEMA.cohort(PATIENTS[:1], IDS[:1]), pair.model)
        with monkeypatch.context() as patch:
            accomplice.patch(patch)
            ended = pair.session()
        end(pair, ended.request)
        assert steal(pair, held["A"], accomplice.boxes[0]) == true_answers(pair)
        head, body = service.log.head(), body_of(pair)
        less = JointPrediction(
            records=one.reference,
            model=pair.model.reference,
            session=held["A"].session,
            proofs=(JointProof(0, 1, bytes(32), 1, bytes(32)),),
            answer_scale_bits=body.answer_scale_bits,
            grid_bits=body.grid_bits,
            checkpoint_size=head.size,
            checkpoint_root=head.root,
        )
        service._published(service._append(sign_entry(less, service.party.reference, service._key)))
        with monkeypatch.context() as patch:
            patch.setattr(delivered, "_counts", lambda *arguments: True)
            request = pair.ask()
            assert pair.nodes["B"]._examiner.terms(pair.offers(request)["B"]).job == request.job
            end(pair, request)
        assert pair.session().checks[1] == "exposure.cap"


# -- an owner's node that seals the wrong thing -----------------------------------------------------------------------


def shifted(shares: bytes) -> bytes:
    """The first answer one unit higher."""
    first, *rest = decode_shares(shares)
    return encode_shares([AnswerShare((first.z + 1) % ORDER, first.rho), *rest])


def exchanged(shares: bytes) -> bytes:
    first, second, *rest = decode_shares(shares)
    return encode_shares([second, first, *rest])


def other_blinding(shares: bytes) -> bytes:
    first, *rest = decode_shares(shares)
    return encode_shares([AnswerShare(first.z, (first.rho + 1) % ORDER), *rest])


def too_large(shares: bytes) -> bytes:
    first, *_ = decode_shares(shares)
    return (first.z + ORDER).to_bytes(32, "little") + shares[32:]


WRONG: list[tuple[Callable[[bytes], bytes], str]] = [
    (shifted, "joint.share"),
    (exchanged, "joint.share"),
    (other_blinding, "joint.share"),
    (lambda shares: shares[:-64], "joint.share"),
    (lambda shares: shares + bytes(64), "joint.share"),
    (lambda shares: b"", "joint.share"),
    (lambda shares: shares[:-1], "answer shares"),
    (too_large, "answer shares"),
]


@pytest.mark.parametrize(("wrong", "check"), WRONG)
def test_a_wrong_box_gives_no_answer_and_the_right_one_later_does(
    pair: Pair, wrong: Callable[[bytes], bytes], check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prediction is published and true; the clinic sees at once that this is not what it was promised."""
    honest, boxes = session.seal, []

    def seal(shares: bytes, recipient: bytes, name: bytes) -> bytes:
        boxes.append(honest(shares, recipient, name))
        return honest(wrong(shares), recipient, name)

    with monkeypatch.context() as patch:
        patch.setattr(session, "seal", seal)
        ended = pair.session()
    assert ended.errors == {"A": None, "B": None}
    path = pair.clinic.fetch(ended.request, timeout=30)
    assert isinstance(verify_bundle(path, Verifier.parse(pair.server.log_key)), VerifiedJointPrediction)
    with pytest.raises((VerificationFailed, DecodeError), match=check):
        pair.clinic.open_bundle(path, ended.request)
    assert list((pair.clinic.session.folder / "joint").glob("*.box")) == []
    monkeypatch.setattr(Server, "sealed", lambda server, job: boxes[0])
    assert pair.clinic.open_bundle(path, ended.request).ids == IDS
    assert len(list((pair.clinic.session.folder / "joint").glob("*.box"))) == 1


@pytest.mark.parametrize("box", [b"", bytes(32), bytes(48), bytes(400)])
def test_a_server_that_hands_out_another_box_shows_nothing(
    pair: Pair, box: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = pair.session()
    path = pair.clinic.fetch(ended.request, timeout=30)
    with monkeypatch.context() as patch:
        patch.setattr(Server, "sealed", lambda server, job: box)
        with pytest.raises(VerificationFailed, match=r"joint\.box"):
            pair.clinic.open_bundle(path, ended.request)
    assert pair.clinic.open_bundle(path, ended.request).ids == IDS


def test_the_box_of_another_session_of_the_same_pair_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair.session(), pair.session()
    boxes = []
    for ended in (first, second):
        assert pair.state(ended.request).state == "done"
        boxes.append(pair.clinic.session.server.sealed(ended.request.job))
    path = pair.clinic.fetch(second.request, timeout=30)
    monkeypatch.setattr(Server, "sealed", lambda server, job: boxes[0])
    with pytest.raises(VerificationFailed, match=r"joint\.box"):
        pair.clinic.open_bundle(path, second.request)


def test_answers_are_those_of_the_job_that_was_asked_for(pair: Pair) -> None:
    first, second = pair.session(), pair.session()
    paths = [pair.clinic.fetch(ended.request, timeout=30) for ended in (first, second)]
    for path, request in ((paths[0], second.request), (paths[1], first.request)):
        with pytest.raises((VerificationFailed, UsageError)):
            pair.clinic.open_bundle(path, request)


# -- a clinic that breaks off -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["done", "tau", "responses"])
def test_a_clinic_that_breaks_off_before_done_has_no_box_and_one_attempt(
    pair: Pair, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accomplice = Accomplice()
    accomplice.patch(monkeypatch)
    pair.breaks(A=at(label, die))
    assert accomplice.boxes == []
    assert list((pair.owner.session.folder / "delivered").iterdir()) == []
    pair.check_suspended("is gone")


def test_what_a_clinic_holds_before_done_fits_every_answer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own shares are drawn without regard to the answer, and C_z hides the owner's perfectly.

    Who knew log_H(G) could open what the clinic holds to any number, with shares of the owner that are as good as the
    true ones. So what it holds speaks for no number. Nobody knows that logarithm: the test takes a G of its own.
    """
    trapdoor, honest = 0x5EA1, answer_key()
    G = honest.group.multiply(honest.blinding, trapdoor)
    known = CommitmentKey((G,), honest.blinding, honest.group)
    for module in (joint_proof, joint_prover, answers_module):
        monkeypatch.setattr(module, "answer_key", lambda group=None: known)
    held = watch(monkeypatch)
    pair.breaks(A=at("done", die))
    of_A, of_B, truth = held["A"], held["B"], true_answers(pair)
    assert [(a.z + b.z) % ORDER for a, b in zip(of_A.shares, of_B.shares, strict=True)] == [z % ORDER for z in truth]
    for pretended in (truth, [0] * 5, [z + 1 for z in truth], [-z for z in truth], list(range(5))):
        explained = []
        for z, a, b in zip(pretended, of_A.shares, of_B.shares, strict=True):
            exponent = trapdoor * (a.z + b.z) + a.rho + b.rho  # C_z = exponent H: all that it shows of z and rho
            explained.append(AnswerShare((z - a.z) % ORDER, (exponent - trapdoor * z - a.rho) % ORDER))
        opened = open_answers(of_A.answers, of_A.shares, explained, bound_of(pair))
        assert [opening.z for opening in opened] == pretended


# -- what a clinic sends ----------------------------------------------------------------------------------------------


class Everything:
    """All that leaves the clinic: bodies and addresses of its requests, and what its node writes on links."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.http: list[bytes] = []
        self.links: list[bytes] = []
        exchange, write = Server._exchange, LinkChannel._write

        def spy_exchange(server: Server, method: str, path: str, body: bytes | None, headers: Any) -> Any:
            if server.identity is not None and server.identity.role == "clinic":
                self.http.append(method.encode() + path.encode() + json.dumps(headers).encode() + (body or b""))
            return exchange(server, method, path, body, headers)

        def spy_write(link: LinkChannel, data: bytes) -> None:
            if threading.current_thread().name == "node-A":
                self.links.append(bytes(data))
            write(link, data)

        patch.setattr(Server, "_exchange", spy_exchange)
        patch.setattr(LinkChannel, "_write", spy_write)


def spellings(value: int, size: int = 32) -> list[bytes]:
    """How a number could stand in bytes or in text."""
    residue = value % ORDER
    found = [residue.to_bytes(size, order) for order in ("little", "big")]  # type: ignore[arg-type]
    found += [text for data in found for text in (data.hex().encode(), base64.b64encode(data)[:-2])]
    if abs(value) >= 10**5:
        found.append(str(value).encode())
    if -(1 << 63) <= value < 1 << 63 and value.bit_length() > 12:
        found += [value.to_bytes(8, order, signed=True) for order in ("little", "big")]  # type: ignore[arg-type]
    return found


def text_of(raw: float) -> list[bytes]:
    return [repr(raw).encode()[:12], struct.pack("<d", raw), struct.pack(">d", raw), f"{raw:.9f}".encode()]


HIDDEN = FloatNetwork(
    "hidden-risk",
    (
        Dense(np.array([[0.02, -0.05, 0.9], [-0.01, 0.04, -0.5]]), np.array([-0.25, 0.5])),
        Dense(np.array([[0.75, -1.25]]), np.array([0.125])),
    ),
    ("risk",),
    "logit",
    SCHEMA,
)


@pytest.mark.parametrize("kind", ["linear", pytest.param("hidden", marks=pytest.mark.slow)])
def test_nothing_that_a_clinic_sends_holds_a_record_an_opening_or_an_answer(
    pair: Pair, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the cohort to the disclosure: over HTTP, to the owner's node, to the dealer; with CrypTen if hidden."""
    if kind == "hidden":
        pair.model = pair.owner.publish(HIDDEN, version="1")
    sent, held = Everything(monkeypatch), watch(monkeypatch)
    values = PATIENTS + np.array([0.0, 0.1234567, 0.0])
    pair.records = pair.clinic.submit(SCHEMA.cohort(values, IDS), pair.model)
    pair.stall = 60.0
    ended = pair.session()
    assert ended.errors == {"A": None, "B": None}
    path = pair.clinic.fetch(ended.request, timeout=60)
    scores = pair.clinic.open_bundle(path, ended.request)
    kinds: list[Kind] = ["exact", "open"]
    for place, kind_of_answer in enumerate(kinds):
        question = question_of(pair.model, IDS[place], kind=kind_of_answer)
        scope = Scope(None, pair.model.reference, None)
        held_grant = pair.clinic.grant_nonce(bytes(32), [question], scope=scope, purpose="a question")
        pair.clinic.disclose(held_grant.index, path, tmp_path / f"{place}.sealproof")
    told = b"".join([*sent.http, *sent.links])
    assert len(sent.http) > 10
    assert sum(map(len, sent.links)) > 4000

    secrets: dict[str, list[bytes]] = {"ids": [patient.encode() for patient in IDS]}
    openings = pair.clinic.committed_openings(pair.records.index)
    secrets["values"] = [s for o in openings for x in o.values if abs(x) > 1 << 12 for s in spellings(x)]
    secrets["raw values"] = [s for row in values.tolist() for x in row[1:2] for s in text_of(x)]
    secrets["blindings"] = [s for o in openings for s in spellings(o.rho)]
    secrets["salts"] = [s for salt in pair.records.handles.salts for s in (salt, salt.hex().encode())]
    of_A, of_B = held["A"], held["B"]
    shares = [v for share in (*of_A.shares, *of_B.shares) for v in (share.z, share.rho)]
    secrets["shares of answers"] = [s for v in shares for s in spellings(v)]
    sums = [(a.rho + b.rho) % ORDER for a, b in zip(of_A.shares, of_B.shares, strict=True)]
    secrets["blindings of answers"] = [s for v in sums for s in spellings(v)]
    exact = [int(raw * 2**scores.verified.answer_scale_bits) for raw in scores.raw.reveal_raw()[:, 0]]
    secrets["answers"] = [s for z in exact for s in spellings(z)]
    secrets["raw answers"] = [s for raw in scores.raw.reveal_raw()[:, 0].tolist() for s in text_of(raw)]
    assert of_A.key is not None
    for name, key in (
        ("box key", of_A.key.private_bytes_raw()),
        ("signing key", pair.clinic.session.identity.private_key.private_bytes_raw()),
    ):
        secrets[name] = [key, key.hex().encode(), base64.b64encode(key)[:-2]]
    for name, spelt in secrets.items():
        assert spelt, name
        assert not [spelling for spelling in spelt if spelling in told], name
    # The search finds what is there: what both sides may know was sent, in these very spellings.
    assert pair.clinic.session.identity.party is not None
    assert of_A.key.public_key().public_bytes_raw() in told
    assert ended.request.nonce.hex().encode() in told
