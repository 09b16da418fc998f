"""One session between a clinic's node (A) and an owner's node (B): from the first word to the sealed answers.

    hello      what both were told about the job, field by field, and a fresh nonce of each: the session id hashes all
    dealer     both connect under this id; from here on a failure suspends the pair (`begin`)
    batches    plan, deal, compute, prove (`privacy.mpc.joint_prover`); both verify every proof
    done       A has its shares on disk and says which key to seal B's for
    complete   B has verified, too: the pair is not suspended by anything that happens now
    delivered  B has given proofs and sealed shares to the server, which verifies them again and publishes

Nothing of an older session fits: every message is bound to the id by the proof's transcript or the dealer's pairing.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.binding import Located
from api.entries import Party
from api.joint_binding import batch_of, joint_statement
from api.joint_entries import CommittedRecords, Network
from api.mpc.sealed import KEY_BYTES, seal
from privacy.errors import SessionBroken
from privacy.models.schema import Schema
from privacy.mpc.answers import AnswerShare, encode_shares
from privacy.mpc.channel import Channel
from privacy.mpc.dealer import Correlations, Plan, Role
from privacy.mpc.joint_proof import JointStatement
from privacy.mpc.joint_prover import Row, prove_batch
from privacy.mpc.params import PATIENTS_PER_PROOF
from privacy.mpc.plan import batch_plan
from privacy.mpc.records import CommittedRecord
from privacy.mpc.shares import exchange

__all__ = ["Dealer", "Keeper", "Terms", "hello", "run_session"]

_TAG: Final = b"sealproof/mpc-session/v1\n"
_DIGEST_BYTES: Final = 32

Progress = Callable[[str, int, int], None]


class Dealer(Protocol):
    """A connection to the dealer within one session."""

    def deal(self, plan: Plan) -> bytes: ...


class Keeper(Protocol):
    """What a node does with what a session yields. Every method may raise; the session is over then."""

    def begin(self, session: bytes) -> Dealer:
        """The session has an id: connect to the dealer, and mark the pair as computing."""

    def batch(self, number: int, proof: bytes, answers: Sequence[bytes], shares: Sequence[AnswerShare]) -> None:
        """A batch is proven and verified."""

    def complete(self, session: bytes) -> None:
        """Both have verified everything: take the mark away."""

    def keep_key(self, session: bytes, private: X25519PrivateKey) -> None:
        """A: the key that B's shares are sealed for. It and the shares must be on disk when this returns."""

    def deliver(self, session: bytes, box: bytes) -> None:
        """B: give proofs and box to the server."""


@dataclass(frozen=True)
class Terms:
    """What a session is about, as each node knows it: both compare every field before anything else."""

    job: str
    nonce: bytes
    model: Located[Network]
    records: Located[CommittedRecords]
    clinic: Located[Party]
    owner: Located[Party]
    schema: Schema = field(repr=False)
    commitments: tuple[bytes, ...] = field(repr=False)
    head: tuple[int, bytes]
    dealer_key: bytes

    def fields(self) -> dict[str, bytes]:
        """Name and digest of every field that both must agree on."""
        size, root = self.head
        values = {
            "job": self.job.encode(),
            "request": self.nonce,
            "model": self.model.reference.leaf,
            "records": self.records.reference.leaf,
            "clinic": self.clinic.reference.leaf,
            "owner": self.owner.reference.leaf,
            "commitments": b"".join(self.commitments),
            "ledger head": size.to_bytes(8, "little") + root,
            "dealer": self.dealer_key,
        }
        return {name: hashlib.sha256(value).digest() for name, value in values.items()}

    def statement(self, session: bytes, number: int) -> JointStatement:
        """What the proof of batch `number` says."""
        batch = batch_of(self.records.body, number)
        return joint_statement(
            model=self.model,
            records=self.records,
            owner=self.owner,
            clinic=self.clinic,
            schema=self.schema,
            session=session,
            batch=batch,
            commitments=self.commitments[batch.start : batch.stop],
            head=self.head,
        )


def hello(role: Role, terms: Terms, channel: Channel) -> bytes:
    """Compare the terms and make the session id. Raises SessionBroken(`mpc.terms`) with the field that differs."""
    mine = terms.fields()
    nonce = secrets.token_bytes(_DIGEST_BYTES)
    said = b"".join(mine.values()) + nonce
    theirs = exchange(role, channel, "hello", said, len(said))
    for place, name in enumerate(mine):
        if theirs[_DIGEST_BYTES * place : _DIGEST_BYTES * (place + 1)] != mine[name]:
            raise SessionBroken("mpc.terms", f"the two nodes were told of different things: the {name} differs")
    nonces = (nonce, theirs[-_DIGEST_BYTES:]) if role == "A" else (theirs[-_DIGEST_BYTES:], nonce)
    if nonces[0] == nonces[1]:
        raise SessionBroken("mpc.nonce", "the other node repeats this one's nonce")
    return hashlib.sha256(b"".join([_TAG, *mine.values(), *nonces])).digest()


def run_session(
    role: Role,
    terms: Terms,
    secret: Sequence[CommittedRecord] | Sequence[Sequence[Row]],
    channel: Channel,
    keeper: Keeper,
    progress: Progress | None = None,
) -> bytes:
    """This node's side of a whole session; returns its id.

    `secret`: for A the openings of all records, in order; for B the rows of the network, layer by layer.

    Raises:
        SessionBroken: the other node or the dealer is gone, stalls, or says what cannot be.
        VerificationFailed: a finished proof does not hold, or the entries do not belong together.
        Whatever the keeper raises.
    """
    report = progress or (lambda step, done, total: None)
    session = hello(role, terms, channel)
    dealer = keeper.begin(session)
    total = len(terms.records.body.certificates)
    shares: list[AnswerShare] = []
    for number in range(total):
        report("compute and prove", number, total)
        statement = terms.statement(session, number)
        statement.check()
        plan = batch_plan(statement.circuit, statement.count)
        correlations = Correlations(role, plan, dealer.deal(plan))
        first = number * PATIENTS_PER_PROOF
        part = secret[first : first + statement.count] if role == "A" else secret
        result = prove_batch(role, statement, part, channel, correlations)
        keeper.batch(number, result.proof, result.answers, result.shares)
        shares += result.shares
    report("compute and prove", total, total)
    if role == "A":
        private = X25519PrivateKey.generate()
        keeper.keep_key(session, private)
        channel.send("done", private.public_key().public_bytes_raw())
        channel.receive("complete", 0)
        keeper.complete(session)
        channel.receive("delivered", 0)
    else:
        recipient = channel.receive("done", KEY_BYTES)
        box = seal(encode_shares(shares), recipient, session)
        channel.send("complete", b"")
        keeper.complete(session)
        keeper.deliver(session, box)
        channel.send("delivered", b"")
    return session
