"""Strict records in canonical JSON (RFC 8785), and the field types they are made of.

A record is a frozen dataclass that derives from `Record`. `Codec` turns it into bytes and back. Decoding is total:
bytes give either a record whose encoding is exactly those bytes, or DecodeError. That one comparison is what refuses
duplicate keys, floats, exponents, escapes, blanks, another key order, omitted or additional fields.

Integers that may leave [-(2^53 - 1), 2^53 - 1] are decimal strings (`DecimalInteger`); digests, keys and points are
lower-case hex; nothing is a float.
"""

from __future__ import annotations

import base64
import binascii
import re
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import rfc8785
from pydantic import AfterValidator, ConfigDict, Field, GetCoreSchemaHandler, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticSerializationError, core_schema

from privacy.errors import DecodeError, UsageError

__all__ = [
    "Address",
    "CamelRecord",
    "Codec",
    "CurveKey",
    "CurveSignature",
    "DecimalInteger",
    "Digest",
    "Identifier",
    "Name",
    "OmitNone",
    "PairingKey",
    "Point",
    "PositiveInteger",
    "Record",
    "Salt",
    "Signature",
    "Text",
    "Timestamp",
    "UnsignedInteger",
    "canonical_bytes",
    "parse_timestamp",
]

T = TypeVar("T")

_LARGEST = 2**53 - 1
_MAX_DECIMAL_DIGITS = 200


class Record:
    """Base of frozen dataclasses that a `Codec` can read: exact types, no field more and none less."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")


class CamelRecord:
    """The same, with field names in camelCase in the JSON, as in-toto and DSSE write them."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", alias_generator=to_camel)


class Codec(Generic[T]):
    """Encoder and decoder of one record type.

    `what` names the record in errors, `max_bytes` is the largest encoding that is written or read. With `omit_none`,
    fields that are None are left out; otherwise they are null.
    """

    def __init__(self, record: type[T], what: str, max_bytes: int, *, omit_none: bool = False) -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(record)
        self._what = what
        self._max_bytes = max_bytes
        self._omit_none = omit_none

    def jsonable(self, value: T) -> Any:
        """`value` as dicts, lists, strings and integers. Raises UsageError if a field has the wrong type."""
        try:
            return self._adapter.dump_python(
                value, mode="json", by_alias=True, exclude_none=self._omit_none, warnings="error"
            )
        except (PydanticSerializationError, AttributeError) as error:
            raise UsageError(f"{self._what}: {error}") from error

    def encode(self, value: T) -> bytes:
        """The canonical bytes of `value`. Raises UsageError if a field is out of range or the whole is too large."""
        data = canonical_bytes(self._what, self.jsonable(value))
        try:
            self.decode(data)
        except DecodeError as error:
            raise UsageError(str(error)) from error
        return data

    def decode(self, data: bytes) -> T:
        """The record whose canonical encoding is exactly `data`. Raises DecodeError."""
        value = self.peek(data)
        if canonical_bytes(self._what, self.jsonable(value)) != data:
            raise DecodeError(self._what, "not in canonical form (RFC 8785, no duplicate or omitted fields)")
        return value

    def peek(self, data: bytes) -> T:
        """What `data` reads as, canonical or not: for choosing a decoder, not for use. Raises DecodeError."""
        if len(data) > self._max_bytes:
            raise DecodeError(self._what, f"{len(data)} bytes, at most {self._max_bytes} are allowed")
        try:
            return self._adapter.validate_json(data)
        except ValidationError as error:
            # Not chained: pydantic's error quotes values, and some records are secret.
            raise DecodeError(self._what, _first_problem(error)) from None


def canonical_bytes(what: str, value: Any) -> bytes:
    """RFC 8785 bytes of dicts, lists, strings, integers, booleans and None. Raises UsageError where there are none."""
    try:
        return rfc8785.dumps(value)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    shown = place if place.isprintable() else repr(place)  # names of fields come from the bytes
    return f"{shown}: {first['msg']}" if place else first["msg"]


# -- field types ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _HexBytes:
    """Marks a `bytes` field of `size` bytes, written as lower-case hex."""

    size: int

    def _dump(self, value: bytes) -> str:
        if not isinstance(value, bytes) or len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {value!r}")
        return value.hex()

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            bytes.fromhex,
            core_schema.str_schema(strict=True, pattern=f"^[0-9a-f]{{{2 * self.size}}}$"),
            serialization=core_schema.plain_serializer_function_ser_schema(self._dump),
        )


@dataclass(frozen=True)
class _Base64Bytes:
    """Marks a `bytes` field of `size` bytes, written in standard base64 with padding."""

    size: int

    def _parse(self, text: str) -> bytes:
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError("not base64") from error
        if len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {len(value)}")
        return value

    def _dump(self, value: bytes) -> str:
        if not isinstance(value, bytes) or len(value) != self.size:
            raise ValueError(f"expected {self.size} bytes, got {value!r}")
        return base64.b64encode(value).decode("ascii")

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self._parse,
            core_schema.str_schema(strict=True, max_length=4 * self.size),
            serialization=core_schema.plain_serializer_function_ser_schema(self._dump),
        )


class _DecimalString:
    """Marks an `int` field of any size, written as a decimal string."""

    @staticmethod
    def _dump(value: int) -> str:
        if type(value) is not int:
            raise ValueError(f"expected an integer, got {value!r}")
        return str(value)

    def __get_pydantic_core_schema__(self, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            int,
            core_schema.str_schema(strict=True, max_length=_MAX_DECIMAL_DIGITS, pattern="^(0|-?[1-9][0-9]*)$"),
            serialization=core_schema.plain_serializer_function_ser_schema(self._dump),
        )


def _check_text(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("only printable characters, and no blanks at either end")
    if unicodedata.normalize("NFC", text) != text:
        raise ValueError("not in Unicode normal form C")
    return text


_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def parse_timestamp(text: str) -> datetime:
    """The instant that a `Timestamp` names, in UTC. Raises UsageError unless it is an existing YYYY-MM-DDTHH:MM:SSZ."""
    if _TIMESTAMP.fullmatch(text) is None:
        raise UsageError(f"time {text!r}: expected YYYY-MM-DDTHH:MM:SSZ")
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise UsageError(f"time {text!r}: {error}") from error


def _check_timestamp(text: str) -> str:
    parse_timestamp(text)
    return text


Digest = Annotated[bytes, _HexBytes(32)]
"""32 bytes as hex: a SHA-256 digest, an Ed25519 public key, a nonce."""

Salt = Annotated[bytes, _HexBytes(16)]
"""16 bytes as hex: the blinding of a record handle."""

Point = Annotated[bytes, _HexBytes(48)]
"""48 bytes as hex: a compressed G1 point. Only the length is checked here, the group is the verifier's business."""

Address = Annotated[bytes, _HexBytes(20)]
"""20 bytes as hex, without 0x: the address of an Ethereum contract or account."""

CurveKey = Annotated[bytes, _HexBytes(33)]
"""33 bytes as hex: a compressed secp256k1 public key. Only the length is checked here."""

PairingKey = Annotated[bytes, _HexBytes(96)]
"""96 bytes as hex: a compressed G2 point. Only the length is checked here, the group is the verifier's business."""

CurveSignature = Annotated[bytes, _HexBytes(64)]
"""64 bytes as hex: r and s of an ECDSA signature, big-endian. Only the length is checked here."""

Signature = Annotated[bytes, _Base64Bytes(64)]
"""64 bytes as base64: an Ed25519 signature."""

UnsignedInteger = Annotated[int, Field(ge=0, le=_LARGEST)]
PositiveInteger = Annotated[int, Field(ge=1, le=_LARGEST)]

DecimalInteger = Annotated[int, _DecimalString()]
"""An integer of up to 200 digits as a decimal string."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_check_text)]
Text = Annotated[str, Field(max_length=4096), AfterValidator(_check_text)]

OmitNone: Any = Field(exclude_if=lambda value: value is None)
"""Marks an optional field that is left out when it is None, where records without it are older than the field:
`Annotated[T | None, OmitNone] = None`."""

Timestamp = Annotated[str, AfterValidator(_check_timestamp)]
"""A second in UTC, `YYYY-MM-DDTHH:MM:SSZ` (one of the forms of RFC 3339)."""
