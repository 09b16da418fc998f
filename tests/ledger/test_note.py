"""Signed notes: the reference's known answer, what is refused, what is ignored, and what happens to keys."""

from __future__ import annotations

import base64
import contextlib
import copy
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import DecodeError, LedgerError, StorageError, UsageError, VerificationFailed
from ledger.note import MAX_NOTE_BYTES, MAX_SIGNATURES, Note, Signature, Signer, Verifier, sign_note

PETER_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
TEXT = "a text\n\nwith an empty line\n"
A = Signer("a.example/log", bytes(32))
B = Signer("b.example/log", bytes([1]) * 32)


def _line(name: str, blob: bytes) -> str:
    return f"— {name} {base64.b64encode(blob).decode()}\n"


def _note(*lines: str, text: str = TEXT) -> bytes:
    return (text + "\n" + "".join(lines)).encode()


def test_the_known_answer_of_the_reference_implementation() -> None:
    signer = Signer.parse(PETER_KEY)
    note = sign_note(PETER_TEXT, [signer]).format()
    assert note.decode() == PETER_TEXT + "\n" + PETER_LINE
    assert str(signer.verifier) == PETER_VKEY
    (good,) = Note.parse(note).verify([Verifier.parse(PETER_VKEY)])
    assert good.name == "PeterNeumann"
    assert good.key_id.hex() == "c74f20a3"


def test_the_last_empty_line_splits() -> None:
    note = Note.parse(sign_note(TEXT, [A]).format())
    assert note.text == TEXT
    # A text that looks like a signed note is text all the same.
    inner = sign_note("inner\n", [B]).format().decode()
    outer = Note.parse(sign_note(inner, [A]).format())
    assert outer.text == inner
    with pytest.raises(VerificationFailed) as caught:
        outer.verify([B.verifier])
    assert caught.value.check == "note.unsigned"


def test_a_known_key_with_a_bad_signature_refuses_the_note_whatever_else_it_holds() -> None:
    good = A.sign(TEXT.encode())
    forged = Signature(B.name, B.verifier.key_id, bytes(64))
    for order in ([good, forged], [forged, good]):
        with pytest.raises(VerificationFailed) as caught:
            Note(TEXT, tuple(order)).verify([A.verifier, B.verifier])
        assert caught.value.check == "note.signature"
        # To whom B is unknown the line means nothing.
        assert Note(TEXT, tuple(order)).verify([A.verifier]) == (good,)


def test_a_second_bad_signature_by_the_same_key_refuses_the_note() -> None:
    good = A.sign(TEXT.encode())
    bad = Signature(A.name, A.verifier.key_id, A.sign(b"another text\n").signature)
    for order in ([good, bad], [bad, good]):
        with pytest.raises(VerificationFailed, match=r"note\.signature"):
            Note(TEXT, tuple(order)).verify([A.verifier])


@pytest.mark.parametrize("length", [1, 63, 65, 72, 2420])
def test_a_signature_of_another_length_refuses_the_note(length: int) -> None:
    with pytest.raises(VerificationFailed, match=r"note\.signature"):
        Note(TEXT, (Signature(A.name, A.verifier.key_id, bytes(length)),)).verify([A.verifier])


def test_unknown_signers_and_types_are_ignored() -> None:
    strangers = [
        Signature(A.name, b"\0\0\0\0", b"same name, other key ID"),
        Signature("c.example", A.verifier.key_id, b"same key ID, other name"),
        Signature("witness.example", b"\1\2\3\4", bytes(8) + bytes(64)),  # as a timestamped cosignature looks
        Signature("pq.example", b"\6\6\6\6", bytes(2420)),
    ]
    note = Note.parse(Note(TEXT, (*strangers, A.sign(TEXT.encode()))).format())
    assert len(note.verify([A.verifier])) == 1
    with pytest.raises(VerificationFailed) as caught:
        Note(TEXT, tuple(strangers)).verify([A.verifier])
    assert caught.value.check == "note.unsigned"
    with pytest.raises(VerificationFailed):
        note.verify([])


def test_a_note_may_have_many_signatures_but_not_any_number() -> None:
    signers = [Signer(f"signer{i}.example", bytes([i]) * 32) for i in range(16)]
    note = Note.parse(sign_note(TEXT, signers).format())
    assert len(note.verify([s.verifier for s in signers])) == 16
    stranger = _line("x", b"\0\0\0\0signature")
    assert len(Note.parse(_note(*[stranger] * MAX_SIGNATURES)).signatures) == MAX_SIGNATURES
    with pytest.raises(DecodeError, match="more than"):
        Note.parse(_note(*[stranger] * (MAX_SIGNATURES + 1)))
    with pytest.raises(DecodeError, match="longer than"):
        Note.parse(_note(stranger, text="x" * MAX_NOTE_BYTES + "\n"))


def test_changing_any_byte_of_the_text_refuses_the_note() -> None:
    data = sign_note(TEXT, [A]).format()
    for i in range(len(TEXT)):
        changed = data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]
        with pytest.raises((DecodeError, VerificationFailed)):
            Note.parse(changed).verify([A.verifier])


GOOD_LINE = _line("x", b"\0\0\0\0s")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"\n\n",
        b"text\n",
        b"text\n\n",
        _note(),
        _note(GOOD_LINE)[:-1],
        _note(GOOD_LINE, "\n"),
        _note(GOOD_LINE, text="text"),
        _note(GOOD_LINE.replace("—", "-")),
        _note(GOOD_LINE.replace("—", "–")),
        _note(GOOD_LINE.replace("— ", "—")),
        _note(GOOD_LINE.replace("— ", "—  ")),
        _note(GOOD_LINE.replace("x ", "x  ")),
        _note(GOOD_LINE.replace("x", "x+y", 1)),
        _note(GOOD_LINE.replace("x", "x\u00a0y", 1)),
        _note(GOOD_LINE.replace("x", "x\u2028y", 1)),
        _note(GOOD_LINE.replace("\n", " \n")),
        _note(GOOD_LINE.replace("\n", "\r\n")),
        _note(GOOD_LINE, text="a\ttext\n"),
        _note(GOOD_LINE, text="a text\r\n"),
        _note(GOOD_LINE, text="a\0text\n"),
        _note("— x AAAAAHM\n"),
        _note("— x AAAAAHN=\n"),
        _note("— x AAAAA$HM=\n"),
        _note("— x AAAAAHM==\n"),
        _note("— x AAAA_-M=\n"),
        _note("— x \n"),
        _note("— x\n"),
        _note(_line("x", b"\0\0\0\0")),
        _note(GOOD_LINE).replace(b"text", b"t\xffxt"),
        _note(GOOD_LINE).replace(b"text", b"t\xed\xa0\x80xt"),
    ],
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Note.parse(data)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda s: s.encode("utf-8", "surrogatepass"))))
def test_any_bytes_decode_to_themselves_or_are_refused(data: bytes) -> None:
    try:
        note = Note.parse(data)
    except DecodeError:
        return
    assert note.format() == data


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_changed_note_never_verifies_with_another_text(data: st.DataObject) -> None:
    original = sign_note(TEXT, [A, B]).format()
    at = data.draw(st.integers(0, len(original)))
    cut = data.draw(st.integers(0, 3))
    changed = original[:at] + data.draw(st.binary(max_size=3)) + original[at + cut :]
    try:
        note = Note.parse(changed)
        assert note.format() == changed
        note.verify([A.verifier])
    except (DecodeError, VerificationFailed):
        return
    assert note.text == TEXT


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        PETER_VKEY + "+",
        PETER_VKEY + " ",
        PETER_VKEY + "\n",
        PETER_VKEY.replace("PeterNeumann", ""),
        PETER_VKEY.replace("PeterNeumann", "Peter Neumann"),
        PETER_VKEY.replace("PeterNeumann", "PeterNeumanm"),
        PETER_VKEY.replace("c74f20a3", "C74F20A3"),
        PETER_VKEY.replace("c74f20a3", "c74f20a4"),
        PETER_VKEY.replace("c74f20a3", ""),
        PETER_VKEY.replace("+ARpc", "+BBpc"),
        PETER_VKEY.replace("+ARpc", "+AhpcAA"),
        PETER_VKEY[:-4],
        PETER_VKEY[:-1] + "=",
        PETER_KEY,
    ],
)
def test_malformed_verifier_keys_are_refused(vkey: str) -> None:
    with pytest.raises(DecodeError):
        Verifier.parse(vkey)


def test_a_cosigner_key_is_not_taken_for_a_signing_key() -> None:
    """Types other than 01 verify something else than the bare text."""
    key = bytes([4]) + A.verifier.public_key
    for what in (f"a+00000000+{base64.b64encode(key).decode()}", PETER_VKEY.replace("+ARpc", "+BBpc")):
        with pytest.raises(DecodeError, match="type 01"):
            Verifier.parse(what)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(max_size=6).map(lambda s: PETER_VKEY + s)))
def test_any_string_is_a_key_that_prints_so_or_refused(text: str) -> None:
    with contextlib.suppress(DecodeError):
        assert str(Verifier.parse(text)) == text
    with pytest.raises(DecodeError):
        Signer.parse(text)


def test_two_verifiers_of_one_identity_are_a_mistake() -> None:
    note = sign_note(TEXT, [A])
    with pytest.raises(UsageError):
        note.verify([A.verifier, A.verifier])


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "carriage\r\n", "lone \ud800\n"])
def test_texts_that_cannot_be_notes_are_not_signed(text: str) -> None:
    with pytest.raises(UsageError):
        sign_note(text, [A])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u3000b", "a\ud800"])
def test_names_that_cannot_be_keys_are_refused(name: str) -> None:
    with pytest.raises(UsageError):
        Signer(name, bytes(32))
    with pytest.raises(UsageError):
        Signature(name, bytes(4), b"s")
    with pytest.raises(UsageError):
        Verifier(name, bytes(32))


def test_a_note_without_signers_is_refused() -> None:
    with pytest.raises(UsageError):
        sign_note(TEXT, [])


class TestKeyFiles:
    def test_a_saved_key_signs_the_same_and_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        previous = os.umask(0)
        try:
            A.save(tmp_path / "key")
        finally:
            os.umask(previous)
        assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600
        assert Signer.load(tmp_path / "key").sign(b"x\n") == A.sign(b"x\n")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
    def test_a_key_that_others_may_open_is_not_used(self, tmp_path: Path, mode: int) -> None:
        A.save(tmp_path / "key")
        (tmp_path / "key").chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            Signer.load(tmp_path / "key")

    def test_a_key_is_never_overwritten(self, tmp_path: Path) -> None:
        A.save(tmp_path / "key")
        before = (tmp_path / "key").read_bytes()
        with pytest.raises(StorageError, match="exists already"):
            B.save(tmp_path / "key")
        assert (tmp_path / "key").read_bytes() == before

    def test_missing_files_and_folders_are_reported(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError):
            Signer.load(tmp_path / "key")
        with pytest.raises(StorageError):
            A.save(tmp_path / "none" / "key")

    @pytest.mark.parametrize("change", ["truncate", "no newline", "second line", "other name", "not utf-8"])
    def test_a_damaged_key_file_is_refused_without_being_quoted(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "key"
        A.save(path)
        data = path.read_bytes()
        path.write_bytes(
            {
                "truncate": data[:-10] + b"\n",
                "no newline": data[:-1],
                "second line": data + b"x\n",
                "other name": data.replace(b"a.example", b"b.example"),
                "not utf-8": b"\xff" + data,
            }[change]
        )
        with pytest.raises(DecodeError) as caught:
            Signer.load(path)
        assert "AQAAAAAA" not in str(caught.value)

    def test_the_secret_does_not_print_pickle_or_copy(self) -> None:
        signer = Signer.generate("s.example")
        seed = signer._seed
        for shown in (repr(signer), str(signer), repr(signer.verifier)):
            assert seed.hex() not in shown
            assert base64.b64encode(seed).decode() not in shown
        with pytest.raises(LedgerError):
            pickle.dumps(signer)
        with pytest.raises(LedgerError):
            copy.copy(signer)

    def test_generated_keys_differ(self) -> None:
        assert Signer.generate("s.example").verifier != Signer.generate("s.example").verifier
