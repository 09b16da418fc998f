"""What the outside saw of a log, for comparison with what the log says later."""

from __future__ import annotations

from ledger import Log, Signer, VerifiedHead, leaf_hash, open_checkpoint
from ledger.note import Note

__all__ = ["Witnessed"]


class Witnessed:
    """Everything that the outside saw of one log: it must stay true for ever."""

    def __init__(self, signer: Signer) -> None:
        self.signer = signer
        self.entries: dict[int, bytes] = {}
        self.roots: dict[int, bytes] = {}
        self.published: dict[int, bytes] = {}

    def acknowledge(self, index: int, leaf: bytes) -> None:
        """An append came back with this."""
        assert index not in self.entries, "an index was given out twice"
        self.entries[index] = leaf

    def see_note(self, note: bytes) -> VerifiedHead:
        """A signed checkpoint that was shown."""
        head = open_checkpoint(note, self.signer.verifier, self.signer.name)
        self.see(head)
        return head

    def see_published(self, note: bytes) -> None:
        """A publication that was acknowledged."""
        self.published[self.see_note(note).size] = note

    def see(self, head: VerifiedHead) -> None:
        """A head that was shown: a second root of the same size would be a fork."""
        assert self.roots.setdefault(head.size, head.root) == head.root, f"two roots of size {head.size} were shown"

    def check(self, log: Log) -> None:
        """The log as it was found after the kills, compared with all that was seen before."""
        stored = list(log.entries())
        for index, leaf in self.entries.items():
            assert leaf_hash(stored[index]) == leaf, "an acknowledged entry was lost"
        archive = log.publications(0, 10**6)
        for head in (log.head(), log.published(), *archive):
            self.see(head)
        for size, root in self.roots.items():
            assert log.root_at(size) == root, f"the log does not extend the head of size {size}"
        kept = {head.size: head.note for head in archive}
        for size, note in self.published.items():
            lost = set(Note.parse(note).signatures) - set(Note.parse(kept[size]).signatures)
            assert not lost, "an acknowledged publication was lost"
        if archive:
            assert log.published() == archive[-1]
