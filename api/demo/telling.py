"""How the demonstration speaks: who does what, and how long it took, as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from api.cli.common import out
from api.demo.report import Step

__all__ = ["Clock", "say"]

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
