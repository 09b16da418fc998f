from __future__ import annotations

from pathlib import Path

from api.client.audit import verify_bundle
from tests.support.bundles import NONCE, Story


def test_an_honest_bundle_verifies(story: Story, honest_bundle: Path) -> None:
    verified = verify_bundle(honest_bundle, story.world.verifier, nonce=NONCE, ledger=story.world)
    for check in verified.checks:
        print(check)
