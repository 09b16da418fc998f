"""A dealer serves pairs that name each other, gives each party its own part, and never deals the same twice."""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.mpc import dealer_process
from api.mpc.dealer_process import DealerClient, DealerServer
from api.mpc.link import Address, connect
from privacy.errors import SessionBroken, UsageError
from privacy.mpc.dealer import (
    MAX_PLAN_BYTES,
    BitShares,
    Correlations,
    ElementTriple,
    FieldProducts,
    MatrixTriple,
    Plan,
    dealt_size,
    encode_plan,
)

ROOT = Path(__file__).resolve().parents[2]
ANY = Address("127.0.0.1", 0)
DEALER, CLINIC, OWNER, STRANGER = (Ed25519PrivateKey.generate() for _ in range(4))
PLAN: Plan = (MatrixTriple(3, 4, 2), ElementTriple(5), BitShares(7), FieldProducts((2, 3)))


def key_of(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.public_key().public_bytes_raw()


def in_background(action: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    executor = ThreadPoolExecutor(1)
    future = executor.submit(action, *args, **options)
    executor.shutdown(wait=False)
    return future


@contextlib.contextmanager
def serving(**options: Any) -> Iterator[DealerServer]:
    with DealerServer(ANY, DEALER, **{"pair_timeout": 5, "idle_timeout": 10, **options}) as server:
        server.start()
        yield server


@pytest.fixture
def server() -> Iterator[DealerServer]:
    with serving() as found:
        yield found


def client(
    server: DealerServer,
    role: Literal["A", "B"],
    session: bytes,
    own: Ed25519PrivateKey | None = None,
    peer: Ed25519PrivateKey | None = None,
) -> DealerClient:
    """The clinic as A or the owner as B, each naming the other."""
    own = own or (CLINIC if role == "A" else OWNER)
    peer = peer or (OWNER if role == "A" else CLINIC)
    address = Address("127.0.0.1", server.port)
    return DealerClient(address, key_of(DEALER), own, session, role, key_of(peer), pair_timeout=5, timeout=10)


@contextlib.contextmanager
def paired(server: DealerServer, session: bytes) -> Iterator[tuple[DealerClient, DealerClient]]:
    waiting = in_background(client, server, "A", session)
    with client(server, "B", session) as owner, waiting.result() as clinic:
        yield clinic, owner


def new_session() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes_raw()


# -- what works -------------------------------------------------------------------------------------------------------


def test_both_parties_are_dealt_parts_that_belong_together(server: DealerServer) -> None:
    with paired(server, new_session()) as (clinic, owner):
        for_clinic = in_background(clinic.deal, PLAN)
        dealt_B = owner.deal(PLAN)
        left, right = Correlations("A", PLAN, for_clinic.result()), Correlations("B", PLAN, dealt_B)
        a, b, c = (x + y for x, y in zip(left.matrix_triple(3, 4, 2), right.matrix_triple(3, 4, 2), strict=True))
        np.testing.assert_array_equal(a @ b, c)


def test_many_plans_are_dealt_one_after_the_other_and_never_the_same_twice(server: DealerServer) -> None:
    seen = set()
    with paired(server, new_session()) as (clinic, owner):
        for _ in range(10):
            for_clinic = in_background(clinic.deal, PLAN)
            seen |= {owner.deal(PLAN), for_clinic.result()}
    assert len(seen) == 20


def test_no_party_is_sent_what_the_other_is_dealt(server: DealerServer) -> None:
    with paired(server, new_session()) as (clinic, owner):
        before = clinic.received_bytes, owner.received_bytes
        for_clinic = in_background(clinic.deal, PLAN)
        dealt_B = owner.deal(PLAN)
        dealt_A = for_clinic.result()
        assert dealt_A not in dealt_B
        for party, start, dealt in ((clinic, before[0], dealt_A), (owner, before[1], dealt_B)):
            assert party.received_bytes - start == len(dealt) + 6 + len("dealer/dealt")


def test_what_is_dealt_may_be_larger_than_a_piece(server: DealerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dealer_process, "_PIECE_BYTES", 1000)
    plan = (ElementTriple(10_000),)
    with paired(server, new_session()) as (clinic, owner):
        for_clinic = in_background(clinic.deal, plan)
        dealt = owner.deal(plan)
        assert len(dealt) == dealt_size("B", plan)
        left = Correlations("A", plan, for_clinic.result()).element_triple(10_000)
        right = Correlations("B", plan, dealt).element_triple(10_000)
        a, b, c = (x + y for x, y in zip(left, right, strict=True))
        np.testing.assert_array_equal(a * b, c)


def test_sessions_of_different_pairs_run_at_the_same_time(server: DealerServer) -> None:
    with paired(server, new_session()) as first, paired(server, new_session()) as second:
        deals = [in_background(party.deal, PLAN) for party in (*first, *second)]
        assert len({deal.result() for deal in deals}) == 4


def test_one_line_is_logged_for_a_session_and_nothing_secret_in_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "sealproof.dealer")
    session = new_session()
    with serving() as server, paired(server, session) as (clinic, owner):
        for_clinic = in_background(clinic.deal, PLAN)
        dealt = [owner.deal(PLAN), for_clinic.result()]
        clinic.close()
        owner.close()
        deadline = time.monotonic() + 5
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)
    (record,) = caplog.records
    size = sum(dealt_size(role, PLAN) for role in ("A", "B"))
    assert record.getMessage() == (
        f"session {session.hex()[:16]} of A {key_of(CLINIC).hex()[:16]} and B {key_of(OWNER).hex()[:16]}: "
        f"1 plans, {size} bytes dealt, ended"
    )
    assert session.hex() not in caplog.text
    assert all(part.hex()[:16] not in caplog.text for part in dealt)


# -- who is paired ----------------------------------------------------------------------------------------------------


def outcome_of(*makers: Callable[[], DealerClient]) -> list[str]:
    """How each of these clients, made at the same time, was refused; "" if it was not."""

    def attempt(make: Callable[[], DealerClient]) -> str:
        try:
            make().close()
        except SessionBroken as error:
            return str(error)
        return ""

    return [future.result() for future in [in_background(attempt, make) for make in makers]]


def test_parties_are_paired_only_if_session_keys_and_roles_belong_together() -> None:
    session = new_session()
    with serving(pair_timeout=0.5) as server:
        for first, second in (
            (lambda: client(server, "A", session), lambda: client(server, "B", new_session())),
            (lambda: client(server, "A", session), lambda: client(server, "B", session, peer=STRANGER)),
            (lambda: client(server, "A", session, peer=STRANGER), lambda: client(server, "B", session)),
            (lambda: client(server, "A", session), lambda: client(server, "A", session, OWNER, CLINIC)),
            (lambda: client(server, "A", session), lambda: client(server, "B", session, STRANGER, CLINIC)),
        ):
            for refusal in outcome_of(first, second):
                assert "the other party did not come within 0.5 s" in refusal
        # Whoever was not paired may come again.
        assert outcome_of(lambda: client(server, "A", session), lambda: client(server, "B", session)) == ["", ""]


def test_a_session_of_a_pair_is_opened_once(server: DealerServer) -> None:
    session = new_session()
    with paired(server, session):
        pass
    for role in ("A", "B"):
        with pytest.raises(SessionBroken, match=r"mpc\.aborted.*was opened before"):
            client(server, role, session)
    assert outcome_of(
        lambda: client(server, "A", session, OWNER, CLINIC), lambda: client(server, "B", session, CLINIC, OWNER)
    ) == ["", ""]  # other roles are another session


def test_a_stranger_who_knows_a_session_cannot_use_it_up(server: DealerServer) -> None:
    session = new_session()
    other = Ed25519PrivateKey.generate()
    assert outcome_of(
        lambda: client(server, "A", session, STRANGER, other), lambda: client(server, "B", session, other, STRANGER)
    ) == ["", ""]
    with paired(server, session):
        pass


def test_a_second_connection_of_a_party_that_waits_is_refused_and_the_first_is_served(server: DealerServer) -> None:
    session = new_session()
    waiting = in_background(client, server, "A", session)
    deadline = time.monotonic() + 5
    while not server._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(SessionBroken, match="waits here already"):
        client(server, "A", session)
    with client(server, "B", session), waiting.result():
        pass


def test_a_party_that_died_while_it_waited_may_come_again(server: DealerServer) -> None:
    session = new_session()
    dead = connect("127.0.0.1", server.port, CLINIC, key_of(DEALER))
    dead.send("dealer/hello", session + b"A" + key_of(OWNER))
    deadline = time.monotonic() + 5
    while not server._waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    dead.close()
    time.sleep(0.1)
    with paired(server, session) as (clinic, owner):
        for_clinic = in_background(clinic.deal, PLAN)
        assert owner.deal(PLAN) != for_clinic.result()


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (bytes(32) + b"C" + key_of(OWNER), "names the role A or B"),
        (bytes(32) + b"A" + key_of(CLINIC), "the key of another party"),
        (bytes(64), "sent 64 bytes"),
        (bytes(66), "sent 66 bytes"),
    ],
    ids=["role", "own-key", "short", "long"],
)
def test_a_malformed_hello_is_refused(server: DealerServer, hello: bytes, reason: str) -> None:
    with connect("127.0.0.1", server.port, CLINIC, key_of(DEALER)) as channel:
        channel.send("dealer/hello", hello)
        with pytest.raises(SessionBroken, match=rf"mpc\.aborted.*{reason}"):
            channel.receive("dealer/paired", 0)


def test_another_dealer_than_the_pinned_one_is_refused(server: DealerServer) -> None:
    with pytest.raises(SessionBroken, match=r"mpc\.peer-key"):
        DealerClient(Address("127.0.0.1", server.port), key_of(STRANGER), CLINIC, bytes(32), "A", key_of(OWNER))


def test_keys_that_the_dealer_does_not_serve_are_refused() -> None:
    with (
        serving(allowed=lambda key: key in (key_of(CLINIC), key_of(OWNER))) as server,
        paired(server, new_session()),
        pytest.raises(SessionBroken, match=r"mpc\.stalled|mpc\.aborted"),
    ):
        connect("127.0.0.1", server.port, STRANGER, key_of(DEALER), 0.5)


def test_a_dealer_takes_no_more_sessions_than_it_is_allowed_to() -> None:
    with serving(max_sessions=1, pair_timeout=0.5) as server:
        with paired(server, new_session()):
            session = new_session()
            refusals = outcome_of(lambda: client(server, "A", session), lambda: client(server, "B", session))
            assert any("takes no more now" in refusal for refusal in refusals)
            assert all(refusals)
        deadline = time.monotonic() + 5
        while server._sessions and time.monotonic() < deadline:
            time.sleep(0.01)
        with paired(server, session):
            pass


@pytest.mark.parametrize(
    ("session", "role", "peer"),
    [(bytes(31), "A", key_of(OWNER)), (bytes(32), "C", key_of(OWNER)), (bytes(32), "A", bytes(3))],
    ids=["session", "role", "key"],
)
def test_a_client_that_can_never_be_paired_is_not_made(session: bytes, role: Any, peer: bytes) -> None:
    with pytest.raises(UsageError, match="32 bytes each, a role"):
        DealerClient(ANY, key_of(DEALER), CLINIC, session, role, peer)
    with pytest.raises(UsageError, match="another key than this one"):
        DealerClient(ANY, key_of(DEALER), CLINIC, bytes(32), "A", key_of(CLINIC))


# -- sessions that break ----------------------------------------------------------------------------------------------


def both_told(clinic: Future[Any], owner: Future[Any], reason: str) -> None:
    for future in (clinic, owner):
        with pytest.raises(SessionBroken) as caught:
            future.result()
        assert caught.value.check == "mpc.aborted"
        assert reason in caught.value.detail


@pytest.mark.parametrize("other", [(ElementTriple(5),), (*PLAN, BitShares(1)), (*PLAN[:-1], FieldProducts((3, 2)))])
def test_parties_that_ask_for_different_plans_are_both_told(server: DealerServer, other: Plan) -> None:
    with paired(server, new_session()) as (clinic, owner):
        asked = in_background(clinic.deal, PLAN), in_background(owner.deal, other)
        both_told(*asked, "ask for different plans")


def test_a_plan_that_is_too_large_is_refused_to_both() -> None:
    with serving(max_dealt_bytes=1000) as server, paired(server, new_session()) as (clinic, owner):
        asked = [in_background(party.deal, (ElementTriple(10_000),)) for party in (clinic, owner)]
        both_told(asked[0], asked[1], "the plan is too large: 80032 bytes for one party, at most 1000")


def test_a_plan_of_too_many_bytes_is_refused_before_it_is_read(server: DealerServer) -> None:
    with paired(server, new_session()) as (clinic, owner):
        for party in (clinic, owner):
            party._channel.send("dealer/plan-size", (MAX_PLAN_BYTES + 1).to_bytes(4, "little"))
        asked = [in_background(party._channel.receive, "dealer/dealt", 32) for party in (clinic, owner)]
        both_told(asked[0], asked[1], "is too large")


def test_a_plan_that_is_none_is_refused_to_both(server: DealerServer) -> None:
    data = encode_plan(PLAN) + b"\0"
    with paired(server, new_session()) as (clinic, owner):
        for party in (clinic, owner):
            party._channel.send("dealer/plan-size", len(data).to_bytes(4, "little"))
            party._channel.send("dealer/plan", data)
        asked = [in_background(party._channel.receive, "dealer/dealt", 32) for party in (clinic, owner)]
        both_told(asked[0], asked[1], "plan: ")


@pytest.mark.parametrize("dying", [0, 1], ids=["A", "B"])
def test_when_a_party_dies_the_other_is_told(server: DealerServer, dying: int) -> None:
    with paired(server, new_session()) as parties:
        asked = in_background(parties[1 - dying].deal, PLAN)
        time.sleep(0.1)
        parties[dying]._channel.close()  # without a word, as if it were killed
        with pytest.raises(SessionBroken, match=rf"mpc\.aborted.*party {'AB'[dying]}: mpc\.gone"):
            asked.result()


def test_when_a_party_gives_up_the_other_learns_why(server: DealerServer) -> None:
    with paired(server, new_session()) as (clinic, owner):
        asked = in_background(clinic.deal, PLAN)
        owner.abort("the proof does not hold")
        with pytest.raises(SessionBroken, match=r"mpc\.aborted.*the proof does not hold"):
            asked.result()


def test_when_only_one_party_ends_the_session_the_other_is_told(server: DealerServer) -> None:
    with paired(server, new_session()) as (clinic, owner):
        clinic.close()
        with pytest.raises(SessionBroken, match="party A ended the session, the other did not"):
            owner.deal(PLAN)


def test_a_party_that_stalls_ends_the_session() -> None:
    with (
        serving(idle_timeout=0.3) as server,
        paired(server, new_session()) as (clinic, _),
        pytest.raises(SessionBroken, match=r"mpc\.aborted.*party B: mpc\.stalled"),
    ):
        clinic.deal(PLAN)


def test_a_failure_of_the_dealer_is_told_to_both_and_the_next_session_works(
    server: DealerServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(plan: Plan) -> tuple[bytes, bytes]:
        raise MemoryError

    with paired(server, new_session()) as (clinic, owner), monkeypatch.context() as patched:
        patched.setattr(dealer_process, "deal", broken)
        asked = [in_background(party.deal, PLAN) for party in (clinic, owner)]
        both_told(asked[0], asked[1], "the dealer failed")
    assert "MemoryError" in caplog.text
    with paired(server, new_session()) as (clinic, owner):
        for_clinic = in_background(clinic.deal, PLAN)
        assert owner.deal(PLAN) != for_clinic.result()


def test_a_dealer_that_is_stopped_says_so_to_both() -> None:
    with serving() as server, paired(server, new_session()) as (clinic, owner):
        lonely = in_background(client, server, "A", new_session())
        time.sleep(0.2)
        asked = [in_background(party._channel.receive, "dealer/dealt", 32) for party in (clinic, owner)]
        server.close()
        both_told(asked[0], asked[1], "the dealer was stopped")
        with pytest.raises(SessionBroken, match="the dealer was stopped"):
            lonely.result()


PROCESS = """
import sys
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from api.mpc.dealer_process import DealerServer
from api.mpc.link import Address

key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(sys.stdin.readline()))
server = DealerServer(Address("127.0.0.1", 0), key)
print(server.port, flush=True)
server.serve()
"""


def test_a_dealer_in_a_process_of_its_own_is_missed_when_it_is_killed() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(DEALER.private_bytes_raw().hex() + "\n")
        process.stdin.flush()
        port = int(process.stdout.readline())
        session, address = new_session(), Address("127.0.0.1", port)
        waiting = in_background(DealerClient, address, key_of(DEALER), CLINIC, session, "A", key_of(OWNER))
        with (
            DealerClient(address, key_of(DEALER), OWNER, session, "B", key_of(CLINIC)) as owner,
            waiting.result() as clinic,
        ):
            for_clinic = in_background(clinic.deal, PLAN)
            Correlations("B", PLAN, owner.deal(PLAN))
            for_clinic.result()
            for_clinic = in_background(clinic.deal, PLAN)
            process.send_signal(signal.SIGKILL)
            for future in (for_clinic, in_background(owner.deal, PLAN)):
                with pytest.raises(SessionBroken, match=r"mpc\.gone: .*the dealer"):
                    future.result()
