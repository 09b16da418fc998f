"""How the demonstration speaks: who does what, how long it took, and what became of each forgery."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from api.cli.common import out
from api.client.transport import Server
from api.demo.forging import Forgery
from api.demo.page import Step, Tampering
from api.demo.processes import audit
from ledger import Checkpoint
from ledger.note import Note

__all__ = ["BOTH_NODES", "Clock", "judge", "ledger_entries", "say"]

BOTH_NODES: Final = "clinic's node, owner's node"

T = TypeVar("T")


def say(text: str) -> None:
    """One line, as long as it is."""
    out.print(text, markup=False, soft_wrap=True)


@dataclass
class Clock:
    """The steps of one part of the story, as they are timed and told."""

    steps: list[Step] = field(default_factory=list)

    def time(self, actor: str, what: str, work: Callable[[], T], size: Callable[[T], int | None] | None = None) -> T:
        """Do `work`, and tell it as a step of `actor`; `size` says how many bytes the result has."""
        begun = time.perf_counter()
        result = work()
        self.add(actor, what, time.perf_counter() - begun, size(result) if size else None)
        return result

    def add(self, actor: str, what: str, seconds: float, size: int | None = None) -> None:
        """Tell a step that was timed elsewhere."""
        self.steps.append(Step(actor, what, seconds, size))
        say(f"  [{actor}] {what} ({seconds:.2f} s)")


def ledger_entries(server: Server) -> list[bytes]:
    """Every entry of the server's ledger, as anybody can read them."""
    size = Checkpoint.parse(Note.parse(server.checkpoint()).text).size
    return list(server.entries(0, size))


def judge(forgeries: Sequence[Forgery], state: Path, log_key: str, nonce: bytes | None = None) -> list[Tampering]:
    """Give all forgeries to one auditor's process, and tell by which check each was refused (`none`: it was not).

    `nonce`: that of the recipient to whom disclosures are shown.
    """
    told = []
    for forgery, verdict in zip(forgeries, audit(state, [f.path for f in forgeries], log_key, nonce), strict=True):
        refused = verdict["result"] != "verified"
        check = verdict["check"] if refused else "none"
        told.append(Tampering(forgery.attacker, forgery.what, check, verdict.get("message", "accepted")))
        say(f"  {'refused' if refused else 'ACCEPTED'} by {check}: {forgery.what}")
    return told
