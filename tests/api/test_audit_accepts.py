"""What verifies, what the auditor says of it, and that it needs neither a secret nor an FHE library."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from api.client.audit import verify_bundle
from api.client.prediction import rounded_up
from api.client.scores import decrypt
from privacy.ckks.packing import Packing
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.quantise import quantise, reference
from tests.support import bundles
from tests.support.bundles import NONCE, PARAMS, PATIENTS, Story

TWO_OUTPUTS = ((0.02, 0.0, 0.9), (-0.01, 0.04, 0.0))
IDS = tuple("abcde")


def test_every_step_passes_and_says_what_it_showed(story: Story, honest_bundle: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    verified = verify_bundle(
        honest_bundle,
        story.world.verifier,
        nonce=NONCE,
        ledger=story.world,
        progress=lambda step, done, total: seen.append((step, done, total)),
    )
    names = ["bundle", "log", "entries", "order", "references", "attestation", "head", "statements", "certificates"]
    assert [check.name for check in verified.checks] == [*names, "proofs"]
    assert all(check.sentence.endswith(".") and check.seconds >= 0 for check in verified.checks)
    assert [step for step, _, _ in seen if step in names] == names
    assert (verified.head.origin, verified.count, verified.output_names) == (bundles.ORIGIN, 5, ("y0",))
    assert verified.request_nonce == NONCE
    assert verified.revoked_since == ()
    bound = story.predicted.body.error_bound
    assert verified.evaluation_error == Fraction(bound.error, 2**bound.scale_bits)


@pytest.mark.parametrize("packing", [Packing.ROWS, Packing.COLUMNS])
def test_answers_of_several_outputs_and_proofs_are_within_the_bound(tmp_path: Path, packing: Packing) -> None:
    """Two outputs; in rows, enough patients for two full blocks and a partial one, in three proofs."""
    model = bundles.model_material(TWO_OUTPUTS, "two")
    rng = np.random.default_rng(5)
    count = 2 * (PARAMS.N // 3) + 7 if packing is Packing.ROWS else 9
    ages, smokers = rng.integers(0, 120, count), rng.integers(0, 2, count)
    patients = np.column_stack([ages, rng.uniform(10, 60, count), smokers])
    story = bundles.tell(tmp_path, packing=packing, patients=patients, model=model, most=2)
    assert len(story.predicted.body.proofs) == (3 if packing is Packing.ROWS else 1)
    verified = verify_bundle(story.bundle(tmp_path / "b.sealproof"), story.world.verifier)
    scores = decrypt(verified, story.key_material.keys, tuple(map(str, range(count))))
    exact = np.array(reference(quantise(model.model, PARAMS), patients), dtype=object)
    off = np.abs(scores.raw.reveal_raw() - (exact / 2**PARAMS.D).astype(np.float64))
    assert off.max() <= float(verified.evaluation_error) + 1e-6
    bounds = [float(bound) for bound in scores.error_bounds]
    assert (np.abs(scores.raw.reveal_raw() - model.model.predict_raw(patients)) <= bounds).all()
    assert "raw=" not in repr(scores)
    assert "ids" not in repr(scores)


def test_inputs_that_the_bundle_leaves_out_are_fetched_by_digest(story: Story, tmp_path: Path) -> None:
    _, *inputs = story.records.blobs
    path = story.bundle(tmp_path / "b.sealproof", blobs=[blob for blob in story.blobs if blob not in inputs])

    class Serving:
        def __init__(self, answer: bytes) -> None:
            self.answer = answer

        def blob(self, digest: bytes) -> bytes:
            assert digest == story.records.digests[0]
            return self.answer

        def __getattr__(self, name: str) -> object:
            return getattr(story.world, name)

    verify_bundle(path, story.world.verifier, ledger=Serving(inputs[0]), cache=story.world.cache)
    for answer in (b"", b"garbage", inputs[0][:-1]):
        with pytest.raises(DecodeError):
            verify_bundle(path, story.world.verifier, ledger=Serving(answer), cache=story.world.cache)
    other = inputs[0][:-8] + bytes([inputs[0][-8] ^ 1]) + inputs[0][-7:]
    with pytest.raises(VerificationFailed, match=r"evaluation\.inputs"):
        verify_bundle(path, story.world.verifier, ledger=Serving(other), cache=story.world.cache)


BLOCKED = ("tenseal", "torch", "crypten", "sklearn", "zksk", "petlib", "fastapi", "starlette", "web3")


def test_the_auditor_needs_no_fhe_library_no_prover_and_no_service(story: Story, honest_bundle: Path) -> None:
    program = f"""
import sys
from pathlib import Path
for name in {BLOCKED!r}:
    sys.modules[name] = None
from ledger import Verifier
from api.client.audit import verify_bundle
verified = verify_bundle(Path({str(honest_bundle)!r}), Verifier.parse({str(story.world.verifier)!r}))
assert not any(name.partition(".")[0] in {BLOCKED!r} and module for name, module in sys.modules.items())
print(verified.count)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path.cwd(), check=False)
    assert done.stdout == "5\n", done.stderr


def test_nothing_but_a_verified_prediction_under_the_own_key_is_decrypted(story: Story, honest_bundle: Path) -> None:
    keys = story.key_material.keys
    for unverified in (honest_bundle, honest_bundle.read_bytes(), story.predicted.body, None):
        with pytest.raises(UsageError, match="verify the bundle first"):
            decrypt(unverified, keys, IDS)  # type: ignore[arg-type]
    verified = verify_bundle(honest_bundle, story.world.verifier, cache=story.world.cache)
    with pytest.raises(VerificationFailed, match=r"clinic\.key"):
        decrypt(verified, bundles.key_material("st-anna", 2).keys, IDS)
    with pytest.raises(VerificationFailed, match=r"clinic\.records"):
        decrypt(verified, keys, IDS[:4])
    assert len(decrypt(verified, keys, IDS)) == 5


def test_scores_are_written_for_their_owner_only(story: Story, honest_bundle: Path, tmp_path: Path) -> None:
    verified = verify_bundle(honest_bundle, story.world.verifier, cache=story.world.cache)
    scores = decrypt(verified, story.key_material.keys, IDS)
    scores.to_csv(tmp_path / "scores.csv")
    lines = (tmp_path / "scores.csv").read_text().split()
    assert lines[0] == "id,y0"
    assert [float(line.partition(",")[2]) for line in lines[1:]] == scores.values[:, 0].tolist()
    assert (tmp_path / "scores.csv").stat().st_mode & 0o777 == 0o600
    assert np.allclose(scores.values, story.model_material.model.predict(PATIENTS), atol=1 / 256)
    with pytest.raises(ValueError, match="read-only"):
        scores.raw.reveal_raw()[0, 0] = 0


def test_a_verified_certificate_is_remembered_and_a_bundle_cannot_forge_the_memory(
    story: Story, honest_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = type(story.world.cache)(tmp_path / "verified")
    verify_bundle(honest_bundle, story.world.verifier, cache=cache)
    marks = sorted(path.name for path in (tmp_path / "verified").iterdir())
    assert len(marks) == 2
    assert (tmp_path / "verified").stat().st_mode & 0o777 == 0o700

    calls: list[str] = []
    real = type(cache).knows
    monkeypatch.setattr(type(cache), "knows", lambda self, mark: calls.append(mark.hex()) or real(self, mark))
    verify_bundle(honest_bundle, story.world.verifier, cache=cache)
    assert sorted(calls) == marks
    # Another certificate, entry or order of the same bytes is another mark.
    assert cache.mark("key", [b"a", b"b"]) != cache.mark("key", [b"ab", b""]) != cache.mark("model", [b"ab", b""])
    # A mark with other contents, and a folder that others can write to, are no memory.
    for mark in marks:
        (tmp_path / "verified" / mark).write_bytes(b"")
        assert not real(cache, bytes.fromhex(mark))
    (tmp_path / "verified").chmod(0o777)
    cache.remember(bytes(32))
    assert not real(cache, bytes(32))


def test_the_error_is_printed_rounded_up() -> None:
    for bound in (Fraction(1, 3), Fraction(1), Fraction(12345, 10), Fraction(1, 10**20) + 1, Fraction(1, 10**9)):
        assert Fraction(rounded_up(bound)) >= bound
        assert Fraction(rounded_up(bound)) <= bound * Fraction(11, 10)


def test_a_file_that_is_not_there_is_the_systems_error(story: Story, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        verify_bundle(tmp_path / "none.sealproof", story.world.verifier)


def test_the_independent_implementation_of_the_curve_agrees(story: Story, honest_bundle: Path) -> None:
    """py_ecc, for the model's certificate only: in pure Python everything else takes minutes."""
    from api.binding import verify_model_entry
    from privacy.zk.group import group_by_name

    material = story.model_material
    verify_model_entry(material.body(), bundles.SCHEMA.encode_json(), material.certificate, group_by_name("reference"))
