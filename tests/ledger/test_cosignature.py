"""Cosignatures: one made by a real witness, what is signed, what is refused, and keys of one type for life."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import os
import pickle
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.cosignature import MAX_TIME, CosignatureVerifier, Cosigner, with_cosignatures
from ledger.errors import DecodeError, LedgerError, UsageError, VerificationFailed
from ledger.note import MAX_SIGNATURES, Note, Signature, Signer, Verifier
from ledger.note_keys import PublicKey
from tests.support.lying_log import text_of

LOG = Signer("log.example/test", bytes(range(32)))
WITNESS = Cosigner("witness.example/w1", bytes([7]) * 32)
HEAD = sign_checkpoint(Checkpoint(LOG.name, 5, bytes(32)), LOG)
TEXT = text_of(HEAD)
TIME = 1_700_000_000

# A checkpoint of a public log, cosigned by four public witnesses on 2026-05-23; the keys are of the log and of one.
PUBLIC = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwt\
EroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA2\
3oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v\
7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE\
0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWf\
Bw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/\
TmN9DAg==
""".encode()
PUBLIC_LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
PUBLIC_WITNESS = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"


def _refused(verifier: CosignatureVerifier, text: bytes, signature: bytes) -> None:
    with pytest.raises(VerificationFailed) as caught:
        verifier.verify(text, signature)
    assert caught.value.check == "note.signature"


class TestAPublicWitness:
    def test_its_cosignature_of_a_public_log_holds(self) -> None:
        witness, log = CosignatureVerifier.parse(PUBLIC_WITNESS), Verifier.parse(PUBLIC_LOG)
        note = Note.parse(PUBLIC)
        assert note.format() == PUBLIC
        by_log, by_witness = note.verify([log, witness])
        assert (by_log.name, by_witness.name) == (log.name, witness.name)
        assert witness.time(by_witness.signature) == 0x6A122120
        assert Checkpoint.parse(note.text).size == 1_432_088_532

    def test_it_holds_for_no_other_size_root_origin_or_time(self) -> None:
        witness = CosignatureVerifier.parse(PUBLIC_WITNESS)
        (good,) = Note.parse(PUBLIC).verify([witness])
        text = text_of(PUBLIC)
        witness.verify(text, good.signature)
        for i in range(len(text)):
            _refused(witness, text[:i] + bytes([text[i] ^ 1]) + text[i + 1 :], good.signature)
        for i in range(len(good.signature)):
            changed = bytearray(good.signature)
            changed[i] ^= 1
            _refused(witness, text, bytes(changed))


def test_the_signed_message_and_the_key_id_are_those_of_the_format() -> None:
    """Built again here from the format's words."""
    key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
    public = key.public_key().public_bytes_raw()
    message = b"cosignature/v1\ntime 1700000000\nlog.example/test\n5\n" + base64.b64encode(bytes(32)) + b"\n"
    made = WITNESS.cosign(TEXT, TIME)
    assert made.signature == (TIME).to_bytes(8, "big") + key.sign(message)
    assert made.key_id == hashlib.sha256(b"witness.example/w1\n\x04" + public).digest()[:4]
    vkey = f"witness.example/w1+{made.key_id.hex()}+{base64.b64encode(bytes([4]) + public).decode()}"
    assert str(WITNESS.verifier) == vkey
    assert CosignatureVerifier.parse(vkey) == WITNESS.verifier


def test_extension_lines_are_signed_too() -> None:
    head = sign_checkpoint(Checkpoint(LOG.name, 5, bytes(32), ("extended",)), LOG)
    made = WITNESS.cosign(text_of(head), TIME)
    WITNESS.verifier.verify(text_of(head), made.signature)
    _refused(WITNESS.verifier, TEXT, made.signature)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, MAX_TIME), st.integers(1, MAX_TIME))
def test_a_cosignature_holds_for_its_own_time_only(time: int, other: int) -> None:
    made = WITNESS.cosign(TEXT, time)
    WITNESS.verifier.verify(TEXT, made.signature)
    assert WITNESS.verifier.time(made.signature) == time
    if other != time:
        _refused(WITNESS.verifier, TEXT, other.to_bytes(8, "big") + made.signature[8:])


@pytest.mark.parametrize("time", [0, -1, MAX_TIME + 1])
def test_times_that_the_format_does_not_have_are_neither_signed_nor_believed(time: int) -> None:
    with pytest.raises(UsageError):
        WITNESS.cosign(TEXT, time)
    if time >= 0:
        key = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)
        _refused(WITNESS.verifier, TEXT, time.to_bytes(8, "big") + key.sign(b"cosignature/v1\ntime %d\n" % time + TEXT))


@pytest.mark.parametrize("length", [0, 1, 7, 8, 64, 71, 73, 2428])
def test_a_cosignature_of_another_length_is_refused(length: int) -> None:
    _refused(WITNESS.verifier, TEXT, bytes([1]) * length)
    with pytest.raises(VerificationFailed):
        WITNESS.verifier.time(bytes([1]) * length)


@pytest.mark.parametrize("text", [b"", b"x\n", b"any\ntext\nat all\n", TEXT[:-1], TEXT + b"\n", b"\xff\n5\n"])
def test_nothing_but_a_checkpoint_is_cosigned(text: bytes) -> None:
    with pytest.raises(DecodeError):
        WITNESS.cosign(text, TIME)


class TestTypes:
    def test_a_key_of_one_type_is_not_read_as_the_other(self) -> None:
        log_key, witness_key = str(LOG.verifier), str(WITNESS.verifier)
        with pytest.raises(DecodeError, match="type 04 but 01"):
            CosignatureVerifier.parse(log_key)
        with pytest.raises(DecodeError, match="type 01 but 04"):
            Verifier.parse(witness_key)
        # Nor with the type byte or the key ID of the other.
        name, key_id, encoded = log_key.split("+", 2)
        retyped = base64.b64encode(b"\4" + base64.b64decode(encoded)[1:]).decode()
        with pytest.raises(DecodeError, match="key ID"):
            CosignatureVerifier.parse(f"{name}+{key_id}+{retyped}")

    def test_other_types_are_refused_by_their_number(self) -> None:
        for kind in (0, 2, 5, 6, 255):
            encoded = base64.b64encode(bytes([kind]) + WITNESS.verifier.public_key).decode()
            with pytest.raises(DecodeError, match=f"type 04 but {kind:02x}"):
                CosignatureVerifier.parse(f"w+00000000+{encoded}")

    def test_keys_of_different_types_are_never_equal(self) -> None:
        one: PublicKey = Verifier("name", bytes(32))
        other: PublicKey = CosignatureVerifier("name", bytes(32))
        assert one != other
        assert one.key_id != other.key_id
        assert len({one, other}) == 2

    def test_a_signature_of_one_type_does_not_hold_as_the_other(self) -> None:
        seed = bytes([9]) * 32
        signer, cosigner = Signer("both.example", seed), Cosigner("both.example", seed)
        text = text_of(sign_checkpoint(Checkpoint("both.example", 5, bytes(32)), signer))
        bare = signer.sign(text).signature
        _refused(cosigner.verifier, text, bare)
        _refused(cosigner.verifier, text, TIME.to_bytes(8, "big") + bare)
        with pytest.raises(VerificationFailed):
            signer.verifier.verify(text, cosigner.cosign(text, TIME).signature)
        with pytest.raises(VerificationFailed):
            signer.verifier.verify(text, cosigner.cosign(text, TIME).signature[8:])

    def test_a_log_ignores_cosignatures_and_a_witness_the_log(self) -> None:
        note = Note.parse(with_cosignatures(HEAD, [WITNESS.cosign(TEXT, TIME)]))
        assert [s.name for s in note.verify([LOG.verifier])] == [LOG.name]
        assert [s.name for s in note.verify([WITNESS.verifier])] == [WITNESS.name]
        assert len(note.verify([LOG.verifier, WITNESS.verifier])) == 2


class TestWithCosignatures:
    def test_lines_are_added_at_the_end_and_nothing_else_changes(self) -> None:
        other = Cosigner("witness.example/w2", bytes(32))
        lines = [WITNESS.cosign(TEXT, TIME), other.cosign(TEXT, TIME + 1)]
        assert with_cosignatures(HEAD, lines) == HEAD + "".join(s.line() for s in lines).encode()
        assert with_cosignatures(HEAD, []) == HEAD

    def test_a_key_that_has_a_line_gets_no_second_one(self) -> None:
        first, second = WITNESS.cosign(TEXT, TIME), WITNESS.cosign(TEXT, TIME + 9)
        once = with_cosignatures(HEAD, [first, second])
        assert once == HEAD + first.line().encode()
        assert with_cosignatures(once, [second]) == once

    def test_what_is_no_note_and_what_does_not_fit_is_refused(self) -> None:
        with pytest.raises(DecodeError):
            with_cosignatures(b"garbage", [])
        many = [Signature(f"s{i}", bytes(4), b"x") for i in range(MAX_SIGNATURES)]
        with pytest.raises(UsageError):
            with_cosignatures(HEAD, many)


class TestKeyFiles:
    def test_a_saved_key_cosigns_the_same_and_is_readable_by_its_owner_only(self, tmp_path: Path) -> None:
        previous = os.umask(0)
        try:
            WITNESS.save(tmp_path / "key")
        finally:
            os.umask(previous)
        assert (tmp_path / "key").stat().st_mode & 0o7777 == 0o600
        assert Cosigner.load(tmp_path / "key").cosign(TEXT, TIME) == WITNESS.cosign(TEXT, TIME)
        (tmp_path / "key").chmod(0o640)
        with pytest.raises(UsageError, match="chmod 600"):
            Cosigner.load(tmp_path / "key")

    def test_the_key_file_of_a_log_is_none_of_a_witness_and_the_other_way_round(self, tmp_path: Path) -> None:
        LOG.save(tmp_path / "log")
        WITNESS.save(tmp_path / "witness")
        with pytest.raises(DecodeError, match="type 04 but 01"):
            Cosigner.load(tmp_path / "log")
        with pytest.raises(DecodeError, match="type 01 but 04"):
            Signer.load(tmp_path / "witness")

    def test_the_secret_does_not_print_pickle_or_copy(self) -> None:
        made = Cosigner.generate("w.example")
        for shown in (repr(made), str(made), repr(made.verifier)):
            assert made._seed.hex() not in shown
            assert base64.b64encode(made._seed).decode() not in shown
        with pytest.raises(LedgerError):
            pickle.dumps(made)
        with pytest.raises(LedgerError):
            copy.copy(made)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), st.text(max_size=6).map(lambda s: PUBLIC_WITNESS + s)))
def test_any_string_is_a_key_that_prints_so_or_refused(text: str) -> None:
    with contextlib.suppress(DecodeError):
        assert str(CosignatureVerifier.parse(text)) == text
    with pytest.raises(DecodeError):
        Cosigner.parse(text)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_cosignature(signature: bytes) -> None:
    _refused(WITNESS.verifier, TEXT, signature)
