"""Two heads that a log signed and that cannot both be true: found, kept in files, and checked by anybody.

A log is convicted by two of its own signatures:

    Fork                two roots for one size
    InconsistentGrowth  a smaller and a larger tree, with hashes that give the larger tree's signed root and, for the
                        smaller size, another root than the signed one

A Rollback is no such proof: an old head is validly signed, and anybody may repeat it. It is kept all the same.

    <folder>/<SHA-256 of the two texts>/
      old.note, new.note   the checkpoints, byte for byte
      hashes               InconsistentGrowth: base64, one a line: the perfect subtrees of the smaller tree from the
                           left, then those of the rest of the larger one
      about.json           {"check", "seen"}: what was found, and where the two notes came from; proves nothing
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from api.client.state_folder import StateFolder
from api.client.tile_source import TileSource
from api.client.trust import TrustedLog
from ledger import VerifiedHead, Verifier, open_checkpoint
from ledger.encoding import decode_base64, encode_base64
from ledger.errors import (
    DecodeError,
    FileRefused,
    Fork,
    InconsistentGrowth,
    LogMisbehaved,
    Rollback,
    RootMismatch,
    StorageError,
    UsageError,
    VerificationFailed,
)
from ledger.fsck import Fetch, FetchMany, FsckReport, KnownTree, TreeSplit, fsck, split_tree
from ledger.note import MAX_NOTE_BYTES, Note

__all__ = ["check_evidence", "check_extends", "check_growth", "keep_evidence", "shown_head"]

_HASH: Final = 32
_MOST_HASHES: Final = 256


def shown_head(source: TileSource, log: TrustedLog) -> VerifiedHead:
    """The head that a view of the log shows, signed by the log; its witnesses are not looked at.

    Raises FileRefused (`checkpoint.missing`, `.form`), what `open_checkpoint` raises, ServerError, StorageError.
    """
    note = source.fetch("checkpoint")
    if note is None:
        raise FileRefused("checkpoint.missing", "checkpoint", f"there is none at {source.name}")
    try:
        return open_checkpoint(note, log.verifier, log.origin)
    except DecodeError as error:
        raise FileRefused("checkpoint.form", "checkpoint", str(error)) from error


def check_extends(old: VerifiedHead, new: VerifiedHead, fetch: Fetch) -> None:
    """Check that the tree of `new`, whose tiles `fetch` reads, begins with that of `old`.

    Raises:
        Fork, InconsistentGrowth: the two heads convict the log; `proof` of the latter has the hashes to show it with.
        FileRefused, RootMismatch: the tiles are not those of `new`, and show nothing.
        UsageError: `old` is larger than `new`.
    """
    if old.size > new.size:
        raise UsageError(f"a head of {old.size} entries is no older one of a head of {new.size}")
    if old.size == new.size:
        if old.root != new.root:
            raise Fork(new.size, old.note, new.note)
        return
    if old.size == 0:
        return
    _check_split(split_tree(fetch, old.size, new.size), old, new)


def check_growth(
    old: VerifiedHead | None,
    new: VerifiedHead,
    verifier: Verifier,
    fetch: Fetch,
    *,
    fetch_many: FetchMany | None = None,
    checked: Callable[[str, bytes], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FsckReport:
    """Rebuild the tree of `new` from that of `old` and the entries since, which `fetch` reads; from None: all of it.

    For the other arguments, and for what FileRefused and RootMismatch mean, see `ledger.fsck.fsck`.

    Raises:
        Fork, InconsistentGrowth: the two heads convict the log.
        Rollback: `new` is smaller.
        FileRefused, RootMismatch: what is shown is not the log of `new`.
    """
    if old is not None and new.size < old.size:
        raise Rollback(old.size, new.size, old.note, new.note)
    if old is not None and new.size == old.size and new.root != old.root:
        raise Fork(new.size, old.note, new.note)
    since = KnownTree(old.size, old.root) if old is not None and old.size else None
    try:
        return fsck(
            fetch,
            str(verifier),
            note=new.note,
            since=since,
            fetch_many=fetch_many,
            checked=checked,
            progress=progress,
        )
    except RootMismatch as error:
        if old is not None and error.check == "tree.prefix":
            check_extends(old, new, fetch)
        raise


def _check_split(split: TreeSplit, old: VerifiedHead, new: VerifiedHead) -> None:
    if split.new_root() != new.root:
        raise RootMismatch("tree.root", new.root, split.new_root())
    if split.old_root() != old.root:
        reason = RootMismatch("tree.prefix", old.root, split.old_root())
        raise InconsistentGrowth(reason, old.note, new.note, split.old + split.rest)


def keep_evidence(folder: StateFolder, error: LogMisbehaved, seen: tuple[str, str]) -> Path:
    """Write what `error` holds; `seen` says where the old and the new note were seen. Returns the folder of it.

    What was kept already, perhaps under other cosignatures, is not written again. Raises StorageError.
    """
    # The texts, not the notes: the same two heads come again and again with other cosignatures.
    texts = b"".join(Note.parse(note).text.encode("utf-8") for note in (error.old, error.new))
    name = f"evidence/{hashlib.sha256(texts).hexdigest()}"
    files = {f"{name}/old.note": error.old, f"{name}/new.note": error.new}
    if isinstance(error, InconsistentGrowth):
        files[f"{name}/hashes"] = "".join(f"{encode_base64(h)}\n" for h in error.proof).encode("ascii")
    about = {"check": error.check, "seen": list(seen)}
    files[f"{name}/about.json"] = json.dumps(about, indent=2).encode("utf-8") + b"\n"
    if not (folder.folder / name / "about.json").exists():
        folder.write(files)
    return folder.folder / name


def check_evidence(folder: Path, verifier: Verifier) -> str:
    """Check evidence against the log with this key; nothing but the key is trusted. Returns what the log has done.

    Raises VerificationFailed(`evidence.nothing`) where both heads may be true, and for notes that this log did not
    sign; DecodeError and StorageError for files that cannot be read.
    """
    old, new = (open_checkpoint(_read(folder / f"{name}.note"), verifier, verifier.name) for name in ("old", "new"))
    if old.size == new.size and old.root != new.root:
        return f"the log {verifier.name!r} signed two roots for size {old.size}: {old.root.hex()} and {new.root.hex()}"
    if old.size >= new.size or old.size == 0 or not (folder / "hashes").exists():
        raise VerificationFailed(
            "evidence.nothing", f"heads of {old.size} and {new.size} entries without hashes may both be true"
        )
    try:
        _check_split(_read_split(folder / "hashes", old.size, new.size), old, new)
    except InconsistentGrowth:
        return (
            f"the log {verifier.name!r} signed a tree of {new.size} entries that does not begin with the tree of "
            f"{old.size} entries that it signed"
        )
    raise VerificationFailed("evidence.nothing", f"the tree of {new.size} entries does begin with that of {old.size}")


def _read_split(path: Path, old_size: int, new_size: int) -> TreeSplit:
    lines = _read(path).decode("ascii", "replace").split("\n")
    if lines.pop() != "" or len(lines) > _MOST_HASHES:
        raise DecodeError("evidence", f"{path} is not made of at most {_MOST_HASHES} lines")
    hashes = tuple(decode_base64("evidence", line, _HASH) for line in lines)
    # A tree has as many peaks as its size has binary ones.
    try:
        return TreeSplit(old_size, new_size, hashes[: old_size.bit_count()], hashes[old_size.bit_count() :])
    except UsageError as error:
        raise DecodeError("evidence", f"{path}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_NOTE_BYTES + 1)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error
