"""A node of the clinic (A) or of the owner (B), or an auditor, as a process that is told what to do: `mpc_node.py WHO`.

Nodes are connected as in production: to each other by TLS links with pinned keys (`api.mpc.link`), and to the dealer's
process. What is missing beside `sealproof mpc node` is the server: entries come from a folder (mpc_work.py), proofs and
sealed shares go there.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import time
from pathlib import Path
from typing import Any

from children import serve
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from mpc_work import Public, Secret, load

from api.joint_binding import records_statement
from api.mpc.dealer_process import DealerClient
from api.mpc.link import Address, LinkChannel, Listener, connect, parse_address
from api.mpc.session import hello, run_session
from privacy.models.network_certificate import certify_network, verify_network_certificate
from privacy.mpc.answers import AnswerShare, open_answers
from privacy.mpc.dealer import Correlations, Role
from privacy.mpc.joint_proof import verify_joint
from privacy.mpc.joint_prover import compute_answer_shares
from privacy.mpc.params import PATIENTS_PER_PROOF, batches
from privacy.mpc.plan import batch_plan
from privacy.mpc.records import certify_records, verify_records
from privacy.mpc.shares import receive_scalars, send_scalars
from privacy.zk.group import ORDER

__all__ = ["Auditor", "Node"]

WAIT_SECONDS = 60.0


class Kept:
    """`api.mpc.session.Keeper` of one measured session: proofs on disk at B, shares in memory."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.dealer: DealerClient | None = None
        self.connected = 0.0
        self.shares: list[AnswerShare] = []
        self.proof_bytes = 0
        self.box_bytes = 0

    def begin(self, session: bytes) -> DealerClient:
        self.dealer = self._node.join_dealer(session)
        self.connected = time.perf_counter()
        return self.dealer

    def batch(self, number: int, proof: bytes, answers: object, shares: tuple[AnswerShare, ...]) -> None:
        del answers
        self.shares += shares
        self.proof_bytes += len(proof)
        if self._node.role == "B":
            (self._node.folder / f"{number}.proof").write_bytes(proof)

    def complete(self, session: bytes) -> None:
        (self._node.folder / f"{self._node.role}.shares").write_bytes(pickle.dumps((session, self.shares)))

    def keep_key(self, session: bytes, private: X25519PrivateKey) -> None:
        pass

    def deliver(self, session: bytes, box: bytes) -> None:
        self.box_bytes = len(box)


class Node:
    """One party's node. B listens on a free port of this machine, A connects there."""

    def __init__(self, role: Role) -> None:
        self.role: Role = role
        self.folder = Path()
        self._public: Public | None = None
        self._secret: Secret | None = None
        self._listener: Listener | None = None
        self._peer: Address | None = None
        self._dealer: tuple[Address, bytes] | None = None
        self._standing: tuple[LinkChannel, bytes, DealerClient] | None = None

    @property
    def public(self) -> Public:
        if self._public is None:
            raise RuntimeError("no work was opened")
        return self._public

    @property
    def secret(self) -> Secret:
        if self._secret is None:
            raise RuntimeError("no work was opened")
        return self._secret

    @property
    def private_key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.secret.private_key)

    def open(self, folder: str, dealer: str, dealer_key: str) -> int | None:
        """Take up the work in `folder`. B's answer is the port where it listens now."""
        self.folder = Path(folder)
        self._public, self._secret = load(self.folder, "public"), load(self.folder, self.role)
        self._dealer = parse_address(dealer), bytes.fromhex(dealer_key)
        if self.role == "A":
            return None
        if self._listener is not None:
            self._listener.close()
        self._listener = Listener(Address("127.0.0.1", 0), self.private_key)
        return self._listener.port

    def peer(self, port: int) -> None:
        """A: where B listens."""
        self._peer = Address("127.0.0.1", port)

    # -- connections --------------------------------------------------------------------------------------------------

    def link(self) -> LinkChannel:
        """A new connection to the other node."""
        if self._listener is not None:
            return self._listener.accept(self.secret.peer_key, WAIT_SECONDS)
        if self._peer is None:
            raise RuntimeError("nobody said where B listens")
        return connect(*self._peer, self.private_key, self.secret.peer_key, WAIT_SECONDS)

    def join_dealer(self, session: bytes) -> DealerClient:
        """A new connection to the dealer, as this session's party."""
        if self._dealer is None:
            raise RuntimeError("nobody said where the dealer is")
        address, key = self._dealer
        return DealerClient(address, key, self.private_key, session, self.role, self.secret.peer_key)

    def connect(self) -> None:
        """Connect to node and dealer, for `compute`."""
        channel = self.link()
        session = hello(self.role, self.public.terms, channel)
        dealer = self.join_dealer(session)
        channel.sent_bytes = channel.received_bytes = 0
        self._standing = channel, session, dealer

    # -- what is measured ---------------------------------------------------------------------------------------------

    def compute(self) -> dict[str, Any]:
        """Without proof: the answers in shares, all batches, then revealed to A, on the standing connections.

        The plans are those of the proof less their last item, the dealer's part of the proof itself.
        """
        if self._standing is None:
            raise RuntimeError("not connected")
        channel, session, dealer = self._standing
        answers: list[int] = []
        dealing = 0.0
        for number, part in self._parts():
            statement = self.public.terms.statement(session, number)
            plan = batch_plan(statement.circuit, statement.count)[:-1]
            begun = time.perf_counter()
            dealt = dealer.deal(plan)
            dealing += time.perf_counter() - begun
            shares = compute_answer_shares(self.role, statement, part, channel, Correlations(self.role, plan, dealt))
            if self.role == "B":
                send_scalars(channel, "answers", shares)
                continue
            theirs = receive_scalars(channel, "answers", len(shares))
            sums = [(mine + other) % ORDER for mine, other in zip(shares, theirs, strict=True)]
            answers += [z - ORDER if z > ORDER // 2 else z for z in sums]
        return {
            "answers": answers,
            "deal_seconds": dealing,
            "link_bytes": channel.sent_bytes + channel.received_bytes,
            "dealer_bytes": dealer.received_bytes,
        }

    def disconnect(self) -> None:
        """Close the standing connections."""
        if self._standing is not None:
            channel, _, dealer = self._standing
            dealer.close()
            channel.close()
            self._standing = None

    def session(self) -> dict[str, Any]:
        """With proof: a whole session, from connecting to the sealed shares. Times are this node's."""
        begun = time.perf_counter()
        kept = Kept(self)
        with contextlib.closing(self.link()) as channel:
            try:
                run_session(self.role, self.public.terms, self.secret.openings, channel, kept)
                ended = time.perf_counter()
                dealer_bytes = kept.dealer.received_bytes if kept.dealer is not None else 0
            finally:
                if kept.dealer is not None:
                    kept.dealer.close()
        return {
            "connect_seconds": kept.connected - begun,
            "prove_seconds": ended - kept.connected,
            "proof_bytes": kept.proof_bytes,
            "box_bytes": kept.box_bytes,
            "link_bytes": channel.sent_bytes + channel.received_bytes,
            "dealer_bytes": dealer_bytes,
        }

    def certify(self) -> int:
        """A: the certificates of the records; B: that of the network. Bytes of all."""
        public, openings = self.public, self.secret.openings
        made = []
        if self.role == "B":
            made.append(certify_network(public.network, openings))
        else:
            for batch, commitments in _batches(public):
                statement = records_statement(public.terms.records.body, public.terms.schema, batch, commitments)
                made.append(certify_records(statement, openings[batch.start : batch.stop]))
        for number, data in enumerate(made):
            (self.folder / f"{number}.certificate-{self.role}").write_bytes(data)
        return sum(map(len, made))

    def _parts(self) -> list[tuple[int, Any]]:
        """Number and secret of every batch."""
        openings, first = self.secret.openings, range(0, len(self.public.terms.commitments), PATIENTS_PER_PROOF)
        return [
            (number, openings[start : start + PATIENTS_PER_PROOF] if self.role == "A" else openings)
            for number, start in enumerate(first)
        ]


def _batches(public: Public) -> list[tuple[range, tuple[bytes, ...]]]:
    """Patients and C_x of every batch."""
    commitments = public.terms.commitments
    return [(batch, commitments[batch.start : batch.stop]) for batch in batches(len(commitments))]


class Auditor:
    """Anybody who checks: has the entries and what was published, and no secret."""

    def __init__(self) -> None:
        self._folder = Path()
        self._public: Public | None = None
        self._answers: list[bytes] = []

    @property
    def public(self) -> Public:
        if self._public is None:
            raise RuntimeError("no work was opened")
        return self._public

    def open(self, folder: str) -> None:
        """Take up the public part of the work in `folder`."""
        self._folder = Path(folder)
        self._public = load(self._folder, "public")

    def verify(self) -> None:
        """Verify every proof of the last session, from the entries on."""
        session, _ = pickle.loads((self._folder / "B.shares").read_bytes())
        terms = self.public.terms
        self._answers = []
        for number in range(len(terms.records.body.certificates)):
            proof = (self._folder / f"{number}.proof").read_bytes()
            self._answers += verify_joint(terms.statement(session, number), proof)

    def open_answers(self) -> list[int]:
        """The answers, from the shares of both parties and the commitments of the verified proofs; not an auditor's."""
        (_, of_A), (_, of_B) = (pickle.loads((self._folder / f"{r}.shares").read_bytes()) for r in ("A", "B"))
        openings = open_answers(self._answers, of_A, of_B, self.public.network.bounds[-1])
        return [opening.z for opening in openings]

    def verify_records(self) -> None:
        """Verify the certificates of the records."""
        terms = self.public.terms
        for number, (batch, commitments) in enumerate(_batches(self.public)):
            data = (self._folder / f"{number}.certificate-A").read_bytes()
            verify_records(records_statement(terms.records.body, terms.schema, batch, commitments), data)

    def verify_network(self) -> None:
        """Verify the certificate of the network."""
        verify_network_certificate(self.public.network, (self._folder / "0.certificate-B").read_bytes())


def main() -> None:
    (who,) = sys.argv[1:]
    if who == "auditor":
        auditor = Auditor()
        names = ("open", "verify", "open_answers", "verify_records", "verify_network")
        serve({name: getattr(auditor, name) for name in names})
        return
    node = Node("A" if who == "A" else "B")
    names = ("open", "peer", "connect", "compute", "disconnect", "session", "certify")
    serve({name: getattr(node, name) for name in names})


if __name__ == "__main__":
    main()
