"""Bundles: one set of members is one file, and nothing else is a bundle.

`zipped` builds archives with Python's zipfile, which shares no code with the writer; most refusals are of archives that
zipfile itself opens without complaint.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy import bundle
from privacy.bundle import BundleReader, BundleWriter
from privacy.errors import DecodeError, UsageError, VerificationFailed

ATTESTATION = b'{"payload":"..."}'
ENTRIES = {2: (b"entry two", b"proof two"), 10: (b"entry ten", b"proof ten")}
CONSISTENCY = b"sealproof/consistency/v1\nold 3\nnew 11\n"
BLOBS = sorted(
    (b"result ciphertext", b"proof bytes", b"", bytes(range(256)) * 3), key=lambda b: hashlib.sha256(b).digest()
)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def blob(data: bytes) -> tuple[str, bytes]:
    return f"blobs/{sha256(data).hex()}", data


MEMBERS: list[tuple[str, bytes]] = [
    ("attestation.json", ATTESTATION),
    ("entries/2.json", b"entry two"),
    ("entries/2.tlog-proof", b"proof two"),
    ("entries/10.json", b"entry ten"),
    ("entries/10.tlog-proof", b"proof ten"),
    ("log/consistency", CONSISTENCY),
    *map(blob, BLOBS),
]


def info(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = 0o100644 << 16
    member.create_system = 3
    return member


def zipped(members: Iterable[tuple[str | zipfile.ZipInfo, bytes]], comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = comment
        for member, data in members:
            archive.writestr(info(member) if isinstance(member, str) else member, data)
    return file.getvalue()


def write(path: Path, blobs: Iterable[bytes] = BLOBS, indices: Iterable[int] = tuple(ENTRIES)) -> None:
    with BundleWriter(path) as writer:
        for data in blobs:
            writer.add_blob(data)
        for index in indices:
            writer.add_entry(index, *ENTRIES[index])
        writer.set_consistency_proof(CONSISTENCY)
        writer.set_attestation(ATTESTATION)


def written(path: Path, blobs: Iterable[bytes] = BLOBS, indices: Iterable[int] = tuple(ENTRIES)) -> bytes:
    write(path, blobs, indices)
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "case.sealproof"


def read_all(path: Path) -> dict[str, bytes]:
    with BundleReader(path) as reader:
        reader.check()
        entries = {i: (reader.entry(i), reader.inclusion_proof(i)) for i in reader.entry_indices()}
        return {
            "attestation": reader.attestation(),
            "consistency": reader.consistency_proof(),
            **{f"{i}.{part}": data for i, both in entries.items() for part, data in zip("ep", both, strict=True)},
            **{digest.hex(): reader.blob(digest) for digest in reader.blob_digests()},
        }


def refused(path: Path, data: bytes, reason: str = ".") -> None:
    path.write_bytes(data)
    with pytest.raises(DecodeError, match=reason):
        BundleReader(path)


# -- what a bundle is -------------------------------------------------------------------------------------------------


def test_a_bundle_reads_back(path: Path) -> None:
    write(path)
    with BundleReader(path) as reader:
        assert reader.attestation() == ATTESTATION
        assert reader.entry_indices() == (2, 10)
        assert (reader.entry(10), reader.inclusion_proof(10)) == ENTRIES[10]
        assert reader.consistency_proof() == CONSISTENCY
        assert [reader.blob(digest) for digest in reader.blob_digests()] == BLOBS
        assert reader.has(sha256(b"proof bytes"))
        assert not reader.has(sha256(b"other"))
        assert not reader.has(b"")
        reader.check()


def test_the_layout_is_the_one_that_zipfile_writes_for_the_same_members(path: Path) -> None:
    assert written(path) == zipped(MEMBERS)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert [(name, archive.read(name)) for name in archive.namelist()] == MEMBERS


def test_the_order_of_adding_does_not_matter(path: Path) -> None:
    first = written(path)
    assert written(path, [*reversed(BLOBS), BLOBS[1]], [10, 2, 10]) == first


def test_missing_members_are_refused_by_name(path: Path) -> None:
    write(path)
    with BundleReader(path) as reader:
        with pytest.raises(DecodeError, match=r"entries/3\.json is missing"):
            reader.entry(3)
        with pytest.raises(DecodeError, match=r"entries/3\.tlog-proof is missing"):
            reader.inclusion_proof(3)
        with pytest.raises(DecodeError, match="is missing"):
            reader.blob(sha256(b"other"))


def test_a_bundle_without_consistency_proof_can_be_opened_and_says_so(path: Path) -> None:
    path.write_bytes(zipped([member for member in MEMBERS if member[0] != "log/consistency"]))
    with BundleReader(path) as reader, pytest.raises(DecodeError, match="log/consistency is missing"):
        reader.consistency_proof()


def test_a_path_that_does_not_exist_is_the_systems_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        BundleReader(path)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_failed_writer_leaves_nothing_and_replaces_nothing(path: Path) -> None:
    before = written(path)
    with pytest.raises(RuntimeError), BundleWriter(path) as writer:
        writer.set_attestation(b"other")
        raise RuntimeError
    with pytest.raises(UsageError, match="needs an attestation"), BundleWriter(path) as writer:
        writer.add_blob(b"x")
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_crash_while_the_file_is_written_leaves_the_old_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(path)

    def full(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write(path, [b"other"])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_members_are_not_overwritten_with_other_contents(path: Path) -> None:
    with BundleWriter(path) as writer:
        writer.set_attestation(ATTESTATION)
        writer.set_attestation(ATTESTATION)
        writer.add_entry(2, *ENTRIES[2])
        with pytest.raises(UsageError, match=r"entries/2\.json: was added"):
            writer.add_entry(2, b"entry TWO", b"proof two")
        with pytest.raises(UsageError, match=r"entries/2\.tlog-proof: was added"):
            writer.add_entry(2, b"entry two", b"proof TWO")
        with pytest.raises(UsageError, match=r"attestation\.json: was added"):
            writer.set_attestation(b"other")
        writer.set_consistency_proof(CONSISTENCY)
        with pytest.raises(UsageError, match="log/consistency: was added"):
            writer.set_consistency_proof(b"other")


@pytest.mark.parametrize("index", [-1, 2**53, 10**16])
def test_an_impossible_index_is_not_written(path: Path, index: int) -> None:
    with BundleWriter(path) as writer:
        writer.set_attestation(ATTESTATION)
        with pytest.raises(UsageError):
            writer.add_entry(index, b"", b"")


def test_oversized_members_are_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MAX_BLOB_BYTES", 100)
    with BundleWriter(path) as writer:
        writer.set_attestation(ATTESTATION)
        writer.add_entry(0, bytes(65_535), bytes(65_536))
        writer.add_blob(bytes(100))
        for add in (
            lambda: writer.add_blob(bytes(101)),
            lambda: writer.set_attestation(bytes(2**20 + 1)),
            lambda: writer.add_entry(1, bytes(65_536), b""),
            lambda: writer.add_entry(1, b"", bytes(65_537)),
            lambda: writer.set_consistency_proof(bytes(2**14 + 1)),
        ):
            with pytest.raises(UsageError, match="are allowed"):
                add()


def test_a_bundle_beyond_zip_without_zip64_is_not_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, value in (("MAX_MEMBERS", len(MEMBERS) - 1), ("MAX_BUNDLE_BYTES", len(zipped(MEMBERS)) - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(bundle, limit, value)
            with pytest.raises(UsageError, match="too many for one bundle"):
                write(path)
        write(path)
        with monkeypatch.context() as patch:
            patch.setattr(bundle, limit, value)
            with pytest.raises(DecodeError):
                BundleReader(path)


def test_memory_does_not_grow_with_the_cohort(path: Path) -> None:
    size, count = 1 << 17, 160

    def blobs() -> Iterator[bytes]:
        return (i.to_bytes(4, "big") * (size // 4) for i in range(count))

    write(path, blobs())
    tracemalloc.start()
    try:
        write(path, blobs())
        read = 0
        with BundleReader(path) as reader:
            for digest in reader.blob_digests():
                read += len(reader.blob(digest))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == size * count > 20_000_000
    assert peak < 3_000_000


# -- archives that zipfile opens and that are not bundles -------------------------------------------------------------


def opened_by_zipfile(data: bytes) -> bytes:
    """The same bytes, after zipfile has shown that it does not mind them."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.namelist()
    return data


def test_duplicate_names_are_refused(path: Path) -> None:
    for twice in (0, 1, 5):
        with pytest.warns(UserWarning, match="Duplicate name"):
            data = zipped([*MEMBERS[: twice + 1], (MEMBERS[twice][0], b"second"), *MEMBERS[twice + 1 :]])
        refused(path, opened_by_zipfile(data), "twice, or out of order")


def test_another_order_is_refused(path: Path) -> None:
    for i in range(len(MEMBERS) - 1):
        swapped = [*MEMBERS[:i], MEMBERS[i + 1], MEMBERS[i], *MEMBERS[i + 2 :]]
        refused(path, opened_by_zipfile(zipped(swapped)), "twice, or out of order")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_is_refused(path: Path, method: int) -> None:
    compressed = info("attestation.json")
    compressed.compress_type = method
    refused(path, opened_by_zipfile(zipped([(compressed, ATTESTATION), *MEMBERS[1:]])), "not stored plainly")


def test_a_zip_bomb_is_refused_unread(path: Path) -> None:
    bomb = info(f"blobs/{'0' * 64}")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    refused(path, zipped([MEMBERS[0], (bomb, bytes(20_000_000))]), "at most 16777216")


@pytest.mark.parametrize(
    "name",
    [
        "/attestation.json",
        "../attestation.json",
        "entries/../attestation.json",
        "./attestation.json",
        "attestation.json/",
        "attestation.json\n",
        "Attestation.json",
        "entries/02.json",
        "log/consistency.txt",
        "log/",
        "entries/-1.json",
        "entries/1.txt",
        "entries/9007199254740992.json",
        "entries/١.json",
        "blobs/" + "A" * 64,
        "blobs/" + "a" * 63,
        "blobs/" + "a" * 65,
        "blobs\\" + "a" * 64,
        "blobs/",
        "note.txt",
        "",
    ],
)
def test_names_outside_the_closed_set_are_refused(path: Path, name: str) -> None:
    refused(path, zipped([*MEMBERS, (name, b"")]), "name of a member|index is larger")


def test_no_attestation_no_proof_of_inclusion_no_entry_are_refused(path: Path) -> None:
    refused(path, zipped([]), r"no attestation\.json")
    refused(path, zipped(MEMBERS[1:]), r"no attestation\.json")
    refused(path, zipped([m for m in MEMBERS if m[0] != "entries/2.tlog-proof"]), r"entries/2\.json without")
    refused(path, zipped([m for m in MEMBERS if m[0] != "entries/2.json"]), r"entries/2\.tlog-proof without")


def test_comments_times_attributes_and_extra_fields_are_refused(path: Path) -> None:
    plain = zipped(MEMBERS)
    refused(path, opened_by_zipfile(zipped(MEMBERS, comment=b"hello")), "end record")
    for field, value in (
        ("comment", b"hello"),
        ("extra", b"\x99\x99\x04\x00abcd"),
        ("date_time", (2026, 1, 1, 0, 0, 0)),
        ("external_attr", 0o100755 << 16),
        ("external_attr", 0o120777 << 16),
        ("internal_attr", 1),
        ("create_system", 0),
        ("create_version", 45),
        ("extract_version", 45),
    ):
        member = info(MEMBERS[2][0])
        setattr(member, field, value)
        data = zipped([*MEMBERS[:2], (member, MEMBERS[2][1]), *MEMBERS[3:]])
        assert data != plain, field
        refused(path, opened_by_zipfile(data))


def test_prepended_and_appended_bytes_are_refused(path: Path) -> None:
    plain = zipped(MEMBERS)
    refused(path, opened_by_zipfile(b"#!/bin/sh\n" + plain), "before, between or behind")
    shifted = io.BytesIO()
    shifted.write(b"#!/bin/sh\n")
    with zipfile.ZipFile(shifted, "a") as archive:
        for name, data in MEMBERS:
            archive.writestr(info(name), data)
    refused(path, opened_by_zipfile(shifted.getvalue()), "right behind")
    refused(path, plain + b"\0", "end record")
    refused(path, plain + plain, "before, between or behind")


def test_a_second_archive_in_the_comment_is_refused(path: Path) -> None:
    refused(path, zipped(MEMBERS, comment=zipped(MEMBERS[:1])[:-22]), "end record")
    refused(path, zipped(MEMBERS, comment=zipped(MEMBERS[:1])))


# -- archives made by hand --------------------------------------------------------------------------------------------


def parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Contents, directory and end record of an archive without comment."""
    size, offset = struct.unpack_from("<2I", data, len(data) - 10)
    return data[:offset], data[offset : offset + size], data[offset + size :]


def joined(contents: bytes, directory: bytes, count: int) -> bytes:
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(directory), len(contents), 0)
    return contents + directory + end


def patched(data: bytes, position: int, value: bytes) -> bytes:
    return data[:position] + value + data[position + len(value) :]


PLAIN = zipped(MEMBERS)
CONTENTS, DIRECTORY, END = parts(PLAIN)


def central(name: str) -> int:
    """Where the directory's record of a member begins, in the directory."""
    return DIRECTORY.index(name.encode()) - 46


def local(name: str) -> int:
    return CONTENTS.index(name.encode()) - 30


def test_the_tools_of_these_tests_put_the_archive_together_again(path: Path) -> None:
    assert joined(CONTENTS, DIRECTORY, len(MEMBERS)) == PLAIN
    path.write_bytes(PLAIN)
    assert len(read_all(path)) == len(MEMBERS)


def test_a_local_header_that_differs_from_the_directory_is_refused(path: Path) -> None:
    start = local("entries/2.json")
    for offset, value in (
        (30, b"entries/3.json"),
        (14, zlib.crc32(b"other").to_bytes(4, "little")),
        (18, (1).to_bytes(4, "little")),
        (22, (1).to_bytes(4, "little")),
        (8, (8).to_bytes(2, "little")),
        (6, (8).to_bytes(2, "little")),
        (0, b"PK\x07\x08"),
    ):
        data = joined(patched(CONTENTS, start + offset, value), DIRECTORY, len(MEMBERS))
        assert data != PLAIN
        refused(path, data, "local header differs")


@pytest.mark.parametrize("flag", [0x0001, 0x0008, 0x0040, 0x0800, 0x2000])
def test_encryption_data_descriptors_and_other_flags_are_refused(path: Path, flag: int) -> None:
    name = "entries/2.json"
    contents = patched(CONTENTS, local(name) + 6, flag.to_bytes(2, "little"))
    directory = patched(DIRECTORY, central(name) + 8, flag.to_bytes(2, "little"))
    refused(path, joined(contents, directory, len(MEMBERS)), "not stored plainly")


def test_bytes_hidden_between_members_are_refused(path: Path) -> None:
    hidden = b"hidden bytes"
    start = local("entries/2.json")
    contents = CONTENTS[:start] + hidden + CONTENTS[start:]
    directory, position = DIRECTORY, 0
    while position < len(directory):
        name_length = struct.unpack_from("<H", directory, position + 28)[0]
        offset = struct.unpack_from("<I", directory, position + 42)[0]
        if offset >= start:
            directory = patched(directory, position + 42, (offset + len(hidden)).to_bytes(4, "little"))
        position += 46 + name_length
    refused(path, opened_by_zipfile(joined(contents, directory, len(MEMBERS))), "right behind")


def test_bytes_hidden_before_and_behind_the_directory_are_refused(path: Path) -> None:
    refused(path, opened_by_zipfile(joined(CONTENTS + b"hidden", DIRECTORY, len(MEMBERS))), "last member")
    refused(path, joined(CONTENTS, DIRECTORY + b"hidden", len(MEMBERS)), "behind the last")
    refused(path, CONTENTS + DIRECTORY + b"hidden" + END, "before, between or behind")


def test_two_members_that_share_bytes_are_refused(path: Path) -> None:
    start = local("entries/2.json")
    directory = patched(DIRECTORY, central("entries/10.json") + 42, start.to_bytes(4, "little"))
    refused(path, joined(CONTENTS, directory, len(MEMBERS)), "right behind")


def test_wrong_counts_sizes_and_offsets_in_the_end_record_are_refused(path: Path) -> None:
    for position, width in ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)):
        for delta in (1, -1, 0x7FFF):
            value = (int.from_bytes(END[position : position + width], "little") + delta) % 2 ** (8 * width)
            refused(path, CONTENTS + DIRECTORY + patched(END, position, value.to_bytes(width, "little")))
    for count in (len(MEMBERS) - 1, len(MEMBERS) + 1, 0, 65_534):
        refused(path, joined(CONTENTS, DIRECTORY, count))


def test_a_directory_too_large_for_its_members_is_refused_unread(path: Path) -> None:
    refused(path, joined(CONTENTS, DIRECTORY + bytes(10_000), len(MEMBERS)), "cannot be that of")


def test_zip64_is_refused(path: Path) -> None:
    record = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, *[len(MEMBERS)] * 2, len(DIRECTORY), len(CONTENTS))
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, len(CONTENTS) + len(DIRECTORY), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    refused(path, opened_by_zipfile(CONTENTS + DIRECTORY + record + locator + end), "before, between or behind")


def test_sizes_that_would_overflow_are_refused_before_anything_is_read(path: Path) -> None:
    huge = b"\xff" * 4
    for name in ("attestation.json", "entries/2.json", MEMBERS[-1][0]):
        for at in (20, 24):
            refused(path, joined(CONTENTS, patched(DIRECTORY, central(name) + at, huge), len(MEMBERS)))
    names = [f"blobs/{i:064x}" for i in range(300)]
    records = [
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 788, 20, 0, 0, 0, 33, 0, 2**24, 2**24, 70, 0, 0, 0, 0, 0o100644 << 16, 0)
        + name.encode()
        for name in names
    ]
    refused(path, joined(b"", b"".join(records), len(names)), "reaches into the directory")


def test_altered_contents_are_refused_when_read(path: Path) -> None:
    for name, data in MEMBERS:
        if data:
            start = local(name) + 30 + len(name)
            path.write_bytes(patched(PLAIN, start, bytes([data[0] ^ 1])))
            with BundleReader(path) as reader, pytest.raises(DecodeError, match="CRC-32"):
                reader.check()


def test_a_blob_under_another_digest_is_refused_although_the_archive_is_flawless(path: Path) -> None:
    wrong = sha256(b"what was promised")
    path.write_bytes(opened_by_zipfile(zipped([MEMBERS[0], (f"blobs/{wrong.hex()}", b"what is there")])))
    with BundleReader(path) as reader:
        with pytest.raises(VerificationFailed, match=r"bundle\.blob-digest"):
            reader.blob(wrong)
        with pytest.raises(VerificationFailed, match=r"bundle\.blob-digest"):
            reader.check()


def test_a_file_cut_short_while_it_is_open_is_a_refusal(path: Path) -> None:
    path.write_bytes(PLAIN)
    with BundleReader(path) as reader:
        os.truncate(path, 60)
        with pytest.raises(DecodeError, match="ends within"):
            reader.blob(sha256(b"proof bytes"))


# -- random damage ----------------------------------------------------------------------------------------------------

CONTENTS_OF_PLAIN = {
    "attestation": ATTESTATION,
    "consistency": CONSISTENCY,
    **{f"{i}.{part}": data for i, both in ENTRIES.items() for part, data in zip("ep", both, strict=True)},
    **{sha256(data).hex(): data for data in BLOBS},
}

damage = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def refused_or_unchanged(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        contents = read_all(path)
    except (DecodeError, VerificationFailed):
        return
    assert data == PLAIN
    assert contents == CONTENTS_OF_PLAIN


@damage
@given(position=st.integers(0, len(PLAIN) - 1), value=st.integers(0, 255))
def test_any_byte_altered_is_refused(path: Path, position: int, value: int) -> None:
    refused_or_unchanged(path, patched(PLAIN, position, bytes([value])))


@damage
@given(data=st.data())
def test_bytes_removed_inserted_or_replaced_are_refused(path: Path, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PLAIN)))
    end = data.draw(st.integers(start, len(PLAIN)))
    refused_or_unchanged(path, PLAIN[:start] + data.draw(st.binary(max_size=40)) + PLAIN[end:])


@damage
@given(data=st.data())
def test_altered_numbers_in_directory_and_end_are_refused(path: Path, data: st.DataObject) -> None:
    changed = PLAIN
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(len(CONTENTS), len(PLAIN) - 4))
        changed = patched(changed, position, data.draw(st.integers(0, 2**32 - 1)).to_bytes(4, "little"))
    refused_or_unchanged(path, changed)


@damage
@given(data=st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: data + END))
def test_any_other_file_is_refused(path: Path, data: bytes) -> None:
    refused(path, data)
