"""Records are used after their end, and the server dates its attestation back.

An attestation's date is the server's word. Witnesses of the log date it otherwise: a server has no head with the
prediction that they cosigned before the records' end, because there was none. An auditor who names no witnesses is
told that it has the server's word only: that is the weakened build.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.client.audit import verify_bundle
from api.client.prediction import VerifiedPrediction
from api.client.trust import TrustedLog, parse_trust
from api.entries import Policy, Prediction
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.note import Note
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed
from tests.support.bundles import ISSUED_AT, Located, Story, tell

UNTIL = "2026-03-01T00:00:00Z"
END = int(parse_timestamp(UNTIL).timestamp())
assert UNTIL > ISSUED_AT, "what the server says of itself is in time"


@dataclass
class Dated:
    """A story whose log two witnesses cosign, and what an auditor may ask its server for."""

    story: Story
    witnesses: list[Cosigner]

    @property
    def trusted(self) -> TrustedLog:
        lines = [f"log {self.story.world.verifier}"]
        lines += [f"witness w{i} {witness.verifier}" for i, witness in enumerate(self.witnesses)]
        (found,) = parse_trust("\n".join([*lines, "group both all w0 w1", "quorum both", ""]))
        return found

    def publish(self, *times: int) -> None:
        """The present head, as it was cosigned at these times."""
        log = self.story.world.log
        text = Note.parse(log.checkpoint()).text.encode()
        pairs = zip(self.witnesses, times, strict=True)
        log.publish(with_cosignatures(log.checkpoint(), [w.cosign(text, t) for w, t in pairs]))

    def verify(self, path: Path, *, connected: bool, trusted: TrustedLog | None = None) -> VerifiedPrediction:
        world = self.story.world
        found = verify_bundle(path, trusted or self.trusted, ledger=self if connected else None, cache=world.cache)
        assert isinstance(found, VerifiedPrediction)
        return found

    # what an auditor asks the server for
    def checkpoint(self) -> bytes:
        return self.story.world.log.published().note

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        return self.story.world.entries(start, stop)

    def consistency(self, old: int, new: int) -> Sequence[bytes]:
        return self.story.world.consistency(old, new)

    def publications(self, start: int, limit: int) -> Sequence[bytes]:
        return [head.note for head in self.story.world.log.publications(start, limit)]

    def blob(self, digest: bytes) -> bytes:
        raise FileNotFoundError(digest.hex())


@pytest.fixture
def dated(tmp_path: Path) -> Dated:
    story = tell(tmp_path, records_changes={"policy": Policy("any", UNTIL)})
    return Dated(story, [Cosigner.generate(f"hospital-{i}.example/w") for i in range(2)])


def head_sentence(found: VerifiedPrediction) -> str:
    (check,) = (check for check in found.checks if check.name == "head")
    return check.sentence


def use_after_the_end(dated: Dated, path: Path) -> Located[Prediction]:
    dated.publish(END - 10, END - 9)  # all that is logged so far was in time
    prediction = dated.story.log()
    dated.publish(END + 10, END + 11)
    dated.story.bundle(path, prediction)
    return prediction


def test_a_backdated_prediction_is_refused_by_an_auditor_with_witnesses(dated: Dated, tmp_path: Path) -> None:
    path = tmp_path / "late.sealproof"
    use_after_the_end(dated, path)
    with pytest.raises(VerificationFailed, match=r"policy\.expired.*witnesses saw it first at 2026-03-01T00:00:11Z"):
        dated.verify(path, connected=True)


def test_without_witnesses_the_server_is_believed_and_the_auditor_is_told(dated: Dated, tmp_path: Path) -> None:
    path = tmp_path / "late.sealproof"
    use_after_the_end(dated, path)
    found = dated.verify(path, connected=True, trusted=TrustedLog(dated.story.world.verifier))
    assert "is the server's word: no policy with witnesses was given" in head_sentence(found)
    assert "is the server's word: this head was cosigned later" in head_sentence(dated.verify(path, connected=False))


def test_a_prediction_in_time_is_shown_to_be_by_its_own_head(dated: Dated, tmp_path: Path) -> None:
    prediction = dated.story.log()
    dated.publish(END - 10, END)
    path = dated.story.bundle(tmp_path / "early.sealproof", prediction)
    for connected in (True, False):
        assert "before the records' end" in head_sentence(dated.verify(path, connected=connected))


def test_a_bundle_that_is_made_again_later_is_still_accepted(dated: Dated, tmp_path: Path) -> None:
    prediction = dated.story.log()
    dated.publish(END - 10, END)
    dated.story.world.register("owner", "later-lab")
    dated.publish(END + 1000, END + 1001)
    path = dated.story.bundle(tmp_path / "again.sealproof", prediction)
    assert "before the records' end" in head_sentence(dated.verify(path, connected=True))


def test_one_witness_that_lies_about_the_time_is_not_enough(dated: Dated, tmp_path: Path) -> None:
    dated.publish(END - 20, END - 20)
    prediction = dated.story.log()
    dated.publish(END - 5, END + 10)
    path = dated.story.bundle(tmp_path / "late.sealproof", prediction)
    with pytest.raises(VerificationFailed, match=r"policy\.expired"):
        dated.verify(path, connected=True)


def test_a_bundle_whose_head_no_quorum_cosigned_is_refused(dated: Dated, tmp_path: Path) -> None:
    prediction = dated.story.log()
    path = dated.story.bundle(tmp_path / "bare.sealproof", prediction)
    with pytest.raises(VerificationFailed, match=r"policy\.quorum"):
        dated.verify(path, connected=False)
