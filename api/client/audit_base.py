"""What an audit does whatever the scheme of the prediction is: the file, the log, signatures, head and blobs.

`Evidence` is a bundle and what steps 1 and 2 show of it; `Audit` has what the other steps share. The steps of a scheme
are in `api.client.audit_ckks` and `api.client.audit_joint`, and the list of all is in `api.client.audit`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import ledger as log
from api.binding import Located
from api.client.audit_approval import check_approval
from api.client.dating import check_in_time
from api.client.history import LedgerAccess, Written, check_history
from api.client.prediction import Check
from api.client.trust import TrustedLog, TrustStore
from api.client.verified_cache import VerifiedCache
from api.consistency import ConsistencyProof
from api.entries import (
    WRITERS,
    AnyEntry,
    Approval,
    Body,
    CommittedRecords,
    Disclosure,
    JointPrediction,
    Key,
    Model,
    Network,
    Party,
    Policy,
    Prediction,
    Records,
    Reference,
    decode_entry,
    verify_signature,
)
from api.governance import ApprovalContract, Governance
from ledger.merkle import leaf_hash
from ledger.note import Note, Verifier
from privacy import attestation as att
from privacy.bundle import BundleReader
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import Group

__all__ = ["Audit", "Evidence", "LogTrust", "Progress", "translated"]

LogTrust = Verifier | TrustedLog | Sequence[Verifier | TrustedLog] | TrustStore
"""The key of a log, a log with its witnesses, several of them, or what is trusted on this machine."""

Progress = Callable[[str, int, int], None]
"""(step, done, total)."""

BodyT = TypeVar("BodyT", Key, Model, Records, Prediction, Network, CommittedRecords, JointPrediction, Approval)
PredicateT = TypeVar("PredicateT", att.Predicate, att.JointPredicate)
VerifiedT = TypeVar("VerifiedT")

_STEPS: Final = 10


class Evidence:
    """A bundle under audit; attributes appear as the steps establish them."""

    def __init__(
        self,
        stack: ExitStack,
        path: Path,
        log_key: LogTrust,
        group: Group,
        ledger: LedgerAccess | None,
        nonce: bytes | None,
        progress: Progress | None,
        cache: VerifiedCache | None,
        governance: Governance | None,
        contract: ApprovalContract | None,
    ) -> None:
        self._stack = stack
        self.path = path
        self.log_key = log_key
        self.group = group
        self.ledger = ledger
        self.nonce = nonce
        self.progress = progress or (lambda step, done, total: None)
        self.cache = cache
        self.governance = governance
        self.contract = contract
        self.checks: list[Check] = []
        self.also_blobs: set[bytes] = set()
        """Blobs of a disclosure, which the steps of its prediction do not know."""

    def step(self, name: str, check: Callable[[], str]) -> None:
        """Take one step. Raises what it raises, and errors of the ledger package as those of this one."""
        self.progress(name, len(self.checks), _STEPS)
        started = time.perf_counter()
        with translated(name):
            sentence = check()
        self.checks.append(Check(name, sentence, time.perf_counter() - started))

    def open(self) -> type[Body]:
        """Take steps 1 and 2 and read the entries; the kind of the one prediction entry among them."""
        self.step("bundle", self._read_bundle)
        self.step("log", self._check_log)
        with translated("entries"):
            self.entries: dict[int, AnyEntry] = {i: decode_entry(data) for i, data in self.entry_bytes.items()}
        found = [i for i, entry in self.entries.items() if isinstance(entry.body, Prediction | JointPrediction)]
        if len(found) != 1:
            raise VerificationFailed("entry.prediction", f"{len(found)} predictions in the bundle, expected one")
        self.prediction = found[0]
        shown = [i for i, entry in self.entries.items() if isinstance(entry.body, Disclosure)]
        if len(shown) > 1:
            raise VerificationFailed("entry.disclosure", f"{len(shown)} disclosures in the bundle, at most one can be")
        self.disclosure = shown[0] if shown else None
        approved = [i for i, entry in self.entries.items() if isinstance(entry.body, Approval)]
        if len(approved) > 1:
            raise VerificationFailed("entry.approval", f"{len(approved)} approvals in the bundle, at most one can be")
        self.approval = approved[0] if approved else None
        return type(self.entries[self.prediction].body)

    # 1 bundle: the file is a bundle, and every blob in it has the digest it is named by.
    def _read_bundle(self) -> str:
        self.reader = self._stack.enter_context(BundleReader(self.path))
        self.reader.check()
        blobs = sum(1 for _ in self.reader.blob_digests())
        return f"The file is a well-formed bundle of {len(self.reader.entry_indices())} log entries and {blobs} blobs."

    # 2 log: one checkpoint, signed by a trusted log; every entry is in that log at its index.
    def _check_log(self) -> str:
        indices = self.reader.entry_indices()
        proofs = {index: log.TlogProof.parse(self.reader.inclusion_proof(index)) for index in indices}
        if len({proof.checkpoint for proof in proofs.values()}) != 1:
            raise VerificationFailed("log.checkpoint", "the inclusion proofs are not all under one checkpoint")
        checkpoint = next(iter(proofs.values())).checkpoint
        self.trusted = self._trusted_log(log.Checkpoint.parse(Note.parse(checkpoint).text).origin)
        self.log_verifier = self.trusted.verifier
        origin = self.log_verifier.name
        self.entry_bytes: dict[int, bytes] = {}
        for index, proof in proofs.items():
            if proof.index != index:
                raise VerificationFailed("log.index", f"entry {index} comes with the proof of entry {proof.index}")
            if proof.extra is not None:
                raise VerificationFailed("log.extra", f"the proof of entry {index} carries data that nothing signs")
            verified = proof.verify(self.reader.entry(index), self.log_verifier, origin)
            self.entry_bytes[index] = verified.entry
            self.head = verified.head
        self.witnessed = self.trusted.witnesses(checkpoint)
        sentence = (
            f"All {len(indices)} entries are in the log {origin!r} of {self.head.size} entries that its key signed"
        )
        if self.witnessed is None or not self.witnessed.cosigned:
            return sentence + "."
        return f"{sentence} and that witnesses cosigned: {', '.join(c.name for c in self.witnessed.cosigned)}."

    def _trusted_log(self, origin: str) -> TrustedLog:
        if isinstance(self.log_key, TrustStore):
            found = self.log_key.trusted(origin)
        else:
            keys = self.log_key if isinstance(self.log_key, Sequence) else [self.log_key]
            logs = (key if isinstance(key, TrustedLog) else TrustedLog(key) for key in keys)
            found = next((log for log in logs if log.origin == origin), None)
        if found is None:
            raise VerificationFailed(
                "log.untrusted",
                f"no trusted key for the log {origin!r}: get its key from its operator, not from this bundle, and "
                "give it with --log-key, or trust it for good with `sealproof trust add`",
            )
        return found


class Audit(ABC, Generic[VerifiedT]):
    """Steps 3 to 10 of one scheme; attributes appear as the steps establish them."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._reader = evidence.reader
        self._entry_bytes = evidence.entry_bytes
        self._group = evidence.group
        self._ledger = evidence.ledger
        self._authors: dict[int, int] = {}
        """Of the entries that the prediction is about, and of itself: the index of the author's party entry."""
        self._approval: Located[Approval] | None = None
        self._used_blobs: set[bytes] = set()
        self._revoked_since: tuple[Reference, ...] = ()

    def run(self) -> VerifiedT:
        """All steps, in order."""
        for name, check in (
            ("entries", self._check_entries),
            ("order", self._check_order),
            ("references", self._check_references),
            ("attestation", self._check_attestation),
            ("head", self._check_head),
            ("approval", self._check_approval),
            ("statements", self._check_statements),
            ("certificates", self._check_certificates),
            ("proofs", self._check_proofs),
        ):
            if name != "approval" or self._approval is not None:
                self._evidence.step(name, check)
        self._evidence.progress("done", _STEPS, _STEPS)
        return self._verified()

    @abstractmethod
    def _check_entries(self) -> str: ...

    @abstractmethod
    def _check_order(self) -> str: ...

    @abstractmethod
    def _check_references(self) -> str: ...

    @abstractmethod
    def _check_attestation(self) -> str: ...

    @abstractmethod
    def _check_head(self) -> str: ...

    @abstractmethod
    def _check_statements(self) -> str: ...

    @abstractmethod
    def _check_certificates(self) -> str: ...

    @abstractmethod
    def _check_proofs(self) -> str: ...

    @abstractmethod
    def _verified(self) -> VerifiedT: ...

    # -- entries and their authors -------------------------------------------------------------------------------------

    def _prediction_reference(self) -> Reference:
        index = self._evidence.prediction
        return Reference.to(index, self._entry_bytes[index])

    def _signed(self, reference: Reference, kind: type[BodyT]) -> Located[BodyT]:
        """The entry of this kind; its signature and its author's role are checked, its author is noted."""
        entry = self._referenced(reference)
        if not isinstance(entry.body, kind) or entry.author is None:
            raise VerificationFailed("entry.kind", f"entry {reference.index} is no {kind.KIND} entry")
        author = self._referenced(entry.author)
        party = author.body
        if not isinstance(party, Party):
            raise VerificationFailed("entry.author", f"the author of entry {reference.index} is no party")
        verify_signature(author, party.public_key)
        verify_signature(entry, party.public_key)
        if party.role not in WRITERS[kind]:
            who = " or ".join(WRITERS[kind])
            raise VerificationFailed(
                "entry.role", f"entry {reference.index} was signed by a {party.role}, not by a {who}"
            )
        self._authors[reference.index] = entry.author.index
        return Located(reference, entry.body)

    def _referenced(self, reference: Reference) -> AnyEntry:
        if reference.index not in self._entry_bytes:
            raise VerificationFailed("bundle.missing-entry", f"entry {reference.index} is not in the bundle")
        if leaf_hash(self._entry_bytes[reference.index]) != reference.leaf:
            raise VerificationFailed("entry.reference", f"a reference to entry {reference.index} has another leaf hash")
        return self._evidence.entries[reference.index]

    def _author(self, located: Located[Any]) -> Located[Party]:
        """The party that wrote an entry that `_signed` has checked."""
        return self._party(self._authors[located.reference.index])

    def _party(self, index: int) -> Located[Party]:
        body = self._evidence.entries[index].body
        if not isinstance(body, Party):
            raise VerificationFailed("entry.author", f"entry {index} is no party")
        return Located(Reference.to(index, self._entry_bytes[index]), body)

    def _check_name(self, what: str, name: str, clinic: Party) -> None:
        if name != clinic.name:
            raise VerificationFailed("entry.name", f"the {what} of {name!r} were logged by {clinic.name!r}")

    def _check_stray_entries(self) -> None:
        """No entry is there that is neither about the prediction nor an author's."""
        stray = set(self._entry_bytes) - set(self._authors) - set(self._authors.values()) - {self._evidence.disclosure}
        if stray:
            raise VerificationFailed("bundle.stray", f"entry {min(stray)} has nothing to do with this prediction")

    def _check_authors_are_older(self) -> None:
        for index, author in self._authors.items():
            if not author < index:
                raise VerificationFailed("ledger.order", f"entry {index} is older than its author's registration")

    # -- hospitals' approval -------------------------------------------------------------------------------------------

    def _signed_approval(self) -> int | None:
        """Part of step 3: the index of the approval, if there is one, now that its author's signature was checked."""
        index = self._evidence.approval
        if index is not None:
            self._approval = self._signed(Reference.to(index, self._entry_bytes[index]), Approval)
        return index

    # 12 approval: of this model, before the prediction, by enough hospitals of the reader's governance file.
    def _check_approval(self) -> str:
        evidence, prediction = self._evidence, self._evidence.entries[self._evidence.prediction].body
        if self._approval is None or not isinstance(prediction, Prediction | JointPrediction):
            raise VerificationFailed("approval.missing", "no hospital approved this model")
        return check_approval(
            self._approval,
            prediction.model,
            self._prediction_reference(),
            evidence.head.origin,
            evidence.governance,
            evidence.contract,
        )

    # -- the attestation -----------------------------------------------------------------------------------------------

    def _attested(self, server: Party, policy: Policy, expected: Callable[[str, bytes], PredicateT]) -> PredicateT:
        """The predicate that the server signed, which must be `expected` of its own time and nonce, field by field."""
        statement = att.verify_envelope(self._reader.attestation(), server.public_key)
        found = statement.predicate
        # What it must say follows from the ledger alone; its time and nonce are its own.
        due = expected(found.issued_at, found.request_nonce)
        if not isinstance(found, type(due)):
            raise VerificationFailed("attestation.scheme", "the attestation and the prediction entry differ")
        for field in fields(due):
            if getattr(found, field.name) != getattr(due, field.name):
                name = field.name.replace("_", "-")
                raise VerificationFailed(f"attestation.{name}", "the attestation and the prediction entry differ")
        if self._evidence.nonce is not None and found.request_nonce != self._evidence.nonce:
            raise VerificationFailed("attestation.nonce", "this answers another request")
        if policy.until is not None and parse_timestamp(policy.until) < parse_timestamp(found.issued_at):
            raise VerificationFailed("policy.expired", f"the records were to be used until {policy.until}, not later")
        return found

    # -- the head ------------------------------------------------------------------------------------------------------

    def _past_head(self, size: int, root: bytes, used: Sequence[Located[Any]], until: str | None) -> str:
        """The head that the prediction names is a past of the checkpoint; none of `used` was revoked under it.

        `until`: the end that the records have, which witnesses show to lie after the prediction.
        """
        evidence, index = self._evidence, self._evidence.prediction
        if not size <= index:
            raise VerificationFailed("head.future", f"prediction {index} names a head of {size} entries, after itself")
        newest = max((*(i for i in self._authors if i != index), *self._authors.values()))
        if not size > newest:
            raise VerificationFailed("head.stale", f"the head of {size} entries is older than entry {newest}")
        proof = ConsistencyProof.parse(self._reader.consistency_proof())
        if (proof.old, proof.new) != (size, evidence.head.size):
            raise VerificationFailed("head.consistency", f"a proof from {proof.old} to {proof.new} entries is another")
        log.verify_consistency(size, evidence.head.size, proof.hashes, root, evidence.head.root)
        store = evidence.log_key if isinstance(evidence.log_key, TrustStore) else None
        if store is not None:
            store.observe(evidence.head, self._ledger.consistency if self._ledger else None)
        sentence = f"The prediction was made on a log of {size} entries, which the signed one extends."
        sentence += check_in_time(until, index, evidence.trusted, evidence.head, evidence.witnessed, self._ledger)
        if self._ledger is None:
            return sentence + " Revocations were not looked up: there is no connection to the ledger."
        self._revoked_since = check_history(
            self._ledger,
            evidence.trusted,
            evidence.head,
            store,
            [self._written(located) for located in used],
            index,
            {self._party(author).body.name: author for author in self._authors.values()},
        )
        return sentence + " Nothing that it uses had been revoked before it."

    def _written(self, located: Located[Any]) -> Written:
        author = self._author(located)
        return Written(located.reference, author.reference.index, author.body.public_key)

    # -- blobs ---------------------------------------------------------------------------------------------------------

    def _blob(self, digest: bytes, what: str) -> bytes:
        if not self._reader.has(digest):
            raise VerificationFailed("bundle.missing-blob", f"{what} {digest.hex()} is not in the bundle")
        self._used_blobs.add(digest)
        return self._reader.blob(digest)

    def _check_proof_size(self, digest: bytes, size: int) -> None:
        if self._reader.has(digest) and len(self._blob(digest, "proof")) != size:
            raise VerificationFailed("prediction.proof-size", f"the proof has not {size} bytes")

    def _check_stray_blobs(self, *also: Iterator[bytes] | Sequence[bytes]) -> None:
        """No blob is there that no step uses; `also` are blobs that a later step reads."""
        stray = set(self._reader.blob_digests()) - self._used_blobs.union(*also) - self._evidence.also_blobs
        if stray:
            raise VerificationFailed("bundle.stray", f"blob {min(stray).hex()} has nothing to do with this prediction")

    def _once(self, kind: str, parts: Sequence[bytes], verify: Callable[[], object]) -> None:
        """Verify unless this machine has verified exactly these bytes before."""
        cache = self._evidence.cache
        if cache is None:
            verify()
            return
        mark = cache.mark(f"{kind}/{self._group.name}", list(parts))
        if not cache.knows(mark):
            verify()
            cache.remember(mark)


@contextmanager
def translated(step: str) -> Iterator[None]:
    """Errors of the ledger package in the terms of this one. A nonsensical call made by the data is a failed check."""
    try:
        yield
    except log.DecodeError as error:
        raise DecodeError(error.what, error.reason) from error
    except log.VerificationFailed as error:
        raise VerificationFailed(error.check, error.detail) from error
    except log.StorageError as error:
        raise OSError(str(error)) from error
    except (UsageError, log.UsageError) as error:
        raise VerificationFailed(f"{step}.impossible", str(error)) from error
