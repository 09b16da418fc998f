"""A clinic's encrypted records: packed, encrypted and sent block by block, then logged.

Called by `api.client.clinic.Clinic`. Digests of finished blocks are kept in the folder of the cohort, so that a crash
loses one block at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from api.client.handles import RecordHandles
from api.client.session import Session
from api.client.transport import MAX_UPLOAD_BYTES, MAX_UPLOAD_FILES
from api.entries import Policy, Records, Reference, encode_digest_list
from privacy.canonical_json import Codec, Digest, Record
from privacy.ckks.canonical import input_digest
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing, blocks, capacity, pack
from privacy.ckks.params import ParameterSet
from privacy.errors import VerificationFailed
from privacy.models.schema import Cohort, Schema
from privacy.private_files import read_private, write_private

__all__ = ["EncryptedPlan", "PackingChoice", "submit_encrypted"]

PackingChoice = Literal["auto", "rows", "columns"]

_MAX_DIGESTS: Final = 1 << 24
_DIGEST_BYTES: Final = 32


@dataclass(frozen=True)
class EncryptedPlan(Record):
    """How a cohort is submitted, fixed before the first byte is sent."""

    format: Literal["sealproof/submission/v1"]
    key: int
    schema: Digest
    packing: Literal["columns", "rows"]
    policy: Policy

    @classmethod
    def of(
        cls, params: ParameterSet, key: Reference, schema: Schema, count: int, packing: PackingChoice, policy: Policy
    ) -> EncryptedPlan:
        """The plan for `count` records of this schema under key entry `key`."""
        if packing == "auto":
            fits = schema.d <= params.N and count <= capacity(params, Packing.ROWS, schema.d)
            packing = "rows" if fits else "columns"
        return cls("sealproof/submission/v1", key.index, schema.digest(), packing, policy)

    def encode(self) -> bytes:
        """Canonical bytes."""
        return _PLAN.encode(self)


_PLAN: Final = Codec(EncryptedPlan, "submission", 1 << 20)


def submit_encrypted(
    session: Session,
    folder: Path,
    plan: EncryptedPlan,
    keys: ClinicKeys,
    key: Reference,
    schema: Schema,
    cohort: Cohort,
    report: Callable[[str, int, int], None],
) -> Reference:
    """Encrypt and send a cohort block by block, then log its entry. See `Clinic.submit`.

    The handles of the patients lie in the folder already. Raises what `Clinic.submit` raises.
    """
    params = keys.params
    spans = blocks(len(cohort), capacity(params, Packing(plan.packing), schema.d))
    digests = _upload(session, folder, plan, keys, key, schema, cohort, spans, report)
    body = Records(
        clinic=session.identity.name,
        key=key,
        parameter_set=params.name,
        schema=plan.schema,
        packing=plan.packing,
        d=schema.d,
        count=len(cohort),
        blocks=len(spans),
        ciphertexts=session.server.put_blob(encode_digest_list(digests)),
        handles=RecordHandles.load(folder / "handles.json").root,
        policy=plan.policy,
    )
    return session.log_once(body, folder, "records")


def _upload(
    session: Session,
    folder: Path,
    plan: EncryptedPlan,
    keys: ClinicKeys,
    key: Reference,
    schema: Schema,
    cohort: Cohort,
    spans: Sequence[range],
    report: Callable[[str, int, int], None],
) -> tuple[bytes, ...]:
    """Digests of all ciphertexts; those of finished blocks are kept."""
    params, packing = keys.params, Packing(plan.packing)
    per_block = _DIGEST_BYTES * (schema.d if packing is Packing.COLUMNS else 1)
    kept = folder / "digests"
    data = read_private(kept, _MAX_DIGESTS, "digests") if kept.exists() else b""
    for place in range(len(data) // per_block, len(spans)):
        report("encrypt and send", place, len(spans))
        values = schema.encode(cohort.values[spans[place].start : spans[place].stop])
        encrypted = keys.encrypt_block(pack(params, packing, values))
        digests = [input_digest(params, key.leaf, item.array) for item in encrypted]
        sent = 0
        for batch in _batches([item.seal_bytes for item in encrypted]):
            answered = session.server.upload_ciphertexts(key.index, batch)
            if answered != digests[sent : sent + len(batch)]:
                raise VerificationFailed("submit.digests", "the server stored other ciphertexts than were sent")
            sent += len(batch)
        data = data[: place * per_block] + b"".join(digests)
        write_private(kept, data)
    report("encrypt and send", len(spans), len(spans))
    return tuple(data[i : i + _DIGEST_BYTES] for i in range(0, len(data), _DIGEST_BYTES))


def _batches(files: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Runs of files that one request takes."""
    batch: list[bytes] = []
    size = 0
    for file in files:
        if batch and (len(batch) == MAX_UPLOAD_FILES or size + 4 + len(file) > MAX_UPLOAD_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += 4 + len(file)
    if batch:
        yield batch
