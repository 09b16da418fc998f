"""Attestations of every released format verify for ever. Files here are never made anew; a new format adds a folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from api.client.audit import verify_bundle
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.shown import VerifiedDisclosure
from ledger import Verifier
from privacy.zk.group import ARKWORKS

FROZEN = Path(__file__).resolve().parents[1] / "frozen"
DIGESTS = {"v1": "d155cf4e888e3066a9fe7ccef8b58fb7504e2d2751c55c911ecd9a42f8267c89"}
JOINT = FROZEN / "v1-mpc"
JOINT_DIGESTS = {
    "heart": "993e600bb8175edbe727b62671d89943654ed356aa44da3710cb32cc09004472",
    "threshold-disclosure": "bb44d01370c81b7877c96413e487ffa0d85a49e086a8c70abc02fe98808e034c",
    "exact-disclosure": "4df8f5a1a9f81563b7c06b9c7472ea1fa2dcc0b536c284e87e74db7f62f75642",
}
NONCE = bytes(range(32))
"""Of the recipient of both disclosures."""


def joint(name: str, nonce: bytes | None) -> VerifiedPrediction | VerifiedJointPrediction | VerifiedDisclosure:
    path = JOINT / f"{name}.sealproof"
    assert sha256(path.read_bytes()).hexdigest() == JOINT_DIGESTS[name]
    return verify_bundle(path, Verifier.parse((JOINT / "log.vkey").read_text().strip()), recipient_nonce=nonce)


@pytest.mark.parametrize("version", DIGESTS)
def test_a_bundle_of_a_released_format_still_verifies(version):
    path = FROZEN / version / "heart.sealproof"
    assert sha256(path.read_bytes()).hexdigest() == DIGESTS[version]
    key = Verifier.parse((FROZEN / version / "log.vkey").read_text().strip())
    verified = verify_bundle(path, key, group=ARKWORKS)
    assert verified.count == 5
    assert verified.output_names == ("disease",)


def test_a_joint_prediction_of_a_released_format_still_verifies() -> None:
    """A 3-4-1 ReLU network, by three processes and CrypTen."""
    found = joint("heart", None)
    assert isinstance(found, VerifiedJointPrediction)
    assert (found.count, found.output_names, len(found.answers)) == (5, ("disease",), 5)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("threshold-disclosure", "disease of record 'p3' is at least 0.859375"),
        ("exact-disclosure", "disease of record 'p2' is -1.34375, within 0.015625"),
    ],
)
def test_a_disclosure_of_a_released_format_still_verifies(name: str, says: str) -> None:
    found = joint(name, NONCE)
    assert isinstance(found, VerifiedDisclosure)
    assert found.sentence == says
    assert found.consent is None and len(found.facts) == 1 and found.recipient_nonce == NONCE
    assert "No consent is on the ledger" in found.checks[-1].sentence
