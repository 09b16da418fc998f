"""A log trusted with its witnesses: no head counts without a quorum, and their clocks date what is under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.client.dating import check_in_time
from api.client.trust import TrustedLog, TrustStore, parse_trust
from ledger import DecodeError, Fork, Log, Signer, UsageError, VerifiedHead, open_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import VerificationFailed as LogRefused
from ledger.note import Note
from privacy.canonical_json import parse_timestamp
from privacy.errors import VerificationFailed

ORIGIN = "log.example/a"
UNTIL = "2026-03-01T00:00:00Z"
END = int(parse_timestamp(UNTIL).timestamp())


@dataclass
class Witnessed:
    """A log, three witnesses, and a policy that demands two of them."""

    log: Log
    signer: Signer
    witnesses: list[Cosigner]

    @property
    def policy(self) -> str:
        lines = [f"log {self.signer.verifier}"]
        lines += [f"witness w{i} {w.verifier}" for i, w in enumerate(self.witnesses)]
        return "\n".join([*lines, "group hospitals 2 w0 w1 w2", "quorum hospitals", ""])

    @property
    def trusted(self) -> TrustedLog:
        (found,) = parse_trust(self.policy)
        return found

    def cosigned(self, times: Iterable[int | None], note: bytes | None = None) -> bytes:
        """The present head, cosigned at these times, by the witnesses in order; None: not by this one."""
        note = note or self.log.checkpoint()
        text = Note.parse(note).text.encode()
        pairs = zip(self.witnesses, times, strict=False)
        return with_cosignatures(note, [w.cosign(text, t) for w, t in pairs if t is not None])

    def head(self, note: bytes) -> VerifiedHead:
        return open_checkpoint(note, self.signer.verifier, ORIGIN)


@pytest.fixture
def witnessed(tmp_path: Path) -> Witnessed:
    signer = Signer.generate(ORIGIN)
    log = Log.create(tmp_path / "log.sqlite", signer)
    log.append_many([b"a", b"b", b"c"])
    return Witnessed(log, signer, [Cosigner.generate(f"hospital-{i}.example/w") for i in range(3)])


@pytest.fixture
def store(tmp_path: Path, witnessed: Witnessed) -> TrustStore:
    store = TrustStore(tmp_path / "home")
    store.add(witnessed.policy)
    return store


def test_a_policy_is_kept_with_its_log_and_forgotten_with_it(store: TrustStore, witnessed: Witnessed) -> None:
    found = store.trusted(ORIGIN)
    assert found is not None and found.policy is not None
    assert found.verifier == store.find(ORIGIN) == witnessed.signer.verifier
    assert [w.name for w in found.policy.witnesses] == ["w0", "w1", "w2"]
    store.remove(ORIGIN)
    assert store.trusted(ORIGIN) is None
    store.add(str(witnessed.signer.verifier))
    assert store.trusted(ORIGIN) == TrustedLog(witnessed.signer.verifier)


def test_a_policy_may_follow_a_key_but_not_bring_another(store: TrustStore, witnessed: Witnessed) -> None:
    other = Witnessed(witnessed.log, Signer.generate(ORIGIN), witnessed.witnesses)
    with pytest.raises(UsageError, match="another key is trusted"):
        store.add(other.policy)
    store.add(witnessed.policy.replace("group hospitals 2", "group hospitals 3"))
    found = store.trusted(ORIGIN)
    assert found is not None and found.policy is not None
    assert found.policy.groups["hospitals"].needed == 3


@pytest.mark.parametrize("text", ["", "\n", "log\n\nquorum none\n", "witness w0 x\nquorum w0\n"])
def test_what_is_neither_key_nor_policy_is_refused(store: TrustStore, text: str) -> None:
    with pytest.raises(DecodeError):
        store.add(text)


def test_a_policy_file_of_another_log_is_refused(store: TrustStore, witnessed: Witnessed, tmp_path: Path) -> None:
    (path,) = (tmp_path / "home" / "logs").glob("*.policy")
    other = Witnessed(witnessed.log, Signer.generate("mallory.example"), witnessed.witnesses)
    path.write_text(other.policy)
    with pytest.raises(DecodeError, match="not about the log"):
        store.trusted(ORIGIN)


def test_only_heads_with_a_quorum_are_followed_or_observed(store: TrustStore, witnessed: Witnessed) -> None:
    def nothing(old: int, new: int) -> Sequence[bytes]:
        return witnessed.log.consistency_proof(old, new)

    for times in ([], [5], [None, None, 7]):
        note = witnessed.cosigned(times)
        with pytest.raises(LogRefused, match=r"policy\.quorum"):
            store.follow(note, ORIGIN, nothing)
        with pytest.raises(LogRefused, match=r"policy\.quorum"):
            store.observe(witnessed.head(note), nothing)
        assert store.head(ORIGIN) is None
    good = witnessed.cosigned([5, None, 7])
    assert store.follow(good, ORIGIN, nothing).size == 3
    witnessed.log.append(b"d")
    with pytest.raises(LogRefused, match=r"policy\.quorum"):
        store.follow(witnessed.log.checkpoint(), ORIGIN, nothing)
    with pytest.raises(LogRefused, match=r"policy\.quorum"):
        store.observe(witnessed.head(witnessed.log.checkpoint()), None)
    kept = store.head(ORIGIN)
    assert kept is not None and kept.note == good


def test_a_fork_is_convicted_even_without_a_quorum(store: TrustStore, witnessed: Witnessed, tmp_path: Path) -> None:
    store.follow(witnessed.cosigned([5, 6]), ORIGIN, lambda old, new: [])
    fork = Log.create(tmp_path / "fork.sqlite", witnessed.signer)
    fork.append_many([b"a", b"b", b"X"])
    with pytest.raises(Fork):
        store.follow(fork.checkpoint(), ORIGIN, lambda old, new: [])
    assert len(list((tmp_path / "home" / "evidence").rglob("*.note"))) == 2


def test_a_bad_cosignature_by_a_listed_witness_refuses_the_head(store: TrustStore, witnessed: Witnessed) -> None:
    note = witnessed.cosigned([5, 6])
    witnessed.log.append(b"d")
    text = Note.parse(witnessed.log.checkpoint()).text
    moved = Note(text, (*Note.parse(witnessed.log.checkpoint()).signatures, *Note.parse(note).signatures[1:])).format()
    with pytest.raises(LogRefused, match=r"note\.signature"):
        store.follow(moved, ORIGIN, lambda old, new: witnessed.log.consistency_proof(old, new))


# -- dating -----------------------------------------------------------------------------------------------------------


class _Archive:
    def __init__(self, log: Log, notes: list[bytes]) -> None:
        self._log = log
        self._notes = notes

    def publications(self, start: int, limit: int) -> list[bytes]:
        return self._notes[:limit]

    def consistency(self, old: int, new: int) -> list[bytes]:
        return self._log.consistency_proof(old, new)


def _dated(witnessed: Witnessed, note: bytes, archive: _Archive | None, index: int = 2) -> str:
    return check_in_time(
        UNTIL, index, witnessed.trusted, witnessed.head(note), witnessed.trusted.witnesses(note), archive
    )


def test_without_an_end_or_without_witnesses_nothing_is_shown(witnessed: Witnessed) -> None:
    note = witnessed.cosigned([END + 9, END + 9])
    head = witnessed.head(note)
    assert check_in_time(None, 2, witnessed.trusted, head, witnessed.trusted.witnesses(note), None) == ""
    bare = TrustedLog(witnessed.signer.verifier)
    assert "server's word" in check_in_time(UNTIL, 2, bare, head, bare.witnesses(note), None)


def test_a_quorum_before_the_end_shows_it_and_one_witness_does_not(witnessed: Witnessed) -> None:
    assert "Witnesses had seen it" in _dated(witnessed, witnessed.cosigned([END, END - 1]), None)
    late = witnessed.cosigned([END - 5, END + 1])
    assert "server's word" in _dated(witnessed, late, None), "the second of two came too late"
    with pytest.raises(VerificationFailed, match=r"policy\.expired"):
        _dated(witnessed, late, _Archive(witnessed.log, [late]))


def test_an_older_head_shows_it_where_the_bundle_s_is_too_new(witnessed: Witnessed) -> None:
    early = witnessed.cosigned([END - 5, END - 4])
    witnessed.log.append(b"d")
    late = witnessed.cosigned([END + 1, END + 2])
    assert "Witnesses had seen it" in _dated(witnessed, late, _Archive(witnessed.log, [early, late]))
    with pytest.raises(VerificationFailed, match="first at 2026-03-01T00:00:02Z"):
        _dated(witnessed, late, _Archive(witnessed.log, [early, late]), index=3)


def test_a_server_cannot_backdate_a_prediction(witnessed: Witnessed, tmp_path: Path) -> None:
    """It says that the prediction in entry 3 was made in time. No witness saw a head with it before the end."""
    early = witnessed.cosigned([END - 5, END - 4])
    witnessed.log.append(b"the prediction, too late")
    late = witnessed.cosigned([END + 100, END + 101])
    uncosigned = witnessed.cosigned([END - 3])
    other = Log.create(tmp_path / "fork.sqlite", witnessed.signer)
    other.append_many([b"a", b"b", b"c", b"another prediction, in time"])
    fork = witnessed.cosigned([END - 3, END - 3], other.checkpoint())
    for notes in ([late], [early, late], [uncosigned, late], []):
        with pytest.raises(VerificationFailed, match=r"policy\.expired"):
            _dated(witnessed, late, _Archive(witnessed.log, notes), index=3)
    with pytest.raises(LogRefused):  # even witnesses that cosign a fork do not help: it is no past of this head
        _dated(witnessed, late, _Archive(witnessed.log, [fork, late]), index=3)
