"""The server's own clock: a cosignature that it puts under every head that it publishes."""

from __future__ import annotations

__all__ = ["clock_name"]


def clock_name(origin: str) -> str:
    """The name under which a server cosigns its own heads, with the key of its party entry."""
    return f"{origin}/clock"
