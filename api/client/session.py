"""What clinics, owners and consumers share: a folder, an identity registered on a log that they trust, and a server to
talk to.

Entries are believed when the log's key, trusted beforehand, has signed a head that includes them; the server's word is
not enough, not even for one's own entries.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import httpx

from api.binding import Located
from api.client.identity import Identity, Role
from api.client.transport import Server
from api.client.trust import TrustStore
from api.entries import (
    MAX_ENTRY_BYTES,
    AnyEntry,
    Body,
    Model,
    Network,
    Party,
    Reference,
    Revocation,
    decode_entry,
    verify_signature,
)
from ledger import TlogProof
from ledger import errors as ledger_errors
from privacy.canonical_json import Codec
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.schema import Schema
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["LocatedModel", "Session", "check_model_name", "listed_model", "load_reference", "log_errors"]

LocatedModel = Located[Model] | Located[Network]
"""A linear model for encrypted records, or a network for multi-party computation."""

REFERENCE: Final = Codec(Reference, "reference", 1 << 12)


@contextlib.contextmanager
def log_errors() -> Iterator[None]:
    """Errors of the ledger package in the terms of the privacy package."""
    try:
        yield
    except ledger_errors.VerificationFailed as error:
        raise VerificationFailed(error.check, error.detail) from error
    except ledger_errors.DecodeError as error:
        raise DecodeError(error.what, error.reason) from error
    except ledger_errors.UsageError as error:
        raise UsageError(str(error)) from error


@dataclass(frozen=True)
class Session:
    """A registered party in `folder`, its server, and the logs it trusts (kept in the folder too)."""

    identity: Identity
    server: Server
    trust: TrustStore

    @property
    def folder(self) -> Path:
        """Where everything is kept, mode 0700."""
        return self.identity.folder

    @classmethod
    def begin(
        cls, folder: Path, role: Role, name: str, url: str, log_key: str | None, client: httpx.Client | None
    ) -> Self:
        """Trust the log, make an identity and register it; whatever was done before is not done again.

        `log_key` is the verifier key of the server's log, from its operator by another way than this server. It is
        needed once. Raises UsageError, VerificationFailed, DecodeError, ServerError.
        """
        private_folder(folder)
        trust = TrustStore(folder / "trust")
        server = Server(url, client=client)
        health = server.health()
        with log_errors():
            if log_key is not None:
                trust.add(log_key)
            if trust.find(health.origin) is None:
                raise UsageError(
                    f"the log {health.origin!r} of {url} is not trusted yet: compare the key {health.log_key!r} with "
                    "what its operator published elsewhere, then give it as log_key (--log-key)"
                )
        identity = Identity.create(folder, role, name, server.url, health.origin)
        session = cls(identity, server.signing_as(identity), trust)
        if identity.party is None:
            entry = identity.party_entry()
            reference = session.server.register(entry)
            session.check_logged(reference, entry)
            identity = identity.registered(reference)
        return cls(identity, server.signing_as(identity), trust)

    @classmethod
    def resume(cls, folder: Path, role: Role, url: str | None, client: httpx.Client | None) -> Self:
        """The session of a folder that `begin` made. Raises UsageError, DecodeError."""
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder of a {role}: make one with init")
        identity = Identity.load(private_folder(folder))
        if identity.role != role:
            raise UsageError(f"{folder} belongs to the {identity.role} {identity.name!r}, not to a {role}")
        server = Server(url or identity.server, identity, client=client)
        return cls(identity, server, TrustStore(folder / "trust"))

    def close(self) -> None:
        """Close the connections to the server."""
        self.server.close()

    def check_logged(self, reference: Reference, entry: bytes) -> None:
        """Raise VerificationFailed unless the trusted log includes `entry` where `reference` says."""
        with log_errors():
            verifier = self.trust.find(self.identity.origin)
            if verifier is None:
                raise VerificationFailed("log.untrusted", f"no trusted key for the log {self.identity.origin!r}")
            proof = TlogProof.parse(self.server.proof(reference.index))
            if proof.index != reference.index:
                raise VerificationFailed("log.index", f"asked for entry {reference.index}, got {proof.index}")
            verified = proof.verify(entry, verifier, self.identity.origin)
            self.trust.observe(verified.head, self.server.consistency)
        if Reference(verified.index, verified.leaf_hash) != reference:
            raise VerificationFailed("entry.reference", f"entry {reference.index} has another leaf hash")

    def log_once(self, body: Body, folder: Path, name: str) -> Reference:
        """Log an entry unless `folder` says that it was logged; its bytes are kept before it is sent.

        After a crash the same bytes are sent again, which a server answers with the entry that it has. Raises
        UsageError if the folder is about an entry with another body.
        """
        done, pending = folder / f"{name}.reference.json", folder / f"{name}.entry.json"
        if not pending.exists():
            write_private(pending, self.identity.sign(body))
        entry = read_private(pending, MAX_ENTRY_BYTES, "entry")
        if decode_entry(entry).body != body:
            raise UsageError(f"{pending} was written with other settings: repeat it with the same ones")
        if done.exists():
            return load_reference(done)
        reference = self.server.append(entry)
        self.check_logged(reference, entry)
        write_private(done, REFERENCE.encode(reference))
        return reference

    def fetch(self, index: int) -> tuple[Reference, AnyEntry]:
        """Entry `index` of the trusted log, its inclusion and its author's signature checked."""
        data = self.server.entry(index)
        reference = Reference.to(index, data)
        self.check_logged(reference, data)
        entry = decode_entry(data)
        party = entry.body
        if entry.author is not None:
            author = self.server.entry(entry.author.index)
            self.check_logged(entry.author, author)
            party = decode_entry(author).body
        if not isinstance(party, Party):
            raise VerificationFailed("entry.author", f"the author of entry {index} is no party")
        verify_signature(entry, party.public_key)
        return reference, entry

    def model(self, which: str | int | LocatedModel) -> LocatedModel:
        """A model by index, or the newest by name ("heart", or "heart 2" with its version); checked against the log.

        It is a linear model for encrypted records or a network for multi-party computation: its body says which.

        Raises UsageError as `listed_model` does, VerificationFailed (`model.name` for a server that lists one model
        under the name of another), DecodeError, ServerError.
        """
        if isinstance(which, Located):
            return which
        index = listed_model(self.server, which) if isinstance(which, str) else which
        reference, entry = self.fetch(index)
        if isinstance(which, str):
            check_model_name(which, entry.body)
        match entry.body:
            case Model() as model:
                return Located(reference, model)
            case Network() as network:
                return Located(reference, network)
        raise UsageError(f"entry {index} is no model")

    def schema(self, model: LocatedModel) -> Schema:
        """The schema of a model, fetched by digest."""
        return Schema.decode_json(self.server.blob(model.body.schema))

    def revoke_once(self, target: Reference, reason: str, folder: Path, name: str) -> Reference:
        """Withdraw an entry of one's own unless `folder` says that it was, or was begun to be, whatever for then."""
        body, begun = Revocation(target, reason), folder / f"{name}.entry.json"
        if begun.exists():
            before = decode_entry(read_private(begun, MAX_ENTRY_BYTES, "entry")).body
            body = before if isinstance(before, Revocation) else body
        return self.log_once(body, folder, name)

    def revoke(self, target: Reference, reason: str) -> Reference:
        """Withdraw a key, model, records, request or grant entry of one's own, from now on."""
        entry = self.identity.sign(Revocation(target, reason))
        reference = self.server.append(entry)
        self.check_logged(reference, entry)
        return reference


def listed_model(server: Server, which: str) -> int:
    """The newest model that a server lists under a name, or a name and a version; see `check_model_name`.

    Owners choose the names of their models, so what several of them use, or what is one model's name and another one's
    name and version, names none. Raises UsageError then and if there is none, DecodeError, ServerError.
    """
    rows = [row for row in server.models() if which in (row.name, f"{row.name} {row.version}") and not row.revoked]
    if not rows:
        raise UsageError(f"the server has no model {which!r}")
    listed = ", ".join(f"{row.index} of {row.owner!r}" for row in rows)
    if len({row.owner for row in rows}) > 1:
        raise UsageError(f"several owners have a model {which!r}, say which by its ledger index: {listed}")
    if len({row.name for row in rows}) > 1:
        raise UsageError(f"several models are called {which!r}, say which by its ledger index: {listed}")
    return max(row.index for row in rows)


def check_model_name(which: str, body: Body) -> None:
    """Raise VerificationFailed(`model.name`) unless the entry of a model bears the name by which it was asked for."""
    if isinstance(body, Model | Network) and which not in (body.name, f"{body.name} {body.version}"):
        raise VerificationFailed(
            "model.name", f"asked for {which!r}, the server showed {body.name!r} version {body.version!r}"
        )


def load_reference(path: Path) -> Reference:
    """A reference that `Session.log_once` kept. Raises UsageError, DecodeError."""
    return REFERENCE.decode(read_private(path, 1 << 12, "reference"))
