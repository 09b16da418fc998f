"""What an owner's node has given away, counted by itself: sessions whose sealed shares left this machine.

The log shows predictions that were published. A server that works with a clinic could hand out sealed shares and log
nothing; what was delivered counts here from before it is sent, published or not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from api.entries import CommittedRecords, JointPrediction
from api.registry import Logged, Registry
from privacy.canonical_json import Codec, Digest, PositiveInteger, Record
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["Delivered", "DeliveredStore"]

_MAX_BYTES: Final = 1 << 12
_FILE: Final = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True)
class Delivered(Record):
    """One delivered session: which clinic (leaf hash of its party entry), which network entry, how many patients."""

    format: Literal["sealproof/delivered-session/v1"]
    session: Digest
    clinic: Digest
    model: Digest
    patients: PositiveInteger


_CODEC: Final = Codec(Delivered, "delivered session", _MAX_BYTES)


class DeliveredStore:
    """The records in `folder`, mode 0600 each."""

    def __init__(self, folder: Path) -> None:
        self._folder = private_folder(folder)

    def add(self, session: bytes, clinic: bytes, model: bytes, patients: int) -> None:
        """Count a session; durable on return. Raises OSError: nothing may be delivered then."""
        record = Delivered("sealproof/delivered-session/v1", session, clinic, model, patients)
        write_private(self._folder / f"{session.hex()}.json", _CODEC.encode(record))

    def unpublished(self, registry: Registry, clinic: bytes, model: bytes) -> int:
        """Patients of delivered sessions of this clinic and network that the log's predictions do not count.

        Raises DecodeError for a damaged record: what cannot be counted is not ignored.
        """
        published = {prediction.body.session: prediction for prediction in registry.all(JointPrediction)}
        total = 0
        for path in sorted(self._folder.iterdir()):
            if _FILE.fullmatch(path.name):
                record = _CODEC.decode(read_private(path, _MAX_BYTES, "delivered session"))
                if (record.clinic, record.model) == (clinic, model):
                    found = published.get(record.session)
                    if found is None or not _counts(registry, found, record):
                        total += record.patients
        return total


def _counts(registry: Registry, prediction: Logged[JointPrediction], record: Delivered) -> bool:
    """Whether a prediction counts what was delivered: who signs for the log may log the session as something less."""
    records = registry.resolve(prediction.body.records, CommittedRecords)
    clinic = registry.author_of(records.reference.index).reference.leaf
    about = (clinic, prediction.body.model.leaf)
    return about == (record.clinic, record.model) and records.body.count >= record.patients
