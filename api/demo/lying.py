"""A server that lies about its ledger: it has the log's key, and so signs whatever it likes.

Each lie is a log in plain files, as anybody would read it. Three are consistent in themselves: only who remembers, or
asks others, can tell. The fourth leaves the signed head as it is and changes a file under it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger import Log, Signer, VerifiedHead
from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.merkle import empty_root
from ledger.storage.locate import LogPlace
from ledger.tiles import EntryBundle, encode_entry_bundle

__all__ = ["Lie", "lies"]


@dataclass(frozen=True)
class Lie:
    """What the server did, the files that it shows, and their head; `signed`: its key signed that head for this lie."""

    name: str
    what: str
    folder: Path
    head: VerifiedHead
    signed: bool


def lies(signer: Signer, honest: Sequence[bytes], head: VerifiedHead, mirror: Path, folder: Path) -> list[Lie]:
    """The lies about the log of these entries under `head`, an honest copy of which lies in `mirror`."""
    folder.mkdir(mode=0o700)
    other = b'{"kind":"something that was never submitted"}'
    last = len(honest) - 1
    told = [
        _signed(
            signer,
            "fork",
            f"shows somebody a log of {len(honest)} entries too, in which entry {last} is another",
            [*honest[:-1], other],
            folder / "fork",
        ),
        _signed(
            signer,
            "rollback",
            f"shows the log as it was after {last - 1} entries, without the last two",
            honest[:-2],
            folder / "rollback",
        ),
        _signed(
            signer,
            "rewrite",
            "replaces entry 1, computes every hash anew, and goes on from there",
            [honest[0], other, *honest[2:], other],
            folder / "rewrite",
        ),
    ]
    altered = folder / "altered"
    shutil.copytree(mirror, altered)
    path = altered / EntryBundle(0, len(honest)).path
    path.write_bytes(encode_entry_bundle([honest[0], other, *honest[2:]]))
    told.append(
        Lie("altered file", "leaves the signed head alone and changes entry 1 in the file", altered, head, False)
    )
    return told


def _signed(signer: Signer, name: str, what: str, entries: Sequence[bytes], folder: Path) -> Lie:
    first = sign_checkpoint(Checkpoint(signer.name, 0, empty_root()), signer)
    with Log.on(LogPlace.parse(f"tiles:{folder}").create(first), signer.verifier, signer) as log:
        log.append_many(entries)
        return Lie(name, what, folder, log.publish(log.checkpoint()), True)
