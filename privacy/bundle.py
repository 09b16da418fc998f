"""Bundles: everything that an auditor needs, in one file, checkable offline.

A bundle is a zip archive with one possible layout, so that every tool opens it and no two readers can disagree about
it:

    attestation.json                 the DSSE envelope (`privacy.attestation`)
    entries/<index>.json             bytes of a ledger entry
    entries/<index>.tlog-proof       its inclusion proof, with the signed checkpoint
    log/consistency                  from the ledger head that the prediction names to that checkpoint
    blobs/<sha256>                   proofs, result and input ciphertexts, certificates, p0, schema, lists of digests

in this order, entries by index, blobs by digest; nothing compressed or encrypted, no time stamps, comments, extra
fields or zip64 records, no bytes before, between or behind. Names, CRC-32s, sizes and contents determine every byte of
the file: two bundles with the same members are the same file, and the reader compares each header with the one it
derives itself.

Entries and proofs of the ledger are opaque here. A blob is named by the SHA-256 of its bytes, which for canonical
ciphertexts is their canonical digest. Blobs are read one at a time, so memory does not grow with the cohort.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from privacy.errors import DecodeError, UsageError, VerificationFailed

__all__ = [
    "MAX_ATTESTATION_BYTES",
    "MAX_BLOB_BYTES",
    "MAX_BUNDLE_BYTES",
    "MAX_CONSISTENCY_PROOF_BYTES",
    "MAX_ENTRY_BYTES",
    "MAX_INCLUSION_PROOF_BYTES",
    "MAX_MEMBERS",
    "BundleReader",
    "BundleWriter",
]

MAX_ATTESTATION_BYTES = 1 << 20
MAX_ENTRY_BYTES = 65_535
MAX_INCLUSION_PROOF_BYTES = 1 << 16
MAX_CONSISTENCY_PROOF_BYTES = 1 << 14
MAX_BLOB_BYTES = 1 << 24
MAX_MEMBERS = 2**16 - 2
MAX_BUNDLE_BYTES = 2**32 - 2
"""Beyond these two a zip archive needs zip64 records. A larger cohort is bundled without its inputs, by reference."""

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")

_VERSION_NEEDED = 20
_MADE_BY_UNIX = (3 << 8) | _VERSION_NEEDED
_MIDNIGHT, _FIRST_OF_JANUARY_1980 = 0, (1 << 5) | 1
_REGULAR_FILE_0644 = 0o100644 << 16

_ATTESTATION = "attestation.json"
_CONSISTENCY = "log/consistency"
_NAME = re.compile(
    r"attestation\.json|log/consistency|entries/(0|[1-9][0-9]{0,15})\.(json|tlog-proof)|blobs/([0-9a-f]{64})"
)
_LONGEST_NAME = len("blobs/") + 64
_LARGEST_INDEX = 2**53 - 1
_WHAT = "bundle"

_SortKey = tuple[int, int, str]


def _sort_key(name: str) -> _SortKey:
    """The place of a member in the file. Raises DecodeError for a name that no member can have."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise DecodeError(_WHAT, f"{name!r} is not the name of a member")
    index, suffix, blob = match.groups()
    if blob is not None:
        return (3, 0, blob)
    if index is None:
        return (0 if name == _ATTESTATION else 2, 0, name)
    if int(index) > _LARGEST_INDEX:
        raise DecodeError(_WHAT, f"{name!r}: the index is larger than 2^53 - 1")
    return (1, int(index), suffix)


def _entry_name(index: int) -> str:
    return f"entries/{index}.json"


def _inclusion_proof_name(index: int) -> str:
    return f"entries/{index}.tlog-proof"


def _blob_name(digest: bytes) -> str:
    return f"blobs/{digest.hex()}"


def _size_limit(name: str) -> int:
    if name == _ATTESTATION:
        return MAX_ATTESTATION_BYTES
    if name == _CONSISTENCY:
        return MAX_CONSISTENCY_PROOF_BYTES
    if name.startswith("blobs/"):
        return MAX_BLOB_BYTES
    return MAX_ENTRY_BYTES if name.endswith(".json") else MAX_INCLUSION_PROOF_BYTES


@dataclass(frozen=True)
class _Member:
    """A member and where it lies: `offset` of its local header in the file."""

    name: str
    crc: int
    size: int
    offset: int

    def local_header(self) -> bytes:
        name = self.name.encode("ascii")
        sizes = (self.crc, self.size, self.size)
        times = (_MIDNIGHT, _FIRST_OF_JANUARY_1980)
        return _LOCAL.pack(b"PK\x03\x04", _VERSION_NEEDED, 0, 0, *times, *sizes, len(name), 0) + name

    def central_header(self) -> bytes:
        name = self.name.encode("ascii")
        sizes = (self.crc, self.size, self.size)
        times = (_MIDNIGHT, _FIRST_OF_JANUARY_1980)
        versions = (_MADE_BY_UNIX, _VERSION_NEEDED)
        head = (b"PK\x01\x02", *versions, 0, 0, *times, *sizes, len(name), 0, 0, 0, 0)
        return _CENTRAL.pack(*head, _REGULAR_FILE_0644, self.offset) + name

    @property
    def start(self) -> int:
        """Where the contents begin."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """Where the next member, or the central directory, begins."""
        return self.start + self.size


def _end_record(members: int, directory_size: int, directory_offset: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, members, members, directory_size, directory_offset, 0)


# -- reading ----------------------------------------------------------------------------------------------------------


def _parse_directory(directory: bytes, count: int, contents_end: int) -> dict[str, _Member]:
    """The members that the central directory lists, which lie in the first `contents_end` bytes of the file."""
    members: dict[str, _Member] = {}
    position, offset = 0, 0
    previous: _SortKey | None = None
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            raise DecodeError(_WHAT, f"the directory ends before {count} members")
        fields = _CENTRAL.unpack_from(directory, position)
        crc, size, name_length = fields[7], fields[9], fields[10]
        raw_name = directory[position + _CENTRAL.size : position + _CENTRAL.size + name_length]
        try:
            name = raw_name.decode("ascii")
        except UnicodeDecodeError as error:
            raise DecodeError(_WHAT, f"{raw_name!r} is not the name of a member") from error
        key = _sort_key(name)
        if previous is not None and key <= previous:
            raise DecodeError(_WHAT, f"{name}: twice, or out of order")
        if size > _size_limit(name):
            raise DecodeError(_WHAT, f"{name}: {size} bytes, at most {_size_limit(name)} are allowed")
        member = _Member(name, crc, size, offset)
        if member.end > contents_end:
            raise DecodeError(_WHAT, f"{name}: reaches into the directory")
        expected = member.central_header()
        if directory[position : position + len(expected)] != expected:
            raise DecodeError(_WHAT, f"{name}: not stored plainly, or not right behind the member before it")
        members[name] = member
        position, offset, previous = position + len(expected), member.end, key
    if position != len(directory):
        raise DecodeError(_WHAT, f"bytes behind the last of {count} members in the directory")
    return members


class BundleReader:
    """A bundle on disk, opened for reading; a context manager.

    Opening checks the layout of the whole file; contents are read, and checked, when asked for. Raises OSError if the
    file cannot be opened and DecodeError if it is not a bundle.
    """

    def __init__(self, path: Path) -> None:
        with ExitStack() as undo:
            self._file = undo.enter_context(path.open("rb"))
            self._members = self._read_layout(self._file.seek(0, os.SEEK_END))
            if _ATTESTATION not in self._members:
                raise DecodeError(_WHAT, f"no {_ATTESTATION}")
            self._check_pairs()
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Nothing can be read afterwards."""
        self._file.close()

    def attestation(self) -> bytes:
        """The bytes of the DSSE envelope. Raises DecodeError."""
        return self._read(_ATTESTATION)

    def entry_indices(self) -> tuple[int, ...]:
        """The ledger indices of the entries in the bundle, in increasing order."""
        keys = (_sort_key(name) for name in self._members if name.endswith(".json"))
        return tuple(index for section, index, _ in keys if section == 1)

    def entry(self, index: int) -> bytes:
        """The bytes of ledger entry `index`. Raises DecodeError, also if it is not in the bundle."""
        return self._read(_entry_name(index))

    def inclusion_proof(self, index: int) -> bytes:
        """The tlog-proof of ledger entry `index`. Raises DecodeError, also if it is not in the bundle."""
        return self._read(_inclusion_proof_name(index))

    def consistency_proof(self) -> bytes:
        """What leads from the prediction's ledger head to the checkpoint. Raises DecodeError, also if it is absent."""
        return self._read(_CONSISTENCY)

    def has(self, digest: bytes) -> bool:
        """Whether the blob with this SHA-256 digest is in the bundle."""
        return _blob_name(digest) in self._members

    def blob_digests(self) -> Iterator[bytes]:
        """The digests of all blobs, in increasing order."""
        return (bytes.fromhex(name.removeprefix("blobs/")) for name in self._members if name.startswith("blobs/"))

    def blob(self, digest: bytes) -> bytes:
        """The blob with this SHA-256 digest.

        Raises DecodeError, also if it is not in the bundle, and VerificationFailed("bundle.blob-digest").
        """
        data = self._read(_blob_name(digest))
        if hashlib.sha256(data).digest() != digest:
            raise VerificationFailed("bundle.blob-digest", f"the blob named {digest.hex()} has another SHA-256 digest")
        return data

    def check(self) -> None:
        """Read every member once, for a bundle that was just received. Raises as the single readers do."""
        for name in self._members:
            if name.startswith("blobs/"):
                self.blob(bytes.fromhex(name.removeprefix("blobs/")))
            else:
                self._read(name)

    def _read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None:
            raise DecodeError(_WHAT, f"{name} is missing")
        data = self._pread(member.start, member.size)
        if zlib.crc32(data) != member.crc:
            raise DecodeError(_WHAT, f"{name}: the CRC-32 is not that of its header")
        return data

    def _pread(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, offset)
        if len(data) != size:
            raise DecodeError(_WHAT, f"the file ends within {size} bytes at {offset}")
        return data

    def _read_layout(self, file_size: int) -> dict[str, _Member]:
        """The members in file order. Every byte that is not contents has been compared with what it must be."""
        if not _END.size <= file_size <= MAX_BUNDLE_BYTES:
            raise DecodeError(_WHAT, f"{file_size} bytes; a bundle has {_END.size} to {MAX_BUNDLE_BYTES}")
        end = self._pread(file_size - _END.size, _END.size)
        count, directory_size, directory_offset = _END.unpack(end)[4:7]
        if end != _end_record(count, directory_size, directory_offset):
            raise DecodeError(_WHAT, "the file does not end in the end record of a zip archive without comment")
        if directory_offset + directory_size + _END.size != file_size:
            raise DecodeError(_WHAT, "bytes before, between or behind the parts of the archive")
        if count > MAX_MEMBERS or directory_size > count * (_CENTRAL.size + _LONGEST_NAME):
            raise DecodeError(_WHAT, f"a directory of {directory_size} bytes cannot be that of {count} members")
        members = _parse_directory(self._pread(directory_offset, directory_size), count, directory_offset)
        for member in members.values():
            # Readers that stream go by the local header and readers that seek by the central one: they must agree.
            expected = member.local_header()
            if self._pread(member.offset, len(expected)) != expected:
                raise DecodeError(_WHAT, f"{member.name}: the local header differs from the directory")
        contents_end = max((member.end for member in members.values()), default=0)
        if contents_end != directory_offset:
            raise DecodeError(_WHAT, "bytes between the last member and the directory")
        return members

    def _check_pairs(self) -> None:
        for name in self._members:
            section, index, suffix = _sort_key(name)
            partner = _inclusion_proof_name(index) if suffix == "json" else _entry_name(index)
            if section == 1 and partner not in self._members:
                raise DecodeError(_WHAT, f"{name} without {partner}")


# -- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spooled:
    """Contents that wait in the spool for their place in the file."""

    offset: int
    size: int
    crc: int


class BundleWriter:
    """Writes a bundle; a context manager. The file appears, complete, when the block ends without an exception.

    Members may be added in any order; blobs go through a temporary file beside `path`, so that memory does not grow
    with them. A file that exists at `path` is replaced. If the block fails, nothing is left behind and nothing was
    replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spooled: dict[str, _Spooled] = {}
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by __exit__
        self._spool_size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._spool:
            if kind is None:
                self._commit()

    def set_attestation(self, envelope: bytes) -> None:
        """Set the DSSE envelope. Raises UsageError if it is too large or another one was set."""
        self._add(_ATTESTATION, envelope)

    def add_entry(self, index: int, entry: bytes, inclusion_proof: bytes) -> None:
        """Add ledger entry `index` with its tlog-proof. Raises UsageError if there are other bytes for it already."""
        self._add(_entry_name(index), entry)
        self._add(_inclusion_proof_name(index), inclusion_proof)

    def set_consistency_proof(self, proof: bytes) -> None:
        """Set what leads from the prediction's ledger head to the checkpoint. Raises UsageError if another was set."""
        self._add(_CONSISTENCY, proof)

    def add_blob(self, data: bytes) -> bytes:
        """Add a blob, once however often it is added, and return its SHA-256 digest. Raises UsageError if too large."""
        digest = hashlib.sha256(data).digest()
        self._add(_blob_name(digest), data)
        return digest

    def _add(self, name: str, data: bytes) -> None:
        try:
            _sort_key(name)
        except DecodeError as error:
            raise UsageError(str(error)) from error
        if len(data) > _size_limit(name):
            raise UsageError(f"{name}: {len(data)} bytes, at most {_size_limit(name)} are allowed")
        known = self._spooled.get(name)
        if known is not None:
            if self._unspool(known) != data:
                raise UsageError(f"{name}: was added with other contents")
            return
        self._spool.seek(self._spool_size)
        self._spool.write(data)
        self._spooled[name] = _Spooled(self._spool_size, len(data), zlib.crc32(data))
        self._spool_size += len(data)

    def _unspool(self, spooled: _Spooled) -> bytes:
        self._spool.seek(spooled.offset)
        return self._spool.read(spooled.size)

    def _layout(self) -> list[_Member]:
        members: list[_Member] = []
        offset = 0
        for name in sorted(self._spooled, key=_sort_key):
            spooled = self._spooled[name]
            members.append(_Member(name, spooled.crc, spooled.size, offset))
            offset = members[-1].end
        return members

    def _commit(self) -> None:
        if _ATTESTATION not in self._spooled:
            raise UsageError("a bundle needs an attestation")
        members = self._layout()
        directory_size = sum(_CENTRAL.size + len(member.name) for member in members)
        total = members[-1].end + directory_size + _END.size
        if len(members) > MAX_MEMBERS or total > MAX_BUNDLE_BYTES:
            raise UsageError(
                f"{len(members)} members in {total} bytes are too many for one bundle; leave the input ciphertexts out"
            )
        temporary = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                for member in members:
                    file.write(member.local_header())
                    file.write(self._unspool(self._spooled[member.name]))
                for member in members:
                    file.write(member.central_header())
                file.write(_end_record(len(members), directory_size, members[-1].end))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(self._path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
