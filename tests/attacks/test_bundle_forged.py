"""A malicious server (with its own signing key, and where said with the log's) alters one thing in a real bundle.

Each test changes what its attacker can change and signs everything again, so that one check alone stands in the way.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.audit import verify_bundle
from api.client.prediction import VerifiedPrediction
from api.consistency import ConsistencyProof
from api.entries import Party, Policy, PredictionProof, Reference, Revocation, sign_entry
from ledger import Signer
from ledger.merkle import Frontier, leaf_hash
from privacy import attestation as att
from privacy.ckks.canonical import decode_result, encode_result
from privacy.ckks.packing import Packing
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.support import bundles
from tests.support.bundles import NONCE, PARAMS, PATIENTS, Story, members


def refused(path: Path, story: Story, check: str, **kwargs: Any) -> VerificationFailed:
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(path, story.world.verifier, cache=story.world.cache, **kwargs)
    assert caught.value.check == check, caught.value
    return caught.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


def one_proof(story: Story, **changes: Any) -> tuple[PredictionProof, ...]:
    """The proofs of the prediction entry with the first one altered."""
    first, *rest = story.predicted.body.proofs
    return (replace(first, **changes), *rest)


# -- the model ---------------------------------------------------------------------------------------------------------


def test_a_swapped_model_is_refused(story: Story, path: Path) -> None:
    """The prediction names another model, which exists and is certified, than the one that was evaluated."""
    other = bundles.model_material(((0.05, 0.01, -0.9),), "2")
    entry = story.world.append(story.owner, other.body())
    predicted = bundles.predict(
        story.key_material, story.model_material, story.key, story.model, story.records, story.world.head
    )
    prediction = story.world.append(story.server, replace(predicted.body, model=entry.reference))
    blobs = [
        story.key_material.p0,
        story.key_material.certificate,
        *other.blobs,
        *story.records.blobs,
        *predicted.blobs,
    ]
    refused(story.bundle(path, prediction, blobs=blobs), story, "linear.form")


def test_a_model_that_was_not_evaluated_is_refused_although_proven(story: Story, path: Path) -> None:
    """The server evaluates weights of its own and proves that honestly, under the name of the committed model."""
    other = bundles.model_material(((0.05, 0.01, -0.9),), "3")
    predicted = bundles.predict(story.key_material, other, story.key, story.model, story.records, story.world.head)
    prediction = story.world.append(story.server, predicted.body)
    blobs = [story.key_material.p0, story.key_material.certificate, *story.model_material.blobs, *story.records.blobs]
    refused(story.bundle(path, prediction, blobs=[*blobs, *predicted.blobs]), story, "linear.opening")


def test_a_model_certificate_of_another_model_is_refused(story: Story, path: Path) -> None:
    other = bundles.model_material(((0.05, 0.01, -0.9),), "2")
    body = story.model_material.body(certificate=sha256(other.certificate).digest(), version="stolen", statements=())
    model = story.world.append(story.owner, body)
    predicted = bundles.predict(
        story.key_material, story.model_material, story.key, model, story.records, story.world.head
    )
    prediction = story.world.append(story.server, predicted.body)
    blobs = [
        story.key_material.p0,
        story.key_material.certificate,
        other.certificate,
        bundles.SCHEMA.encode_json(),
        *story.records.blobs,
        *predicted.blobs,
    ]
    with pytest.raises((VerificationFailed, DecodeError)) as caught:
        verify_bundle(story.bundle(path, prediction, blobs=blobs), story.world.verifier)
    assert getattr(caught.value, "check", "quadratic.relation") in ("quadratic.relation", "quadratic.opening")


def test_a_zero_weight_statement_that_is_false_is_refused(story: Story, path: Path) -> None:
    ((output, feature, proof),) = story.model_material.zero
    assert (output, feature) == (0, 1)
    statements = tuple(replace(s, feature=0) for s in story.model_material.body().statements)
    model = story.world.append(story.owner, story.model_material.body(version="z", statements=statements))
    material = replace(story.model_material, zero=((0, 0, proof),))
    predicted = bundles.predict(story.key_material, material, story.key, model, story.records, story.world.head)
    prediction = story.world.append(story.server, predicted.body)
    blobs = [*story.blobs[:2], *material.blobs, *story.records.blobs, *predicted.blobs]
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_bundle(story.bundle(path, prediction, blobs=blobs), story.world.verifier)


# -- the records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [[1, 0, 2], [0, 0, 2]])
def test_swapped_or_repeated_inputs_are_refused(tmp_path: Path, path: Path, order: list[int]) -> None:
    """The server evaluates the committed ciphertexts under the wrong features, and proves what it did."""
    story = bundles.tell(tmp_path, packing=Packing.COLUMNS)
    shuffled = replace(story.records, inputs=[story.records.inputs[0][order]])
    predicted = bundles.predict(
        story.key_material, story.model_material, story.key, story.model, shuffled, story.world.head
    )
    prediction = story.world.append(story.server, predicted.body)
    blobs = [*story.blobs[: 2 + len(story.model_material.blobs)], *story.records.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "linear.form")


def test_a_list_of_inputs_in_another_order_is_refused(tmp_path: Path, path: Path) -> None:
    story = bundles.tell(tmp_path, packing=Packing.COLUMNS)
    shuffled = replace(story.records, inputs=[story.records.inputs[0][[1, 0, 2]]])
    blobs = [*story.blobs[: 2 + len(story.model_material.blobs)], *shuffled.blobs, *story.predicted.blobs]
    refused(story.bundle(path, blobs=blobs), story, "bundle.missing-blob")


def test_other_records_are_refused(story: Story, path: Path) -> None:
    """The prediction names other records of the clinic than those that were evaluated."""
    inputs = bundles.encrypt(story.key_material, Packing.ROWS, PATIENTS[::-1])
    others = bundles.submit(story.world, story.clinic, story.key, inputs, len(PATIENTS))
    predicted = bundles.predict(
        story.key_material, story.model_material, story.key, story.model, story.records, story.world.head
    )
    prediction = story.world.append(story.server, replace(predicted.body, records=others.entry.reference))
    blobs = [*story.blobs[: 2 + len(story.model_material.blobs)], *others.blobs, *predicted.blobs]
    refused(story.bundle(path, prediction, blobs=blobs), story, "linear.form")


def test_a_key_that_was_registered_after_the_records_is_refused(story: Story, path: Path) -> None:
    """A second key can be made to open anything, so a key logged later is none (the same key, logged again)."""
    later = story.world.append(story.clinic, story.key_material.body())
    prediction = story.log(key=later.reference)
    refused(story.bundle(path, prediction), story, "ledger.order")


def test_records_of_another_key_are_refused(story: Story, path: Path) -> None:
    older = story.world.append(story.clinic, story.key_material.body(number=7))
    inputs = bundles.encrypt(story.key_material, Packing.ROWS, PATIENTS)
    records = bundles.submit(story.world, story.clinic, older, inputs, len(PATIENTS))
    prediction = story.log(
        records=records.entry.reference,
        **head_of(story),
    )
    refused(story.bundle(path, prediction), story, "records.key")


def _indices(story: Story, prediction: Any, *more: Reference) -> set[int]:
    body = prediction.body
    named = [prediction.reference, body.records, body.model, body.key, *(a.reference for a in story.parties), *more]
    return {reference.index for reference in named}


def test_records_logged_by_another_clinic_are_refused(story: Story, path: Path) -> None:
    thief = story.world.register("clinic", "st-bruno")
    records = bundles.submit(
        story.world,
        thief,
        story.key,
        story.records.inputs,
        len(PATIENTS),
        ciphertexts=story.records.entry.body.ciphertexts,
    )
    prediction = story.log(
        records=records.entry.reference,
        **head_of(story),
    )
    indices = _indices(story, prediction, thief.reference)
    refused(story.bundle(path, prediction, indices=indices), story, "entry.author")


def test_an_entry_under_anothers_name_is_refused(tmp_path: Path, path: Path) -> None:
    story = bundles.tell(tmp_path)
    key = story.world.append(story.clinic, story.key_material.body(clinic="st-bruno"))
    records = bundles.submit(story.world, story.clinic, key, story.records.inputs, len(PATIENTS))
    prediction = story.log(
        key=key.reference,
        records=records.entry.reference,
        **head_of(story),
    )
    refused(story.bundle(path, prediction), story, "entry.name")


def head_of(story: Story) -> dict[str, Any]:
    """The fields of a prediction made under the log's present head."""
    return {"checkpoint_size": story.world.log.size, "checkpoint_root": story.world.log.head().root}


def test_records_of_another_number_of_features_are_refused(story: Story, path: Path) -> None:
    records = bundles.submit(story.world, story.clinic, story.key, story.records.inputs, len(PATIENTS), d=4)
    prediction = story.log(records=records.entry.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "records.features")


def test_a_number_of_features_that_fits_no_ciphertext_is_refused(story: Story, path: Path) -> None:
    records = bundles.submit(story.world, story.clinic, story.key, story.records.inputs, len(PATIENTS), d=5000)
    prediction = story.log(records=records.entry.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "records.features")


def test_records_of_another_schema_are_refused(story: Story, path: Path) -> None:
    records = bundles.submit(
        story.world, story.clinic, story.key, story.records.inputs, len(PATIENTS), schema=bytes(32)
    )
    prediction = story.log(records=records.entry.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "records.schema")


def test_a_reference_with_another_leaf_is_refused(story: Story, path: Path) -> None:
    prediction = story.log(model=Reference(story.model.reference.index, bytes(32)))
    refused(story.bundle(path, prediction, story.attest(story.log())), story, "entry.reference")


def test_a_reference_to_an_entry_of_another_kind_is_refused(story: Story, path: Path) -> None:
    prediction = story.log(model=story.key.reference)
    refused(story.bundle(path, prediction), story, "entry.kind")


def test_an_author_that_is_no_party_is_refused(story: Story, path: Path) -> None:
    impostor = bundles.Actor(story.clinic.private_key, story.key.reference)
    records = bundles.submit(story.world, impostor, story.key, story.records.inputs, len(PATIENTS))
    prediction = story.log(records=records.entry.reference, **head_of(story))
    refused(story.bundle(path, prediction), story, "entry.author")


def test_an_author_who_registered_after_signing_is_refused(story: Story, path: Path) -> None:
    """A party entry can be known before it is logged, so a reference to it can be too."""
    private_key = Ed25519PrivateKey.generate()
    party = sign_entry(Party("owner", "late", private_key.public_key().public_bytes_raw()), None, private_key)
    late = bundles.Actor(private_key, Reference(story.world.log.size + 1, leaf_hash(party)))
    model = story.world.append(late, story.model_material.body(version="late"))
    story.world.log.append(party)
    prediction = story.log(model=model.reference, **head_of(story))
    indices = _indices(story, prediction, late.reference) - {story.owner.reference.index}
    refused(story.bundle(path, prediction, indices=indices), story, "ledger.order")


# -- the answers -------------------------------------------------------------------------------------------------------


def test_replaced_results_are_refused(story: Story, path: Path) -> None:
    """Any other ciphertext, logged and attested in place of the one that was proven."""
    (proof,) = story.predicted.body.proofs
    honest = decode_result(PARAMS, story.predicted.blobs[0])
    c0 = honest.c0.copy()
    c0[0, 0] = (int(c0[0, 0]) + 1) % PARAMS.primes[0]
    forged = encode_result(PARAMS, replace(honest, c0=c0))
    prediction = story.log(proofs=one_proof(story, results=(sha256(forged).digest(),)))
    blobs = [*(b for b in story.blobs if sha256(b).digest() != proof.results[0]), forged]
    refused(story.bundle(path, prediction, blobs=blobs), story, "linear.form")


def test_results_with_more_coefficients_than_declared_are_refused(story: Story, path: Path) -> None:
    (proof,) = story.predicted.body.proofs
    honest = decode_result(PARAMS, story.predicted.blobs[0])
    positions = np.append(honest.positions, 4000)
    forged = encode_result(PARAMS, replace(honest, positions=positions, c0=np.pad(honest.c0, ((0, 0), (0, 1)))))
    prediction = story.log(proofs=one_proof(story, results=(sha256(forged).digest(),)))
    blobs = [*(b for b in story.blobs if sha256(b).digest() != proof.results[0]), forged]
    refused(story.bundle(path, prediction, blobs=blobs), story, "evaluation.positions")


def test_a_prediction_that_answers_fewer_patients_is_refused(story: Story, path: Path) -> None:
    prediction = story.log(proofs=one_proof(story, count=4))
    refused(story.bundle(path, prediction), story, "prediction.coverage")


def test_a_lower_error_bound_is_refused(story: Story, path: Path) -> None:
    bound = story.predicted.body.error_bound
    for changed in (replace(bound, error=bound.error - 1), replace(bound, scale_bits=bound.scale_bits + 1)):
        prediction = story.log(error_bound=changed)
        refused(story.bundle(path, prediction), story, "prediction.error-bound")


def test_a_smaller_blur_is_refused(story: Story, path: Path) -> None:
    (proof,) = story.predicted.body.proofs
    prediction = story.log(proofs=one_proof(story, blur_bits=proof.blur_bits - 1))
    refused(story.bundle(path, prediction), story, "prediction.blur")


def test_a_proof_of_another_size_is_refused(story: Story, path: Path) -> None:
    (proof,) = story.predicted.body.proofs
    prediction = story.log(proofs=one_proof(story, size=proof.size + 1))
    refused(story.bundle(path, prediction), story, "prediction.proof-size")


def test_released_bytes_that_differ_from_hashed_bytes_are_refused(
    story: Story, honest_bundle: Path, path: Path
) -> None:
    """After verification the file is replaced: what is read then is compared with what was verified."""
    path.write_bytes(honest_bundle.read_bytes())
    verified = verify_bundle(path, story.world.verifier)
    assert len(list(verified.results())) == 1
    (proof,) = story.predicted.body.proofs
    data, blob = path.read_bytes(), story.predicted.blobs[0]
    assert sha256(blob).digest() == proof.results[0]
    start = data.index(blob)
    path.write_bytes(data[: start + 5000] + bytes([data[start + 5000] ^ 1]) + data[start + 5001 :])
    with pytest.raises(DecodeError, match="CRC-32"):
        list(verified.results())
    other = bundles.predict(
        story.key_material, story.model_material, story.key, story.model, story.records, story.world.head
    )
    prediction = story.world.append(story.server, other.body)
    blobs = [*story.blobs[: 2 + len(story.model_material.blobs)], *story.records.blobs, *other.blobs]
    story.bundle(path, prediction, blobs=blobs)
    with pytest.raises(DecodeError, match="is missing"):
        list(verified.results())


# -- who signed --------------------------------------------------------------------------------------------------------


def test_a_prediction_by_someone_who_is_no_server_is_refused(story: Story, path: Path) -> None:
    prediction = story.world.append(story.owner, story.predicted.body)
    refused(
        story.bundle(path, prediction, indices=_indices(story, prediction) - {story.server.reference.index}),
        story,
        "entry.role",
    )


def test_an_entry_with_a_forged_signature_is_refused(tmp_path: Path, path: Path) -> None:
    """The log takes anything; the server signs a key entry in the clinic's name."""
    story = bundles.tell(tmp_path)
    forger = replace(story.clinic, private_key=story.server.private_key)
    records = bundles.submit(story.world, forger, story.key, story.records.inputs, len(PATIENTS))
    prediction = story.log(
        records=records.entry.reference,
        **head_of(story),
    )
    refused(story.bundle(path, prediction), story, "entry.signature")


def test_an_attestation_by_another_key_is_refused(story: Story, path: Path) -> None:
    prediction = story.log()
    envelope = att.sign_statement(bundles.predicate(story.world, prediction), story.owner.private_key)
    refused(story.bundle(path, prediction, envelope), story, "attestation.signature")


def test_an_attestation_of_another_prediction_is_refused(story: Story, path: Path) -> None:
    first, second = story.log(), story.log()
    refused(story.bundle(path, second, story.attest(first)), story, "attestation.prediction")


@pytest.mark.parametrize(
    ("field", "check"),
    [
        ("model", "attestation.model"),
        ("records", "attestation.records"),
        ("key", "attestation.key"),
        ("error_bound", "attestation.error-bound"),
        ("parameter_set", "attestation.parameter-set"),
        ("proofs", "attestation.proofs"),
    ],
)
def test_an_attestation_that_says_something_else_than_the_log_is_refused(
    story: Story, path: Path, field: str, check: str
) -> None:
    prediction = story.log()
    honest = bundles.predicate(story.world, prediction)
    proof = honest.proofs[0]
    changed: Any = {
        "model": replace(honest.model, digest=bytes(32)),
        "records": honest.key,
        "key": replace(honest.key, leaf=bytes(32)),
        "error_bound": replace(honest.error_bound, error=1),
        "parameter_set": "linear-2048",
        "proofs": (replace(proof, covers=replace(proof.covers, results=(bytes(32),))),),
    }
    envelope = story.attest(prediction, **{field: changed[field]})
    refused(story.bundle(path, prediction, envelope), story, check)


def test_altered_positions_in_the_attestation_are_refused(story: Story, path: Path) -> None:
    prediction = story.log()
    proof = bundles.predicate(story.world, prediction).proofs[0]
    for positions in (att.Positions.declare("rows", 3, 6), att.Positions.declare("columns", 3, 5)):
        forged = replace(proof, covers=replace(proof.covers, positions=positions))
        refused(story.bundle(path, prediction, story.attest(prediction, proofs=(forged,))), story, "attestation.proofs")


def test_the_answer_to_another_request_is_refused(story: Story, honest_bundle: Path) -> None:
    verify_bundle(honest_bundle, story.world.verifier, nonce=NONCE)
    refused(honest_bundle, story, "attestation.nonce", nonce=bytes(32))


# -- policy ------------------------------------------------------------------------------------------------------------


def test_a_model_that_the_policy_does_not_allow_is_refused(story: Story, path: Path) -> None:
    for allowed, check in (((), "policy.model"), ((replace(story.model.reference, leaf=bytes(32)),), "policy.model")):
        inputs = story.records.inputs
        records = bundles.submit(
            story.world, story.clinic, story.key, inputs, len(PATIENTS), policy=Policy(allowed, None)
        )
        prediction = story.log(
            records=records.entry.reference,
            checkpoint_size=story.world.log.size,
            checkpoint_root=story.world.log.head().root,
        )
        refused(story.bundle(path, prediction), story, check)


def test_records_whose_time_is_over_are_refused(story: Story, path: Path) -> None:
    policy = Policy("any", "2026-01-01T00:00:00Z")
    records = bundles.submit(story.world, story.clinic, story.key, story.records.inputs, len(PATIENTS), policy=policy)
    prediction = story.log(
        records=records.entry.reference,
        **head_of(story),
    )
    refused(story.bundle(path, prediction), story, "policy.expired")


# -- the log -----------------------------------------------------------------------------------------------------------


def test_a_log_that_is_not_trusted_is_refused(story: Story, honest_bundle: Path) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(honest_bundle, Signer.generate("other.example/log").verifier)
    assert caught.value.check == "log.untrusted"
    assert bundles.ORIGIN in str(caught.value)
    assert "--log-key" in str(caught.value)


def test_another_log_of_the_same_name_is_refused(story: Story, honest_bundle: Path) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verify_bundle(honest_bundle, Signer.generate(bundles.ORIGIN).verifier)
    assert caught.value.check == "note.unsigned"


def test_a_stale_head_is_refused(story: Story, path: Path) -> None:
    """The server checked revocations under a head that did not have the records yet."""
    old = story.records.entry.reference.index
    root = _root(story, old)
    prediction = story.log(checkpoint_size=old, checkpoint_root=root)
    refused(story.bundle(path, prediction), story, "head.stale")


def _root(story: Story, size: int) -> bytes:
    frontier, _ = Frontier().extend(leaf_hash(entry) for entry in story.world.log.entries(0, size))
    return frontier.root()


def test_a_head_after_the_prediction_is_refused(story: Story, path: Path) -> None:
    size = story.world.log.size + 1
    prediction = story.log(checkpoint_size=size, checkpoint_root=bytes(32))
    refused(story.bundle(path, prediction), story, "head.future")


def test_a_head_of_a_forked_log_is_refused(story: Story, path: Path) -> None:
    """The prediction names a head that is no past of the log that it stands in."""
    prediction = story.log(checkpoint_root=sha256(b"fork").digest())
    refused(story.bundle(path, prediction), story, "consistency.root1")


def test_a_consistency_proof_of_other_sizes_is_refused(story: Story, path: Path) -> None:
    prediction = story.log()
    size = story.world.log.size
    wrong = ConsistencyProof(1, size, tuple(story.world.log.consistency_proof(1))).format()
    refused(story.bundle(path, prediction, consistency=wrong), story, "head.consistency")


def test_an_entry_at_another_index_is_refused(story: Story, path: Path) -> None:
    prediction = story.log()
    story.bundle(path, prediction)
    found = members(path)
    last = prediction.reference.index
    found[f"entries/{last + 1}.json"] = found.pop(f"entries/{last}.json")
    found[f"entries/{last + 1}.tlog-proof"] = found.pop(f"entries/{last}.tlog-proof")
    bundles.write_members(path, found)
    refused(path, story, "log.index")


def test_an_index_beyond_the_log_is_refused(story: Story, path: Path) -> None:
    """index >= size: the same path through the tree, claimed for a leaf that does not exist."""
    prediction = story.log()
    story.bundle(path, prediction)
    found = members(path)
    last, size = prediction.reference.index, story.world.log.size
    assert last == size - 1
    proof = found.pop(f"entries/{last}.tlog-proof").replace(b"index %d\n" % last, b"index %d\n" % size)
    found[f"entries/{size}.json"] = found.pop(f"entries/{last}.json")
    found[f"entries/{size}.tlog-proof"] = proof
    bundles.write_members(path, found)
    refused(path, story, "inclusion.index")


def test_inclusion_proofs_under_two_checkpoints_are_refused(story: Story, path: Path) -> None:
    prediction = story.log()
    story.bundle(path, prediction)
    found = members(path)
    story.log()
    index = story.key.reference.index
    found[f"entries/{index}.tlog-proof"] = story.world.log.tlog_proof(index)
    bundles.write_members(path, found)
    refused(path, story, "log.checkpoint")


def test_unsigned_extra_data_in_an_inclusion_proof_is_refused(story: Story, path: Path) -> None:
    story.bundle(path)
    found = members(path)
    name = f"entries/{story.key.reference.index}.tlog-proof"
    found[name] = found[name].replace(b"@v1\n", b"@v1\nextra aGVsbG8=\n", 1)
    bundles.write_members(path, found)
    refused(path, story, "log.extra")


# -- what is missing, and what does not belong -------------------------------------------------------------------------


def test_every_missing_blob_is_missed(story: Story, path: Path) -> None:
    prediction = story.log()
    envelope = story.attest(prediction)
    inputs = set(story.records.digests)
    for blob in story.blobs:
        digest = sha256(blob).digest()
        rest = [other for other in story.blobs if other != blob]
        check = "bundle.missing-inputs" if digest in inputs else "bundle.missing-blob"
        refused(story.bundle(path, prediction, envelope, blobs=rest), story, check)


def test_every_missing_entry_is_missed(story: Story, path: Path) -> None:
    prediction = story.log()
    envelope = story.attest(prediction)
    every = _indices(story, prediction)
    for index in every - {prediction.reference.index}:
        story.bundle(path, prediction, envelope, indices=every - {index})
        refused(path, story, "bundle.missing-entry")
    story.bundle(path, prediction, envelope, indices=every - {prediction.reference.index})
    refused(path, story, "entry.prediction")


def test_stowaways_are_refused(story: Story, path: Path) -> None:
    stranger = story.world.register("owner", "stranger")
    prediction = story.log()
    envelope = story.attest(prediction)
    refused(story.bundle(path, prediction, envelope, blobs=[*story.blobs, b"hello"]), story, "bundle.stray")
    indices = {*_indices(story, prediction), stranger.reference.index}
    refused(story.bundle(path, prediction, envelope, indices=indices), story, "bundle.stray")


def test_a_certificate_of_another_key_is_refused(tmp_path: Path, path: Path) -> None:
    """The clinic logs the certificate of its second key with its first one."""
    other = bundles.key_material("st-anna", 2)
    forged = replace(bundles.key_material(), certificate=other.certificate)
    story = bundles.tell(tmp_path, keys=forged)
    refused(story.bundle(path), story, "quadratic.opening")


def test_commitments_of_another_key_are_refused(tmp_path: Path, path: Path) -> None:
    """The entry names commitments that the certificate is not about: disclosures would go by them."""
    story = bundles.tell(tmp_path)
    other = bundles.key_material("st-anna", 2).body()
    body = story.key_material.body(C_s_plus=other.C_s_plus)
    key = story.world.append(story.clinic, body)
    records = bundles.submit(story.world, story.clinic, key, story.records.inputs, len(PATIENTS))
    prediction = story.log(
        key=key.reference,
        records=records.entry.reference,
        **head_of(story),
    )
    material = replace(story, records=records)
    refused(material.bundle(path, prediction), story, "key.commitments")


# -- with the ledger at hand -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["model", "key", "records"])
def test_something_revoked_before_is_refused_when_the_ledger_can_be_asked(
    tmp_path: Path, path: Path, what: str
) -> None:
    """Offline this passes: nothing in the bundle says that the log has a revocation. The log says it."""
    story = bundles.tell(tmp_path)
    target = {"model": story.model.reference, "key": story.key.reference, "records": story.records.entry.reference}
    author = story.owner if what == "model" else story.clinic
    story.world.append(author, Revocation(target[what], "mistake"))
    prediction = story.log()
    story.bundle(path, prediction)
    assert isinstance(verify_bundle(path, story.world.verifier), VerifiedPrediction)
    refused(path, story, "head.revoked", ledger=story.world)


def test_a_later_revocation_is_reported_and_a_strangers_is_ignored(tmp_path: Path, path: Path) -> None:
    story = bundles.tell(tmp_path)
    story.world.append(story.clinic, Revocation(story.model.reference, "not mine"))
    forger = replace(story.owner, private_key=story.server.private_key)
    story.world.append(forger, Revocation(story.model.reference, "forged"))
    prediction = story.log()
    story.bundle(path, prediction)
    assert verify_bundle(path, story.world.verifier, ledger=story.world).revoked_since == ()
    story.world.append(story.owner, Revocation(story.model.reference, "withdrawn"))
    assert verify_bundle(path, story.world.verifier, ledger=story.world).revoked_since == (story.model.reference,)


def test_a_server_that_hides_a_revocation_is_caught(tmp_path: Path, path: Path) -> None:
    story = bundles.tell(tmp_path)
    hidden = story.world.append(story.owner, Revocation(story.model.reference, "mistake")).reference.index
    prediction = story.log()
    story.bundle(path, prediction)

    class Hiding:
        def __getattr__(self, name: str) -> Any:
            return getattr(story.world, name)

        def entries(self, start: int, stop: int) -> list[bytes]:
            found = story.world.entries(start, stop)
            found[hidden] = found[hidden].replace(b"mistake", b"mistakE").replace(b"revocation", b"revocatioN")
            return found

    class Short(Hiding):
        def entries(self, start: int, stop: int) -> list[bytes]:
            found = story.world.entries(start, stop)
            del found[hidden]
            return found

    class Old(Hiding):
        def checkpoint(self) -> bytes:
            return old

    with bundles.World(tmp_path, story.world.signer).log as other:
        old = other.checkpoint()
    refused(path, story, "ledger.entries", ledger=Hiding())
    refused(path, story, "ledger.entries", ledger=Short())
    refused(path, story, "monitor.rollback", ledger=Old())


def test_only_the_verifier_makes_a_verified_prediction(story: Story, honest_bundle: Path) -> None:
    verified = verify_bundle(honest_bundle, story.world.verifier)
    with pytest.raises(UsageError, match="made by verify_bundle only"):
        replace(verified, made_by=object())


@pytest.mark.parametrize("name", ["heart-lab", "st-anna", "scores.example"])
def test_a_second_party_of_a_shown_name_is_noticed_when_the_ledger_can_be_asked(
    tmp_path: Path, path: Path, name: str
) -> None:
    """A reader knows people by name. A log that admits another of that name is no longer to be read that way."""
    story = bundles.tell(tmp_path)
    story.bundle(path, story.log())
    assert isinstance(verify_bundle(path, story.world.verifier, ledger=story.world), VerifiedPrediction)
    story.world.register("owner", "somebody-else")
    assert isinstance(verify_bundle(path, story.world.verifier, ledger=story.world), VerifiedPrediction)
    story.world.register("owner", name)
    refused(path, story, "ledger.name", ledger=story.world)
