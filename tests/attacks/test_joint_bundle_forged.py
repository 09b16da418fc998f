"""Clinic, owner, dealer and server as one adversary alter one thing in a real bundle of multi-party computation.

Each test changes what they can change and signs everything again, so that one check alone stands in the way.
"""

from __future__ import annotations

import contextlib
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.binding import Located
from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.entries import JointProof, Policy, Reference, Revocation, encode_point_list
from ledger.merkle import Frontier, leaf_hash
from privacy import attestation as att
from privacy.bundle import BundleReader
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.zk.group import ARKWORKS
from tests.support import bundles, joint_bundles
from tests.support.bundles import PATIENTS, members
from tests.support.joint_bundles import HANDLES, PARAMS, SESSION, JointStory


def refused(path: Path, story: JointStory, check: str, **kwargs: Any) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(path, story.world.verifier, cache=story.world.cache, **kwargs)
    assert caught.value.check == check, caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


@pytest.fixture(scope="module")
def story(joint_story: JointStory) -> JointStory:
    return joint_story


def one_proof(story: JointStory, **changes: Any) -> tuple[JointProof, ...]:
    (proof,) = story.predicted.body.proofs
    return (replace(proof, **changes),)


def head_of(story: JointStory) -> dict[str, Any]:
    """The fields of a prediction made under the log's present head."""
    return {"checkpoint_size": story.world.log.size, "checkpoint_root": story.world.log.head().root}


# -- the network -------------------------------------------------------------------------------------------------------


def test_a_swapped_network_is_refused(story: JointStory, path: Path) -> None:
    """The prediction names another network, which exists and is certified, than the one that was computed."""
    other = joint_bundles.network_material("other", "2")
    entry = story.world.append(story.owner, other.body())
    predicted = story.predict()
    prediction = story.world.append(story.server, replace(predicted.body, model=entry.reference))
    blobs = [*other.blobs, *story.cohort.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


def test_a_network_that_was_not_computed_is_refused_although_proven(story: JointStory, path: Path) -> None:
    """One weight changed: the proof is made with these weights, and claimed of the committed ones."""
    other = joint_bundles.network_material("other", "1")
    predicted = story.predict(network=other)
    prediction = story.world.append(story.server, predicted.body)
    blobs = [*story.network.blobs, *story.cohort.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


def test_a_certificate_of_another_network_is_refused(story: JointStory, path: Path) -> None:
    other = joint_bundles.network_material("other", "1")
    body = story.network.body(certificate=sha256(other.certificate).digest(), version="stolen")
    model = story.world.append(story.owner, body)
    predicted = story.predict(model=model)
    prediction = story.world.append(story.server, predicted.body)
    blobs = [*other.blobs, *story.cohort.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"answer_bits": 1}, "network.answer-bits"),
        ({"input_scale_bits": 17}, "network.scales"),
        ({"grid_bits": 200}, "network.grid"),
        ({"link": "softmax"}, "network.link"),
        ({"parameter_set": "mpc-32"}, "entry.parameter-set"),
    ],
)
def test_numbers_that_the_network_does_not_have_are_refused(
    story: JointStory, path: Path, changes: dict[str, Any], check: str
) -> None:
    body = story.network.body(version=f"{changes}", **changes)
    model = story.world.append(story.owner, body)
    records = story.records
    if check == "entry.parameter-set":
        records = story.world.append(story.clinic, story.cohort.body(parameter_set="mpc-32"))
    scales = {"answer_scale_bits": body.answer_scale_bits, "grid_bits": body.grid_bits}
    prediction = story.log(model=model.reference, records=records.reference, **scales, **head_of(story))
    envelope = story.attest(prediction, parameter_set=body.parameter_set)
    refused(story.bundle(path, prediction, envelope), story, check)


def test_layers_that_could_overflow_are_refused(story: JointStory, path: Path) -> None:
    """Bounds so wide that a pre-activation could leave its word: then the circuit would be another function."""
    first, last = story.network.body().layers
    layers = (replace(first, b=40), replace(last, b=40))
    model = story.world.append(story.owner, story.network.body(version="wide", layers=layers))
    prediction = story.log(model=model.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "network.overflow")


def test_a_linear_model_of_the_other_engine_is_no_network(story: JointStory, path: Path) -> None:
    model = story.world.append(story.owner, bundles.model_material().body())
    prediction = story.log(model=model.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "entry.kind")


# -- the records -------------------------------------------------------------------------------------------------------


def test_other_records_are_refused(story: JointStory, path: Path) -> None:
    """The prediction names other records of the clinic than those that were used."""
    others = joint_bundles.commit_cohort(PATIENTS[::-1])
    records = story.world.append(story.clinic, others.body())
    predicted = story.predict()
    prediction = story.world.append(story.server, replace(predicted.body, records=records.reference))
    blobs = [*story.network.blobs, *others.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


def test_exchanged_patients_are_refused(story: JointStory, path: Path) -> None:
    """The same commitments in another order: the certificate is about this order, and so is every proof."""
    first, second, *rest = story.cohort.commitments
    shuffled = replace(story.cohort, commitments=(second, first, *rest))
    records = story.world.append(story.clinic, shuffled.body())
    prediction = story.log(records=records.reference, **head_of(story))
    blobs = [*story.network.blobs, *shuffled.blobs, *story.predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")
    refused(story.bundle(path, story.log(), blobs=blobs), story, "bundle.missing-blob")


def test_records_whose_certificate_is_of_others_are_refused(story: JointStory, path: Path) -> None:
    """Without a certificate of their own, "records" could be fractions, and a true proof about them worthless."""
    other = joint_bundles.commit_cohort(PATIENTS)
    mixed = replace(story.cohort, certificates=other.certificates)
    records = story.world.append(story.clinic, mixed.body())
    predicted = story.predict(records=records, cohort=mixed)
    prediction = story.world.append(story.server, predicted.body)
    blobs = [*story.network.blobs, *mixed.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"schema": bytes(32)}, "records.schema"),
        ({"d": 4}, "records.features"),
        ({"count": 65}, "records.batches"),
        ({"count": 4}, "prediction.coverage"),
        ({"certificates": (bytes(32), bytes(32))}, "records.batches"),
        ({"policy": Policy((), None)}, "policy.model"),
        ({"policy": Policy("any", "2026-01-01T00:00:00Z")}, "policy.expired"),
        ({"handles": bytes(32)}, "quadratic.opening"),
        ({"clinic": "st-bruno"}, "entry.name"),
    ],
)
def test_records_that_do_not_fit_are_refused(
    story: JointStory, path: Path, changes: dict[str, Any], check: str
) -> None:
    records = story.world.append(story.clinic, story.cohort.body(**changes))
    prediction = story.log(records=records.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, check)


def test_records_that_another_clinic_copied_are_refused(story: JointStory, path: Path) -> None:
    """The same commitments under another name: their certificate names who made it."""
    thief = story.world.register("clinic", f"thief-{story.world.log.size}")
    name = story.party(thief).body.name
    records = story.world.append(thief, story.cohort.body(clinic=name))
    predicted = story.predict(records=records, clinic=thief)
    prediction = story.world.append(story.server, predicted.body)
    indices = {r.index for r in (prediction.reference, records.reference, story.model.reference)}
    indices |= {actor.reference.index for actor in (story.server, story.owner, thief)}
    blobs = [*story.network.blobs, *story.cohort.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs, indices=indices), story, "quadratic.opening")


# -- the answers -------------------------------------------------------------------------------------------------------


def test_other_answers_than_those_proven_are_refused(story: JointStory, path: Path) -> None:
    prediction = story.log(proofs=one_proof(story, answers=sha256(b"other").digest()))
    refused(story.bundle(path, prediction), story, "prediction.answers")


def test_an_answer_exchanged_inside_the_proof_is_refused(story: JointStory, path: Path) -> None:
    """A commitment to another answer, put in the place of the true one, everything hashed and signed again."""
    (proof,) = story.predicted.blobs
    at = len(b"sealproof/joint-proof/v1\n") + 2 * 48
    other = ARKWORKS.encode(ARKWORKS.hash_to_curve(b"another answer"))
    forged = proof[:at] + other + proof[at + 48 :]
    prediction = story.log(proofs=one_proof(story, digest=sha256(forged).digest()))
    blobs = [*story.network.blobs, *story.cohort.blobs, forged]
    refused(story.bundle(path, prediction, blobs=blobs), story, "quadratic.opening")


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"answer_scale_bits": 35}, "prediction.scales"),
        ({"grid_bits": 7}, "prediction.scales"),
        ({"session": bytes(32)}, "quadratic.opening"),
    ],
)
def test_numbers_of_the_prediction_are_bound(
    story: JointStory, path: Path, changes: dict[str, Any], check: str
) -> None:
    refused(story.bundle(path, story.log(**changes)), story, check)


def test_a_proof_of_an_earlier_head_is_refused(story: JointStory, path: Path) -> None:
    """A proof made before a revocation, presented under a head after it."""
    prediction = story.log(**head_of(story))
    refused(story.bundle(path, prediction), story, "quadratic.opening")


def test_proofs_that_cover_too_much_or_too_little_are_refused(story: JointStory, path: Path) -> None:
    for changes in ({"count": 4}, {"count": 6}, {"first": 64}):
        prediction = story.log(proofs=one_proof(story, **changes))
        envelope = story.attest(story.log())
        refused(story.bundle(path, prediction, envelope), story, "prediction.coverage")


def test_a_proof_of_another_size_is_refused(story: JointStory, path: Path) -> None:
    prediction = story.log(proofs=one_proof(story, size=9))
    refused(story.bundle(path, prediction), story, "prediction.proof-size")


def test_a_longer_proof_is_refused(story: JointStory, path: Path) -> None:
    (proof,) = story.predicted.blobs
    longer = proof + b"\0"
    prediction = story.log(proofs=one_proof(story, digest=sha256(longer).digest(), size=len(longer)))
    blobs = [*story.network.blobs, *story.cohort.blobs, longer]
    with pytest.raises(DecodeError, match="joint proof"):
        verify_bundle(story.bundle(path, prediction, blobs=blobs), story.world.verifier)


# -- who signed --------------------------------------------------------------------------------------------------------


def test_a_prediction_that_a_party_logs_itself_is_refused(story: JointStory, path: Path) -> None:
    prediction = story.world.append(story.owner, story.predicted.body)
    envelope = att.sign_statement(story.predicate(prediction), story.owner.private_key)
    indices = {r.index for r in (prediction.reference, story.model.reference, story.records.reference)}
    indices |= {actor.reference.index for actor in (story.clinic, story.owner)}
    refused(story.bundle(path, prediction, envelope, indices=indices), story, "entry.role")


def test_an_attestation_by_another_key_is_refused(story: JointStory, path: Path) -> None:
    prediction = story.log()
    envelope = att.sign_statement(story.predicate(prediction), story.owner.private_key)
    refused(story.bundle(path, prediction, envelope), story, "attestation.signature")


ALTERED: dict[str, Any] = {
    "prediction": att.LedgerReference.to(5, b"prediction"),
    "model": att.LedgerReference.to(2, b"model 2"),
    "records": att.LedgerReference.to(3, b"records 2"),
    "parameter_set": "mpc-32",
    "session": bytes(32),
    "error_bound": att.ErrorBound(0, 35, 6),
}


@pytest.mark.parametrize("name", [*ALTERED, "proofs"])
def test_an_attestation_that_says_something_else_is_refused(story: JointStory, path: Path, name: str) -> None:
    prediction = story.log()
    honest = story.predicate(prediction)
    (proof,) = honest.proofs
    value = ALTERED.get(name, (replace(proof, covers=replace(proof.covers, answers=bytes(32))),))
    envelope = att.sign_statement(replace(honest, **{name: value}), story.server.private_key)
    refused(story.bundle(path, prediction, envelope), story, f"attestation.{name.replace('_', '-')}")


def test_every_field_of_the_attestation_is_compared() -> None:
    own = {"scheme", "issued_at", "request_nonce", "claims", "not_claimed"} | {"approval"}  # test_governance.py
    assert {field.name for field in fields(att.JointPredicate)} == {*ALTERED, "proofs"} | own


def test_an_attestation_of_the_other_scheme_is_refused(story: JointStory, path: Path) -> None:
    """It would claim an error bound and a key in the place of exact answers."""
    prediction = story.log()
    honest = story.predicate(prediction)
    positions = att.Positions.declare("columns", 3, 5)
    coverage = att.Coverage(0, 1, (0,), positions, (honest.proofs[0].covers.answers,), 25)
    other = att.Predicate(
        prediction=honest.prediction,
        model=honest.model,
        records=honest.records,
        key=honest.records,
        scheme="ckks",
        parameter_set=honest.parameter_set,
        proofs=(att.ProofReference.to(story.predicted.blobs[0], coverage),),
        error_bound=honest.error_bound,
        issued_at=honest.issued_at,
        request_nonce=honest.request_nonce,
    )
    envelope = att.sign_statement(other, story.server.private_key)
    refused(story.bundle(path, prediction, envelope), story, "attestation.scheme")


def test_an_answer_to_another_request_is_refused(story: JointStory, joint_bundle: Path) -> None:
    refused(joint_bundle, story, "attestation.nonce", nonce=bytes(32))


# -- what is missing, and what does not belong -------------------------------------------------------------------------


def test_every_missing_blob_is_missed(story: JointStory, path: Path) -> None:
    prediction = story.log()
    envelope = story.attest(prediction)
    for blob in story.blobs:
        rest = [other for other in story.blobs if other != blob]
        refused(story.bundle(path, prediction, envelope, blobs=rest), story, "bundle.missing-blob")


def test_every_missing_entry_is_missed(story: JointStory, path: Path) -> None:
    prediction = story.log()
    envelope = story.attest(prediction)
    every = {r.index for r in (prediction.reference, story.model.reference, story.records.reference)}
    every |= {actor.reference.index for actor in story.parties}
    for index in every - {prediction.reference.index}:
        story.bundle(path, prediction, envelope, indices=every - {index})
        refused(path, story, "bundle.missing-entry")
    story.bundle(path, prediction, envelope, indices=every - {prediction.reference.index})
    refused(path, story, "entry.prediction")


def test_stowaways_are_refused(story: JointStory, path: Path) -> None:
    first, second = story.log(), story.log()
    envelope = story.attest(first)
    refused(story.bundle(path, first, envelope, blobs=[*story.blobs, b"hello"]), story, "bundle.stray")
    every = {r.index for r in (first.reference, story.model.reference, story.records.reference)}
    every |= {actor.reference.index for actor in story.parties}
    stranger = story.world.register("owner", f"stranger-{story.world.log.size}")
    refused(story.bundle(path, first, envelope, indices=every | {stranger.reference.index}), story, "bundle.stray")
    indices = every | {second.reference.index}
    refused(story.bundle(path, first, envelope, indices=indices), story, "entry.prediction")


# -- order and head ----------------------------------------------------------------------------------------------------


def test_a_stale_or_future_head_is_refused(story: JointStory, path: Path) -> None:
    old = story.records.reference.index
    frontier, _ = Frontier().extend(leaf_hash(entry) for entry in story.world.log.entries(0, old))
    prediction = story.log(checkpoint_size=old, checkpoint_root=frontier.root())
    refused(story.bundle(path, prediction), story, "head.stale")
    prediction = story.log(checkpoint_size=story.world.log.size + 1, checkpoint_root=bytes(32))
    refused(story.bundle(path, prediction), story, "head.future")


def test_a_reference_with_another_leaf_is_refused(story: JointStory, path: Path) -> None:
    prediction = story.log(model=Reference(story.model.reference.index, bytes(32)))
    refused(story.bundle(path, prediction, story.attest(story.log())), story, "entry.reference")


@pytest.mark.parametrize("what", ["model", "records"])
def test_something_revoked_before_is_refused_when_the_ledger_can_be_asked(
    tmp_path: Path, path: Path, what: str
) -> None:
    story = joint_bundles.tell(tmp_path)
    author = story.owner if what == "model" else story.clinic
    story.world.append(author, Revocation(getattr(story, what).reference, "mistake"))
    story.bundle(path, story.log())
    assert isinstance(verify_bundle(path, story.world.verifier), VerifiedJointPrediction)
    refused(path, story, "head.revoked", ledger=story.world)


def test_a_later_revocation_is_reported(tmp_path: Path, path: Path) -> None:
    story = joint_bundles.tell(tmp_path)
    story.bundle(path, story.log())
    story.world.append(story.clinic, Revocation(story.records.reference, "withdrawn"))
    found = verify_bundle(path, story.world.verifier, ledger=story.world)
    assert found.revoked_since == (story.records.reference,)


# -- every public input is bound ---------------------------------------------------------------------------------------


def test_every_public_input_of_a_proof_comes_from_the_ledger(story: JointStory) -> None:
    """What the statement of a batch holds, altered where it comes from, gives another statement or is refused."""
    from api import joint_binding as binding

    owner, clinic = story.party(story.owner), story.party(story.clinic)
    commitments = story.cohort.commitments
    arguments: dict[str, Any] = {
        "model": story.model,
        "records": story.records,
        "owner": owner,
        "clinic": clinic,
        "schema": bundles.SCHEMA,
        "session": SESSION,
        "batch": range(5),
        "commitments": commitments,
        "head": (5, bytes(32)),
    }
    honest = binding.joint_statement(**arguments)
    assert (honest.parameters, honest.handles, honest.count) == (PARAMS, HANDLES, 5)
    elsewhere = Reference(9, bytes(32))
    others: dict[str, Any] = {
        "model": Located(elsewhere, story.model.body),
        "records": Located(elsewhere, story.records.body),
        "owner": Located(elsewhere, owner.body),
        "clinic": Located(elsewhere, clinic.body),
        "session": bytes(32),
        "commitments": commitments[::-1],
        "head": (6, bytes(32)),
    }
    found = [binding.joint_statement(**{**arguments, name: value}) for name, value in others.items()]
    assert len({repr(statement) for statement in (honest, *found)}) == len(found) + 1
    wrong: dict[str, tuple[Any, str]] = {
        "schema": (replace(bundles.SCHEMA, version=2), "network.schema"),
        "batch": (range(64, 69), "prediction.coverage"),
        "commitments": (commitments[:4], "prediction.coverage"),
        "clinic": (Located(clinic.reference, replace(clinic.body, name="st-bruno")), "records.clinic"),
        "session": (b"short", "prediction.shape"),
    }
    for name, (value, check) in wrong.items():
        with pytest.raises(VerificationFailed) as caught:
            binding.joint_statement(**{**arguments, name: value})
        assert caught.value.check == check
    with pytest.raises(VerificationFailed, match=r"prediction\.coverage"):
        binding.joint_statement(**{**arguments, "batch": range(-64, 0)})


# -- damage ------------------------------------------------------------------------------------------------------------

repaired = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@repaired
@given(data=st.data())
def test_a_changed_member_in_a_sound_archive_is_refused(
    story: JointStory, joint_bundle: Path, tmp_path: Path, data: st.DataObject
) -> None:
    found = members(joint_bundle)
    name = data.draw(st.sampled_from(sorted(found)))
    original = found[name]
    start = data.draw(st.integers(0, len(original) - 1))
    length = data.draw(st.sampled_from([1, 1, 1, 2, 32]))
    changed = original[:start] + data.draw(st.binary(max_size=40, min_size=1)) + original[start + length :]
    if changed == original:
        return
    found[name] = changed
    path = tmp_path / "repaired.sealproof"
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    bundles.write_members(path, found)
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_bundle(path, story.world.verifier, cache=story.world.cache)


@pytest.mark.parametrize("kind", ["proof", "records certificate", "network certificate", "commitments", "schema"])
def test_a_changed_blob_under_its_own_digest_is_refused_by_its_check(
    story: JointStory, path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every digest check switched off, each blob still has to stand on its own."""

    def unchecked(self: BundleReader, digest: bytes) -> bytes:
        return changed if digest == sha256(blob).digest() else real(self, digest)

    blob = {
        "proof": story.predicted.blobs[0],
        "records certificate": story.cohort.certificates[0],
        "network certificate": story.network.certificate,
        "commitments": encode_point_list(story.cohort.commitments),
        "schema": bundles.SCHEMA.encode_json(),
    }[kind]
    changed = blob[:-3] + bytes([blob[-3] ^ 1]) + blob[-2:]
    real = BundleReader.blob
    story.bundle(path, story.log())
    monkeypatch.setattr(BundleReader, "check", lambda self: None)
    monkeypatch.setattr(BundleReader, "blob", unchecked)
    with pytest.raises((VerificationFailed, DecodeError)) as caught:
        verify_bundle(path, story.world.verifier)
    assert not str(caught.value).startswith("bundle")


def test_nobody_makes_a_true_looking_proof_of_other_answers(story: JointStory) -> None:
    """The prover itself cannot: a witness that is not the network's breaks a constraint."""
    rows = story.network.rows
    wrong = ((replace(rows[0][0], bias=rows[0][0].bias + 1), *rows[0][1:]), rows[1])
    predicted = story.predict(network=replace(story.network, rows=wrong))
    assert predicted.answers[0].z != story.predicted.answers[0].z
    with pytest.raises(UsageError, match="breaks constraint"):
        _with_answers_of(story, wrong)


def _with_answers_of(story: JointStory, rows: Any) -> None:
    """The answers of other rows, proven under the committed ones."""
    real = joint_bundles.witness_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint_bundles, "witness_of", lambda circuit, _, values: real(circuit, rows, values))
        story.predict()
