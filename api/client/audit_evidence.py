"""A bundle under audit, and what its file and its log show: steps 1 and 2 of every audit (see `api.client.audit`).

`Evidence` knows no scheme. It hands out entries with the signature and the role of their author checked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

import ledger as log
from api.binding import Located
from api.client.history import LedgerAccess
from api.client.prediction import Check
from api.client.trust import TrustedLog, TrustStore
from api.client.verified_cache import VerifiedCache
from api.entries import (
    WRITERS,
    AnyEntry,
    Approval,
    Body,
    CommittedRecords,
    Disclosure,
    Grant,
    JointPrediction,
    Key,
    Model,
    Network,
    Party,
    Prediction,
    Records,
    Reference,
    Request,
    decode_entry,
    verify_signature,
)
from api.governance import ApprovalContract, Governance
from ledger.merkle import leaf_hash
from ledger.note import Note, Verifier
from privacy.bundle import BundleReader
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import Group

__all__ = ["BodyT", "Evidence", "LogTrust", "Progress", "Signed", "translated"]

LogTrust = Verifier | TrustedLog | Sequence[Verifier | TrustedLog] | TrustStore
"""The key of a log, a log with its witnesses, several of them, or what is trusted on this machine."""

Progress = Callable[[str, int, int], None]
"""(step, done, total)."""

BodyT = TypeVar(
    "BodyT",
    Key,
    Model,
    Records,
    Prediction,
    Network,
    CommittedRecords,
    JointPrediction,
    Approval,
    Disclosure,
    Grant,
    Request,
)

STEPS: Final = 10


@dataclass(frozen=True)
class Signed(Generic[BodyT]):
    """An entry whose signature and whose author's role were checked, and its author."""

    located: Located[BodyT]
    author: Located[Party]


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

    def step(self, name: str, check: Callable[[], str]) -> None:
        """Take one step. Raises what it raises, and errors of the ledger package as those of this one."""
        self.progress(name, len(self.checks), STEPS)
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

    # -- entries and their authors -------------------------------------------------------------------------------------

    def signed(self, reference: Reference, kind: type[BodyT]) -> Signed[BodyT]:
        """The entry of this kind, with its signature and its author's role checked. Raises VerificationFailed."""
        entry = self.referenced(reference)
        if not isinstance(entry.body, kind) or entry.author is None:
            raise VerificationFailed("entry.kind", f"entry {reference.index} is no {kind.KIND} entry")
        author = self.referenced(entry.author)
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
        return Signed(Located(reference, entry.body), Located(entry.author, party))

    def referenced(self, reference: Reference) -> AnyEntry:
        """The entry that a reference means. Raises VerificationFailed."""
        if reference.index not in self.entry_bytes:
            raise VerificationFailed("bundle.missing-entry", f"entry {reference.index} is not in the bundle")
        if leaf_hash(self.entry_bytes[reference.index]) != reference.leaf:
            raise VerificationFailed("entry.reference", f"a reference to entry {reference.index} has another leaf hash")
        return self.entries[reference.index]

    # -- steps 1 and 2 -------------------------------------------------------------------------------------------------

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
