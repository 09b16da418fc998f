"""What an anchor says about a log. Needs no web3."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AnchoredHead"]


@dataclass(frozen=True, slots=True)
class AnchoredHead:
    """A head that a contract holds or held: it accepted it as an extension of all heads before it.

    `block` and `time` (seconds since 1970, as the chain has it) are those of the transaction; None where there was
    none, which is so before the first head (`size` 0).
    """

    origin: str
    size: int
    root: bytes
    block: int | None
    time: int | None
