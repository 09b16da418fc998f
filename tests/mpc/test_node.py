"""Nodes of a clinic and an owner against the real service: what they do, and what they refuse.

Whatever is wrong before secrets are used fails the job and nothing else. What breaks later is in `test_node_breaks.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.transport import Server, ServerUnreachable
from api.entries import Network, Policy, Suspension
from api.exposure import network_bits
from api.mpc.clearing import clear
from api.mpc.link import Address, Listener
from api.mpc.node import Node, NodeDealer
from api.mpc.nodes import node_of, node_of_clinic, node_of_owner
from api.mpc.terms import Examiner
from privacy.errors import PrivacyError, SessionBroken, UsageError, VerificationFailed
from tests.support.bundles import PATIENTS, SCHEMA
from tests.support.joint_bundles import JointStory
from tests.support.pairs import ANY, IDS, ROLES, Died, Pair, Role, TappedLink, at, be_quick, die, pair_of
from tests.support.service import RunningServer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    be_quick(monkeypatch)


@pytest.fixture(scope="module")
def before(server: RunningServer) -> bytes:
    """A head that is older than everything that these tests log."""
    return bytes(server.client.get("/v1/ledger/checkpoint").content)


@pytest.fixture(scope="module")
def lasting(server: RunningServer, before: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A pair for tests that leave it as it was."""
    with pair_of(server, tmp_path_factory.mktemp("lasting")) as found:
        yield found


@pytest.fixture(scope="module")
def others(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Another clinic and another owner."""
    with pair_of(server, tmp_path_factory.mktemp("others")) as found:
        yield found


@pytest.fixture
def pair(server: RunningServer, tmp_path: Path) -> Iterator[Pair]:
    """A pair that a test may break."""
    with pair_of(server, tmp_path) as found:
        yield found


def index_of(pair: Pair, role: Role) -> int:
    party = (pair.clinic if role == "A" else pair.owner).session.identity.party
    assert party is not None
    return party.index


# -- an honest life ---------------------------------------------------------------------------------------------------


def test_a_session_leaves_a_prediction_and_nobody_suspended(lasting: Pair) -> None:
    lasting.check_open()
    assert list((lasting.owner.session.folder / "sessions").iterdir()) == []


def test_nodes_that_run_do_what_is_asked_until_they_are_stopped(lasting: Pair) -> None:
    threads = [threading.Thread(target=node.run) for node in lasting.nodes.values()]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            scores = lasting.clinic.predict(lasting.records, lasting.model, timeout=60)
            assert scores.ids == IDS
    finally:
        for node in lasting.nodes.values():
            node.stop()
        # Whoever waits for offers looks again when something is asked for.
        request = lasting.ask()
        for thread in threads:
            thread.join(60)
        lasting.clinic.session.server.post_failure(request.job, "mpc.stalled", "asked to wake the nodes")
    for node in lasting.nodes.values():
        node._stopping.clear()


def test_a_clinic_may_do_its_part_itself(lasting: Pair) -> None:
    owner = threading.Thread(target=lasting.nodes["B"].run)
    owner.start()
    try:
        scores = lasting.clinic.predict(lasting.records, lasting.model, node=lasting.nodes["A"], timeout=60)
        assert scores.ids == IDS
    finally:
        lasting.nodes["B"].stop()
        request = lasting.ask()
        owner.join(60)
        lasting.clinic.session.server.post_failure(request.job, "mpc.stalled", "asked to wake the node")
        lasting.nodes["B"]._stopping.clear()


def test_a_job_that_never_comes_is_not_waited_for(lasting: Pair) -> None:
    with pytest.raises(UsageError, match="did not come within 0 s"):
        lasting.nodes["A"].run_job("0a" * 16, timeout=0)


def test_what_goes_wrong_in_one_session_does_not_end_the_node(
    lasting: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(examiner: Examiner, offer: Any) -> Any:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(Examiner, "terms", broken)
        request = lasting.ask()
        error = lasting.nodes["A"].do(lasting.offers(request)["A"])
    assert isinstance(error, RuntimeError)
    assert "unforeseen" in caplog.text
    found = lasting.state(request).error
    assert found is not None
    assert (found.check, "RuntimeError" in found.message, "a bug" in found.message) == ("mpc.failed", True, False)
    lasting.check_open()


def test_a_job_is_done_once_however_often_it_is_offered(lasting: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that offers a job again and again gets one attempt of a node's life."""
    node, done = lasting.nodes["A"], []
    request = lasting.ask()
    offers = lasting.offers(request)
    monkeypatch.setattr(node, "do", lambda offer: (done.append(offer.job), node._tried.add(offer.job)))
    calls = iter([[offers["A"]], [offers["A"], offers["A"]], [offers["A"]]])

    def offered(wait: int) -> Any:
        found = next(calls, None)
        if found is None:
            node.stop()
        return found or []

    monkeypatch.setattr(node, "_offers", offered)
    node.run()
    node._stopping.clear()
    assert done == [request.job]
    lasting.clinic.session.server.post_failure(request.job, "mpc.stalled", "given up by a test")


def test_a_server_that_is_gone_is_asked_again(lasting: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    node, calls = lasting.nodes["A"], []

    def offers(wait: int) -> Any:
        calls.append(wait)
        if len(calls) == 3:
            node.stop()
        raise ServerUnreachable("gone")

    monkeypatch.setattr("api.mpc.node._PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(node, "_offers", offers)
    node.run()
    node._stopping.clear()
    assert len(calls) == 3


def test_a_part_is_that_of_the_party(lasting: Pair) -> None:
    known = lasting.nodes["A"]._dealer
    for made in (
        lambda: Node(lasting.clinic.session, "B", lambda terms: [], known, listen=ANY),
        lambda: Node(lasting.owner.session, "A", lambda terms: [], known),
        lambda: Node(lasting.clinic.session, "A", lambda terms: [], known, listen=ANY),
        lambda: Node(lasting.owner.session, "B", lambda terms: [], known),
        lambda: NodeDealer(ANY, bytes(31)),
    ):
        with pytest.raises(UsageError):
            made()


def test_a_node_is_made_from_a_folder(lasting: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    known = lasting.nodes["A"]._dealer
    of_clinic = node_of(lasting.clinic.session.folder, known)
    assert (of_clinic._role, of_clinic.address) == ("A", None)
    with node_of(lasting.owner.session.folder, known) as of_owner:
        assert of_owner._role == "B"
        assert of_owner.address is not None
        assert of_owner.address.host == "127.0.0.1"
    where = Address("owner.example", 7100)
    for listen in (ANY, Address("0.0.0.0", 0)):
        with node_of(lasting.owner.session.folder, known, listen=listen, advertise=where) as advertised:
            assert advertised.address == where


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_every_address_of_this_machine_is_not_told_to_clinics(lasting: Pair, host: str) -> None:
    """They would connect to themselves."""
    with pytest.raises(UsageError, match="--advertise"):
        node_of(lasting.owner.session.folder, lasting.nodes["A"]._dealer, listen=Address(host, 0))


# -- offers that are refused before anything secret is used -----------------------------------------------------------


def refuses(pair: Pair, node: Role, check: str, words: str = "", **changes: Any) -> None:
    """One node refuses this offer: the job fails with the reason, and nobody is suspended."""
    request = pair.ask()
    offer = replace(pair.offers(request)[node], **changes)
    error = pair.nodes[node].do(offer)
    assert getattr(error, "check", None) == check, repr(error)
    state = pair.state(request)
    assert state.error is not None
    assert state.error.check == check
    assert words in state.error.message
    side = ("clinic", "owner")[node == "B"]
    assert f"the node of {side}" in state.error.message
    assert pair.suspended_here() == {"A": [], "B": []}
    assert pair.suspended_there() == {}


@pytest.mark.parametrize("role", ROLES)
def test_the_part_of_the_other_is_not_taken(lasting: Pair, role: Role) -> None:
    refuses(lasting, role, "mpc.role", "asks for the part of", role="B" if role == "A" else "A")


@pytest.mark.parametrize("role", ROLES)
def test_records_or_a_model_of_somebody_else_are_not_computed_with(lasting: Pair, others: Pair, role: Role) -> None:
    """Whatever the server says: a clinic's node takes part for its own records, an owner's for its own models."""
    if role == "A":
        changes = {"records": others.records.index, "clinic": index_of(others, "A")}
    else:
        changes = {"model": others.model.reference.index, "owner": index_of(others, "B")}
    what = "records" if role == "A" else "model"
    refuses(lasting, role, "offer.party", f"the {what} of the offer are not this party's", **changes)
    # The server may lie about whose they are, too.
    refuses(lasting, role, "offer.party", "are not the authors", **{what: changes[what]})


@pytest.mark.parametrize("role", ROLES)
def test_parties_are_the_authors_of_model_and_records(lasting: Pair, others: Pair, role: Role) -> None:
    for changes in (
        {"clinic": index_of(others, "A")},
        {"owner": index_of(others, "B")},
        {"clinic": index_of(lasting, "B"), "owner": index_of(lasting, "A")},
        {"clinic": 10_000},
    ):
        refuses(lasting, role, "offer.party", "are not the authors", **changes)


@pytest.mark.parametrize("role", ROLES)
def test_entries_of_another_kind_are_refused(lasting: Pair, role: Role) -> None:
    model, records = lasting.model.reference.index, lasting.records.index
    refuses(lasting, role, "ledger.reference", model=records)
    refuses(lasting, role, "ledger.reference", records=model)
    refuses(lasting, role, "ledger.reference", records=10_000)


@pytest.mark.parametrize("role", ROLES)
def test_a_head_that_is_older_than_the_entries_is_refused(lasting: Pair, before: bytes, role: Role) -> None:
    refuses(lasting, role, "offer.order", "is older than entry", checkpoint=before)


@pytest.mark.parametrize("role", ROLES)
def test_a_head_that_the_log_did_not_sign_is_refused(lasting: Pair, joint_story: JointStory, role: Role) -> None:
    for note in (joint_story.world.checkpoint(), b"", b"localhost/sealproof\n3\n", bytes(200)):
        request = lasting.ask()
        offer = replace(lasting.offers(request)[role], checkpoint=note)
        assert isinstance(lasting.nodes[role].do(offer), PrivacyError)
        assert lasting.state(request).state == "failed"
    assert lasting.suspended_here() == {"A": [], "B": []}


def test_records_are_used_for_the_models_of_their_policy(lasting: Pair, others: Pair) -> None:
    theirs = {"model": others.model.reference.index, "owner": index_of(others, "B")}
    refuses(lasting, "A", "policy.models", "not committed for this model", **theirs)
    records = {"records": others.records.index, "clinic": index_of(others, "A")}
    refuses(lasting, "B", "policy.models", "not committed for this model", **records)


@pytest.mark.parametrize("role", ROLES)
def test_records_are_not_used_after_their_end(lasting: Pair, role: Role) -> None:
    policy = Policy((lasting.model.reference,), "2020-01-01T00:00:00Z")
    expired = lasting.clinic.submit(SCHEMA.cohort(PATIENTS, IDS), lasting.model, policy=policy)
    refuses(lasting, role, "policy.until", "until 2020-01-01", records=expired.index)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("what", ["model", "records"])
def test_what_was_revoked_is_not_computed_with(pair: Pair, role: Role, what: str) -> None:
    request = pair.ask()
    offers = pair.offers(request)
    if what == "model":
        pair.owner.session.revoke(pair.model.reference, "withdrawn")
    else:
        pair.clinic.session.revoke(pair.records.reference, "consent withdrawn")
    error = pair.nodes[role].do(offers[role])
    assert getattr(error, "check", None) == "ledger.revoked"
    assert pair.state(request).state == "failed"
    assert pair.suspended_here() == {"A": [], "B": []}


@pytest.mark.parametrize("role", ROLES)
def test_a_pair_that_this_node_knows_to_be_suspended_does_not_compute(pair: Pair, role: Role) -> None:
    peer = pair.owner if role == "A" else pair.clinic
    key = peer.session.identity.private_key.public_key().public_bytes_raw()
    pair.nodes[role].suspensions.suspend(peer.session.identity.name, key, bytes(32), "kept here alone")
    request = pair.ask()
    error = pair.nodes[role].do(pair.offers(request)[role])
    assert getattr(error, "check", None) == "mpc.suspended"
    state = pair.state(request)
    assert state.error is not None
    assert "kept here alone" not in state.error.message
    assert f"sealproof mpc clear {peer.session.identity.name}" in state.error.message
    assert pair.suspended_there() == {}


@pytest.mark.parametrize("role", ROLES)
def test_a_record_of_the_pair_that_is_damaged_suspends_it_and_is_not_told(pair: Pair, role: Role) -> None:
    peer = pair.owner if role == "A" else pair.clinic
    key = peer.session.identity.private_key.public_key().public_bytes_raw()
    node = pair.nodes[role]
    node.suspensions.suspend(peer.session.identity.name, key, bytes(32), "kept here alone")
    (path,) = (node.session.folder / "suspensions").glob("*.json")
    path.write_bytes(b"damaged")
    request = pair.ask()
    error = node.do(pair.offers(request)[role])
    assert getattr(error, "check", None) == "mpc.suspended"
    state = pair.state(request)
    assert state.error is not None
    assert str(node.session.folder) not in state.error.message


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("author", ["clinic", "owner"])
def test_a_pair_that_the_ledger_suspends_does_not_compute(pair: Pair, role: Role, author: str) -> None:
    request = pair.ask()
    offers = pair.offers(request)
    session = getattr(pair, author).session
    parties = [party.session.identity.party for party in (pair.clinic, pair.owner)]
    session.server.append(session.identity.sign(Suspension(*parties, bytes(32), "said on the ledger")))
    error = pair.nodes[role].do(offers[role])
    assert getattr(error, "check", None) == "mpc.suspended"
    assert pair.state(request).state == "failed"
    assert pair.suspended_here() == {"A": [], "B": []}


def test_a_head_of_a_suspension_that_was_cleared_since_is_refused(pair: Pair) -> None:
    """Nothing can be logged that names it: the work, and the answers that count, would be for nothing."""
    parties = [party.session.identity.party for party in (pair.clinic, pair.owner)]
    identity, server = pair.clinic.session.identity, pair.clinic.session.server
    server.append(identity.sign(Suspension(*parties, bytes(32), "said on the ledger")))  # type: ignore[arg-type]
    then = server.checkpoint()
    clear(pair.clinic.session, pair.owner.session.identity.name)
    clear(pair.owner.session, pair.clinic.name)
    for role in ROLES:
        refuses(pair, role, "mpc.suspended", checkpoint=then)
    pair.check_open()


def test_a_certificate_that_does_not_hold_is_refused_by_the_side_that_did_not_make_it(
    lasting: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> None:
        raise VerificationFailed("quadratic.opening", "no such certificate")

    monkeypatch.setattr("api.mpc.terms.verify_network_entry", never)
    monkeypatch.setattr("api.mpc.terms.verify_records_batch", never)
    for role in ROLES:
        monkeypatch.setattr(lasting.nodes[role]._examiner._cache, "knows", lambda mark: False)
        refuses(lasting, role, "quadratic.opening", "no such certificate")


@pytest.mark.parametrize("role", ROLES)
def test_a_list_of_commitments_of_another_length_is_refused(
    lasting: Pair, role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Server.blob
    (digest,) = [
        lasting.nodes["A"]._examiner._mirror.registry.get(lasting.records.index, object).body.commitments  # type: ignore[type-var, attr-defined]
    ]
    monkeypatch.setattr(
        Server, "blob", lambda server, wanted: honest(server, wanted)[: 48 * 4 if wanted == digest else None]
    )
    request = lasting.ask()
    error = lasting.nodes[role].do(lasting.offers(request)[role])
    assert "192 bytes for 5 patients" in str(error)
    assert lasting.state(request).state == "failed"


# -- the exposure cap -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(lasting: Pair) -> Fraction:
    """The share of a network's bits that one session about the whole cohort tells."""
    body = lasting.model.body
    assert isinstance(body, Network)
    return Fraction(len(PATIENTS) * body.answer_bits, network_bits(body))


def test_an_owner_allows_as_much_as_it_said_and_not_a_bit_more(
    server: RunningServer, tmp_path: Path, cohort: Fraction
) -> None:
    with pair_of(server, tmp_path, exposure_cap=2 * cohort) as pair:
        for _ in range(2):
            ended = pair.session()
            assert ended.errors == {"A": None, "B": None}
            assert pair.state(ended.request).state == "done"
        ended = pair.session()
        assert ended.checks[1] == "exposure.cap"
        assert isinstance(ended.errors["A"], SessionBroken)
        assert pair.suspended_here() == {"A": [], "B": []}
    with pair_of(server, tmp_path, exposure_cap=cohort - Fraction(1, 1000)) as pair:
        assert pair.session().checks[1] == "exposure.cap"


def test_what_was_delivered_counts_although_nothing_of_it_was_published(
    server: RunningServer, tmp_path: Path, cohort: Fraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair_of(server, tmp_path, exposure_cap=cohort) as pair:
        with monkeypatch.context() as patch:
            patch.setattr(Server, "post_result", lambda *arguments: None)
            ended = pair.session()
        assert ended.errors == {"A": None, "B": None}
        pair.clinic.session.server.post_failure(ended.request.job, "mpc.stalled", "nothing was delivered")
        assert pair.predictions() == 0
        assert pair.session().checks[1] == "exposure.cap"
        # A new process finds the same count.
        pair.replace_node("B", node_of_owner(pair.owner, pair.nodes["B"]._dealer, ANY, exposure_cap=cohort))
        assert pair.session().checks[1] == "exposure.cap"


def test_other_clinics_and_models_are_counted_apart(server: RunningServer, tmp_path: Path, cohort: Fraction) -> None:
    with pair_of(server, tmp_path, exposure_cap=cohort) as pair:
        store, party = pair.nodes["B"]._delivered, pair.clinic.session.identity.party
        assert store is not None
        assert party is not None
        store.add(bytes([1] * 32), bytes(32), pair.model.reference.leaf, 1000)
        store.add(bytes([2] * 32), party.leaf, bytes(32), 1000)
        assert pair.session().errors == {"A": None, "B": None}


# -- nodes that do not find each other --------------------------------------------------------------------------------


def ends_without_suspension(pair: Pair, ended: Any) -> None:
    assert pair.state(ended.request).state == "failed"
    assert pair.suspended_here() == {"A": [], "B": []}
    assert pair.suspended_there() == {}
    assert pair.predictions() == 0


def test_a_peer_that_cannot_be_reached_ends_the_job(pair: Pair) -> None:
    with Listener(ANY, Ed25519PrivateKey.generate()) as listener:
        closed = listener.port
    request = pair.ask()
    offers = pair.offers(request)
    ended = pair.meet(request, {**offers, "A": replace(offers["A"], peer_address=f"127.0.0.1:{closed}")})
    assert ended.checks == ("mpc.unreachable", "mpc.unreachable")
    assert "connected within 2 s" in str(ended.errors["B"])
    ends_without_suspension(pair, ended)
    for address, check in ((None, "mpc.unreachable"), ("nonsense", None)):
        request = pair.ask()
        offer = replace(pair.offers(request)["A"], peer_address=address)
        assert getattr(pair.nodes["A"].do(offer), "check", None) == check
        assert pair.state(request).state == "failed"
    pair.check_open()


def test_a_stranger_at_the_address_of_the_peer_is_told_nothing(pair: Pair) -> None:
    with Listener(ANY, Ed25519PrivateKey.generate()) as listener:
        request = pair.ask()
        offer = replace(pair.offers(request)["A"], peer_address=f"127.0.0.1:{listener.port}")
        error = pair.nodes["A"].do(offer)
    assert getattr(error, "check", None) == "mpc.peer-key"
    assert pair.links == {}
    assert pair.suspended_here() == {"A": [], "B": []}


def test_two_nodes_with_different_dealers_do_not_begin(pair: Pair, others: Pair) -> None:
    """The server sees that; and if it lies, they see it themselves."""
    elsewhere = node_of_owner(pair.owner, others.nodes["B"]._dealer, ANY)
    request = pair.ask()
    offers = pair.offers(request)
    pair.replace_node("B", elsewhere)
    ended = pair.meet(request, {**offers, "A": replace(offers["A"], peer_address=str(elsewhere.address))})
    assert ended.checks == ("mpc.terms", "mpc.terms")
    assert all("the dealer differs" in str(error) for error in ended.errors.values())
    ends_without_suspension(pair, ended)
    elsewhere._offers(0)
    request = pair.ask()
    pair.nodes["A"]._offers(0)
    found = pair.state(request).error
    assert found is not None
    assert (found.check, "both must use the same" in found.message) == ("mpc.dealer", True)


def test_a_dealer_that_is_gone_ends_the_job(pair: Pair) -> None:
    pair.dealer.close()
    ended = pair.session()
    # Whoever finds it gone first tells the other, which may be connecting at the time.
    assert "mpc.unreachable" in ended.checks
    assert set(ended.checks) <= {"mpc.unreachable", "mpc.gone", "mpc.aborted", "mpc.handshake"}
    ends_without_suspension(pair, ended)


def test_somebody_else_in_the_place_of_the_dealer_deals_nothing(pair: Pair) -> None:
    for role, node in list(pair.nodes.items()):
        known = NodeDealer(node._dealer.address, bytes([7] * 32))
        fresh = node_of_clinic(pair.clinic, known) if role == "A" else node_of_owner(pair.owner, known, ANY)
        pair.replace_node(role, fresh)
    ended = pair.session()
    assert "mpc.peer-key" in ended.checks
    ends_without_suspension(pair, ended)


@pytest.mark.parametrize("role", ROLES)
def test_a_peer_that_leaves_before_secrets_are_used_suspends_nobody(pair: Pair, role: Role) -> None:
    def leave(link: TappedLink, data: bytes) -> None:
        link.link.send("hello", data)
        die(link, data)

    ended = pair.breaks(**{role: at("hello", leave)})
    assert isinstance(ended.errors[role], Died)
    assert ended.errors["B" if role == "A" else "A"] is not None
    ends_without_suspension(pair, ended)
    pair.check_open()
