"""Somebody gets a record into a trial that the committee never approved, or twice, or into another trial.

The attacker may be a member (below the quorum), a clinic, the organiser of another trial, or anybody with an account on
the chain. Each attack is also run where the one check that stops it is missing, and succeeds there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from api.client import committee
from api.client.committee import Member
from api.client.handles import RecordHandles
from api.entries import Revocation
from ledger.errors import ChainRefused
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.bls import PAIRING, SecretKey, public_key_eip2537, signature_eip2537
from privacy.zk.group import ARKWORKS, ORDER
from tests.support import disclosures, shown, trials
from tests.support.anvil import start_anvil
from tests.support.bundles import ORIGIN as LOG
from tests.support.bundles import PATIENTS
from tests.support.contracts import weakened
from tests.support.disclosures import IDS, DisclosureStory, handled
from tests.support.joint_bundles import commit_cohort
from tests.support.trials import OnChain, add, case_of, deploy, enrolment_of, make_trial, member, member_key, share_of

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from ledger.anchors.evm import Chain

NAME = "TrialEnrolment"
NOT_SIGNED = "not the members' signature of this enrolment"


CHECKS = (
    'self._signed(possession, hashed, key), "no proof of possession"',
    'not self.known[digest], "already a member"',
    'bitmap >> self.members == 0, "the bitmap names members that do not exist"',
    'not self._is_zero(abi_encode(signature)), "the signature is the identity"',
    'not self._is_zero(abi_encode(total)), "the keys cancel"',
    'chain.id == CHAIN, "another chain than that of the trial"',
    'self.nonces[nonce] == ISSUED, "the nonce was not issued, or is spent"',
    'not self.enrolled[handle], "already enrolled"',
)
NONCE_OF_ANY_TRIAL = ('concat(b"sealproof/trial-nonce/v1\\n", self.trial, ', 'concat(b"sealproof/trial-nonce/v1\\n", ')
TRIAL_OF_ANY_CONTRACT = ("            convert(self, bytes20),\n", "")
TRIAL_OF_ANY_CHAIN = ("            convert(CHAIN, bytes32),\n", "")


def careless() -> Any:
    """The contract without these checks. Each attack is refused by ours with the very reason of one of them."""
    return weakened(NAME, *((f"assert {check}", "assert True") for check in CHECKS))


def unbound() -> Any:
    """All checks are there, but signatures are bound to neither chain nor contract."""
    return weakened(NAME, NONCE_OF_ANY_TRIAL, TRIAL_OF_ANY_CONTRACT, TRIAL_OF_ANY_CHAIN)


# -- a member who signs for others ------------------------------------------------------------------------------------


def rogue_key(victim: SecretKey, x: SecretKey) -> bytes:
    """x g2 - pk of the victim, from the victim's public key alone."""
    raw = bytearray(victim.public)
    raw[0] ^= 0x20  # the other root y: the negative
    return PAIRING.encode(PAIRING.add(PAIRING.decode(x.public), PAIRING.decode(bytes(raw))))


@pytest.mark.slow
def test_a_rogue_key_signs_in_the_name_of_an_honest_member(chain: Chain) -> None:
    victim, x = member_key(0), SecretKey(77)
    rogue = public_key_eip2537(rogue_key(victim, x))
    proofs = [x.prove_possession(), victim.prove_possession(), x.sign(rogue)]

    def attack(contract: Any, proof: bytes) -> None:
        add(contract, member(0))
        contract.add_member(rogue, signature_eip2537(proof))
        contract.seal()
        nonce = bytes(contract.issue(bytes(32))[1])
        fields = [sha256(b"prediction").digest(), sha256(b"disclosure").digest(), sha256(b"anybody").digest(), nonce]
        alone = x.sign(contract.message(*fields))
        contract.enrol(*fields, 0b11, signature_eip2537(alone))

    for proof in proofs:
        with pytest.raises(ChainRefused, match="no proof of possession"):
            attack(deploy(chain), proof)
    broken = deploy(chain, careless())
    attack(broken, proofs[0])
    (found,) = broken.enrolments()
    assert found.members == (0, 1)


def test_one_member_is_two_members(chain: Chain) -> None:
    def attack(contract: Any) -> None:
        add(contract, member(0))
        add(contract, member(0))
        contract.seal()
        nonce = bytes(contract.issue(bytes(32))[1])
        fields = [bytes(32), bytes(32), sha256(b"anybody").digest(), nonce]
        once = ARKWORKS.decode(member_key(0).sign(contract.message(*fields)))
        contract.enrol(*fields, 0b11, signature_eip2537(ARKWORKS.encode(ARKWORKS.add(once, once))))

    with pytest.raises(ChainRefused, match="already a member"):
        attack(deploy(chain))
    attack(deploy(chain, careless()))


def test_members_who_do_not_exist_complete_the_quorum(chain: Chain) -> None:
    """A key that was never stored reads as zeros, which is the identity: it adds nothing, and would be counted."""

    def attack(trial: OnChain) -> None:
        body = enrolment_of(trial.terms, 1, trial.issue())
        alone = share_of(body, 0).signature
        carrier = replace(trial.signed(2), enrolment=body)
        trial.enrol(carrier, bitmap=1 | 1 << 40, signature=signature_eip2537(alone))

    with pytest.raises(ChainRefused, match="members that do not exist"):
        attack(make_trial(chain))
    attack(make_trial(chain, artefact=careless()))


def test_two_members_made_keys_that_cancel_so_that_anybody_signs_for_them(chain: Chain) -> None:
    pair = [trials.public_file(SecretKey(scalar), f"pair-{scalar & 1}") for scalar in (77, ORDER - 77)]

    def attack(contract: Any) -> None:
        for one in pair:
            add(contract, one)
        contract.seal()
        nonce = bytes(contract.issue(bytes(32))[1])
        contract.enrol(bytes(32), bytes(32), sha256(b"anybody").digest(), nonce, 0b11, bytes(128))

    with pytest.raises(ChainRefused, match="the signature is the identity"):
        attack(deploy(chain))
    attack(deploy(chain, careless()))


# -- a signature that is used again -----------------------------------------------------------------------------------


def replay(first: OnChain, second: OnChain) -> None:
    """What enrolled in one trial, sent to another, whose organiser issues what he can to help."""
    signed = first.signed(1, nonce=bytes(first.contract.issue(bytes(32))[1]))
    first.enrol(signed)
    second.contract.issue(bytes(32))
    second.enrol(signed)


@pytest.mark.slow
def test_a_signature_is_replayed_to_another_contract_of_the_same_terms(chain: Chain) -> None:
    with pytest.raises(ChainRefused, match="not issued, or is spent"):
        replay(make_trial(chain), make_trial(chain))

    # Not the nonce alone, the message is bound as well.
    shared = [make_trial(chain, artefact=weakened(NAME, NONCE_OF_ANY_TRIAL)) for _ in range(2)]
    with pytest.raises(ChainRefused, match=NOT_SIGNED):
        replay(*shared)
    replay(*(_sealed(deploy(chain, unbound())) for _ in range(2)))


def _sealed(contract: Any) -> OnChain:
    """Three members; `terms` have the digest that this contract computes, whatever it leaves out."""
    for number in range(3):
        add(contract, member(number))
    contract.seal()
    terms = trials.terms_of(bytes.fromhex(contract.address[2:]), contract.contract.chain.chain_id)
    terms.__dict__["digest"] = contract.state().trial
    return OnChain(contract, terms)


@contextmanager
def two_chains() -> Iterator[list[Chain]]:
    """Chains of different ids, on which the same account's first contracts have the same address."""
    with start_chain("--chain-id", "31337") as first, start_chain("--chain-id", "31338") as second:
        yield [first[1], second[1]]


@contextmanager
def start_chain(*options: str, **more: Any) -> Iterator[tuple[Any, Chain]]:
    running = start_anvil(*options, **more)
    try:
        with running.connected() as chain:
            yield running, chain
    finally:
        running.stop()


def test_a_signature_is_replayed_to_another_chain() -> None:
    with two_chains() as chains:
        ours = [make_trial(chain) for chain in chains]
        broken = [_sealed(deploy(chain, unbound())) for chain in chains]
        assert ours[0].contract.address == ours[1].contract.address
        with pytest.raises(ChainRefused, match="not issued, or is spent"):
            replay(*ours)
        replay(*broken)


def test_a_signature_is_replayed_on_the_other_branch_of_a_chain_that_split() -> None:
    """The contract's memory is on both branches; one of them took another id."""
    with start_chain() as (anvil, chain):
        ours, broken = make_trial(chain), make_trial(chain, artefact=careless())
        signed = [(trial, trial.signed(1)) for trial in (ours, broken)]
        anvil.request("anvil_setChainId", 31399)
        with anvil.connected() as branch:
            for trial, enrolment in signed:
                trial.contract.contract.chain = branch
                trial.contract = type(trial.contract)(branch.contract(trial.contract.address, _artefact(trial)))
                if trial is ours:
                    with pytest.raises(ChainRefused, match="another chain than that of the trial"):
                        trial.enrol(enrolment)
                else:
                    trial.enrol(enrolment)


def _artefact(trial: OnChain) -> Any:
    return trial.contract.contract.artefact


@pytest.mark.slow
def test_a_record_is_enrolled_twice_and_a_nonce_is_spent_twice(chain: Chain) -> None:
    def twice(trial: OnChain) -> None:
        trial.enrol(trial.signed(1))
        trial.enrol(trial.signed(1))

    def one_nonce(trial: OnChain) -> None:
        nonce = trial.issue()
        trial.enrol(trial.signed(1, nonce=nonce))
        trial.enrol(trial.signed(2, nonce=nonce))

    for attack, reason in ((twice, "already enrolled"), (one_nonce, "is spent")):
        trial = make_trial(chain)
        with pytest.raises(ChainRefused, match=reason):
            attack(trial)
        assert trial.contract.state().participants == 1
        broken = make_trial(chain, artefact=careless())
        attack(broken)
        assert broken.contract.state().participants == 2


def test_a_chain_without_the_precompiles_takes_no_member() -> None:
    """A call of nothing succeeds, and answers nothing."""
    with start_chain(hardfork="cancun") as (_, chain):
        contract = deploy(chain)
        with pytest.raises(ChainRefused, match="not points of the right subgroup"):
            add(contract, member(0))


# -- a clinic whose patient does not qualify --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> DisclosureStory:
    return disclosures.tell(tmp_path_factory.mktemp("trial-disclosures"))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> DisclosureStory:
    """A network with two outputs."""
    return disclosures.tell(tmp_path_factory.mktemp("trial-two-outputs"), "two")


@pytest.fixture
def doctor(tmp_path: Path) -> Member:
    return Member.create(tmp_path / "doctor", "dr-b")


class Attempt:
    """One member, a trial about one output of the story's model, and what it is shown."""

    def __init__(self, told: DisclosureStory, doctor: Member, path: Path, patient: int = 1, **changes: Any) -> None:
        self.told, self.doctor, self.path, self.patient = told, doctor, path, patient
        self.reached = told.opening(patient, changes.get("output", 0)).z // told.step
        self.terms = trials.terms_of(
            origin=LOG,
            model=told.story.model.reference,
            threshold=changes.pop("threshold", self.reached),
            members=(doctor.public, member(1)),
            **changes,
        )
        self.case = case_of(self.terms)

    def statement(self, kind: Any = "threshold", **changes: Any) -> Any:
        changes = {"threshold": self.reached, "recipient_nonce": self.case.nonce, **changes}
        return self.told.statement(self.patient, kind, **changes)

    def bundle(self, statement: Any = None) -> Path:
        return self.told.disclose(self.path, statement or self.statement())

    def sign(self, bundle: Path, **options: Any) -> Any:
        world = self.told.story.world
        terms, case = options.pop("terms", self.terms), options.pop("case", self.case)
        return self.doctor.sign(bundle, terms, case, world.verifier, cache=world.cache, **options)

    def refused(self, bundle: Path, *checks: str, **options: Any) -> None:
        before = sorted(path.name for path in self.doctor.folder.rglob("*"))
        with pytest.raises(VerificationFailed) as caught:
            self.sign(bundle, **options)
        assert caught.value.check in checks, caught.value
        assert sorted(path.name for path in self.doctor.folder.rglob("*")) == before


@pytest.fixture
def attempt(told: DisclosureStory, doctor: Member, tmp_path: Path) -> Attempt:
    return Attempt(told, doctor, tmp_path / "case.sealproof")


def test_what_reaches_the_threshold_is_signed_also_when_more_is_shown(attempt: Attempt) -> None:
    signed = attempt.sign(attempt.bundle())
    signed.share.verify(attempt.terms)
    assert signed.found.facts[0].record_id == IDS[1]
    assert signed.share.enrolment.disclosure == signed.found.entry.reference.leaf
    kept = [path.read_bytes() for path in attempt.doctor.folder.rglob("*") if path.is_file()]
    assert len(kept) == 3
    assert not any(IDS[1].encode() in data or signed.found.facts[0].handle.hex().encode() in data for data in kept)
    lower = Attempt(attempt.told, attempt.doctor, attempt.path, threshold=attempt.reached - 3)
    lower.sign(lower.bundle(lower.statement(threshold=attempt.reached - 1)))


def test_a_lower_threshold_than_the_trials_is_not_signed(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = attempt.bundle(attempt.statement(threshold=attempt.reached - 1))
    attempt.refused(bundle, "enrolment.threshold")
    monkeypatch.setattr(committee, "_examine_facts", lambda facts, terms: facts[0])
    attempt.sign(bundle)


def test_a_false_statement_has_no_proof_that_a_member_takes(attempt: Attempt) -> None:
    """The patient does not reach it: the clinic proves something else and writes the trial's threshold."""
    told, statement = attempt.told, attempt.statement(threshold=attempt.reached - 1)
    false = replace(statement, value=attempt.reached + 1)
    proof = told.prove(statement)
    signed = told.sign(told.disclosed(false, proof))
    bundle = told.bundle(attempt.path, told.log(signed, proof), [signed, proof])
    with pytest.raises((VerificationFailed, DecodeError)):
        attempt.sign(bundle)
    assert not (attempt.doctor.folder / "signed").exists()


@pytest.mark.parametrize("kind", ["exact", "open"])
def test_more_than_a_threshold_is_not_signed(attempt: Attempt, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`value` of an exact or open statement counts other things than a threshold's, in other units."""
    bundle = attempt.bundle(attempt.statement(kind))
    attempt.refused(bundle, "enrolment.kind")
    monkeypatch.setattr(committee, "_examine_facts", lambda facts, terms: facts[0])
    attempt.sign(bundle)


def test_another_output_than_the_trials_is_not_signed(two: DisclosureStory, doctor: Member, tmp_path: Path) -> None:
    attempt = Attempt(two, doctor, tmp_path / "case.sealproof", output=1)
    reached = two.opening(1, 0).z // two.step
    wrong = attempt.bundle(attempt.statement(output=0, threshold=reached))
    attempt.refused(wrong, "enrolment.output")
    attempt.sign(attempt.bundle(attempt.statement(output=1)))


def test_another_model_or_log_than_the_trials_is_not_signed(attempt: Attempt) -> None:
    for change, check in (
        ({"model": replace(attempt.terms.model, leaf=sha256(b"another").digest())}, "enrolment.model"),
        ({"model": replace(attempt.terms.model, index=99)}, "enrolment.model"),
        ({"origin": "another.example/log"}, "enrolment.log"),
    ):
        terms = replace(attempt.terms, **change)
        case = case_of(terms)
        bundle = attempt.bundle(attempt.statement(recipient_nonce=case.nonce))
        attempt.refused(bundle, check, terms=terms, case=case)


def test_a_disclosure_to_somebody_else_is_not_signed(attempt: Attempt) -> None:
    """An insurer's nonce, another case, the same case of a trial on another chain, contract, committee or quorum."""
    terms = attempt.terms
    others = [
        replace(terms, chain=1),
        replace(terms, contract=bytes(20)),
        replace(terms, quorum=1),
        replace(terms, members=(*terms.members, member(2))),
        replace(terms, members=terms.members[::-1]),
        replace(terms, threshold=terms.threshold - 1),
    ]
    nonces = [disclosures.RECIPIENT, case_of(terms, 1).nonce, case_of(terms, 0, bytes([1] * 32)).nonce]
    for nonce in (*nonces, *(case_of(other).nonce for other in others)):
        bundle = attempt.bundle(attempt.statement(recipient_nonce=nonce))
        attempt.refused(bundle, "disclosure.nonce")


def test_a_case_of_another_trial_is_refused(attempt: Attempt) -> None:
    other = case_of(replace(attempt.terms, chain=1))
    bundle = attempt.bundle(attempt.statement(recipient_nonce=other.nonce))
    attempt.refused(bundle, "enrolment.trial", case=other)


def test_a_prediction_alone_or_a_bundle_of_another_log_is_not_signed(attempt: Attempt) -> None:
    told = attempt.told
    plain = told.story.bundle(attempt.path, told.prediction, told.envelope)
    attempt.refused(plain, "disclosure.missing")
    stranger = type(told.story.world.signer).generate("another.example/log").verifier
    with pytest.raises(VerificationFailed):
        attempt.doctor.sign(attempt.bundle(), attempt.terms, attempt.case, stranger)


def test_somebody_who_is_no_member_signs_nothing(attempt: Attempt, tmp_path: Path) -> None:
    stranger = Member.create(tmp_path / "stranger", "dr-b")
    attempt.doctor = stranger
    with pytest.raises(UsageError, match="not in the committee"):
        attempt.sign(attempt.bundle())


def test_a_committee_with_a_rogue_key_gets_no_signature(attempt: Attempt) -> None:
    x = SecretKey(77)
    rogue = replace(member(1), key=rogue_key(member_key(0), x), possession=x.prove_possession())
    terms = replace(attempt.terms, members=(attempt.doctor.public, member(0), rogue))
    case = case_of(terms)
    bundle = attempt.bundle(attempt.statement(recipient_nonce=case.nonce))
    attempt.refused(bundle, "bls.possession", terms=terms, case=case)


def test_a_model_that_was_revoked_since_is_not_signed_when_the_ledger_is_asked(
    doctor: Member, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    told = disclosures.tell(tmp_path_factory.mktemp("trial-revoked"))
    attempt = Attempt(told, doctor, tmp_path / "case.sealproof")
    bundle = attempt.bundle()
    attempt.sign(bundle, ledger=told.story.world)
    told.story.world.append(told.story.owner, Revocation(told.story.model.reference, "it was wrong"))
    attempt.refused(bundle, "enrolment.revoked", ledger=told.story.world)


class ShownAttempt:
    """A trial about a model of today's format of disclosures, of either scheme, and one member."""

    def __init__(self, told: shown.ShownStory, doctor: Member, path: Path) -> None:
        self.told, self.doctor, self.path = told, doctor, path
        reached = told.raw(1) // told.step
        self.terms = trials.terms_of(
            origin=LOG,
            model=told.prediction.body.model,
            threshold=reached,
            members=(doctor.public, member(1)),
        )
        self.case = case_of(self.terms)

    def parts(self, *answers: Any, **lies: Any) -> shown.Parts:
        nonce = self.case.nonce
        lies = {"proven_for": nonce, "shown": {"recipient_nonce": nonce}, "grant": {"nonce": nonce}, **lies}
        return self.told.parts(*answers, asked=False, **lies)

    def sign(self, parts: shown.Parts, **options: Any) -> Any:
        world, bundle = self.told.world, self.told.bundle(self.path, parts)
        return self.doctor.sign(bundle, self.terms, self.case, world.verifier, cache=world.cache, **options)


@pytest.mark.parametrize("tell", [shown.tell_encrypted, shown.tell_joint])
def test_answers_of_either_scheme_are_signed_under_a_grant_to_the_case(
    tell: Any, doctor: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = ShownAttempt(tell(tmp_path), doctor, tmp_path / "case.sealproof")
    told = attempt.told
    parts = attempt.parts(told.answer(1))
    signed = attempt.sign(parts, ledger=told.world)
    assert signed.share.enrolment.handle == attempt.terms.handle(told.handles.handles[1])
    assert signed.found.consent is not None and signed.found.consent.document.nonce == attempt.case.nonce
    # More than one answer says more than a trial needs, and enrols nobody in particular.
    two = attempt.parts(told.answer(1), told.answer(2))
    with pytest.raises(VerificationFailed, match=r"enrolment\.facts"):
        attempt.sign(two)
    lower = attempt.parts(told.answer(1, threshold=attempt.terms.threshold - 1))
    with pytest.raises(VerificationFailed, match=r"enrolment\.threshold"):
        attempt.sign(lower)
    told.revoke(parts.grant.reference, told.clinic)
    with pytest.raises(VerificationFailed, match=r"enrolment\.revoked"):
        attempt.sign(parts, ledger=told.world)
    attempt.sign(parts)  # who does not ask does not know


def test_a_difference_of_two_outputs_enrols_nobody(doctor: Member, tmp_path: Path) -> None:
    """Output 0 minus output 1 is not output 0, and reaches other thresholds."""
    attempt = ShownAttempt(shown.tell_joint(tmp_path, "two"), doctor, tmp_path / "case.sealproof")
    parts = attempt.parts(attempt.told.answer(1, versus=1))
    with pytest.raises(VerificationFailed, match=r"enrolment\.output"):
        attempt.sign(parts)


def again(told: DisclosureStory) -> DisclosureStory:
    """The clinic commits to the same patients once more: new commitments, new handles, another prediction."""
    handles = RecordHandles.draw(IDS)
    cohort = handled(commit_cohort(PATIENTS), handles)
    story = replace(told.story, cohort=cohort)
    story.records = story.world.append(story.clinic, cohort.body())
    story.predicted = story.predict(session=sha256(b"once more").digest())
    prediction = story.log()
    return DisclosureStory(story, handles, prediction, story.attest(prediction))


def test_a_patient_who_was_submitted_twice_is_not_signed_for_twice(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two handles of one record are two records to the contract."""
    first = attempt.sign(attempt.bundle())
    attempt.sign(attempt.bundle())  # the same handle again is no harm
    attempt.told = again(attempt.told)
    bundle = attempt.bundle()
    attempt.refused(bundle, "enrolment.record")
    monkeypatch.setattr(Member, "_remember", lambda self, found, terms, handle: None)
    second = attempt.sign(bundle)
    assert second.found.facts[0].record_id == first.found.facts[0].record_id
    assert second.share.enrolment.handle != first.share.enrolment.handle
