"""Ledger entries: what is written, by whom, and how it is signed.

An entry is canonical JSON of at most 65,535 bytes:

    {"author": <reference to the author's party entry, null in a party entry>, "body": {...},
     "kind": "sealproof/<kind>/v1", "signature": <base64>}

The signature is Ed25519 by the author's key over `sealproof/entry/v1\\n` and the canonical JSON of the entry without
its signature. Entries hold commitments and digests only; what is behind a digest is a blob. Nothing here is derived
from patient data without 128 bits of blinding (docs/spec/protocol.md, section 2, records entry).

Decoding says nothing about truth: signatures are checked by `verify_signature`, references and the order key < records,
model < prediction by whoever reads the ledger (docs/spec/protocol.md, section 2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from types import MappingProxyType
from typing import Annotated, ClassVar, Generic, Literal, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ConfigDict, Field

from api.approval_entries import Approval, ApprovalSignature
from api.consent_entries import Disclosure, Grant, Refusal, Request
from api.entry_parts import Policy, Reference
from api.joint_entries import (
    Clearance,
    CommittedRecords,
    JointPrediction,
    JointProof,
    Network,
    NetworkLayer,
    Suspension,
)
from ledger.tiles import MAX_ENTRY_BYTES
from privacy.canonical_json import (
    Codec,
    DecimalInteger,
    Digest,
    Identifier,
    Name,
    OmitNone,
    Point,
    PositiveInteger,
    Record,
    Signature,
    Text,
    UnsignedInteger,
    canonical_bytes,
)
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.weight_statements import Direction, HasSign, IsWithin, IsZero

__all__ = [
    "ENTRY_DOMAIN",
    "KINDS",
    "MAX_ENTRY_BYTES",
    "WRITERS",
    "AnyEntry",
    "AnyStatement",
    "Approval",
    "ApprovalSignature",
    "Body",
    "Bounded",
    "Clearance",
    "CommittedRecords",
    "Disclosure",
    "Entry",
    "ErrorBound",
    "Grant",
    "JointPrediction",
    "JointProof",
    "Key",
    "Model",
    "ModelOutput",
    "Network",
    "NetworkLayer",
    "Party",
    "Policy",
    "Prediction",
    "PredictionProof",
    "Records",
    "Reference",
    "Refusal",
    "Request",
    "Revocation",
    "Sign",
    "Suspension",
    "VerifiedEntry",
    "ZeroWeight",
    "decode_digest_list",
    "decode_entry",
    "decode_point_list",
    "encode_digest_list",
    "encode_point_list",
    "sign_entry",
    "verify_signature",
]

ENTRY_DOMAIN = b"sealproof/entry/v1\n"

_DIGEST_BYTES = 32
_POINT_BYTES = 48
_MAX_PROOF_ANSWERS = 256
"""B = blocks x outputs of one evaluation proof (docs/spec/protocol.md, section 1)."""


# -- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelOutput(Record):
    """One output of a model: -2^b <= w_i < 2^b for every weight, -2^b_bias <= bias < 2^b_bias, and C_W."""

    name: Name
    link: Identifier
    b: UnsignedInteger
    b_bias: UnsignedInteger
    commitment: Point


@dataclass(frozen=True)
class ZeroWeight(Record):
    """The statement that a feature has weight zero in an output, with the digest of its proof (section 8)."""

    type: Literal["zero-weight"]
    output: UnsignedInteger
    feature: UnsignedInteger
    proof: Digest

    @property
    def stated(self) -> IsZero:
        """What the proof proves."""
        return IsZero(self.output, self.feature)


@dataclass(frozen=True)
class Sign(Record):
    """The statement that a feature's weight in an output is not negative or not positive, with its proof's digest."""

    type: Literal["sign"]
    output: UnsignedInteger
    feature: UnsignedInteger
    direction: Direction
    proof: Digest

    @property
    def stated(self) -> HasSign:
        """What the proof proves."""
        return HasSign(self.output, self.feature, self.direction)


@dataclass(frozen=True)
class Bounded(Record):
    """The statement -bound <= w_i <= bound about a feature's integer weight in an output, with its proof's digest."""

    type: Literal["bounded"]
    output: UnsignedInteger
    feature: UnsignedInteger
    bound: Annotated[DecimalInteger, Field(ge=1)]
    proof: Digest

    @property
    def stated(self) -> IsWithin:
        """What the proof proves."""
        return IsWithin(self.output, self.feature, self.bound)


AnyStatement = ZeroWeight | Sign | Bounded
"""What an owner may say of one weight in public (`privacy.models.weight_statements`)."""


@dataclass(frozen=True)
class ErrorBound(Record):
    """A decrypted answer is off by at most error / 2^scale_bits of a unit. Answers lie on the grid 2^-grid_bits."""

    error: Annotated[DecimalInteger, Field(ge=0)]
    scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger


@dataclass(frozen=True)
class PredictionProof(Record):
    """One evaluation proof of a prediction.

    It covers the blocks first_block .. first_block + blocks - 1, each with `count` patients, and the model outputs
    `outputs`. `results` are the canonical result digests, block by block and within a block in the order of `outputs`.
    `digest` and `size` are those of the proof bytes, `blur_bits` is f.
    """

    first_block: UnsignedInteger
    blocks: PositiveInteger
    count: PositiveInteger
    outputs: tuple[UnsignedInteger, ...]
    results: tuple[Digest, ...]
    digest: Digest
    size: PositiveInteger
    blur_bits: UnsignedInteger

    def __post_init__(self) -> None:
        answers = self.blocks * len(self.outputs)
        if not 1 <= answers <= _MAX_PROOF_ANSWERS:
            raise UsageError(f"a proof covers 1 to {_MAX_PROOF_ANSWERS} results, got {answers}")
        if len(self.results) != answers:
            raise UsageError(f"expected {answers} result digests, got {len(self.results)}")
        if any(a >= b for a, b in zip(self.outputs, self.outputs[1:], strict=False)):
            raise UsageError("outputs must be strictly increasing")


# -- bodies -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Party(Record):
    """Registers an Ed25519 key. Signed by that key, which proves that its holder made the entry.

    `mailbox` is an X25519 key: what others leave for this party on a server is sealed for it (`privacy.sealed`).
    """

    KIND: ClassVar[str] = "sealproof/party/v1"

    role: Literal["clinic", "owner", "server", "consumer"]
    name: Name
    public_key: Digest
    mailbox: Annotated[Digest | None, OmitNone] = None

    def __post_init__(self) -> None:
        if _is_small_order(self.public_key):
            raise UsageError("public key: of small order or not canonical; anyone could sign under it")
        if self.mailbox is not None and _opens_for_anyone(self.mailbox):
            raise UsageError("mailbox: of small order or not canonical; anyone could open what is sealed for it")


@dataclass(frozen=True)
class Key(Record):
    """A clinic's CKKS key (section 3). `p0` and `certificate` are digests of blobs; C_s = C_s_plus - C_s_minus is
    derived.

    `commitments` are further commitments that the certificate refers to, by name.
    """

    KIND: ClassVar[str] = "sealproof/key/v1"

    clinic: Name
    parameter_set: Identifier
    number: UnsignedInteger
    p0: Digest
    C_s_plus: Point
    C_s_minus: Point
    commitments: dict[Identifier, Point]
    certificate: Digest


@dataclass(frozen=True)
class Model(Record):
    """A committed linear model (sections 3 and 8).

    `schema` and `certificate` are digests of blobs, `artefact` is a blinded commitment to the float artefact's digest,
    `card` is what the owner says of the model, g = 2^-grid_bits.
    """

    KIND: ClassVar[str] = "sealproof/model/v1"

    name: Name
    version: Name
    parameter_set: Identifier
    schema: Digest
    input_scale_bits: UnsignedInteger
    weight_scale_bits: UnsignedInteger
    grid_bits: UnsignedInteger
    outputs: tuple[ModelOutput, ...]
    certificate: Digest
    artefact: Digest
    card: dict[Identifier, Text]
    statements: tuple[Annotated[AnyStatement, Field(discriminator="type")], ...]

    def __post_init__(self) -> None:
        if not self.outputs:
            raise UsageError("a model has at least one output")
        if len({output.name for output in self.outputs}) != len(self.outputs):
            raise UsageError("outputs must have different names")
        if any(statement.output >= len(self.outputs) for statement in self.statements):
            raise UsageError("a statement is about an output that the model does not have")


@dataclass(frozen=True)
class Records(Record):
    """A committed cohort (section 2).

    `d` features, `count` patients in `blocks` blocks. `ciphertexts` is the digest of a blob, the list of canonical
    input digests (`encode_digest_list`), block by block and within a block feature by feature. `handles` is the Merkle
    root of the blinded record handles.
    """

    KIND: ClassVar[str] = "sealproof/records/v1"

    clinic: Name
    key: Reference
    parameter_set: Identifier
    schema: Digest
    packing: Literal["columns", "rows"]
    d: PositiveInteger
    count: PositiveInteger
    blocks: PositiveInteger
    ciphertexts: Digest
    handles: Digest
    policy: Policy


@dataclass(frozen=True)
class Prediction(Record):
    """Answers of a model on records under a key (section 5).

    `checkpoint_size` and `checkpoint_root` are the ledger head under which nothing of these was revoked. The error
    bound is the largest of the proofs.
    """

    KIND: ClassVar[str] = "sealproof/prediction/v1"

    records: Reference
    model: Reference
    key: Reference
    proofs: tuple[PredictionProof, ...]
    error_bound: ErrorBound
    checkpoint_size: UnsignedInteger
    checkpoint_root: Digest

    def __post_init__(self) -> None:
        if not self.proofs:
            raise UsageError("a prediction has at least one proof")
        seen: set[tuple[int, int]] = set()
        for proof in self.proofs:
            answers = {
                (block, output)
                for block in range(proof.first_block, proof.first_block + proof.blocks)
                for output in proof.outputs
            }
            if seen & answers:
                raise UsageError("two proofs cover the same block and output")
            seen |= answers


@dataclass(frozen=True)
class Revocation(Record):
    """Withdraws a key, a model, a network, committed or encrypted records, a request or a grant from now on."""

    KIND: ClassVar[str] = "sealproof/revocation/v1"

    target: Reference
    reason: Text


Body = (
    Party
    | Key
    | Model
    | Records
    | Prediction
    | Revocation
    | Network
    | CommittedRecords
    | JointPrediction
    | Disclosure
    | Suspension
    | Clearance
    | Approval
    | Request
    | Grant
    | Refusal
)
_BODIES: tuple[type[Body], ...] = (
    Party,
    Key,
    Model,
    Records,
    Prediction,
    Revocation,
    Network,
    CommittedRecords,
    JointPrediction,
    Disclosure,
    Suspension,
    Clearance,
    Approval,
    Request,
    Grant,
    Refusal,
)
BodyT = TypeVar("BodyT", bound=Body, covariant=True)

KINDS: Mapping[str, type[Body]] = MappingProxyType({body.KIND: body for body in _BODIES})
"""Every kind of entry, by the name that the entry carries."""

WRITERS: Mapping[type[Body], tuple[str, ...]] = MappingProxyType(
    {
        Key: ("clinic",),
        Records: ("clinic",),
        CommittedRecords: ("clinic",),
        Model: ("owner",),
        Network: ("owner",),
        Prediction: ("server",),
        JointPrediction: ("server",),
        Disclosure: ("clinic",),
        Request: ("consumer",),
        Grant: ("clinic",),
        Refusal: ("clinic",),
        Approval: ("owner", "server"),
    }
)
"""Roles of who may write what. A revocation is by whoever wrote its target, a suspension or clearance by one of its two
parties."""


# -- entries ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry(Record, Generic[BodyT]):
    """An entry of the ledger. `author` is None in a party entry and only there."""

    author: Reference | None
    body: BodyT
    kind: str
    signature: Signature

    def __post_init__(self) -> None:
        if self.kind != self.body.KIND:
            raise UsageError(f"kind {self.kind!r} does not fit the body of a {self.body.KIND}")
        if (self.author is None) != isinstance(self.body, Party):
            raise UsageError("a party entry has no author, every other entry has one")

    def encode(self) -> bytes:
        """The canonical bytes, as the ledger holds them. Raises UsageError if a field is out of range."""
        return _CODECS[self.kind].encode(self)

    def signed_bytes(self) -> bytes:
        """The bytes under the signature. Raises UsageError if a field has the wrong type."""
        fields = _CODECS[self.kind].jsonable(self)
        del fields["signature"]
        return ENTRY_DOMAIN + canonical_bytes("ledger entry", fields)


AnyEntry = Entry[Body]

_CODECS: Mapping[str, Codec[AnyEntry]] = MappingProxyType(
    {body.KIND: Codec(Entry[body], f"{body.KIND} entry", MAX_ENTRY_BYTES) for body in _BODIES}  # type: ignore[valid-type]
)


@dataclass(frozen=True)
class _Kind:
    """What is read first of an entry: which decoder to use for all of it."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

    kind: str


_KIND = Codec(_Kind, "ledger entry", MAX_ENTRY_BYTES)


def decode_entry(data: bytes) -> AnyEntry:
    """The entry whose bytes are `data`. Raises DecodeError for any other bytes. The signature is not checked here."""
    kind = _KIND.peek(data).kind
    if kind not in _CODECS:
        raise DecodeError("ledger entry", f"unknown kind {kind[:64]!r}; known: {', '.join(sorted(_CODECS))}")
    return _CODECS[kind].decode(data)


# -- signatures -------------------------------------------------------------------------------------------------------

_VERIFIED = object()


@dataclass(frozen=True)
class VerifiedEntry(Generic[BodyT]):
    """An entry whose signature verified under `public_key`. Only `verify_signature` makes one."""

    entry: Entry[BodyT]
    public_key: bytes
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not _VERIFIED:
            raise UsageError("a VerifiedEntry is made by verify_signature only")

    @property
    def body(self) -> BodyT:
        """The body of the entry."""
        return self.entry.body


def sign_entry(body: Body, author: Reference | None, private_key: Ed25519PrivateKey) -> bytes:
    """The bytes of the entry with this body, signed by its author.

    `author` refers to the party entry of `private_key`; it is None for a Party, which must register that very key.
    Raises UsageError.
    """
    if isinstance(body, Party) and body.public_key != private_key.public_key().public_bytes_raw():
        raise UsageError("a party registers the key that signs its entry, and no other")
    draft: AnyEntry = Entry(author, body, body.KIND, bytes(64))
    return replace(draft, signature=private_key.sign(draft.signed_bytes())).encode()


def verify_signature(entry: Entry[BodyT], public_key: bytes) -> VerifiedEntry[BodyT]:
    """Check that `entry` is signed under `public_key` (32 bytes), the key of the party entry that `entry.author`
    refers to.

    For a party entry, `public_key` must be the key that it registers. Raises VerificationFailed("entry.signature").
    """
    if isinstance(entry.body, Party) and entry.body.public_key != public_key:
        raise VerificationFailed(
            "entry.signature", "a party entry is signed by the key that it registers, and no other"
        )
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(entry.signature, entry.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise VerificationFailed("entry.signature", f"not signed by the key {public_key.hex()}") from error
    return VerifiedEntry(entry, public_key, _VERIFIED)


_FIELD_PRIME = 2**255 - 19
# y-coordinates of the points of order 1, 2, 4 and 8 of edwards25519 (the two long ones belong to order 8).
_ORDER_EIGHT_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_SMALL_ORDER_Y = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_EIGHT_Y, _FIELD_PRIME - _ORDER_EIGHT_Y})


def _is_small_order(public_key: bytes) -> bool:
    """Under a key of small order one signature fits many messages, so its holder could deny any of them."""
    y = int.from_bytes(public_key, "little") & (2**255 - 1)
    return y >= _FIELD_PRIME or y in _SMALL_ORDER_Y


# u-coordinates of the points of order 1, 2, 4 and 8 of curve25519 and its twist (the two long ones have order 8).
_SMALL_ORDER_U = frozenset(
    {
        *(0, 1, _FIELD_PRIME - 1),
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
    }
)


def _opens_for_anyone(mailbox: bytes) -> bool:
    """With a key of small order everybody shares the secret zero (RFC 7748, section 6.1). Of the encodings of a key
    only the canonical one is taken, without the bit that X25519 ignores."""
    u = int.from_bytes(mailbox, "little")
    return u >= _FIELD_PRIME or u in _SMALL_ORDER_U


# -- lists of digests and of points -----------------------------------------------------------------------------------


def encode_digest_list(digests: Sequence[bytes]) -> bytes:
    """The blob behind `Records.ciphertexts`: the digests, 32 bytes each, one after the other. Raises UsageError."""
    if any(len(digest) != _DIGEST_BYTES for digest in digests):
        raise UsageError(f"every digest has {_DIGEST_BYTES} bytes")
    return b"".join(digests)


def decode_digest_list(data: bytes, count: int) -> tuple[bytes, ...]:
    """The `count` digests whose encoding is `data`. Raises DecodeError."""
    return _divided("digest list", data, count, _DIGEST_BYTES)


def encode_point_list(points: Sequence[bytes]) -> bytes:
    """The blob behind `CommittedRecords.commitments`: the points, 48 bytes each, one after the other.

    Raises UsageError.
    """
    if any(len(point) != _POINT_BYTES for point in points):
        raise UsageError(f"every point has {_POINT_BYTES} bytes")
    return b"".join(points)


def decode_point_list(data: bytes, count: int) -> tuple[bytes, ...]:
    """The `count` points whose encoding is `data`; that they lie in the group is the verifier's business.

    Raises DecodeError.
    """
    return _divided("list of commitments", data, count, _POINT_BYTES)


def _divided(what: str, data: bytes, count: int, size: int) -> tuple[bytes, ...]:
    if len(data) != count * size:
        raise DecodeError(what, f"expected {count} items in {count * size} bytes, got {len(data)}")
    return tuple(data[i : i + size] for i in range(0, len(data), size))
