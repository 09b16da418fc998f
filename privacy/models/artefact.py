"""The float model as a file, its digest, and the blinded commitment to it (docs/spec/protocol.md, section 8).

A model file is canonical JSON (RFC 8785) with every weight as a hexadecimal float, so that it is exact, readable and
executes nothing: pickled models are never loaded. The file holds the weights in the clear and is secret. Its plain
digest would let anyone confirm a guess at the model, so only SHA-256(salt || digest) under a 128-bit salt is published;
opening it to an auditor means handing over the file and the salt.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785
from numpy.typing import NDArray

from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.models.linear import LinearModel
from privacy.models.schema import Schema, decode_canonical_json
from privacy.private_files import read_limited, write_private

__all__ = [
    "SALT_BYTES",
    "artefact_commitment",
    "artefact_digest",
    "decode_model",
    "encode_model",
    "load_model",
    "new_salt",
    "save_model",
    "verify_artefact_opening",
    "verify_digest_opening",
]

MODEL_FORMAT = "sealproof/linear-model/v1"
SALT_BYTES = 16
MAX_MODEL_BYTES = 1 << 27
_FIELDS = {"format", "name", "link", "output_names", "weights", "bias", "schema"}
_PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".npy", ".npz"}


def encode_model(model: LinearModel) -> bytes:
    """Canonical bytes of a model and its schema. Secret: the weights are in the clear."""
    return rfc8785.dumps(
        {
            "format": MODEL_FORMAT,
            "name": model.name,
            "link": model.link,
            "output_names": list(model.output_names),
            "schema": model.schema.to_json(),
            **encode_affine(model.weights, model.bias),
        }
    )


def decode_model(data: bytes) -> LinearModel:
    """The model whose canonical encoding is exactly `data`. Raises DecodeError for anything else."""
    document = decode_model_object(data, _FIELDS, MODEL_FORMAT)
    weights, bias = decode_affine(document)
    names = json_list("output_names", document["output_names"])
    schema = Schema.from_json(document["schema"])
    try:
        model = LinearModel(
            name=document["name"],
            weights=weights,
            bias=bias,
            output_names=tuple(names),
            link=document["link"],
            schema=schema,
        )
    except (UsageError, TypeError) as error:
        raise DecodeError("model", str(error)) from error
    # fromhex takes many spellings of one number; hex() writes one.
    if encode_model(model) != data:
        raise DecodeError("model", "a number is not in the one spelling that float.hex writes")
    return model


def artefact_digest(model: LinearModel) -> bytes:
    """SHA-256 of the canonical encoding. Secret: it confirms a guess at the weights; publish the commitment."""
    return hashlib.sha256(encode_model(model)).digest()


def new_salt() -> bytes:
    """A fresh 128-bit salt for one commitment."""
    return secrets.token_bytes(SALT_BYTES)


def artefact_commitment(digest: bytes, salt: bytes) -> bytes:
    """SHA-256(salt || digest): what the ledger shows of the float model. Raises UsageError for wrong lengths."""
    if len(digest) != hashlib.sha256().digest_size or len(salt) != SALT_BYTES:
        raise UsageError(f"expected a digest of 32 and a salt of {SALT_BYTES} bytes, got {len(digest)} and {len(salt)}")
    return hashlib.sha256(salt + digest).digest()


def verify_artefact_opening(commitment: bytes, model: LinearModel, salt: bytes) -> None:
    """Check that `commitment` opens to this very model. Raises VerificationFailed("model.artefact", ...)."""
    verify_digest_opening(commitment, artefact_digest(model), salt)


def verify_digest_opening(commitment: bytes, digest: bytes, salt: bytes) -> None:
    """Check that `commitment` opens to this digest of a model. Raises VerificationFailed("model.artefact", ...)."""
    if len(salt) != SALT_BYTES:
        raise VerificationFailed("model.artefact", f"the salt has {len(salt)} bytes, expected {SALT_BYTES}")
    if not hmac.compare_digest(commitment, artefact_commitment(digest, salt)):
        raise VerificationFailed("model.artefact", "the commitment does not open to this model and salt")


def save_model(model: LinearModel, path: Path) -> None:
    """Write the model to `path`, readable by its owner alone (0600); a reader sees the old file or the whole new one.

    Raises OSError, leaving `path` as it was.
    """
    write_private(path, encode_model(model))


def load_model(path: Path) -> LinearModel:
    """Read a model written by `save_model`.

    Raises UsageError for a file that cannot be read or looks like a pickle, which could run any code and is never
    loaded; DecodeError for a file that is not exactly the encoding of a model.
    """
    return decode_model(read_model_file(path))


# --- what files of linear models and of networks have in common ---------------------------------------------------


def read_model_file(path: Path) -> bytes:
    """The bytes of a model file, not larger than one can be. Raises UsageError as `load_model` does."""
    data = read_limited(path, MAX_MODEL_BYTES)
    if data[:1] == b"\x80" or data[:4] == b"PK\x03\x04" or path.suffix.lower() in _PICKLE_SUFFIXES:
        raise UsageError(
            f"{path} looks like a pickled model, which could run any code: load it yourself, where you trust it, and "
            "write it with save_model(from_sklearn(...) or from_torch(...), path)"
        )
    return data


def decode_model_object(data: bytes, fields: set[str], format_: str) -> dict[str, Any]:
    """The object of exactly these fields and this format whose canonical JSON is `data`. Raises DecodeError."""
    if len(data) > MAX_MODEL_BYTES:
        raise DecodeError("model", f"{len(data)} bytes, at most {MAX_MODEL_BYTES}")
    document = decode_canonical_json("model", data)
    if not isinstance(document, dict) or set(document) != fields:
        raise DecodeError("model", f"expected an object with exactly the fields {', '.join(sorted(fields))}")
    if document["format"] != format_:
        raise DecodeError("model", f"format is {document['format']!r}, expected {format_!r}")
    return document


def encode_affine(weights: NDArray[np.float64], bias: NDArray[np.float64]) -> dict[str, Any]:
    """The fields `weights` and `bias` of a document, every number as a hexadecimal float. Secret."""
    return {
        "weights": [[weight.hex() for weight in row] for row in weights.tolist()],
        "bias": [value.hex() for value in bias.tolist()],
    }


def decode_affine(document: dict[str, Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Inverse of `encode_affine`, one row of one length per output. Raises DecodeError."""
    rows = [_floats("weights", row) for row in json_list("weights", document["weights"])]
    if len({len(row) for row in rows}) != 1:
        raise DecodeError("model", "weights are not one row of one length per output")
    return np.array(rows, dtype=np.float64), np.array(_floats("bias", document["bias"]), dtype=np.float64)


def json_list(what: str, value: object) -> list[Any]:
    """`value`, which must be a list. Raises DecodeError."""
    if not isinstance(value, list):
        raise DecodeError("model", f"{what} is not a list")
    return value


def _floats(what: str, values: object) -> list[float]:
    return [_float(what, text) for text in json_list(what, values)]


def _float(what: str, text: object) -> float:
    try:
        return float.fromhex(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise DecodeError("model", f"{what}: {text!r} is not a hexadecimal float") from error
