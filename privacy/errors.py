"""Errors of the privacy package, split by who must act.

PrivacyError
├── UsageError           the caller passed something that can never work; fix the call
├── DecodeError          malformed bytes from outside; nothing was changed
├── VerificationFailed   well-formed, but a proof or a digest does not hold; do not use the object
├── SessionBroken        the other party of a computation died, stalled or lied; the computation is over
└── MissingDependency    an optional package is not installed; the message says how to install it
"""

from __future__ import annotations

__all__ = ["DecodeError", "MissingDependency", "PrivacyError", "SessionBroken", "UsageError", "VerificationFailed"]


class PrivacyError(Exception):
    """Root of every error that the privacy package raises on purpose."""


class UsageError(PrivacyError, ValueError):
    """The caller asked for something that can never work. The message says what to change."""


class DecodeError(PrivacyError, ValueError):
    """Bytes from outside are not the canonical encoding of what was expected."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class VerificationFailed(PrivacyError):
    """A check of a verifier failed. `check` is a stable name such as `evaluation.opening`."""

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


class SessionBroken(PrivacyError):
    """A computation with another party ended before its result. `check` is a stable name such as `mpc.stalled`.

    What the two parties do next is not the caller's choice: the pair is suspended (docs/spec/protocol.md, section 7).
    """

    def __init__(self, check: str, detail: str) -> None:
        super().__init__(f"{check}: {detail}")
        self.check = check
        self.detail = detail


class MissingDependency(PrivacyError, ImportError):
    """An optional package is missing. `how` replaces the usual command where pip alone cannot install it."""

    def __init__(self, package: str, extra: str, how: str | None = None) -> None:
        command = how or f"pip install 'sealproof[{extra}]'"
        super().__init__(f"{package} is not installed. Install it with: {command}")
        self.package = package
        self.extra = extra
