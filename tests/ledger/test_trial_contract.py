"""The contract TrialEnrolment computes what the clients compute, and it enrols once what a quorum signed."""

from __future__ import annotations

from dataclasses import fields, replace
from hashlib import sha256
from typing import Any

import pytest

from api.client.enrolment import Enrolment
from api.entries import Reference
from ledger.errors import ChainRefused, UsageError
from privacy.zk.bls import (
    PAIRING,
    REFERENCE_PAIRING,
    SIGNATURE_TAG,
    SecretKey,
    public_key_eip2537,
    signature_eip2537,
)
from privacy.zk.group import ARKWORKS, FIELD, ORDER
from tests.support import trials
from tests.support.trials import (
    MODEL,
    OnChain,
    add,
    case_of,
    deploy,
    enrolment_of,
    make_trial,
    member,
    member_key,
    share_of,
)

pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")

from ledger.anchors.evm import Artefact, Chain
from ledger.anchors.trial import TrialContract

G1_GENERATOR = ARKWORKS.decode(
    bytes.fromhex("97f1d3a73197d7942695638c4fa9ac0fc3688c4f9774b905a14e3a3f171bac586c55e83ff97a1aeffb3af00adb22c6bb")
)
IDENTITY = bytes(128)
NOT_SIGNED = "not the members' signature of this enrolment"
NO_POINTS = "not points of the right subgroup"


@pytest.fixture(scope="module")
def trial(chain: Chain) -> OnChain:
    """Three members, two of whom are a quorum."""
    return make_trial(chain)


def padded(point: Any) -> bytes:
    affine = ARKWORKS.export_affine(point)
    return bytes(16) + affine[:48] + bytes(16) + affine[48:]


def small_order_point() -> bytes:
    """(0, 2) is on the curve y^2 = x^3 + 4 and has order 3."""
    return bytes(127) + b"\x02"


# -- the same numbers as the clients ----------------------------------------------------------------------------------


def test_it_hashes_to_the_curve_as_rfc_9380_says(trial):
    for number in range(12):
        message = sha256(b"message %d" % number).digest()
        found = b"".join(trial.contract.contract.call("hash_to_curve", message))
        assert found == padded(PAIRING.hash_to_curve(message, SIGNATURE_TAG))
        if number < 3:
            assert found == padded(
                ARKWORKS.import_affine(
                    REFERENCE_PAIRING.group.export_affine(REFERENCE_PAIRING.hash_to_curve(message, SIGNATURE_TAG))
                )
            )


def test_trial_committee_nonce_and_message_have_the_digests_that_clients_compute(trial):
    contract, terms = trial.contract, trial.terms
    state = contract.state()
    assert state.trial == terms.digest
    assert contract.contract.call("committee") == terms.committee
    assert (state.origin, state.index, state.model, state.output, state.threshold, state.quorum, state.members) == (
        terms.origin_digest,
        terms.model.index,
        terms.model.leaf,
        terms.output,
        terms.threshold,
        terms.quorum,
        3,
    )
    assert [contract.key(place) for place in range(3)] == [public_key_eip2537(m.key) for m in terms.members]
    number, nonce, _ = contract.issue(bytes(range(32)))
    assert case_of(terms, number, bytes(range(32))).nonce == nonce
    body = enrolment_of(terms, 1, nonce)
    assert contract.message(body.prediction, body.disclosure, body.handle, body.nonce) == body.message
    with pytest.raises(ChainRefused, match="no such member"):
        contract.key(3)


@pytest.mark.parametrize(
    "change",
    [
        {"output": 3},
        {"threshold": 1 << 61},
        {"threshold": 1 - (1 << 62)},
        {"model": Reference(7, bytes(32))},
        {"model": Reference(8, MODEL.leaf)},
        {"quorum": 1},
    ],
    ids=["output", "large threshold", "negative threshold", "leaf", "index", "quorum"],
)
def test_the_digest_of_a_trial_holds_each_of_its_terms(trial, chain, change):
    other = make_trial(chain, **change)
    assert other.contract.state().trial == other.terms.digest != trial.terms.digest


# -- who may do what, and when ----------------------------------------------------------------------------------------


def test_only_the_organiser_forms_the_committee_and_issues_nonces(anvil, chain):
    contract = deploy(chain)
    with anvil.connected(1) as stranger:
        theirs = TrialContract.at(stranger, contract.address)
        for attempt in (lambda: add(theirs, member(0)), theirs.seal, lambda: theirs.issue(bytes(32))):
            with pytest.raises(ChainRefused, match="not the organiser"):
                attempt()
    state = contract.state()
    assert (state.members, state.trial, state.cases) == (0, None, 0)


def test_a_committee_is_fixed_once_it_is_sealed_and_does_nothing_before(chain):
    contract = deploy(chain)
    add(contract, member(0))
    with pytest.raises(ChainRefused, match="fewer members than the quorum"):
        contract.seal()
    add(contract, member(1))
    terms = trials.terms_of(bytes.fromhex(contract.address[2:]), chain.chain_id, 2)
    unsealed = OnChain(contract, terms)
    with pytest.raises(ChainRefused, match="not sealed"):
        contract.issue(bytes(32))
    with pytest.raises(ChainRefused, match="not sealed"):
        unsealed.enrol(unsealed.signed(1, nonce=case_of(terms).nonce))
    contract.seal()
    for attempt in (contract.seal, lambda: add(contract, member(2))):
        with pytest.raises(ChainRefused, match="is sealed"):
            attempt()
    assert contract.state().members == 2
    unsealed.enrol(unsealed.signed(1))


def test_a_quorum_of_nobody_or_of_more_than_64_is_refused(chain):
    for quorum in (0, 65, 2**256 - 1):
        with pytest.raises(ChainRefused, match="quorum is from 1 to 64"):
            deploy(chain, quorum=quorum)
    deploy(chain, quorum=64)


# -- members ----------------------------------------------------------------------------------------------------------


def test_a_key_is_taken_once_and_only_with_its_own_proof_of_possession(chain):
    contract = deploy(chain)
    add(contract, member(0))
    with pytest.raises(ChainRefused, match="already a member"):
        add(contract, member(0))
    key, proof = public_key_eip2537(member(1).key), signature_eip2537(member(1).possession)
    signature_of_the_key = signature_eip2537(member_key(1).sign(key))
    for wrong in (signature_eip2537(member(0).possession), signature_of_the_key, padded(G1_GENERATOR), IDENTITY):
        with pytest.raises(ChainRefused, match="no proof of possession"):
            contract.add_member(key, wrong)
    contract.add_member(key, proof)
    assert contract.state().members == 2


def with_coordinate(data: bytes, place: int, value: bytes) -> bytes:
    return data[: 64 * place] + value + data[64 * (place + 1) :]


def bad_keys() -> dict[str, bytes]:
    good = public_key_eip2537(member(1).key)
    x = int.from_bytes(good[:64], "big") + FIELD
    return {
        "off the curve": with_coordinate(good, 2, good[:64]),
        "off the subgroup": off_subgroup_key(),
        "x.c0 plus p": with_coordinate(good, 0, x.to_bytes(64, "big")),
        "y.c1 equal to p": with_coordinate(good, 3, FIELD.to_bytes(64, "big")),
        "padding not zero": b"\x01" + good[1:],
        "halves exchanged": good[64:128] + good[:64] + good[192:] + good[128:192],
    }


def off_subgroup_key() -> bytes:
    from py_ecc.bls.point_compression import decompress_G2

    for x in range(1, 100):
        try:
            point = decompress_G2(((1 << 383), x))
        except ValueError:
            continue
        return b"".join(int(c).to_bytes(64, "big") for part in point[:2] for c in part.coeffs)
    raise AssertionError("no such point: 2^-100")


@pytest.mark.parametrize("name", ["off the curve", "off the subgroup", "x.c0 plus p", "y.c1 equal to p"])
def test_a_key_that_is_no_canonical_point_of_the_subgroup_is_refused(chain, name):
    contract = deploy(chain)
    with pytest.raises(ChainRefused, match=NO_POINTS):
        contract.add_member(bad_keys()[name], signature_eip2537(member(1).possession))
    assert contract.state().members == 0


@pytest.mark.parametrize("name", ["padding not zero", "halves exchanged"])
def test_another_spelling_of_a_key_is_refused(chain, name):
    with pytest.raises(ChainRefused, match=NO_POINTS):
        deploy(chain).add_member(bad_keys()[name], signature_eip2537(member(1).possession))


def test_the_identity_is_no_key(chain):
    """e(O, x) = 1 for every x: with the identity as proof it would pass the pairing."""
    with pytest.raises(ChainRefused, match="the key is the identity"):
        deploy(chain).add_member(bytes(256), IDENTITY)


def test_points_of_another_size_are_not_even_sent(chain):
    contract = deploy(chain)
    with pytest.raises(UsageError, match="expected 256 bytes"):
        contract.add_member(bytes(255), IDENTITY)
    with pytest.raises(UsageError, match="expected 128 bytes"):
        contract.add_member(public_key_eip2537(member(0).key), bytes(129))


# -- enrolments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "places"), [(1, [0]), (3, [0, 2]), (3, [0, 1, 2]), (5, [1, 3, 4])])
def test_a_quorum_enrols_a_record_and_the_event_says_who_signed(chain, anvil, count, places):
    trial = make_trial(chain, count)
    signed = trial.signed(7, places)
    with anvil.connected(2) as anybody:
        OnChain(TrialContract.at(anybody, trial.contract.address), trial.terms).enrol(signed)
    state, body = trial.contract.state(), signed.enrolment
    assert (state.cases, state.participants) == (1, 1)
    (found,) = trial.contract.enrolments()
    assert (found.handle, found.disclosure, found.prediction, found.nonce, found.members) == (
        body.handle,
        body.disclosure,
        body.prediction,
        body.nonce,
        tuple(places),
    )
    assert trial.contract.is_enrolled(body.handle)
    assert not trial.contract.is_enrolled(sha256(body.handle).digest())


def test_a_record_is_enrolled_once_and_a_nonce_is_spent_once(trial):
    signed = trial.signed(1)
    trial.enrol(signed)
    before = trial.contract.state().participants
    with pytest.raises(ChainRefused, match="not issued, or is spent"):
        trial.enrol(signed)
    with pytest.raises(ChainRefused, match="not issued, or is spent"):
        trial.enrol(trial.signed(2, nonce=signed.enrolment.nonce))
    with pytest.raises(ChainRefused, match="already enrolled"):
        trial.enrol(trial.signed(1))
    with pytest.raises(ChainRefused, match="not issued, or is spent"):
        trial.enrol(trial.signed(2, nonce=sha256(b"never issued").digest()))
    assert trial.contract.state().participants == before


def test_fewer_than_a_quorum_cannot_enrol(trial):
    body = enrolment_of(trial.terms, 3, trial.issue())
    alone = share_of(body, 0)
    signed = replace(trial.signed(3, nonce=body.nonce), signature=alone.signature, members=(0,))
    with pytest.raises(ChainRefused, match="fewer members than the quorum"):
        trial.enrol(signed)
    with pytest.raises(ChainRefused, match="fewer members than the quorum"):
        trial.enrol(signed, bitmap=0)


def test_a_signature_counts_for_the_members_who_made_it_and_no_others(trial):
    signed = trial.signed(4, [0, 1])
    for bitmap in (0b101, 0b110, 0b111):
        with pytest.raises(ChainRefused, match=NOT_SIGNED):
            trial.enrol(signed, bitmap=bitmap)
    for bitmap in (0b1011, 0b1 << 64 | 0b11, 0b1 << 255 | 0b11, 2**256 - 1):
        with pytest.raises(ChainRefused, match="members that do not exist"):
            trial.enrol(signed, bitmap=bitmap)
    trial.enrol(signed)


@pytest.mark.parametrize("name", [field.name for field in fields(Enrolment) if field.name not in ("trial", "nonce")])
def test_a_signature_is_of_every_field_of_its_enrolment(trial, name):
    signed = trial.signed(5)
    changed = replace(signed, enrolment=replace(signed.enrolment, **{name: sha256(b"another").digest()}))
    with pytest.raises(ChainRefused, match=NOT_SIGNED):
        trial.enrol(changed)


def test_a_signature_is_of_its_nonce(trial):
    signed, other = trial.signed(5), trial.issue()
    with pytest.raises(ChainRefused, match=NOT_SIGNED):
        trial.enrol(replace(signed, enrolment=replace(signed.enrolment, nonce=other)))


def test_a_signature_that_is_no_canonical_point_of_the_subgroup_is_refused(trial):
    signed = trial.signed(6)
    good = signature_eip2537(signed.signature)
    x = (
        int.from_bytes(good[:64], "big")
        + 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
    )
    from py_ecc.optimized_bls12_381 import FQ, add, normalize

    affine = ARKWORKS.export_affine(ARKWORKS.decode(signed.signature))
    point = tuple(FQ(int.from_bytes(part, "big")) for part in (affine[:48], affine[48:]))
    shifted = normalize(add((*point, FQ(1)), (FQ(0), FQ(2), FQ(1))))
    for wrong in (
        small_order_point(),
        b"".join(int(part).to_bytes(64, "big") for part in shifted),
        x.to_bytes(64, "big") + good[64:],
        good[64:] + good[:64],
        b"\x80" + good[1:],
        bytes(64) + b"\x01" + bytes(63),
    ):
        with pytest.raises(ChainRefused, match=NO_POINTS):
            trial.enrol(signed, signature=wrong)
    with pytest.raises(ChainRefused, match="the signature is the identity"):
        trial.enrol(signed, signature=IDENTITY)
    negated = signature_eip2537(ARKWORKS.encode(ARKWORKS.negate(ARKWORKS.decode(signed.signature))))
    with pytest.raises(ChainRefused, match=NOT_SIGNED):
        trial.enrol(signed, signature=negated)
    trial.enrol(signed)


def test_members_that_cancel_sign_nothing(chain):
    """Keys s and -s, both proved: their sum is the identity, and so is their signature of everything."""
    pair = SecretKey(77), SecretKey(ORDER - 77)
    contract = deploy(chain)
    for place, secret in enumerate(pair):
        add(contract, trials.public_file(secret, f"pair-{place}"))
    contract.seal()
    members = tuple(trials.public_file(secret, f"pair-{place}") for place, secret in enumerate(pair))
    terms = trials.terms_of(bytes.fromhex(contract.address[2:]), chain.chain_id, members=members)
    both = OnChain(contract, terms)
    body = enrolment_of(terms, 1, both.issue())
    carrier = make_trial(chain).signed(1)
    signed = replace(carrier, enrolment=body)
    for signature, reason in ((IDENTITY, "the signature is the identity"), (padded(G1_GENERATOR), "the keys cancel")):
        with pytest.raises(ChainRefused, match=reason):
            both.enrol(signed, signature=signature)


@pytest.mark.slow
def test_a_committee_has_at_most_sixty_four_members_who_can_all_sign(chain):
    contract = deploy(chain, quorum=64)
    for number in range(64):
        add(contract, member(number))
    with pytest.raises(ChainRefused, match="the committee is full"):
        add(contract, member(64))
    contract.seal()
    trial = OnChain(contract, trials.terms_of(bytes.fromhex(contract.address[2:]), chain.chain_id, 64, quorum=64))
    receipt = trial.enrol(trial.signed(1, range(64)))
    # Far below what one transaction may take (EIP-7825: 16,777,216).
    assert receipt.gas_used < 1_700_000


def test_the_artefact_is_the_code_that_lies_there(trial, chain):
    found = TrialContract.at(chain, trial.contract.address)
    assert found.state() == trial.contract.state()
    other, _ = chain.deploy(Artefact.load("HeadAnchor"), "another/log")
    with pytest.raises(ChainRefused, match="is not TrialEnrolment"):
        TrialContract.at(chain, other.address)
