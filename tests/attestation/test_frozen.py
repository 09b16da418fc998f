"""Attestations of every released format verify for ever. Files here are never made anew; a new format adds a folder."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from api.client.audit import verify_bundle
from ledger import Verifier
from privacy.zk.group import ARKWORKS

FROZEN = Path(__file__).resolve().parents[1] / "frozen"
DIGESTS = {"v1": "d155cf4e888e3066a9fe7ccef8b58fb7504e2d2751c55c911ecd9a42f8267c89"}


@pytest.mark.parametrize("version", DIGESTS)
def test_a_bundle_of_a_released_format_still_verifies(version):
    path = FROZEN / version / "heart.sealproof"
    assert sha256(path.read_bytes()).hexdigest() == DIGESTS[version]
    key = Verifier.parse((FROZEN / version / "log.vkey").read_text().strip())
    verified = verify_bundle(path, key, group=ARKWORKS)
    assert verified.count == 5
    assert verified.output_names == ("disease",)
