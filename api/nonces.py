"""Nonces of signed requests, remembered for as long as their requests could be accepted again."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from api.database import Database
from api.errors import NotAuthenticated
from api.signing import WINDOW_SECONDS, VerifiedRequest

__all__ = ["NonceStore"]

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS nonces (party INTEGER, nonce TEXT, seen INTEGER, PRIMARY KEY (party, nonce)) STRICT",
    "CREATE INDEX IF NOT EXISTS nonces_by_age ON nonces (seen)",
)

_KEPT_SECONDS = 2 * WINDOW_SECONDS
"""A request may be dated up to one window ahead, and is then accepted until one window after its date."""


class NonceStore:
    """Spent nonces, in an SQLite file that survives a restart."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, _SCHEMA)

    def spend(self, request: VerifiedRequest, now: float) -> None:
        """Use up a nonce, once. `now`: seconds since 1970. Raises NotAuthenticated(`request.nonce`) the second time."""
        try:
            with self._database.transaction() as connection:
                connection.execute("DELETE FROM nonces WHERE seen < ?", (int(now) - _KEPT_SECONDS,))
                connection.execute("INSERT INTO nonces VALUES (?, ?, ?)", (request.party, request.nonce, int(now)))
        except sqlite3.IntegrityError:
            raise NotAuthenticated("request.nonce", "a request with this nonce was made before") from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()
