"""What clinics, owners and consumers have in common: a session, which closes with them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from api.client.session import Session

__all__ = ["PartyClient"]


class PartyClient:
    """One party's side; a context manager."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def name(self) -> str:
        """The party's name on the ledger."""
        return self._session.identity.name

    @property
    def session(self) -> Session:
        """Identity, server and trusted logs."""
        return self._session

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
