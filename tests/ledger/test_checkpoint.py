"""Checkpoints: an outside log's are read, anything else than one canonical spelling is refused."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, VerifiedHead, open_checkpoint, sign_checkpoint
from ledger.errors import DecodeError, OriginMismatch, RootMismatch, UsageError, VerificationFailed
from ledger.merkle import Frontier, consistency_proof, empty_root, inclusion_proof, leaf_hash, verify_inclusion
from ledger.monitor import follow
from ledger.note import Note, Signer, Verifier, sign_note

TESSERA_ORIGIN = "example.com/log/testdata"
TESSERA_KEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
ROOT = leaf_hash(b"some root")
TEXT = f"ledger.example/test\n7\n{base64.b64encode(ROOT).decode()}\n"


def _entry_bundle(data: bytes) -> list[bytes]:
    entries = []
    while data:
        length = int.from_bytes(data[:2], "big")
        entries.append(data[2 : 2 + length])
        data = data[2 + length :]
    return entries


class TestAnOutsideLog:
    """The small Tessera log: sizes 0 to 15."""

    def test_every_checkpoint_verifies_and_matches_its_entries(self, vectors: Path) -> None:
        verifier = Verifier.parse(TESSERA_KEY)
        for size in range(16):
            head = open_checkpoint((vectors / f"tessera-log/checkpoint.{size}").read_bytes(), verifier, TESSERA_ORIGIN)
            bundle = vectors / f"tessera-log/tile/entries/000.p/{size}"
            entries = _entry_bundle(bundle.read_bytes()) if size else []
            frontier, nodes = Frontier().extend(leaf_hash(entry) for entry in entries)
            assert (head.size, head.root) == (size, frontier.root())
            leaves = b"".join(node.hash for node in nodes if node.level == 0)
            assert not size or leaves == (vectors / f"tessera-log/tile/0/000.p/{size}").read_bytes()

    def test_it_can_be_followed_and_its_entries_proved(self, vectors: Path) -> None:
        verifier = Verifier.parse(TESSERA_KEY)
        notes = [(vectors / f"tessera-log/checkpoint.{size}").read_bytes() for size in range(16)]
        entries = _entry_bundle((vectors / "tessera-log/tile/entries/000.p/15").read_bytes())
        _, nodes = Frontier().extend(leaf_hash(entry) for entry in entries)
        stored = {(n.level, n.number): n.hash for n in nodes}

        def node(level: int, index: int) -> bytes:
            return stored[level, index]

        heads = [open_checkpoint(note, verifier, TESSERA_ORIGIN) for note in notes]
        for new in range(16):
            for old in range(new + 1):
                proof = consistency_proof(old, new, node)
                assert follow(heads[old], notes[new], proof, verifier, TESSERA_ORIGIN) == heads[new]
            for index in range(new):
                proof = inclusion_proof(index, new, node)
                verify_inclusion(leaf_hash(entries[index]), index, new, proof, heads[new].root)

    def test_a_flipped_bit_anywhere_is_refused(self, vectors: Path) -> None:
        verifier = Verifier.parse(TESSERA_KEY)
        data = (vectors / "tessera-log/checkpoint.15").read_bytes()
        for i in range(len(data)):
            for bit in (0, 5):
                changed = data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :]
                with pytest.raises((DecodeError, VerificationFailed)):
                    open_checkpoint(changed, verifier, TESSERA_ORIGIN)


def test_a_checkpoint_reads_back_as_it_was_signed(signer: Signer) -> None:
    checkpoint = Checkpoint(signer.name, 7, ROOT, ("one extension", "another"))
    note = sign_checkpoint(checkpoint, signer)
    head = open_checkpoint(note, signer.verifier, signer.name)
    assert head.checkpoint == checkpoint
    assert head.note == note
    assert (head.origin, head.size, head.root) == (signer.name, 7, ROOT)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        TEXT[:-1],
        TEXT + "\n",
        TEXT + "\n\n",
        TEXT + "ext\n\next\n",
        TEXT.replace("ledger.example/test\n", "\n"),
        TEXT.replace("ledger.example/test\n", ""),
        TEXT.replace("ledger", "led\tger"),
        TEXT.replace("\n7\n", "\n07\n"),
        TEXT.replace("\n7\n", "\n+7\n"),
        TEXT.replace("\n7\n", "\n-7\n"),
        TEXT.replace("\n7\n", "\n7 \n"),
        TEXT.replace("\n7\n", "\n 7\n"),
        TEXT.replace("\n7\n", "\n7_0\n"),
        TEXT.replace("\n7\n", "\n٧\n"),
        TEXT.replace("\n7\n", "\n7.0\n"),
        TEXT.replace("\n7\n", "\n0x7\n"),
        TEXT.replace("\n7\n", "\n\n"),
        TEXT.replace("\n7\n", f"\n{2**63}\n"),
        TEXT.replace("\n7\n", "\n" + "9" * 5000 + "\n"),
        TEXT.replace("=\n", "\n"),
        TEXT.replace("=\n", "==\n"),
        TEXT.replace("=\n", "= \n"),
        "o\n7\n" + base64.b64encode(bytes(31)).decode() + "\n",
        "o\n7\n" + base64.b64encode(bytes(33)).decode() + "\n",
        "o\n7\n" + base64.b64encode(bytes(32)).decode().replace("A=", "B=") + "\n",
        "o\n7\n" + base64.urlsafe_b64encode(b"\xff" * 32).decode() + "\n",
        "o\n7\n",
    ],
)
def test_other_spellings_are_refused(text: str, signer: Signer) -> None:
    with pytest.raises(DecodeError):
        Checkpoint.parse(text)
    if text.endswith("\n") and "\t" not in text:
        with pytest.raises((DecodeError, VerificationFailed)):
            open_checkpoint(sign_note(text, [signer]).format(), signer.verifier, signer.name)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.tuples(st.text(max_size=8), st.integers(-5, 2**65), st.binary(max_size=34)).map(
            lambda t: f"{t[0]}\n{t[1]}\n{base64.b64encode(t[2]).decode()}\n"
        ),
        st.tuples(st.integers(0, len(TEXT)), st.text(max_size=3)).map(lambda t: TEXT[: t[0]] + t[1] + TEXT[t[0] :]),
    )
)
def test_any_text_decodes_to_itself_or_is_refused(text: str) -> None:
    try:
        checkpoint = Checkpoint.parse(text)
    except DecodeError:
        return
    assert checkpoint.format() == text


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_checkpoint_never_opens_to_another_head(signer: Signer, data: st.DataObject) -> None:
    original = sign_checkpoint(Checkpoint(signer.name, 7, ROOT), signer)
    at, cut = data.draw(st.integers(0, len(original))), data.draw(st.integers(0, 3))
    changed = original[:at] + data.draw(st.binary(max_size=3)) + original[at + cut :]
    try:
        head = open_checkpoint(changed, signer.verifier, signer.name)
    except (DecodeError, VerificationFailed):
        return
    assert head.checkpoint == Checkpoint(signer.name, 7, ROOT)


def test_another_logs_checkpoint_is_refused_even_when_the_same_key_signed_it(signer: Signer) -> None:
    text = Checkpoint("other.example/log", 7, ROOT).format()
    note = sign_note(text, [signer]).format()
    with pytest.raises(OriginMismatch) as caught:
        open_checkpoint(note, signer.verifier, signer.name)
    assert (caught.value.expected, caught.value.found) == (signer.name, "other.example/log")


def test_a_key_signs_and_opens_for_its_own_log_only(signer: Signer) -> None:
    other = Checkpoint("other.example/log", 7, ROOT)
    with pytest.raises(UsageError):
        sign_checkpoint(other, signer)
    with pytest.raises(UsageError):
        open_checkpoint(sign_note(other.format(), [signer]).format(), signer.verifier, "other.example/log")


def test_a_stranger_cannot_sign_for_the_log(signer: Signer) -> None:
    stranger = Signer(signer.name, bytes(32))
    note = sign_checkpoint(Checkpoint(signer.name, 7, ROOT), stranger)
    with pytest.raises(VerificationFailed) as caught:
        open_checkpoint(note, signer.verifier, signer.name)
    assert caught.value.check == "note.unsigned"
    # Nor by claiming the log's key ID.
    line = Note.parse(note).signatures[0]
    claimed = Note(Note.parse(note).text, (replace(line, key_id=signer.verifier.key_id),))
    with pytest.raises(VerificationFailed) as caught:
        open_checkpoint(claimed.format(), signer.verifier, signer.name)
    assert caught.value.check == "note.signature"


def test_an_empty_tree_has_the_empty_root(signer: Signer) -> None:
    open_checkpoint(sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer), signer.verifier, signer.name)
    with pytest.raises(RootMismatch):
        open_checkpoint(sign_checkpoint(Checkpoint(signer.name, 0, ROOT), signer), signer.verifier, signer.name)


@pytest.mark.parametrize(
    ("origin", "size", "root", "extensions"),
    [
        ("", 0, ROOT, ()),
        ("a\nb", 0, ROOT, ()),
        ("a", -1, ROOT, ()),
        ("a", 2**63, ROOT, ()),
        ("a", 0, b"", ()),
        ("a", 0, ROOT, ("",)),
        ("a", 0, ROOT, ("x\ny",)),
    ],
)
def test_impossible_checkpoints_are_not_made(origin: str, size: int, root: bytes, extensions: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        Checkpoint(origin, size, root, extensions)


def test_only_verification_makes_a_verified_head(signer: Signer, head_note: Callable[..., bytes]) -> None:
    head = open_checkpoint(head_note([b"a"]), signer.verifier, signer.name)
    with pytest.raises(UsageError):
        VerifiedHead(head.checkpoint, head.note, object())
    with pytest.raises(TypeError):
        VerifiedHead(head.checkpoint, head.note)  # type: ignore[call-arg]
    with pytest.raises((ValueError, TypeError)):
        replace(head, note=b"")
    with pytest.raises(AttributeError):
        head.note = b""  # type: ignore[misc]
    assert copy.copy(head) == head
