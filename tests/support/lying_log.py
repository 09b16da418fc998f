"""A log that signs whatever it is told, for tests of those who follow logs; and logs as plain files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash
from ledger.note import Note, Signer
from ledger.tiles import encode_entry_bundle, entry_bundles, tiles
from ledger.witness_wire import encode_request


class Tree:
    """All nodes of the tree over some entries."""

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.entries = list(entries)
        frontier, nodes = Frontier().extend(leaf_hash(entry) for entry in entries)
        self.size, self.root = len(self.entries), frontier.root()
        self._hashes = {(node.level, node.number): node.hash for node in nodes}

    def node(self, level: int, index: int) -> bytes:
        return self._hashes[level, index]

    def consistency(self, old: int) -> list[bytes]:
        return consistency_proof(old, self.size, self.node)

    def inclusion(self, index: int) -> list[bytes]:
        return inclusion_proof(index, self.size, self.node)


@dataclass(frozen=True)
class LyingLog:
    """Signs any list of entries, and proves from any other."""

    signer: Signer

    def head(self, entries: Sequence[bytes], *extensions: str) -> bytes:
        tree = Tree(entries)
        return sign_checkpoint(Checkpoint(self.signer.name, tree.size, tree.root, extensions), self.signer)

    def request(self, old: int, entries: Sequence[bytes], proven: Sequence[bytes] | None = None) -> bytes:
        """A request to cosign the head over `entries`, with a proof from the tree over `proven` if that is another."""
        tree = Tree(entries if proven is None else proven)
        proof = tree.consistency(old) if old <= tree.size else []
        return encode_request(old, proof, self.head(entries))


def text_of(note: bytes) -> bytes:
    """The text that is signed."""
    return Note.parse(note).text.encode("utf-8")


def entries_of(size: int, changed: int | None = None) -> list[bytes]:
    """Entries 0..size-1, one of them rewritten."""
    return [b"rewritten" if i == changed else b"entry %d" % i for i in range(size)]


def write_plain_log(folder: Path, entries: Sequence[bytes], checkpoint: bytes) -> Tree:
    """The C2SP files of a log: `checkpoint`, `tile/...`. Written without any storage backend."""
    tree = Tree(entries)
    for tile in tiles(0, tree.size):
        _write(folder / tile.path, b"".join(tree.node(level, index) for level, index in tile.positions()))
    for bundle in entry_bundles(0, tree.size):
        _write(folder / bundle.path, encode_entry_bundle(tree.entries[bundle.start : bundle.stop]))
    _write(folder / "checkpoint", checkpoint)
    return tree


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
