"""Predictions that a clinic asked for, kept in its folder.

    requests/<nonce>.asked   what a nonce was drawn for, written before the server hears of it
    requests/<nonce>.json    the same with the job's id, once the server has taken the request

The first is what a clinic's node goes by: it computes nothing that its clinic did not ask for.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from api.entries import Reference
from privacy.canonical_json import Codec, Digest, Identifier, Record
from privacy.errors import VerificationFailed
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["PredictionRequest", "Requests"]

_MAX_BYTES: Final = 1 << 16
_NONCE_BYTES: Final = 32
_WHAT: Final = "prediction request"


@dataclass(frozen=True)
class PredictionRequest(Record):
    """A prediction that was asked for: the entries, and the nonce that its attestation must repeat."""

    records: Reference
    model: Reference
    nonce: Digest
    job: Identifier


@dataclass(frozen=True)
class _Asked(Record):
    records: Reference
    model: Reference


_REQUEST: Final = Codec(PredictionRequest, _WHAT, _MAX_BYTES)
_ASKED: Final = Codec(_Asked, _WHAT, _MAX_BYTES)


class Requests:
    """The requests in `folder`, which is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def draw(self, records: Reference, model: Reference) -> bytes:
        """A fresh nonce, kept with what it is for."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        write_private(private_folder(self._folder) / f"{nonce.hex()}.asked", _ASKED.encode(_Asked(records, model)))
        return nonce

    def keep(self, request: PredictionRequest) -> PredictionRequest:
        """Keep a request that the server has taken."""
        write_private(self._folder / f"{request.nonce.hex()}.json", _REQUEST.encode(request))
        return request

    def check(self, nonce: bytes, records: Reference, model: Reference) -> None:
        """Raise VerificationFailed(`offer.request`) unless the nonce was drawn for these records and this model."""
        path = self._folder / f"{nonce.hex()}.asked"
        asked = _ASKED.decode(read_private(path, _MAX_BYTES, _WHAT)) if path.exists() else None
        if asked != _Asked(records, model):
            raise VerificationFailed("offer.request", "this clinic did not ask for this prediction")

    def all(self) -> list[PredictionRequest]:
        """Every request that the server has taken."""
        return [_REQUEST.decode(read_private(path, _MAX_BYTES, _WHAT)) for path in sorted(self._folder.glob("*.json"))]
