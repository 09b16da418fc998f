"""A clinic's records for multi-party computation: committed, certified, and never sent, not even encrypted.

Called by `api.client.clinic.Clinic`. In the folder of a cohort, beside its handles and its entry,

    openings.json    commitments and their openings, written once before anything is sent
    certificates     digests of the certificates that the server has, batch by batch

so that whoever repeats a submission after a crash makes one certificate again at most, about the same commitments.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np

from api.client.handles import RecordHandles
from api.client.session import Session
from api.entries import CommittedRecords, Policy, Reference, decode_point_list, encode_point_list
from privacy.bundle import MAX_BLOB_BYTES
from privacy.canonical_json import Codec, Digest, Identifier, PositiveInteger, Record
from privacy.errors import DecodeError, UsageError
from privacy.models.schema import Cohort, Schema
from privacy.mpc.params import batches, mpc_parameters
from privacy.mpc.records import CommittedRecord, RecordsStatement, as_array, certify_records, commit_records
from privacy.private_files import read_private, write_private
from privacy.zk.group import SCALAR_BYTES
from privacy.zk.wire import Reader, pack_scalars

__all__ = ["OPENINGS", "CommittedPlan", "RecordOpenings", "submit_committed"]

OPENINGS: Final = "openings.json"
_WHAT: Final = "record openings"
_MAX_BYTES: Final = 1 << 29
_MAX_DIGESTS: Final = 1 << 24
_VALUE_BYTES: Final = 8
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class CommittedPlan(Record):
    """How a cohort is committed, fixed before the first byte is sent."""

    format: Literal["sealproof/committed-submission/v1"]
    parameter_set: Identifier
    schema: Digest
    policy: Policy

    @classmethod
    def of(cls, parameter_set: str, schema: Schema, policy: Policy) -> CommittedPlan:
        """The plan for records of this schema."""
        return cls("sealproof/committed-submission/v1", parameter_set, schema.digest(), policy)

    def encode(self) -> bytes:
        """Canonical bytes."""
        return _PLAN.encode(self)


@dataclass(frozen=True)
class _File(Record):
    """`commitments` are points, `values` int64 little-endian row by row, `blindings` scalars of 32 bytes, in base64."""

    format: Literal["sealproof/record-openings/v1"]
    d: PositiveInteger
    commitments: str
    values: str = field(repr=False)
    blindings: str = field(repr=False)


_PLAN: Final = Codec(CommittedPlan, "submission", 1 << 20)
_CODEC: Final = Codec(_File, _WHAT, _MAX_BYTES)


@dataclass(frozen=True)
class RecordOpenings:
    """The C_x of a cohort in patient order, and their openings, which are secret."""

    commitments: tuple[bytes, ...]
    records: tuple[CommittedRecord, ...] = field(repr=False)

    def save(self, path: Path) -> None:
        """Write the file, mode 0600. Raises OSError."""
        stored = _File(
            format="sealproof/record-openings/v1",
            d=len(self.records[0].values),
            commitments=_text(encode_point_list(self.commitments)),
            values=_text(as_array(self.records).astype("<i8").tobytes()),
            blindings=_text(pack_scalars([record.rho for record in self.records])),
        )
        write_private(path, _CODEC.encode(stored))

    @classmethod
    def load(cls, path: Path) -> RecordOpenings:
        """Read a file written by `save`. Raises UsageError, DecodeError."""
        stored = _CODEC.decode(read_private(path, _MAX_BYTES, _WHAT))
        blindings = _bytes(stored.blindings)
        count = len(blindings) // SCALAR_BYTES
        reader = Reader(_WHAT, blindings)
        rhos = reader.scalars(count)
        reader.end()
        values = _bytes(stored.values)
        if not count or len(values) != count * stored.d * _VALUE_BYTES:
            raise DecodeError(_WHAT, f"{len(values)} bytes of values for {count} records of {stored.d} features")
        rows = np.frombuffer(values, dtype="<i8").reshape(count, stored.d).tolist()
        commitments = decode_point_list(_bytes(stored.commitments), count)
        return cls(commitments, tuple(CommittedRecord(tuple(row), rho) for row, rho in zip(rows, rhos, strict=True)))


def submit_committed(
    session: Session,
    folder: Path,
    plan: CommittedPlan,
    schema: Schema,
    cohort: Cohort,
    report: Callable[[str, int, int], None],
) -> Reference:
    """Commit to a cohort and certify it batch by batch, then log its entry. See `Clinic.submit`.

    The handles of the patients lie in the folder already. Raises what `Clinic.submit` raises.
    """
    params, name = mpc_parameters(plan.parameter_set), session.identity.name
    spans = batches(len(cohort))
    handles = RecordHandles.load(folder / "handles.json").root

    def entry(commitments: bytes, certificates: Sequence[bytes]) -> CommittedRecords:
        return CommittedRecords(
            clinic=name,
            parameter_set=params.name,
            schema=plan.schema,
            d=schema.d,
            count=len(cohort),
            commitments=commitments,
            certificates=tuple(certificates),
            handles=handles,
            policy=plan.policy,
        )

    try:
        session.identity.sign(entry(bytes(_DIGEST_BYTES), [bytes(_DIGEST_BYTES)] * len(spans)))
    except UsageError as error:
        raise UsageError(f"{len(cohort)} patients are too many for one entry, divide the cohort: {error}") from error
    path = folder / OPENINGS
    if not path.exists():
        RecordOpenings(*commit_records(schema, params, cohort.values)).save(path)
    openings = RecordOpenings.load(path)
    server = session.server
    kept = folder / "certificates"
    digests = read_private(kept, _MAX_DIGESTS, "digests") if kept.exists() else b""
    for number in range(len(digests) // _DIGEST_BYTES, len(spans)):
        report("certify and send", number, len(spans))
        span = slice(spans[number].start, spans[number].stop)
        statement = RecordsStatement(params, name, schema, handles, len(cohort), span.start, openings.commitments[span])
        certificate = certify_records(statement, openings.records[span])
        if len(certificate) > MAX_BLOB_BYTES:
            raise UsageError(
                f"certificates of records with {schema.d} features exceed {MAX_BLOB_BYTES} bytes: too many"
            )
        digests += server.put_blob(certificate)
        write_private(kept, digests)
    report("certify and send", len(spans), len(spans))
    server.put_blob(schema.encode_json())
    commitments = server.put_blob(encode_point_list(openings.commitments))
    certificates = [digests[i : i + _DIGEST_BYTES] for i in range(0, len(digests), _DIGEST_BYTES)]
    return session.log_once(entry(commitments, certificates), folder, "records")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(_WHAT, "not base64") from error
