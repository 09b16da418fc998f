"""Any byte of a bundle changed at random: refused, never a traceback, never a wrong answer.

Plain damage is caught by checksums. The second test repairs the archive around the change, as an attacker would, so
that what looks at each member is what has to refuse it.
"""

from __future__ import annotations

import contextlib
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.client.audit import verify_bundle
from privacy.bundle import BundleReader
from privacy.errors import DecodeError, VerificationFailed
from tests.support import bundles
from tests.support.bundles import Story

cheap = settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
repaired = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@cheap
@given(data=st.data())
def test_a_damaged_file_is_refused(story: Story, honest_bundle: Path, tmp_path: Path, data: st.DataObject) -> None:
    original = honest_bundle.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "flip", "cut", "insert", "zero"]))
    start = data.draw(st.integers(0, len(original) - 1))
    if kind == "flip":
        changed = original[:start] + bytes([original[start] ^ data.draw(st.integers(1, 255))]) + original[start + 1 :]
    elif kind == "cut":
        changed = original[:start] + original[data.draw(st.integers(start + 1, len(original))) :]
    elif kind == "insert":
        changed = original[:start] + data.draw(st.binary(min_size=1, max_size=8)) + original[start:]
    else:
        end = data.draw(st.integers(start + 1, len(original)))
        changed = original[:start] + bytes(end - start) + original[end:]
    if changed == original:
        return
    path = tmp_path / "damaged.sealproof"
    path.write_bytes(changed)
    with pytest.raises((VerificationFailed, DecodeError)):
        verify_bundle(path, story.world.verifier, cache=story.world.cache)


@repaired
@given(data=st.data())
def test_a_changed_member_in_a_sound_archive_is_refused(
    story: Story, honest_bundle: Path, tmp_path: Path, data: st.DataObject
) -> None:
    found = bundles.members(honest_bundle)
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


@pytest.fixture
def digests_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BundleReader, "blob", _unchecked)
    monkeypatch.setattr(BundleReader, "check", lambda self: None)


def test_with_digests_unchecked_the_honest_bundle_verifies(
    story: Story, honest_bundle: Path, digests_unchecked: None
) -> None:
    verify_bundle(honest_bundle, story.world.verifier)


@pytest.mark.parametrize("kind", ["proof", "result", "input", "key certificate", "model certificate", "p0", "zero"])
def test_a_changed_blob_under_its_own_digest_is_refused_by_its_check(
    story: Story, tmp_path: Path, kind: str, digests_unchecked: None
) -> None:
    """With every digest check switched off, each blob still has to stand on its own."""
    (proof,) = story.predicted.body.proofs
    key, model = story.key.body, story.model.body
    digest = {
        "proof": proof.digest,
        "result": proof.results[0],
        "input": story.records.digests[0],
        "key certificate": key.certificate,
        "model certificate": model.certificate,
        "p0": key.p0,
        "zero": model.statements[0].proof,
    }[kind]
    path = story.bundle(tmp_path / "honest.sealproof")
    data = path.read_bytes()
    (blob,) = (blob for blob in story.blobs if sha256(blob).digest() == digest)
    start = data.index(blob)
    place = start + len(blob) - 3
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises((VerificationFailed, DecodeError)) as caught:
        verify_bundle(path, story.world.verifier)
    assert "CRC" not in str(caught.value)
    assert not str(caught.value).startswith("bundle")


def _unchecked(reader: BundleReader, digest: bytes) -> bytes:
    member = reader._members[f"blobs/{digest.hex()}"]
    return reader._pread(member.start, member.size)
