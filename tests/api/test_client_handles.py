"""Record handles: blinded, committed in patient order, and openable one at a time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from api.client.handles import SALT_BYTES, RecordHandles
from ledger import leaf_hash, verify_inclusion
from privacy.errors import DecodeError, UsageError

IDS = ("ann", "béa", "患者", "d" * 300, "5")


@pytest.mark.parametrize("count", range(1, 6))
def test_every_record_can_be_shown_to_be_in_its_place(count: int) -> None:
    handles = RecordHandles.draw(IDS[:count])
    for index, (salt, record) in enumerate(zip(handles.salts, IDS, strict=False)):
        handle = hashlib.sha256(salt + record.encode("utf-8")).digest()
        assert handles.handles[index] == handle
        verify_inclusion(leaf_hash(handle), index, count, handles.path(index), handles.root)


def test_salts_are_fresh_and_long_enough() -> None:
    first, second = RecordHandles.draw(IDS), RecordHandles.draw(IDS)
    assert len({*first.salts, *second.salts}) == 2 * len(IDS)
    assert {len(salt) for salt in first.salts} == {SALT_BYTES} == {16}
    assert first.root != second.root


def test_they_are_kept_privately(tmp_path: Path) -> None:
    handles = RecordHandles.draw(IDS)
    path = tmp_path / "handles.json"
    handles.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert RecordHandles.load(path) == handles
    assert "ann" not in repr(handles)
    path.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        RecordHandles.load(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "handles.json"
    RecordHandles.draw(IDS).save(path)
    good = path.read_bytes()
    for bad in (b"", good[:-1], good + b" ", good.replace(b'"ann"', b'"b\xc3\xa9a"'), good.replace(b'"ann",', b"")):
        path.write_bytes(bad)
        with pytest.raises((DecodeError, UsageError)):
            RecordHandles.load(path)


def test_what_does_not_pair_is_refused() -> None:
    for ids, salts in (((), ()), (("a", "a"), (bytes(16),) * 2), (("a",), ()), (("a",), (bytes(15),))):
        with pytest.raises(UsageError):
            RecordHandles(ids, salts)
    with pytest.raises(Exception, match="no index 1"):
        RecordHandles.draw(("a",)).path(1)
