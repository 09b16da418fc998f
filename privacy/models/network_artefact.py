"""The float network as a file, and its digest; the blinded commitment is that of `privacy.models.artefact`.

The same rules as for linear models (docs/spec/protocol.md, section 8): canonical JSON, every number a hexadecimal
float, secret, never a pickle. A file says by its format which of the two it holds.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import rfc8785

from privacy.errors import DecodeError, UsageError
from privacy.models.artefact import (
    MAX_MODEL_BYTES,
    decode_affine,
    decode_model,
    decode_model_object,
    encode_affine,
    encode_model,
    json_list,
    read_model_file,
    verify_digest_opening,
)
from privacy.models.linear import LinearModel
from privacy.models.network import Dense, Network
from privacy.models.schema import Schema, decode_canonical_json
from privacy.private_files import write_private

__all__ = [
    "any_model_digest",
    "decode_any_model",
    "decode_network",
    "encode_any_model",
    "encode_network",
    "load_any_model",
    "save_any_model",
    "verify_any_model_opening",
]

NETWORK_FORMAT = "sealproof/network-model/v1"
_FIELDS = {"format", "name", "link", "output_names", "layers", "schema"}
_LAYER_FIELDS = {"weights", "bias"}


def encode_network(network: Network) -> bytes:
    """Canonical bytes of a network and its schema. Secret: the weights are in the clear."""
    return rfc8785.dumps(
        {
            "format": NETWORK_FORMAT,
            "name": network.name,
            "link": network.link,
            "output_names": list(network.output_names),
            "layers": [encode_affine(layer.weights, layer.bias) for layer in network.layers],
            "schema": network.schema.to_json(),
        }
    )


def decode_network(data: bytes) -> Network:
    """The network whose canonical encoding is exactly `data`. Raises DecodeError for anything else."""
    document = decode_model_object(data, _FIELDS, NETWORK_FORMAT)
    names = json_list("output_names", document["output_names"])
    schema = Schema.from_json(document["schema"])
    layers = []
    try:
        for layer in json_list("layers", document["layers"]):
            if not isinstance(layer, dict) or set(layer) != _LAYER_FIELDS:
                raise DecodeError("model", "a layer is not an object with exactly the fields bias, weights")
            layers.append(Dense(*decode_affine(layer)))
        network = Network(document["name"], tuple(layers), tuple(names), document["link"], schema)
    except (UsageError, TypeError) as error:
        raise DecodeError("model", str(error)) from error
    # fromhex takes many spellings of one number; hex() writes one.
    if encode_network(network) != data:
        raise DecodeError("model", "a number is not in the one spelling that float.hex writes")
    return network


def encode_any_model(model: LinearModel | Network) -> bytes:
    """Canonical bytes of a linear model or of a network, each in its own format. Secret."""
    return encode_network(model) if isinstance(model, Network) else encode_model(model)


def decode_any_model(data: bytes) -> LinearModel | Network:
    """The linear model or network whose canonical encoding is exactly `data`. Raises DecodeError for anything else."""
    if len(data) > MAX_MODEL_BYTES:
        raise DecodeError("model", f"{len(data)} bytes, at most {MAX_MODEL_BYTES}")
    document = decode_canonical_json("model", data)
    network = isinstance(document, dict) and document.get("format") == NETWORK_FORMAT
    return decode_network(data) if network else decode_model(data)


def any_model_digest(model: LinearModel | Network) -> bytes:
    """SHA-256 of the canonical encoding. Secret: it confirms a guess at the weights; publish the commitment."""
    return hashlib.sha256(encode_any_model(model)).digest()


def verify_any_model_opening(commitment: bytes, model: LinearModel | Network, salt: bytes) -> None:
    """Check that `commitment` opens to this very model. Raises VerificationFailed("model.artefact", ...)."""
    verify_digest_opening(commitment, any_model_digest(model), salt)


def save_any_model(model: LinearModel | Network, path: Path) -> None:
    """Write the model to `path`, readable by its owner alone (0600); a reader sees the old file or the whole new one.

    Raises OSError, leaving `path` as it was.
    """
    write_private(path, encode_any_model(model))


def load_any_model(path: Path) -> LinearModel | Network:
    """Read a linear model or a network that was written by `save_any_model` or `save_model`.

    Raises UsageError for a file that cannot be read or looks like a pickle, which could run any code and is never
    loaded; DecodeError for a file that is not exactly the encoding of a model.
    """
    return decode_any_model(read_model_file(path))
