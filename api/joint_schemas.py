"""JSON bodies of what nodes of multi-party computation ask and report (`api.routes.mpc`)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.joint_prediction import MAX_SEALED_BYTES
from api.joint_service import Offer
from api.mpc.link import parse_address
from api.schemas import Hex32, Index

__all__ = [
    "DeliveredProofRequest",
    "FailureRequest",
    "OfferRequest",
    "OfferResponse",
    "Offers",
    "ResultRequest",
]

_LEAF = "9f3c" * 16
_JOB = "5d41402abc4b2a76b9719d911017c592"
_NOTE = "localhost/sealproof\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n...\n"
_NODE = {"dealer_address": "dealer.example:7200", "dealer_key": _LEAF, "wait": 20}


def _check_address(text: str) -> str:
    if parse_address(text).port == 0:  # its UsageError is a ValueError
        raise ValueError(f"{text!r} names no port")
    return text


def _check_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("has characters that cannot be printed")
    return text


def _strict(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [fields]})


def _answer(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


Address = Annotated[str, Field(max_length=300), AfterValidator(_check_address)]


class OfferRequest(BaseModel):
    """What a node says of itself, and how long it waits for a session to begin, in seconds.

    `address`: where an owner's node listens for nodes of clinics, host:port; null for a clinic's. `dealer_key` is the
    dealer's Ed25519 key: both nodes of a session must name the same.
    """

    model_config = _strict(address="owner.example:7100", **_NODE)

    address: Address | None
    dealer_address: Address
    dealer_key: Hex32
    wait: Annotated[int, Field(ge=0, le=30)]


class OfferResponse(BaseModel):
    """A session that is to begin. `records`, `model`, `clinic` and `owner` are indices of entries.

    `role`: A is the clinic's node and connects to B, the owner's, at `peer_address`. `nonce` is that of the request,
    `checkpoint` the signed head that the prediction will name: the same for both, as long as the job is computing.
    """

    model_config = _answer(
        job=_JOB,
        role="A",
        records=4,
        model=2,
        nonce="00ff" * 16,
        clinic=1,
        owner=3,
        peer_address="owner.example:7100",
        checkpoint=_NOTE,
    )

    job: str
    role: Literal["A", "B"]
    records: Index
    model: Index
    nonce: Hex32
    clinic: Index
    owner: Index
    peer_address: str | None
    checkpoint: str

    @classmethod
    def of(cls, offer: Offer) -> OfferResponse:
        job = offer.job
        return cls(
            job=job.id,
            role=offer.role,
            records=job.records,
            model=job.model,
            nonce=job.nonce,
            clinic=job.clinic,
            owner=offer.owner,
            peer_address=offer.peer_address,
            checkpoint=offer.checkpoint.decode("utf-8"),
        )


class Offers(BaseModel):
    """Sessions that are to begin, oldest first; each is repeated until its job is no longer computing."""

    model_config = _answer(offers=[])

    offers: list[OfferResponse]


class DeliveredProofRequest(BaseModel):
    """A proof that was uploaded, and the digest of the commitments to its answers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    digest: Hex32
    size: Annotated[int, Field(ge=1, le=2**53 - 1)]
    answers: Hex32


class ResultRequest(BaseModel):
    """What both nodes made in a session: one proof for each batch of patients, in order.

    `sealed` holds the owner's shares of the answers, sealed for the clinic's node, in base64.
    """

    model_config = _strict(
        session=_LEAF, proofs=[{"digest": _LEAF, "size": 85_000, "answers": _LEAF}], sealed="c2VhbGVk"
    )

    session: Hex32
    proofs: Annotated[list[DeliveredProofRequest], Field(max_length=1024)]
    sealed: Annotated[str, Field(max_length=4 * (MAX_SEALED_BYTES // 3 + 1))]


class FailureRequest(BaseModel):
    """Why a session ended without its proofs: the name of a check, and a sentence without secrets."""

    model_config = _strict(check="mpc.stalled", message="node 9f3c...: nothing was heard for 120 s")

    check: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    message: Annotated[str, Field(max_length=400), AfterValidator(_check_printable)]
