"""What a server answers, as shapes: strict types, bounded texts, and fields that a later server adds are passed over.

Nothing here is believed for being well-formed; whoever uses an answer checks it (`api.client.transport`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

from pydantic import ConfigDict, Field

from privacy.canonical_json import Digest, Timestamp, UnsignedInteger

__all__ = [
    "Digests",
    "ExposureRow",
    "GrantRow",
    "Health",
    "Job",
    "JobState",
    "Logged",
    "ModelRow",
    "Offer",
    "Offers",
    "PartyRow",
    "Refusal",
    "RefusalRow",
    "Refused",
    "RequestRow",
    "Stored",
]

_JobId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
_MAX_NOTE: Final = 1 << 16


class _Answer:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")


@dataclass(frozen=True)
class Health(_Answer):
    """Who the server says it is. `log_key` is its word, not a reason to trust it."""

    status: str
    version: str
    origin: str
    log_key: str
    server_party: UnsignedInteger


@dataclass(frozen=True)
class Refusal(_Answer):
    """Why the server said no."""

    type: Annotated[str, Field(max_length=200)]
    message: Annotated[str, Field(max_length=10_000)]
    check: Annotated[str, Field(max_length=200)] | None = None
    hint: Annotated[str, Field(max_length=10_000)] = ""


@dataclass(frozen=True)
class Refused(_Answer):
    """The body of an answer with an error status."""

    error: Refusal


@dataclass(frozen=True)
class Logged(_Answer):
    """Where an entry is."""

    index: UnsignedInteger
    leaf: Digest


@dataclass(frozen=True)
class Stored(_Answer):
    """A blob that was taken."""

    digest: Digest
    size: UnsignedInteger


@dataclass(frozen=True)
class Digests(_Answer):
    """Digests of what was uploaded, in its order."""

    digests: list[Digest]


@dataclass(frozen=True)
class Job(_Answer):
    """The job of a prediction."""

    job: _JobId


@dataclass(frozen=True)
class JobState(_Answer):
    """How far a prediction is. `prediction` is the index of its entry when it is done.

    `computing` is what the nodes of clinic and owner do, between them; the other states are the server's own work.
    """

    id: str
    state: Literal["queued", "computing", "running", "done", "failed"]
    done: UnsignedInteger
    total: UnsignedInteger
    prediction: UnsignedInteger | None = None
    error: Refusal | None = None


@dataclass(frozen=True)
class ModelRow(_Answer):
    """A model that the server offers; its entry is on the ledger at `index`. `scheme` says how it is computed with."""

    index: UnsignedInteger
    leaf: Digest
    name: str
    version: str
    owner: str = ""
    revoked: bool = False
    scheme: Literal["ckks", "mpc"] = "ckks"


@dataclass(frozen=True)
class PartyRow(_Answer):
    """A party on the ledger; its entry is at `index`."""

    index: UnsignedInteger
    leaf: Digest
    role: Literal["clinic", "owner", "server", "consumer"]
    name: Annotated[str, Field(max_length=1000)]
    mailbox: bool


@dataclass(frozen=True)
class GrantRow(_Answer):
    """A grant of a request, and the disclosures under it, by index."""

    index: UnsignedInteger
    until: Timestamp
    revoked: bool
    disclosures: tuple[UnsignedInteger, ...]


@dataclass(frozen=True)
class RefusalRow(_Answer):
    """A refusal of a request."""

    index: UnsignedInteger
    reason: Annotated[str, Field(max_length=1000)]


@dataclass(frozen=True)
class RequestRow(_Answer):
    """A request, and what the server says came of it; each of these is an entry on the ledger."""

    index: UnsignedInteger
    leaf: Digest
    clinic: UnsignedInteger
    consumer: UnsignedInteger
    state: Literal["open", "granted", "refused", "withdrawn"]
    grants: tuple[GrantRow, ...]
    refusal: RefusalRow | None


@dataclass(frozen=True)
class Offer(_Answer):
    """A joint prediction that waits for this party's node, in the part of A (the clinic) or B (the owner).

    `records`, `model`, `clinic` and `owner` are indices of ledger entries, `nonce` is what the clinic sent with its
    request. `peer_address` is where B's node listens, for A. `checkpoint` is the log's signed note, NOT yet verified.
    """

    job: _JobId
    role: Literal["A", "B"]
    records: UnsignedInteger
    model: UnsignedInteger
    nonce: Digest
    clinic: UnsignedInteger
    owner: UnsignedInteger
    peer_address: Annotated[str, Field(max_length=300)] | None
    checkpoint: Annotated[bytes, Field(max_length=_MAX_NOTE)]


@dataclass(frozen=True)
class Offers(_Answer):
    """What waits for this party's node."""

    offers: Annotated[list[Offer], Field(max_length=256)]


@dataclass(frozen=True)
class ExposureRow(_Answer):
    """What the server counts as released by predictions of one output to one clinic."""

    clinic: str
    model: UnsignedInteger
    leaf: str
    output: str
    predictions: UnsignedInteger
    released_bits: float
    model_bits: UnsignedInteger
    share: float
    recoverable: bool
    cap_bits: float | None = None
