"""Numbers for people, never more than is true of them."""

from __future__ import annotations

import math
from typing import Final

__all__ = ["decimal", "rounded_down", "times_as_likely"]

_LARGEST_EXPONENT: Final = 700
"""exp of more is no float."""


def decimal(value: int, bits: int) -> str:
    """value / 2^bits, every digit of it: a decimal of the library would be rounded to 28."""
    digits = str(abs(value) * 5**bits).rjust(bits + 1, "0")
    whole, part = digits[: len(digits) - bits], digits[len(digits) - bits :].rstrip("0")
    return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")


def rounded_down(value: float) -> str:
    """Four digits after the point, so that "at least" stays true."""
    return f"{math.floor(value * 10_000) / 10_000:.4f}"


def times_as_likely(log_odds: float) -> str:
    """e^log_odds, rounded down."""
    return rounded_down(math.exp(max(-_LARGEST_EXPONENT, min(_LARGEST_EXPONENT, log_odds))))
