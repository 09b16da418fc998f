"""A trial on a development chain, made step by step, so that a test can leave one out or use a weakened contract."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any

from api.client.enrolment import Case, CommitteeMember, Enrolment, Share, SignedEnrolment, TrialTerms, combine
from api.entries import Reference
from privacy.zk.bls import SecretKey, public_key_eip2537, signature_eip2537

ORIGIN = "ledger.example/trial"
MODEL = Reference(7, sha256(b"leaf of a model").digest())
THRESHOLD = -5


@cache
def member_key(number: int) -> SecretKey:
    """The same key for a number, always."""
    return SecretKey(int.from_bytes(sha256(b"member %d" % number).digest(), "big") >> 2)


@cache
def member(number: int) -> CommitteeMember:
    """Its public file."""
    return public_file(member_key(number), f"member-{number}")


def public_file(secret: SecretKey, name: str) -> CommitteeMember:
    return CommitteeMember("sealproof/committee-member/v1", name, secret.public, secret.prove_possession())


def terms_of(contract: bytes = bytes(range(20)), chain: int = 31337, count: int = 3, **changes: Any) -> TrialTerms:
    """Terms of `count` of these members, two of whom are a quorum."""
    made = TrialTerms(
        format="sealproof/trial-terms/v1",
        chain=chain,
        contract=contract,
        origin=ORIGIN,
        model=MODEL,
        output=0,
        threshold=THRESHOLD,
        quorum=min(2, count),
        members=tuple(member(number) for number in range(count)),
    )
    return replace(made, **changes)


def case_of(terms: TrialTerms, number: int = 0, blinding: bytes = bytes(32)) -> Case:
    return Case("sealproof/trial-case/v1", terms.digest, number, blinding)


def enrolment_of(terms: TrialTerms, patient: int, nonce: bytes, **changes: Any) -> Enrolment:
    """What members would sign of a patient."""
    made = Enrolment(
        trial=terms.digest,
        prediction=sha256(b"prediction").digest(),
        disclosure=sha256(b"disclosure %d" % patient).digest(),
        handle=terms.handle(sha256(b"handle %d" % patient).digest()),
        nonce=nonce,
    )
    return replace(made, **changes)


def share_of(enrolment: Enrolment, place: int, secret: SecretKey | None = None) -> Share:
    signature = (secret or member_key(place)).sign(enrolment.message)
    return Share("sealproof/enrolment-share/v1", enrolment, place, signature)


def sign(terms: TrialTerms, enrolment: Enrolment, places: Iterable[int]) -> SignedEnrolment:
    return combine(terms, [share_of(enrolment, place) for place in places])


@dataclass
class OnChain:
    """A sealed contract and its terms."""

    contract: Any
    terms: TrialTerms

    def issue(self) -> bytes:
        """A fresh nonce."""
        return bytes(self.contract.issue(secrets.token_bytes(32))[1])

    def signed(self, patient: int, places: Iterable[int] = (0, 1), nonce: bytes | None = None) -> SignedEnrolment:
        return sign(self.terms, enrolment_of(self.terms, patient, nonce or self.issue()), places)

    def enrol(self, signed: SignedEnrolment, *, bitmap: int | None = None, signature: bytes | None = None) -> Any:
        """Send it as it is; nothing is checked here."""
        body = signed.enrolment
        return self.contract.enrol(
            body.prediction,
            body.disclosure,
            body.handle,
            body.nonce,
            signed.bitmap if bitmap is None else bitmap,
            signature_eip2537(signed.signature) if signature is None else signature,
        )


def deploy(chain: Any, artefact: Any = None, **changes: Any) -> Any:
    """A contract without members; `artefact` instead of the committed one."""
    from ledger.anchors.evm import Artefact
    from ledger.anchors.trial import TrialContract

    values: dict[str, Any] = {"model": MODEL, "output": 0, "threshold": THRESHOLD, "quorum": 2, **changes}
    made, _ = chain.deploy(
        artefact or Artefact.load("TrialEnrolment"),
        sha256(ORIGIN.encode()).digest(),
        values["model"].index,
        values["model"].leaf,
        *(values[name] for name in ("output", "threshold", "quorum")),
    )
    return TrialContract(made)


def add(contract: Any, one: CommitteeMember) -> Any:
    return contract.add_member(public_key_eip2537(one.key), signature_eip2537(one.possession))


def make_trial(chain: Any, count: int = 3, artefact: Any = None, **changes: Any) -> OnChain:
    """Deployed, with members 0 to `count` - 1, sealed."""
    quorum = changes.pop("quorum", min(2, count))
    contract = deploy(chain, artefact, quorum=quorum, **changes)
    terms = terms_of(bytes.fromhex(contract.address[2:]), chain.chain_id, count, quorum=quorum, **changes)
    for one in terms.members:
        add(contract, one)
    contract.seal()
    return OnChain(contract, terms)
