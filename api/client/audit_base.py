"""What an audit does whatever the scheme of the prediction is: signatures, attestation, head and blobs.

`Audit` has what steps 3 to 10 share, after the first two (`api.client.audit_evidence`). The steps of a scheme are in
`api.client.audit_ckks` and `api.client.audit_joint`, and the list of all is in `api.client.audit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any, Generic, TypeVar

import ledger as log
from api.binding import Located
from api.client.audit_approval import check_approval
from api.client.audit_consent import ConsentAudit, Subject
from api.client.audit_evidence import STEPS, BodyT, Evidence
from api.client.dating import check_in_time
from api.client.history import Written, check_history
from api.client.trust import TrustStore
from api.consistency import ConsistencyProof
from api.entries import Approval, JointPrediction, Party, Policy, Prediction, Reference
from privacy import attestation as att
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

__all__ = ["Audit"]

PredicateT = TypeVar("PredicateT", att.Predicate, att.JointPredicate)
VerifiedT = TypeVar("VerifiedT")


class Audit(ABC, Generic[VerifiedT]):
    """Steps 3 to 10 of one scheme; attributes appear as the steps establish them."""

    def __init__(self, evidence: Evidence, consent: ConsentAudit | None = None) -> None:
        self._evidence = evidence
        self._consent = consent
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
            ("consent", self._check_consent),
            ("statements", self._check_statements),
            ("certificates", self._check_certificates),
            ("proofs", self._check_proofs),
        ):
            if self._applies(name):
                self._evidence.step(name, check)
        self._evidence.progress("done", STEPS, STEPS)
        return self._verified()

    def _applies(self, step: str) -> bool:
        if step == "approval":
            return self._approval is not None
        return step != "consent" or (self._consent is not None and self._consent.grant is not None)

    @property
    @abstractmethod
    def clinic(self) -> Located[Party]:
        """The party that wrote the records, once step 3 has passed."""

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
        signed = self._evidence.signed(reference, kind)
        self._authors[reference.index] = signed.author.reference.index
        return signed.located

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
        """No entry is there that is neither about the prediction or its disclosure nor an author's."""
        authors = dict(self._authors)
        if self._consent is not None:
            authors |= self._consent.check_entries(self.clinic)
        stray = set(self._entry_bytes) - set(authors) - set(authors.values())
        if stray:
            raise VerificationFailed("bundle.stray", f"entry {min(stray)} has nothing to do with this prediction")

    def _check_authors_are_older(self) -> None:
        also = {} if self._consent is None else self._consent.authors
        for index, author in (self._authors | also).items():
            if not author < index:
                raise VerificationFailed("ledger.order", f"entry {index} is older than its author's registration")

    # -- hospitals' approval -------------------------------------------------------------------------------------------

    def _signed_approval(self) -> int | None:
        """Part of step 3: the index of the approval, if there is one, now that its author's signature was checked."""
        index = self._evidence.approval
        if index is not None:
            self._approval = self._signed(Reference.to(index, self._entry_bytes[index]), Approval)
        return index

    # 13 approval: of this model, before the prediction, by enough hospitals of the reader's governance file.
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

    # -- consent -------------------------------------------------------------------------------------------------------

    # 11 consent: what was disclosed is what the clinic consented to show, to this recipient and until then.
    def _check_consent(self) -> str:
        prediction = self._evidence.entries[self._evidence.prediction].body
        if self._consent is None or not isinstance(prediction, Prediction | JointPrediction):
            raise VerificationFailed("consent.missing", "nothing was disclosed under a grant")
        about = Subject(self._prediction_reference(), prediction.records, prediction.model)
        return self._consent.check(about, self.clinic)

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
        written = [self._written(located) for located in used]
        authors = set(self._authors.values())
        if self._consent is not None:
            written += self._consent.written
            authors |= set(self._consent.authors.values())
        names = {self._party(author).body.name: author for author in authors}
        revoked = check_history(self._ledger, evidence.trusted, evidence.head, store, written, names)
        self._revoked_since = tuple(entry for entry in revoked if entry in {located.reference for located in used})
        if self._consent is not None:
            self._consent.revoked_since = tuple(entry for entry in revoked if entry not in self._revoked_since)
        return sentence + " Nothing that it uses had been revoked before it."

    def _written(self, located: Located[Any]) -> Written:
        author = self._author(located)
        index = self._evidence.prediction
        return Written(located.reference, author.reference.index, author.body.public_key, index)

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
        disclosed = set() if self._consent is None else self._consent.blobs
        stray = set(self._reader.blob_digests()) - self._used_blobs.union(*also) - disclosed
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
