"""A node with changed software, for the demonstration: one bit of what it sends is not what the protocol says.

It is the product's node but for a single bit: the lowest of the owner's masked number that belongs to the first weight
and the first patient, in the exchange from which the answers are computed. The clinic's result is off by exactly that
patient's first measurement then, so that a false proof, if it could be looked into, would tell the measurement. The
node that receives it cannot see anything wrong: the number is masked, and every number is as good as another.

Used by `sealproof demo` alone.
"""

from __future__ import annotations

from typing import Final

from api.cli import main
from api.mpc.link import LinkChannel

__all__ = ["FLIPPED", "cheat"]

FLIPPED: Final = "answers"
"""Label of the message in which the bit is flipped."""


def cheat() -> None:
    """From now on, flip that bit in every channel of this process."""
    honest = LinkChannel.send

    def send(self: LinkChannel, label: str, data: bytes) -> None:
        honest(self, label, bytes([data[0] ^ 1]) + data[1:] if label == FLIPPED else data)

    LinkChannel.send = send  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    cheat()
    main()
