"""What hospitals sign, the governance file, and the files in which signatures are passed on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.approval_entries import Approval, ApprovalScope, ApprovalSignature, sign_digest, verify_approval, verify_digest
from api.client.governance import (
    SignedAct,
    approval_of,
    create_hospital_key,
    load_act,
    load_hospital_key,
    sign_act,
)
from api.entries import Reference
from api.governance import Governance
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.support import bundles
from tests.support.hospitals import (
    CHAIN,
    CONTRACT,
    GOVERNANCE,
    HOSPITALS,
    KEYS,
    ORDER,
    STRANGER,
    approval,
    key_of,
)

ORIGIN = bundles.ORIGIN
MODEL = Reference(3, bytes(range(32)))


# -- what is signed ---------------------------------------------------------------------------------------------------


def test_the_digest_is_what_the_documentation_says() -> None:
    from hashlib import sha256

    scope = ApprovalScope(1, bytes(range(20)), "log.example/sealproof")
    place = (3).to_bytes(8, "big") + bytes(range(32))
    bound = (1).to_bytes(32, "big") + bytes(range(20)) + sha256(b"log.example/sealproof").digest() + place
    assert scope.approval_digest(MODEL) == sha256(b"sealproof/approval/v1\n" + bound).digest()
    assert scope.withdrawal_digest(MODEL) == sha256(b"sealproof/withdrawal/v1\n" + bound).digest()


def test_signatures_have_low_s_and_one_spelling() -> None:
    for number in range(20):
        digest = number.to_bytes(32, "big")
        signature = sign_digest(digest, HOSPITALS[0])
        verify_digest(digest, KEYS[0], signature)
        s = int.from_bytes(signature[32:], "big")
        assert 0 < s <= ORDER // 2
        high = signature[:32] + (ORDER - s).to_bytes(32, "big")
        with pytest.raises(UsageError, match="above n/2"):
            verify_digest(digest, KEYS[0], high)
        with pytest.raises(VerificationFailed, match="not signed by"):
            verify_digest(digest, KEYS[1], signature)


def number(value: int) -> bytes:
    return value.to_bytes(32, "big")


@pytest.mark.parametrize(
    "signature",
    [
        bytes(63),
        bytes(65),
        bytes(64),
        number(1) + number(0),
        number(0) + number(1),
        number(ORDER) + number(1),
        number(1) + number(ORDER),
        number(1) + number(ORDER // 2 + 1),
        b"\xff" * 64,
    ],
    ids=["short", "long", "zeros", "s-0", "r-0", "r-n", "s-n", "s-high", "ones"],
)
def test_a_signature_in_another_spelling_is_no_signature(signature: bytes) -> None:
    with pytest.raises(UsageError):
        ApprovalSignature(KEYS[0], signature)


@pytest.mark.parametrize(
    "key",
    [bytes(33), b"\x04" + KEYS[0][1:], b"\x02" + b"\xff" * 32, b"\x02" + number(5), KEYS[0][:32], KEYS[0] + b"\0"],
    ids=["zeros", "uncompressed-tag", "above-p", "off-curve", "short", "long"],
)
def test_a_key_that_is_no_compressed_point_is_no_key(key: bytes) -> None:
    signature = sign_digest(bytes(32), HOSPITALS[0])
    with pytest.raises(UsageError):
        ApprovalSignature(key, signature)
    with pytest.raises(UsageError):
        Governance(CHAIN, CONTRACT, 1, (key,))


def test_an_entry_lists_enough_signatures_each_once_in_order() -> None:
    honest = approval(MODEL, ORIGIN, HOSPITALS)
    first, second, third = honest.signatures
    for signed, threshold in (
        ((second, first), 2),
        ((first, first), 2),
        ((first,), 2),
        ((), 1),
        ((first, second, third), 4),
        ((first,) * 33, 1),
    ):
        with pytest.raises(UsageError):
            replace(honest, signatures=signed, threshold=threshold)
    verify_approval(honest, ORIGIN)
    with pytest.raises(VerificationFailed, match="not signed by"):
        verify_approval(honest, "log.example/other")


# -- the file ---------------------------------------------------------------------------------------------------------


def written(**changes: Any) -> bytes:
    said = {"chain": 1, "contract": f"0x{CONTRACT.hex()}", "threshold": 2, "hospitals": [key.hex() for key in KEYS]}
    return json.dumps(said | changes).encode()


def test_a_governance_file_reads_back_as_itself(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_bytes(GOVERNANCE.encode())
    assert Governance.load(tmp_path / "g.json") == GOVERNANCE
    assert Governance.parse(written()) == replace(GOVERNANCE, chain=1)
    with pytest.raises(UsageError, match="cannot read"):
        Governance.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 5000,
        written(chain="1"),
        written(chain=0),
        written(chain=1.0),
        written(contract=CONTRACT.hex()),
        written(contract="0x12"),
        written(threshold=0),
        written(threshold=4),
        written(hospitals=[]),
        written(hospitals=[KEYS[0].hex()] * 3),
        written(hospitals=[KEYS[0].hex().upper()], threshold=1),
        written(hospitals=["02" + "00" * 32], threshold=1),
        written(more=1),
        written()[:-1] + b', "threshold": 1}',
        written(hospitals=[KEYS[0].hex()] * 400),
    ],
    ids=lambda data: str(len(data)) + data[-12:].decode(),
)
def test_what_is_no_governance_file_is_refused_with_the_reason(data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        Governance.parse(data)
    assert caught.value.what == "governance file" and caught.value.reason


def test_hospitals_are_counted_and_not_signatures() -> None:
    signed = approval(MODEL, ORIGIN, [*HOSPITALS[:2], STRANGER])
    assert GOVERNANCE.signers(signed) == KEYS[:2] == GOVERNANCE.check(signed)
    with pytest.raises(VerificationFailed, match=r"approval\.threshold"):
        GOVERNANCE.check(approval(MODEL, ORIGIN, [HOSPITALS[0], STRANGER]))


# -- a hospital's side ------------------------------------------------------------------------------------------------


def test_a_hospitals_key_is_kept_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "key"
    public = create_hospital_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_of(load_hospital_key(path)) == public
    with pytest.raises(UsageError, match="never overwritten"):
        create_hospital_key(path)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="accessible to others"):
        load_hospital_key(path)
    for text in ("", "0" * 64, f"{ORDER:064x}", "0x" + "1" * 62, "1" * 63, "1" * 66):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(DecodeError) as caught:
            load_hospital_key(path)
        assert "1111" not in str(caught.value)


def act(which: Any = "approve", hospital: int = 0, **changes: Any) -> SignedAct:
    return replace(sign_act(which, GOVERNANCE, ORIGIN, MODEL, HOSPITALS[hospital]), **changes)


def test_signed_acts_are_checked_whenever_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "act.json"
    for which in ("approve", "withdraw"):
        path.write_bytes(act(which).encode())
        assert load_act(path).act == which
    for changes in (
        {"act": "approve" if which == "withdraw" else "withdraw"},
        {"chain": 2},
        {"contract": bytes(20)},
        {"origin": "log.example/other"},
        {"model": Reference(4, MODEL.leaf)},
        {"key": KEYS[1]},
    ):
        path.write_bytes(replace(act(which), **changes).encode())
        with pytest.raises(VerificationFailed, match="not signed by"):
            load_act(path)
    path.write_bytes(replace(act(), signature=b"\xff" * 64).encode())
    with pytest.raises(DecodeError, match="group order"):
        load_act(path)
    path.write_bytes(act().encode() + b"\n")
    with pytest.raises(DecodeError):
        load_act(path)
    with pytest.raises(UsageError, match="does not list the key"):
        sign_act("approve", GOVERNANCE, ORIGIN, MODEL, STRANGER)


def test_approvals_of_one_model_make_an_entry() -> None:
    made = approval_of([act(hospital=1), act(hospital=0), act(hospital=1)], GOVERNANCE, ORIGIN)
    assert isinstance(made, Approval)
    verify_approval(made, ORIGIN)
    assert GOVERNANCE.check(made) == KEYS[:2]


@pytest.mark.parametrize(
    ("acts", "check"),
    [
        ([], "threshold"),
        ([act()], "threshold"),
        ([act(), act()], "threshold"),
        ([act(), act("withdraw", 1)], "act"),
        ([act(), act(hospital=1, model=Reference(4, MODEL.leaf))], "model"),
        ([act(), act(hospital=1, chain=2)], "chain"),
        ([act(), act(hospital=1, contract=bytes(20))], "contract"),
        ([act(), act(hospital=1, origin="log.example/other")], "log"),
        ([act(), act(hospital=1, key=key_of(STRANGER))], "hospital"),
    ],
    ids=["none", "one", "one-twice", "withdrawal", "model", "chain", "contract", "log", "stranger"],
)
def test_what_makes_no_entry_together_is_refused(acts: list[SignedAct], check: str) -> None:
    with pytest.raises(VerificationFailed) as caught:
        approval_of(acts, GOVERNANCE, ORIGIN)
    assert caught.value.check == f"approval.{check}"
