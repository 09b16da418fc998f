"""A committee member of a trial: a key, what is checked before it signs, and what it remembers.

    member = Member.create(Path("member"), "dr-b")
    share = member.sign(Path("p7.sealproof"), terms, case, trusted, ledger=server)

A member signs that a record qualifies. The proof of that cannot be checked by a contract (it rests on a whole ledger of
commitments and certificates), so every member checks it, all steps of `verify_bundle`, and then that the disclosure is

 1 log        about the ledger of the trial
 2 model      about the trial's model, and nothing that it rests on was revoked since, the clinic's consent included
 3 statement  one threshold, of the trial's output, and no lower one than the trial's
 4 nonce      made for this case of this trial, so for this contract on this chain
 5 record     about a record of which this member has not signed for another handle: a clinic that submits a patient
              twice has two handles, and the contract knows handles alone

Answers of either scheme will do. One under encryption is as far from the committed model's as the prediction's error
bound says, which is at most a 64th of a grid step.

The folder (mode 0700) holds the secret key and, for step 5, digests keyed with it; no record id is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from api.client.audit import Progress, verify_bundle
from api.client.audit_evidence import LogTrust
from api.client.enrolment import MEMBER, Case, CommitteeMember, Enrolment, Share, TrialTerms
from api.client.history import LedgerAccess
from api.client.shown import ShownFact, VerifiedDisclosure
from api.client.verified_cache import VerifiedCache
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import create_private, private_folder, read_private
from privacy.zk.bls import SECRET_BYTES, SecretKey
from privacy.zk.group import ARKWORKS, Group

__all__ = ["Member", "Signed", "examine"]

_KEY: Final = "committee.key"
_FILE: Final = "member.json"
_SEEN: Final = "signed"
_KEY_TAG: Final = "sealproof/committee-key/v1 "
_RECORD: Final = b"sealproof/committee-record/v1\n"
_MAX_BYTES: Final = 1 << 12


@dataclass(frozen=True)
class Signed:
    """A share, and the verified disclosure that it rests on."""

    share: Share
    found: VerifiedDisclosure


@dataclass(frozen=True)
class Member:
    """A member's folder: its public file, and the secret key (not shown)."""

    folder: Path
    public: CommitteeMember
    _secret: SecretKey = field(repr=False)

    @classmethod
    def create(cls, folder: Path, name: str) -> Member:
        """A new key in `folder`, or the one that is there. Raises UsageError if that is another member's."""
        private_folder(folder)
        path = folder / _KEY
        if not path.exists():
            line = f"{_KEY_TAG}{SecretKey.generate().to_bytes().hex()}\n"
            with contextlib.suppress(FileExistsError):
                create_private(path, line.encode("ascii"))
        secret = _load(path)
        made = CommitteeMember("sealproof/committee-member/v1", name, secret.public, secret.prove_possession())
        data = MEMBER.encode(made)
        with contextlib.suppress(FileExistsError):
            create_private(folder / _FILE, data)
        found = cls.load(folder)
        if found.public != made:
            raise UsageError(f"{folder} belongs to the member {found.public.name!r}: use another folder")
        return found

    @classmethod
    def load(cls, folder: Path) -> Member:
        """The member of a folder. Raises UsageError if there is none or others may read it, DecodeError."""
        if not folder.is_dir():
            raise UsageError(f"{folder} is no folder of a committee member: make one with sealproof committee member")
        secret = _load(private_folder(folder) / _KEY)
        public = MEMBER.decode(read_private(folder / _FILE, _MAX_BYTES, "committee member"))
        if public.key != secret.public:
            raise UsageError(f"{folder / _FILE} is not about the key beside it")
        return cls(folder, public, secret)

    def sign(
        self,
        bundle: Path,
        terms: TrialTerms,
        case: Case,
        log_key: LogTrust,
        *,
        ledger: LedgerAccess | None = None,
        group: Group = ARKWORKS,
        progress: Progress | None = None,
        cache: VerifiedCache | None = None,
    ) -> Signed:
        """Verify a disclosure completely, and then sign its enrolment.

        `ledger`: where to ask for what the bundle leaves out and for revocations; see `verify_bundle`.

        Raises:
            VerificationFailed: a step of `verify_bundle` or of this module, by its name.
            UsageError: this member is not in the committee.
            DecodeError, OSError.
        """
        index = self.index(terms)
        terms.keys()
        found = verify_bundle(
            bundle, log_key, group=group, ledger=ledger, recipient_nonce=case.nonce, progress=progress, cache=cache
        )
        if not isinstance(found, VerifiedDisclosure):
            raise VerificationFailed("disclosure.missing", "the bundle shows nobody an answer")
        enrolment = examine(found, terms, case)
        self._remember(found, terms, enrolment.handle)
        share = Share("sealproof/enrolment-share/v1", enrolment, index, self._secret.sign(enrolment.message))
        return Signed(share, found)

    def index(self, terms: TrialTerms) -> int:
        """This member's place in the committee, from 0. Raises UsageError if it has none."""
        keys = [member.key for member in terms.members]
        if self.public.key not in keys:
            raise UsageError(f"the key of {self.public.name!r} is not in the committee of this trial")
        return keys.index(self.public.key)

    # 5 record: no second handle of one record. The same one again is no harm: a contract enrols a handle once.
    def _remember(self, found: VerifiedDisclosure, terms: TrialTerms, handle: bytes) -> None:
        record_id = found.facts[0].record_id
        code = hashlib.sha256(_RECORD + self._secret.to_bytes())
        for part in (terms.digest, found.clinic.public_key, record_id.encode("utf-8")):
            code.update(len(part).to_bytes(4, "big") + part)
        path = private_folder(self.folder / _SEEN) / code.hexdigest()
        line = handle.hex().encode("ascii") + b"\n"
        with contextlib.suppress(FileExistsError):
            create_private(path, line)
        if read_private(path, _MAX_BYTES, "signed record") != line:
            raise VerificationFailed(
                "enrolment.record",
                f"record {record_id!r} of {found.clinic.name!r} was signed for under another handle: its clinic "
                "submitted it twice",
            )

    def __reduce__(self) -> Any:
        raise UsageError("a member holds a signing key and is not pickled or copied")


def examine(found: VerifiedDisclosure, terms: TrialTerms, case: Case) -> Enrolment:
    """Steps 1 to 4: what may be signed of a verified disclosure.

    Raises VerificationFailed: `enrolment.trial`, `enrolment.log`, `enrolment.model`, `enrolment.revoked`,
    `enrolment.facts`, `enrolment.kind`, `enrolment.output`, `enrolment.threshold`, `disclosure.nonce`.
    """
    prediction = found.prediction
    if case.trial != terms.digest:
        raise VerificationFailed("enrolment.trial", "the case belongs to another trial than these terms")
    # 1 log
    if prediction.head.origin != terms.origin:
        raise VerificationFailed(
            "enrolment.log", f"the trial is about the log {terms.origin!r}, not {prediction.head.origin!r}"
        )
    # 2 model
    if prediction.model.reference != terms.model:
        raise VerificationFailed("enrolment.model", "the answer is one of another model than the trial's")
    revoked = prediction.revoked_since + (found.consent.revoked_since if found.consent else ())
    if revoked:
        entries = ", ".join(str(reference.index) for reference in revoked)
        raise VerificationFailed("enrolment.revoked", f"ledger entry {entries}, which it rests on, was revoked since")
    # 3 statement
    fact = _examine_facts(found.facts, terms)
    # 4 nonce
    if found.recipient_nonce != case.nonce:
        raise VerificationFailed("disclosure.nonce", "this was disclosed for another case, trial, contract or chain")
    return Enrolment(
        trial=terms.digest,
        prediction=prediction.prediction.reference.leaf,
        disclosure=found.entry.reference.leaf,
        handle=terms.handle(fact.handle),
        nonce=case.nonce,
    )


def _examine_facts(facts: Sequence[ShownFact], terms: TrialTerms) -> ShownFact:
    """The one fact that the trial is about."""
    if len(facts) != 1:
        raise VerificationFailed(
            "enrolment.facts", f"a trial needs one answer of one record, this disclosure shows {len(facts)}"
        )
    (fact,) = facts
    if fact.kind != "threshold":
        raise VerificationFailed(
            "enrolment.kind", f"a trial needs no more than a threshold, this disclosure is of kind {fact.kind!r}"
        )
    if (fact.output, fact.versus) != (terms.output, None):
        shown = f"output {fact.output}" if fact.versus is None else f"outputs {fact.output} and {fact.versus}"
        raise VerificationFailed("enrolment.output", f"the answer is that of {shown}, the trial's is {terms.output}")
    if fact.value < terms.threshold:
        raise VerificationFailed(
            "enrolment.threshold",
            f"the answer {fact.in_words}: {fact.value} grid steps, the trial asks for {terms.threshold}",
        )
    return fact


def _load(path: Path) -> SecretKey:
    data = read_private(path, _MAX_BYTES, "the committee key")
    match = re.fullmatch(re.escape(_KEY_TAG) + r"([0-9a-f]{64})\n", data.decode("ascii", "replace"))
    if match is None:
        raise DecodeError("committee key", f"{path} is not a {_KEY_TAG.strip()} file of {SECRET_BYTES} bytes in hex")
    return SecretKey.from_bytes(bytes.fromhex(match.group(1)))
