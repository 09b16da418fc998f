"""Times for people."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["told"]


def told(seconds: int) -> str:
    """Seconds since 1970 as YYYY-MM-DDTHH:MM:SSZ. Whoever signs a time may claim one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"
