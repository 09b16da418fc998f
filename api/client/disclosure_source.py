"""Which prediction a clinic discloses from, and its bundle with everything in it.

A recipient is to need no server, so that bundle carries the encrypted inputs; where the kept one does not, it is
fetched again. What is read here is NOT verified: whoever discloses verifies the bundle, and compares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from api.client.requests import Requests
from api.client.session import Session
from api.client.submitted_records import submitted_records
from api.client.transport import ServerRefused
from api.consent import Scope
from api.entries import (
    Disclosure,
    JointPrediction,
    Prediction,
    Records,
    Reference,
    decode_digest_list,
    decode_entry,
)
from privacy.bundle import BundleReader
from privacy.errors import DecodeError, UsageError
from privacy.private_files import private_folder

__all__ = ["Source", "find_source", "source_at"]


@dataclass(frozen=True)
class Source:
    """A bundle and what it says it is about. `key` is the key entry of encrypted records; None of committed ones."""

    path: Path
    prediction: Reference
    records: Reference
    model: Reference
    key: Reference | None
    complete: bool
    """Whether an auditor needs no server: encrypted inputs are in it."""


def source_at(path: Path) -> Source:
    """What a bundle says it is about. Raises UsageError if that is no prediction, DecodeError, OSError."""
    with BundleReader(path) as reader:
        entries = {index: reader.entry(index) for index in reader.entry_indices()}
        bodies = {index: decode_entry(data).body for index, data in entries.items()}
        found = [(i, body) for i, body in bodies.items() if isinstance(body, Prediction | JointPrediction)]
        if len(found) != 1 or any(isinstance(body, Disclosure) for body in bodies.values()):
            raise UsageError(f"{path} is no prediction: there is nothing to disclose in it")
        ((index, prediction),) = found
        key, complete = None, True
        if isinstance(prediction, Prediction):
            key, records = prediction.key, bodies.get(prediction.records.index)
            complete = isinstance(records, Records) and _has_inputs(reader, records)
    at = Reference.to(index, entries[index])
    return Source(path, at, prediction.records, prediction.model, key, complete)


def _has_inputs(reader: BundleReader, records: Records) -> bool:
    if not reader.has(records.ciphertexts):
        return False
    listed = reader.blob(records.ciphertexts)
    return all(reader.has(digest) for digest in decode_digest_list(listed, len(listed) // 32))


def find_source(session: Session, scope: Scope, wanted: Collection[str], path: Path | None) -> Source:
    """The bundle at `path`, or the newest kept one that `scope` covers, or one from the server; complete.

    It is about a prediction that has all records `wanted`. Raises UsageError if there is none, ServerError,
    DecodeError.
    """
    if path is not None:
        return _completed(session, source_at(path))
    bundles = private_folder(session.folder / "bundles")
    kept = _fitting(session, scope, wanted, _readable(sorted(bundles.glob("*.sealproof"))))
    if kept is None:
        kept = _fitting(session, scope, wanted, _fetched(session, scope))
    if kept is None:
        listed = ", ".join(map(repr, sorted(wanted)))
        raise UsageError(
            f"this clinic has no prediction that the grant covers with record {listed}: ask for one (sealproof clinic "
            "predict), or disclose records of different cohorts one by one (records, --record)"
        )
    return _completed(session, kept)


def _readable(paths: Iterable[Path]) -> list[Source]:
    found = []
    for path in paths:
        try:
            found.append(source_at(path))
        except (UsageError, DecodeError):
            continue  # whatever else lies in the folder
    return found


def _fitting(session: Session, scope: Scope, wanted: Collection[str], sources: Iterable[Source]) -> Source | None:
    """The newest prediction that is meant and has all these records; of its bundles a complete one, if there is."""
    mine = {records.reference: set(records.handles.ids) for records in submitted_records(session.folder)}
    fitting = [
        source
        for source in sources
        if scope.covers(source.prediction, source.records, source.model)
        and set(wanted) <= mine.get(source.records, set())
    ]
    return max(fitting, key=lambda source: (source.prediction.index, source.complete), default=None)


def _fetched(session: Session, scope: Scope) -> list[Source]:
    """Bundles of predictions that this folder asked for, or of the one that is meant."""
    indices = set() if scope.prediction is None else {scope.prediction.index}
    if scope.prediction is None:
        for request in Requests(session.folder / "requests").all():
            if request.model == scope.model and scope.records in (None, request.records):
                try:
                    done = session.server.job(request.job).prediction
                except ServerRefused:
                    continue  # a server forgets its jobs in time
                indices |= set() if done is None else {done}
    return [_fetch(session, index) for index in sorted(indices)]


def _fetch(session: Session, prediction: int) -> Source:
    path = private_folder(session.folder / "bundles") / f"prediction-{prediction}.with-inputs.sealproof"
    session.server.save_bundle(prediction, path, inputs=True)
    return source_at(path)


def _completed(session: Session, source: Source) -> Source:
    if source.complete:
        return source
    found = _fetch(session, source.prediction.index)
    if found.prediction != source.prediction:
        raise UsageError(f"{source.path} is about a prediction of another log")
    return found
