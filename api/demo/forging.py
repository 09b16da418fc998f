"""What every forger of bundles needs: an honest bundle in parts, its ledger, and a way to put others together."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from api.consistency import ConsistencyProof
from api.entries import JointPrediction, Prediction, decode_entry
from ledger import Log, Signer
from privacy import attestation
from privacy.bundle import BundleReader, BundleWriter

__all__ = ["BundleForger", "Forgery", "moved_behind"]


@dataclass(frozen=True)
class Forgery:
    """A forged bundle: who could have made it, what was changed, and the file."""

    attacker: str
    what: str
    path: Path


def moved_behind(index: int, first: int, last: int) -> int:
    """Where entry `index` stands once entry `first` has been put behind entry `last`."""
    if index == first:
        return last
    return index - 1 if first < index <= last else index


class BundleForger:
    """An honest bundle and the entries of its ledger, taken apart; `folder` is for what is made of them."""

    def __init__(self, honest: Path, entries: Iterable[bytes], folder: Path, log_signer: Signer) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._honest = honest
        self._entries = list(entries)
        self._signer = log_signer
        with BundleReader(honest) as reader:
            self._members = set(reader.entry_indices())
            self._blobs = [reader.blob(digest) for digest in reader.blob_digests()]
            self._envelope = reader.attestation()
        kinds = (Prediction, JointPrediction)
        self._index = next(i for i in self._members if isinstance(decode_entry(self._entries[i]).body, kinds))
        said = attestation.decode_statement(attestation.decode_envelope(self._envelope).payload_bytes())
        self._nonce, self._issued_at = said.request_nonce, said.issued_at

    def _blob(self, digest: bytes) -> bytes:
        return next(blob for blob in self._blobs if sha256(blob).digest() == digest)

    def _replaced(self, *changes: tuple[bytes, bytes]) -> list[bytes]:
        """The blobs, with some given by digest exchanged for others."""
        found = dict(changes)
        return [found.get(sha256(blob).digest(), blob) for blob in self._blobs]

    def _open_log(self, name: str, entries: list[bytes] | None = None, signer: Signer | None = None) -> Log:
        """A ledger of its own for each forgery, with the real entries and, usually, the real ledger's key."""
        path = self._folder / f"{name}-{secrets.token_hex(4)}.sqlite"
        log = Log.create(path, signer or self._signer)
        log.append_many(self._entries if entries is None else entries)
        return log

    def _write(
        self, name: str, log: Log, head_size: int, envelope: bytes, blobs: Iterable[bytes], members: Iterable[int]
    ) -> Path:
        """A bundle of these parts; `head_size` is that of the ledger head which the prediction names."""
        path = self._folder / f"{name}.sealproof"
        with BundleWriter(path) as bundle:
            bundle.set_attestation(envelope)
            for number in set(members):
                bundle.add_entry(number, log.entry(number), log.tlog_proof(number))
            hashes = tuple(log.consistency_proof(head_size, log.size))
            bundle.set_consistency_proof(ConsistencyProof(head_size, log.size, hashes).format())
            for blob in blobs:
                bundle.add_blob(blob)
        return path
