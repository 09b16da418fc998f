"""A clinic's cohorts that are on the ledger, and the folders with what belongs to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from api.client.committed_records import OPENINGS
from api.client.handles import RecordHandles
from api.client.session import load_reference
from api.entries import Reference

__all__ = ["SubmittedRecords", "submitted_records"]


@dataclass(frozen=True)
class SubmittedRecords:
    """A cohort on the ledger, and the folder with the handles of its patients."""

    reference: Reference
    folder: Path

    @property
    def index(self) -> int:
        """Index of the records entry."""
        return self.reference.index

    @cached_property
    def handles(self) -> RecordHandles:
        """Record ids in patient order, with their salts. Secret."""
        return RecordHandles.load(self.folder / "handles.json")

    @property
    def committed(self) -> bool:
        """Whether the records are committed for multi-party computation, rather than encrypted."""
        return (self.folder / OPENINGS).exists()


def submitted_records(clinic: Path) -> list[SubmittedRecords]:
    """All cohorts in the folder of a clinic that are on the ledger, oldest first. Raises UsageError, DecodeError."""
    paths = (clinic / "records").glob("*/records.reference.json")
    found = [SubmittedRecords(load_reference(path), path.parent) for path in paths]
    return sorted(found, key=lambda records: records.index)
