"""A node: the process that computes for a clinic (A) or an owner (B), session by session.

    with Node(session, "B", rows_of, dealer, listen=parse_address("owner.example:7100")) as node:
        node.run()

It asks its server for sessions, checks what it is told against the log that its party trusts (`api.mpc.terms`), and
does its side (`api.mpc.session`). Two things stay here whatever the server says: the secret (openings of records, or
weights), and the record of pairs that must not compute (`api.mpc.suspensions`). After a session that broke, the pair is
suspended here and on the ledger until both owners have cleared it (`sealproof mpc clear`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from api.client.http_answers import Offer
from api.client.joint_answers import keep_shares
from api.client.session import Session, log_errors
from api.client.transport import ServerError, UploadedProof
from api.entries import Party, Suspension
from api.mpc.dealer_process import DealerClient
from api.mpc.delivered import DeliveredStore
from api.mpc.link import Address, LinkChannel, Listener, connect, parse_address
from api.mpc.session import Progress, Terms, run_session
from api.mpc.suspensions import SuspensionStore
from api.mpc.terms import Examiner
from ledger.errors import LedgerError
from privacy.errors import DecodeError, PrivacyError, SessionBroken, UsageError, VerificationFailed
from privacy.mpc.answers import AnswerShare
from privacy.mpc.dealer import Role
from privacy.mpc.joint_proof import answers_digest
from privacy.mpc.joint_prover import Row
from privacy.mpc.records import CommittedRecord
from privacy.private_files import private_folder, write_private

__all__ = ["Node", "NodeDealer"]

_WAIT_SECONDS: Final = 20
_CONNECT_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 2.0
_DELIVERY_SECONDS: Final = 900.0
"""What A gives B to upload its proofs, during which B says nothing."""
_MAX_REASON: Final = 400
_LOGGER: Final = logging.getLogger("sealproof.node")

Secret: TypeAlias = Sequence[CommittedRecord] | Sequence[Sequence[Row]]
SecretSource: TypeAlias = Callable[[Terms], Secret]
"""What of the party's folder a session needs: openings of all records (A), or rows of the network (B)."""


@dataclass(frozen=True)
class NodeDealer:
    """The dealer that a node uses: where it is, and its public key (32 bytes), learned from whoever runs it."""

    address: Address
    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != 32:
            raise UsageError("the key of a dealer has 32 bytes (64 hex digits)")


class Node:
    """The node of the party of `session`. A context manager; `run` until `stop`, from any thread.

    B listens at `listen` and is reached at `advertise` (by default the same); A connects. `exposure_cap`, for B: refuse
    sessions after which the clinic would have been told more than this share of the network's bits, by the node's own
    recount. Raises UsageError for a role that is not the party's, or an address that clinics could not reach.
    """

    def __init__(
        self,
        session: Session,
        role: Role,
        secret: SecretSource,
        dealer: NodeDealer,
        *,
        listen: Address | None = None,
        advertise: Address | None = None,
        exposure_cap: Fraction | None = None,
        progress: Progress | None = None,
    ) -> None:
        if session.identity.role != ("clinic" if role == "A" else "owner"):
            raise UsageError(f"a {session.identity.role} does not compute in the part of {role}")
        if (role == "B") != (listen is not None):
            raise UsageError("the owner's node listens (host:port), the clinic's connects to it")
        if listen is not None and advertise is None and _is_everywhere(listen.host):
            raise UsageError(f"{listen} is every address of this machine: say at which clinics reach it (--advertise)")
        self.session = session
        self.suspensions = SuspensionStore(session.folder / "suspensions")
        self._role: Role = role
        self._secret = secret
        self._dealer = dealer
        self._progress = progress
        self._delivered = DeliveredStore(session.folder / "delivered") if role == "B" else None
        self._examiner = Examiner(session, role, dealer.key, exposure_cap, self._delivered)
        self._tried: set[str] = set()
        self._stopping = threading.Event()
        self._listener = Listener(listen, session.identity.private_key) if listen else None
        host = listen.host if listen else ""
        self._address = advertise or (Address(host, self._listener.port) if self._listener else None)

    @property
    def address(self) -> Address | None:
        """Where this node can be reached, if it listens."""
        return self._address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take no more sessions; connections end."""
        self.stop()
        if self._listener is not None:
            self._listener.close()

    def stop(self) -> None:
        """End `run` after the session in hand."""
        self._stopping.set()

    # -- sessions -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do what the server offers until `stop`. What goes wrong in a session ends the session, not the node."""
        while not self._stopping.is_set():
            try:
                offers = self._offers(_WAIT_SECONDS)
            except (ServerError, PrivacyError) as error:
                _LOGGER.warning("no offers: %s", error)
                self._stopping.wait(_PAUSE_SECONDS)
                continue
            fresh = [offer for offer in offers if offer.job not in self._tried]
            for offer in fresh:
                if not self._stopping.is_set():
                    self.do(offer)
            if offers and not fresh:
                self._stopping.wait(_PAUSE_SECONDS)  # the server still offers what was tried: its word is late

    def run_job(self, job: str, timeout: float = 60.0) -> None:
        """Do one job, as soon as the other node is there. Raises what broke it, UsageError after `timeout` seconds."""
        waited = 0
        while waited < timeout:
            found = [offer for offer in self._offers(5) if offer.job == job]
            if found:
                error = self.do(found[0])
                if error is not None:
                    raise error
                return
            waited += 5
        raise UsageError(f"the other node did not come within {timeout:.0f} s for job {job}")

    def _offers(self, wait: int) -> list[Offer]:
        address = None if self._address is None else str(self._address)
        return self.session.server.offers(address, str(self._dealer.address), self._dealer.key, wait)

    def do(self, offer: Offer) -> Exception | None:
        """One session; the error that ended it, told to the other node and to the server, or None."""
        self._tried.add(offer.job)
        keeper: _Keeper | None = None
        try:
            if offer.role != self._role:
                raise SessionBroken("mpc.role", f"the server asks for the part of {offer.role}")
            terms = self._examiner.terms(offer)
            peer = terms.owner if self._role == "A" else terms.clinic
            with _as_suspended(peer.body):
                self.suspensions.check(peer.body.public_key)
            secret = self._secret(terms)
            with contextlib.closing(self._connect(offer, peer.body.public_key)) as channel:
                keeper = _Keeper(self, terms, channel)
                with keeper.ending():
                    run_session(self._role, terms, secret, channel, keeper, self._progress)
            _LOGGER.info(
                "job %s: proven; %d bytes sent, %d received", offer.job, channel.sent_bytes, channel.received_bytes
            )
        except Exception as error:
            # A bug ends its session, too, and not the node.
            if not isinstance(error, PrivacyError | LedgerError | OSError):
                _LOGGER.exception("job %s: unforeseen", offer.job)
            self._failed(offer, error, keeper)
            return error
        return None

    def _connect(self, offer: Offer, peer_key: bytes) -> LinkChannel:
        if self._listener is not None:
            return self._listener.accept(peer_key, _CONNECT_SECONDS)
        if offer.peer_address is None:
            raise SessionBroken("mpc.unreachable", "the server does not say where the owner's node is")
        address = parse_address(offer.peer_address)
        return connect(address.host, address.port, self.session.identity.private_key, peer_key, _CONNECT_SECONDS)

    def _failed(self, offer: Offer, error: Exception, keeper: _Keeper | None) -> None:
        """Tell the server, and the ledger if the pair is suspended now."""
        check, message = getattr(error, "check", None) or "mpc.failed", _reason(error)
        _LOGGER.error("job %s ended: %s", offer.job, error)
        if keeper is not None and keeper.suspended is not None:
            with _told("suspension"):
                self._log_suspension(keeper.terms, keeper.suspended, message)
        with _told("failure"):
            self.session.server.post_failure(offer.job, check, message)

    def _log_suspension(self, terms: Terms, session: bytes, reason: str) -> None:
        body = Suspension(terms.clinic.reference, terms.owner.reference, session, reason)
        self.session.server.append(self.session.identity.sign(body))


class _Keeper:
    """`api.mpc.session.Keeper` of one session of a node."""

    def __init__(self, node: Node, terms: Terms, channel: LinkChannel) -> None:
        self._node = node
        self.terms = terms
        self._channel = channel
        self._dealer: DealerClient | None = None
        self._marked: bytes | None = None
        self._shares: list[AnswerShare] = []
        self._proofs: list[UploadedProof] = []
        self._folder: Path | None = None
        self.suspended: bytes | None = None
        """The session that suspended the pair, once one has."""

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Whatever ends the session: the peer and the dealer hear why, and an unfinished one suspends the pair."""
        try:
            yield
        except BaseException as error:
            reason = _reason(error)
            self._channel.abort(reason)
            if self._dealer is not None:
                self._dealer.abort(reason)
            if self._marked is not None:
                self.suspended = self._marked
                self._node.suspensions.fail(self._marked, _shown(error))
            raise
        finally:
            if self._dealer is not None:
                self._dealer.close()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def begin(self, session: bytes) -> DealerClient:
        """Connect to the dealer; then mark the pair, before anything secret is used."""
        node, peer = self._node, self.terms.owner if self._node._role == "A" else self.terms.clinic
        self._dealer = DealerClient(
            node._dealer.address,
            node._dealer.key,
            node.session.identity.private_key,
            session,
            node._role,
            peer.body.public_key,
        )
        with _as_suspended(peer.body):
            node.suspensions.begin(peer.body.name, peer.body.public_key, session)
        self._marked = session
        if node._role == "B":
            self._folder = private_folder(node.session.folder / "sessions" / session.hex())
        return self._dealer

    def batch(self, number: int, proof: bytes, answers: Sequence[bytes], shares: Sequence[AnswerShare]) -> None:
        """B keeps the proof on disk until all are there: nothing of an unfinished session reaches the server."""
        self._shares += shares
        if self._folder is not None:
            write_private(self._folder / f"{number}.proof", proof)
            self._proofs.append(UploadedProof(b"", len(proof), answers_digest(answers)))

    def keep_key(self, session: bytes, private: X25519PrivateKey) -> None:
        """A: shares and key are on disk before the other side can publish."""
        keep_shares(self._node.session.folder, session, self.terms.job, private, self._shares)

    def complete(self, session: bytes) -> None:
        """Both have verified: what happens from here on says nothing about secrets."""
        self._node.suspensions.finish(session)
        self._marked = None
        self._channel.timeout = _DELIVERY_SECONDS

    def deliver(self, session: bytes, box: bytes) -> None:
        """B: upload the proofs, then report them."""
        if self._folder is None:
            raise UsageError("only the owner's node delivers")
        server, proofs = self._node.session.server, []
        for number, proof in enumerate(self._proofs):
            digest = server.put_blob((self._folder / f"{number}.proof").read_bytes())
            proofs.append(UploadedProof(digest, proof.size, proof.answers))
        if self._node._delivered is not None:
            clinic, model = self.terms.clinic.reference.leaf, self.terms.model.reference.leaf
            self._node._delivered.add(session, clinic, model, self.terms.records.body.count)
        server.post_result(self.terms.job, session, proofs, box)


def _is_everywhere(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:  # a name
        return False


def _reason(error: BaseException) -> str:
    """Why a session ended, for others: what a check or the server says, else only which kind of error it was here."""
    if isinstance(error, SessionBroken | VerificationFailed | DecodeError | ServerError):
        return _shown(error)
    return f"{type(error).__name__} in the node that ended this; its log says more"


def _shown(error: BaseException) -> str:
    """An error as any record can carry it: the other node may have chosen the words."""
    shown = "".join(c if c.isascii() and c.isprintable() else " " if c.isspace() else "?" for c in str(error))
    return " ".join(shown.split())[:_MAX_REASON].strip() or type(error).__name__


@contextlib.contextmanager
def _as_suspended(peer: Party) -> Iterator[None]:
    """That a pair is suspended is for the other side to know, too; the reason kept here may be in this node's words."""
    try:
        yield
    except (UsageError, DecodeError) as error:  # a record that cannot be read suspends, too
        _LOGGER.error("%s", error)
        raise SessionBroken(
            "mpc.suspended",
            f"this node has a record of a session with {peer.name!r} that broke or is under way: its owner looks into "
            f"it (sealproof mpc status), then both run `sealproof mpc clear {shlex.quote(peer.name)} -f FOLDER`",
        ) from error


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """What cannot be told now is in this node's own record all the same."""
    try:
        with log_errors():
            yield
    except (ServerError, PrivacyError) as error:
        _LOGGER.warning("the %s could not be reported: %s", what, error)
