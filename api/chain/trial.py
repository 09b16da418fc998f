"""A trial's contract and its terms, compared with each other. Needs the extra `evm`.

The organiser makes a contract from terms (`create_trial`), issues nonces, and sends what a quorum signed. Everybody can
compare the terms that they were given with the contract (`open_trial`); members need not, since a signature under other
terms is none to the contract.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from api.client.enrolment import Case, CommitteeMember, SignedEnrolment, TrialTerms
from api.entries import Reference
from ledger.anchors.evm import Chain, Receipt
from ledger.anchors.trial import TrialContract, TrialState
from privacy.errors import VerificationFailed
from privacy.zk.bls import public_key_eip2537, signature_eip2537

__all__ = ["create_trial", "enrol", "issue", "open_trial"]

_BLINDING_BYTES = 32

Told = Callable[[str, Receipt], None]


def create_trial(
    chain: Chain,
    *,
    origin: str,
    model: Reference,
    output: int,
    threshold: int,
    quorum: int,
    members: Sequence[CommitteeMember],
    address: str | None = None,
    told: Told = lambda what, receipt: None,
) -> tuple[TrialTerms, TrialContract]:
    """Deploy a contract, add the members and seal the committee; `told` hears of every transaction.

    Every proof of possession is checked before anything is paid for. With `address`, the contract there is finished
    that was begun with the same values.

    Raises:
        UsageError: values that no trial has.
        VerificationFailed, DecodeError: a member's key; a contract that was begun with other values (`trial.terms`,
            `trial.committee`).
        ledger.ChainUnavailable, ledger.ChainRefused.
    """
    wanted = TrialTerms(
        format="sealproof/trial-terms/v1",
        chain=chain.chain_id,
        contract=bytes(20),
        origin=origin,
        model=model,
        output=output,
        threshold=threshold,
        quorum=quorum,
        members=tuple(members),
    )
    wanted.keys()
    if address is None:
        contract, receipt = TrialContract.deploy(
            chain,
            origin=wanted.origin_digest,
            index=model.index,
            model=model.leaf,
            output=output,
            threshold=threshold,
            quorum=quorum,
        )
        told(f"contract {contract.address} deployed", receipt)
    else:
        contract = TrialContract.at(chain, address)
    terms = replace(wanted, contract=bytes.fromhex(contract.address.removeprefix("0x")))
    state = contract.state()
    _compare(state, terms, contract)
    for member in terms.members[state.members :]:
        receipt = contract.add_member(public_key_eip2537(member.key), signature_eip2537(member.possession))
        told(f"member {member.name} added", receipt)
    if state.trial is None:
        told("committee sealed", contract.seal())
    return terms, open_trial(chain, terms)


def open_trial(chain: Chain, terms: TrialTerms) -> TrialContract:
    """The contract of these terms: its code, every value and every key of it are compared.

    Raises:
        VerificationFailed: `trial.chain`, `trial.terms`, `trial.committee`, `trial.unsealed`, `bls.possession`.
        ledger.ChainRefused: another contract, or none, lies there.
        ledger.ChainUnavailable, DecodeError.
    """
    terms.keys()
    if chain.chain_id != terms.chain:
        raise VerificationFailed("trial.chain", f"the trial is on chain {terms.chain}, this is chain {chain.chain_id}")
    contract = TrialContract.at(chain, f"0x{terms.contract.hex()}")
    state = contract.state()
    _compare(state, terms, contract)
    if state.trial is None:
        raise VerificationFailed("trial.unsealed", "the committee is not sealed: members can still be added")
    if state.members != len(terms.members) or state.trial != terms.digest:
        raise VerificationFailed("trial.committee", "the contract's committee is not that of the terms")
    return contract


def issue(contract: TrialContract, terms: TrialTerms) -> Case:
    """One more case, with a random nonce; the chain's key is the organiser's.

    Raises VerificationFailed(`trial.nonce`) for a node that shows another nonce than ours, and as `open_trial` does.
    """
    blinding = secrets.token_bytes(_BLINDING_BYTES)
    number, nonce, _ = contract.issue(blinding)
    case = Case("sealproof/trial-case/v1", terms.digest, number, blinding)
    if case.nonce != nonce:
        raise VerificationFailed("trial.nonce", "the contract issued another nonce than its terms give")
    return case


def enrol(contract: TrialContract, terms: TrialTerms, signed: SignedEnrolment) -> Receipt:
    """Verify the signature, and only then send it.

    Raises VerificationFailed, DecodeError; ledger.ChainRefused with the contract's reason, before anything is paid for;
    ledger.ChainUnavailable.
    """
    signed.verify(terms)
    enrolment = signed.enrolment
    return contract.enrol(
        enrolment.prediction,
        enrolment.disclosure,
        enrolment.handle,
        enrolment.nonce,
        signed.bitmap,
        signature_eip2537(signed.signature),
    )


def _compare(state: TrialState, terms: TrialTerms, contract: TrialContract) -> None:
    """What a contract says of itself, with what the terms say."""
    for name, found, expected in (
        ("log", state.origin, terms.origin_digest),
        ("model", (state.index, state.model), (terms.model.index, terms.model.leaf)),
        ("output", state.output, terms.output),
        ("threshold", state.threshold, terms.threshold),
        ("quorum", state.quorum, terms.quorum),
    ):
        if found != expected:
            raise VerificationFailed("trial.terms", f"the contract at {contract.address} has another {name}")
    if state.members > len(terms.members):
        raise VerificationFailed("trial.committee", "the contract has more members than the terms")
    for index in range(state.members):
        if contract.key(index) != public_key_eip2537(terms.members[index].key):
            raise VerificationFailed("trial.committee", f"member {index} of the contract has another key")
