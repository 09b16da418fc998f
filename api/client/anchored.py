"""Compare the head of a bundle with the head that a contract on a chain holds.

The chain is another view of the log, which its operator cannot take back: a bundle from a fork of the anchored log is
refused here even by someone who never saw that log before. Needs no web3: whoever calls brings the anchor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import ledger
from api.client.times import told
from api.client.trust import ConsistencySource
from ledger import VerifiedHead
from ledger.anchors.head import AnchoredHead
from privacy.errors import DecodeError, VerificationFailed

__all__ = ["AnchorComparison", "AnchoredHeads", "check_anchor"]


class AnchoredHeads(Protocol):
    """What is asked of an anchor. Answers are believed: the reader chose the node and the contract."""

    @property
    def name(self) -> str: ...

    def newest(self) -> AnchoredHead: ...

    def at_size(self, size: int) -> AnchoredHead | None: ...


@dataclass(frozen=True, slots=True)
class AnchorComparison:
    """What was compared: head `size` of the bundle with the anchored one, and how the two hang together."""

    anchor: str
    size: int
    anchored: AnchoredHead
    relation: Literal["same", "older", "newer"]
    """Of the bundle's head to the anchored one."""

    @property
    def sentence(self) -> str:
        """What this shows, in words."""
        when = "" if self.anchored.time is None else f", anchored {told(self.anchored.time)}"
        there = f"{self.anchored.size} entries at {self.anchor}{when}"
        if self.relation == "same":
            return f"The signed head is the one of {there}."
        if self.relation == "older":
            return f"The signed head of {self.size} entries is a past of the one of {there}."
        return f"The signed head of {self.size} entries extends the one of {there}; what is newer is not anchored yet."

    def to_json(self) -> dict[str, Any]:
        """For machines; `proof` is what ties the two heads."""
        return {
            "anchor": self.anchor,
            "relation": self.relation,
            "proof": "equal roots" if self.relation == "same" else "consistency proof",
            "anchored": {
                "size": self.anchored.size,
                "root": self.anchored.root.hex(),
                "block": self.anchored.block,
                "time": None if self.anchored.time is None else told(self.anchored.time),
            },
            "says": self.sentence,
        }


def check_anchor(head: VerifiedHead, consistency: ConsistencySource | None, anchor: AnchoredHeads) -> AnchorComparison:
    """Check that `head` and the heads of `anchor` are of one log that only grew.

    A head of a size that was anchored must be that very head. Otherwise a consistency proof from `consistency`, which
    need not be trusted, must tie it to the newest anchored one.

    Raises:
        VerificationFailed: `anchor.origin` for the anchor of another log, `anchor.empty` before its first head,
            `anchor.fork` when the two contradict each other or no valid proof ties them, `anchor.untied` when a proof
            is needed and there is none.
        ledger.ChainUnavailable: the chain cannot be read.
    """
    newest = anchor.newest()
    if newest.origin != head.origin:
        raise VerificationFailed(
            "anchor.origin", f"{anchor.name} is for the log {newest.origin!r}, not {head.origin!r}"
        )
    if newest.size == 0:
        raise VerificationFailed("anchor.empty", f"no head is anchored at {anchor.name} yet")
    exact = newest if head.size == newest.size else anchor.at_size(head.size) if head.size < newest.size else None
    if exact is not None:
        if exact.root != head.root:
            raise VerificationFailed(
                "anchor.fork",
                f"for {head.size} entries the signed root is {head.root.hex()}, but at {anchor.name} the root "
                f"{exact.root.hex()} is anchored: the log showed two histories",
            )
        return AnchorComparison(anchor.name, head.size, exact, "same")
    older = head.size < newest.size
    small, large = ((head.size, head.root), (newest.size, newest.root))[:: 1 if older else -1]
    proof = _proof(head, consistency, small[0], large[0], anchor)
    try:
        ledger.verify_consistency(small[0], large[0], proof, small[1], large[1])
    except ledger.VerificationFailed as error:
        raise VerificationFailed(
            "anchor.fork",
            f"the signed head of {head.size} entries and the one of {newest.size} entries at {anchor.name} are not "
            f"shown to be of one history: {error}",
        ) from error
    return AnchorComparison(anchor.name, head.size, newest, "older" if older else "newer")


def _proof(
    head: VerifiedHead, consistency: ConsistencySource | None, old: int, new: int, anchor: AnchoredHeads
) -> Sequence[bytes]:
    if consistency is None:
        raise VerificationFailed(
            "anchor.untied",
            f"the signed head has {head.size} entries, and no head of that size is anchored at {anchor.name}: give "
            f"--server, to get a proof from {old} to {new} entries",
        )
    try:
        return consistency(old, new)
    except (OSError, DecodeError) as error:
        raise VerificationFailed(
            "anchor.untied", f"no proof from {old} to {new} entries is to be had: {error}"
        ) from error
