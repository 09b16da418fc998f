"""What verifies of multi-party computation, what the auditor says of it, and that it needs no library of the nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from api import exposure
from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.trust import TrustStore
from api.registry import Registry
from privacy.errors import UsageError
from privacy.models.network_quantise import reference_network
from privacy.mpc.joint_proof import answer_key
from privacy.zk.group import ARKWORKS, ORDER, group_by_name
from tests.support import bundles, joint_bundles
from tests.support.bundles import NONCE, PATIENTS
from tests.support.joint_bundles import JointStory


def verified(path: Path, story: JointStory, **kwargs: object) -> VerifiedJointPrediction:
    found = verify_bundle(path, story.world.verifier, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, VerifiedJointPrediction)
    return found


def test_every_step_passes_and_says_what_it_showed(joint_story: JointStory, joint_bundle: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = verified(
        joint_bundle,
        joint_story,
        nonce=NONCE,
        ledger=joint_story.world,
        progress=lambda step, done, total: seen.append((step, done, total)),
    )
    names = ["bundle", "log", "entries", "order", "references", "attestation", "head", "statements", "certificates"]
    assert [check.name for check in found.checks] == [*names, "proofs"]
    assert all(check.sentence.endswith(".") and check.seconds >= 0 for check in found.checks)
    assert [step for step, _, _ in seen if step in names] == names
    assert (found.head.origin, found.count, found.output_names) == (bundles.ORIGIN, 5, ("y0",))
    assert (found.server.name, found.owner.name, found.clinic.name) == ("scores.example", "heart-lab", "st-anna")
    assert (found.request_nonce, found.revoked_since) == (NONCE, ())


@pytest.mark.parametrize("network", ["linear", "small", "two"])
def test_the_answers_that_are_handed_out_open_to_the_networks_own(tmp_path: Path, network: str) -> None:
    story = joint_bundles.tell(tmp_path, network=network)
    found = verified(story.bundle(tmp_path / "b.sealproof"), story)
    exact = reference_network(story.network.quantised, PATIENTS)
    opened = [*zip(story.predicted.answers[0].z, story.predicted.answers[0].rho, strict=True)]
    outputs = len(found.output_names)
    for patient, row in enumerate(exact):
        for output, expected in enumerate(row):
            z, rho = opened[patient * outputs + output]
            assert z == expected
            assert abs(z) <= found.z_bound(output)
            assert ARKWORKS.encode(answer_key().commit([z % ORDER], rho)) == found.answer(patient, output)
    answers = np.array(exact, dtype=object) / 2**found.answer_scale_bits
    off = np.abs(answers.astype(np.float64) - story.network.network.predict_raw(PATIENTS))
    assert off.max() <= float(found.error_bound(0)) < 0.2
    for place in ((5, 0), (0, outputs), (-1, 0), (0, -1)):
        with pytest.raises(UsageError):
            found.answer(*place)
    for ask in (found.z_bound, found.error_bound):
        with pytest.raises(UsageError):
            ask(outputs)


def test_a_cohort_of_two_batches_has_two_proofs_and_two_certificates(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    patients = np.column_stack([rng.integers(0, 120, 66), rng.uniform(10, 60, 66), rng.integers(0, 2, 66)])
    story = joint_bundles.tell(tmp_path, network="linear", cohort=joint_bundles.commit_cohort(patients))
    assert [(proof.first, proof.count) for proof in story.predicted.body.proofs] == [(0, 64), (64, 2)]
    assert len(story.cohort.certificates) == 2
    found = verified(story.bundle(tmp_path / "b.sealproof"), story)
    assert found.count == len(found.answers) == 66
    assert found.answer(65, 0) == found.answers[65]


def test_certificates_are_remembered_and_proofs_are_not(
    joint_story: JointStory, joint_bundle: Path, tmp_path: Path
) -> None:
    cache = type(joint_story.world.cache)(tmp_path / "verified")
    verified(joint_bundle, joint_story, cache=cache)
    assert len(list((tmp_path / "verified").iterdir())) == 2, "network and one batch of records"
    verified(joint_bundle, joint_story, cache=cache)


def test_only_the_verifier_makes_a_verified_joint_prediction(joint_story: JointStory, joint_bundle: Path) -> None:
    found = verified(joint_bundle, joint_story)
    with pytest.raises(UsageError, match="made by verify_bundle only"):
        replace(found, made_by=object())
    assert found.answers[0].hex() not in repr(found)


def test_one_entry_point_tells_the_schemes_apart(
    story: bundles.Story, honest_bundle: Path, joint_story: JointStory, joint_bundle: Path
) -> None:
    assert isinstance(verify_bundle(honest_bundle, story.world.verifier), VerifiedPrediction)
    assert isinstance(verify_bundle(joint_bundle, joint_story.world.verifier), VerifiedJointPrediction)


BLOCKED = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "starlette", "web3")


def test_the_auditor_needs_no_library_of_the_nodes(joint_story: JointStory, joint_bundle: Path) -> None:
    program = f"""
import sys
from pathlib import Path
for name in {BLOCKED!r}:
    sys.modules[name] = None
from ledger import Verifier
from api.client.audit import verify_bundle
verified = verify_bundle(Path({str(joint_bundle)!r}), Verifier.parse({str(joint_story.world.verifier)!r}))
assert not any(name.partition(".")[0] in {BLOCKED!r} and module for name, module in sys.modules.items())
print(len(verified.answers))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    assert done.stdout == "5\n", done.stderr


def test_the_independent_implementation_of_the_curve_agrees(tmp_path: Path) -> None:
    """py_ecc, on one patient of a linear model: in pure Python more takes minutes."""
    story = joint_bundles.tell(tmp_path, network="linear", cohort=joint_bundles.commit_cohort(PATIENTS[:1]))
    verified(story.bundle(tmp_path / "b.sealproof"), story, group=group_by_name("reference"))


def test_the_command_prints_either_kind(
    story: bundles.Story, honest_bundle: Path, joint_story: JointStory, joint_bundle: Path
) -> None:
    from api.cli.main import app

    def run(path: Path, key: object, *more: str) -> str:
        done = CliRunner().invoke(app, ["verify", str(path), "--log-key", str(key), "--no-cache", *more])
        assert done.exit_code == 0, done.output
        return done.stdout

    text = run(joint_bundle, joint_story.world.verifier)
    assert (
        "5 patients of st-anna, model heart-net 1 of heart-lab by multi-party computation; answers are exact;" in text
    )
    assert "y0 within 0.092 of the float model" in text
    assert "multi-party" not in run(honest_bundle, story.world.verifier)
    joint, ckks = (
        json.loads(run(path, key, "--json"))
        for path, key in ((joint_bundle, joint_story.world.verifier), (honest_bundle, story.world.verifier))
    )
    assert set(joint) == set(ckks)
    assert (joint["scheme"], joint["evaluation_error"], joint["clinic"]) == ("mpc", 0.0, "st-anna")
    assert ckks["scheme"] == "ckks"
    assert ckks["evaluation_error"] > 0


def test_a_trust_store_follows_the_log_of_a_joint_prediction(
    joint_story: JointStory, joint_bundle: Path, tmp_path: Path
) -> None:
    store = TrustStore(tmp_path / "trust")
    store.add(str(joint_story.world.verifier))
    found = verify_bundle(joint_bundle, store, ledger=joint_story.world)
    assert isinstance(found, VerifiedJointPrediction)


# -- exposure ----------------------------------------------------------------------------------------------------------


def test_exact_answers_are_counted_against_the_whole_network(tmp_path: Path) -> None:
    story = joint_bundles.tell(tmp_path, network="two")
    story.log()
    registry = Registry.read(story.world.log)
    rows = exposure.recount(registry)
    assert [(row.clinic, row.model, row.output, row.output_name, row.predictions) for row in rows] == [
        ("st-anna", story.model.reference, 0, "y0", 1),
        ("st-anna", story.model.reference, 1, "y1", 1),
    ]
    first, second = (layer.shape for layer in story.network.statement.layers)
    bits = 3 * (first.b + 1) + first.b_bias + 1 + 2 * (second.b + 1 + second.b_bias + 1)
    z_max = story.network.statement.bounds[-1]
    assert {row.exposure.model_bits for row in rows} == {bits}
    assert {row.exposure.released for row in rows} == {Fraction(5 * (2 * z_max).bit_length())}
    assert exposure.network_bits(story.model.body) == bits
    assert exposure.recount(registry, "nobody") == []
    assert exposure.recount(registry, "st-anna", story.model.reference.index) == rows


def test_predictions_of_both_schemes_are_counted_each_by_its_own_rule(tmp_path: Path) -> None:
    story = bundles.tell(tmp_path)
    story.log()
    (alone,) = exposure.recount(Registry.read(story.world.log))
    network, cohort = joint_bundles.network_material(), joint_bundles.records_material()
    model = story.world.append(story.owner, network.body())
    records = story.world.append(story.clinic, cohort.body())
    actors = (story.server, story.clinic, story.owner)
    joint = JointStory(story.world, *actors, network, cohort, model, records, None)  # type: ignore[arg-type]
    for session in (bytes(32), bytes([1] * 32)):
        story.world.append(story.server, joint.predict(session=session).body)
    first, second = exposure.recount(Registry.read(story.world.log))
    assert first == alone
    assert (second.model, second.predictions) == (model.reference, 2)
    assert second.exposure.released == 2 * 5 * model.body.answer_bits
