"""Statements about a committed model beyond `bounded`, and its opening (docs/spec/protocol.md, section 8).

`zero-weight(i)`: PK{(w, bias, rho): C_W = Com((w, bias); rho) and w_i = 0}, a representation of C_W over the other
generators (proof S). Making one needs zksk, checking one does not.

Opening to an auditor: the float model, the published quantisation rule and the blindings reproduce every C_W. The
opening file holds integer weights and blindings in the clear: it is the owner's secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from privacy.canonical_json import Codec, Name, Record
from privacy.errors import MissingDependency, UsageError, VerificationFailed
from privacy.models.certificate import ModelStatement, VerifiedModel, WeightOpening, check_statement, weights_key
from privacy.models.linear import LinearModel
from privacy.models.quantise import QuantisedModel, quantise
from privacy.private_files import read_limited, write_private
from privacy.zk.group import ARKWORKS, Group
from privacy.zk.representation import opening_secrets, verify_representation, zero_weight
from privacy.zk.transcript import Transcript

__all__ = [
    "ModelOpening",
    "decode_opening",
    "encode_opening",
    "load_opening",
    "open_commitment",
    "prove_zero_weight",
    "save_opening",
    "verify_zero_weight",
]

_LABEL: Final = b"model-zero-weight"
_MAX_OPENING_BYTES: Final = 1 << 27


@dataclass(frozen=True)
class ModelOpening(Record):
    """What the owner keeps of a committed model, one opening per output in order. Secret; `repr` hides the weights."""

    format: Literal["sealproof/model-opening/v1"]
    name: Name
    version: Name
    outputs: tuple[WeightOpening, ...]

    @staticmethod
    def of(statement: ModelStatement, openings: Sequence[WeightOpening]) -> ModelOpening:
        """The opening of the model of `statement`."""
        return ModelOpening("sealproof/model-opening/v1", statement.name, statement.version, tuple(openings))


_CODEC: Final = Codec(ModelOpening, "model opening", _MAX_OPENING_BYTES)


# --- zero-weight --------------------------------------------------------------------------------------------------


def prove_zero_weight(statement: ModelStatement, output: int, feature: int, opening: WeightOpening) -> bytes:
    """Prove that weight `feature` of output `output` is 0; about 32 bytes a weight.

    Raises:
        UsageError: no such output or feature, a weight that is not zero, or an opening of something else.
        MissingDependency: zksk is not installed.
    """
    try:
        from privacy.zk.sigma import prove_representation
    except ImportError as error:
        raise MissingDependency("zksk", "models", how="make setup, in a checkout") from error
    if not 0 <= output < len(statement.outputs) or not 0 <= feature < statement.d:
        raise UsageError(f"the model has no weight of feature {feature} in output {output}")
    C_W = ARKWORKS.decode(statement.outputs[output].C_W)
    representation = zero_weight(weights_key(statement.d), C_W, feature)
    secrets = opening_secrets(opening.values, opening.rho)
    return prove_representation(representation, secrets, _zero_weight_context(statement, output, feature))


def verify_zero_weight(model: VerifiedModel, output: int, feature: int, proof: bytes) -> None:
    """Check that the committed weight `feature` of output `output` is 0.

    Raises:
        DecodeError: `proof` is not the encoding of a proof for a model of this many weights.
        VerificationFailed: `zero-weight.index` or `representation.challenge`.
    """
    statement = model.statement
    if not 0 <= output < len(statement.outputs) or not 0 <= feature < statement.d:
        raise VerificationFailed(
            "zero-weight.index", f"the model has no weight of feature {feature} in output {output}"
        )
    representation = zero_weight(weights_key(statement.d, model.group), model.commitments[output], feature)
    verify_representation(representation, proof, _zero_weight_context(statement, output, feature))


def _zero_weight_context(statement: ModelStatement, output: int, feature: int) -> bytes:
    transcript = Transcript(_LABEL)
    statement.absorb(transcript)
    transcript.absorb_integers(b"zero-weight", [output, feature])
    return transcript.digest()


# --- opening to an auditor ----------------------------------------------------------------------------------------


def open_commitment(
    statement: ModelStatement, model: LinearModel, openings: Sequence[WeightOpening], group: Group = ARKWORKS
) -> QuantisedModel:
    """Check that `statement` commits to this float model: rule and blindings reproduce every C_W.

    Of `openings` only the blindings are used; the integers are computed again from the float weights. Returns them.

    Raises:
        VerificationFailed: `model.opening`, or the statement is refused by `check_statement`.
    """
    check_statement(statement)
    committed = tuple((output.name, output.link) for output in statement.outputs)
    if (model.name, model.schema.digest()) != (statement.name, statement.schema.digest()):
        raise VerificationFailed("model.opening", "the float model has another name or schema than the committed one")
    if tuple((name, model.link) for name in model.output_names) != committed or len(openings) != len(committed):
        raise VerificationFailed("model.opening", "the float model has other outputs than the committed one")
    try:
        quantised = quantise(
            model,
            statement.parameters,
            grid_bits=statement.grid_bits,
            weight_bits=[output.b for output in statement.outputs],
            bias_bits=[output.b_bias for output in statement.outputs],
        )
    except UsageError as error:
        raise VerificationFailed("model.opening", f"the float model does not quantise: {error}") from error
    key = weights_key(statement.d, group)
    for output, integers, opening in zip(statement.outputs, quantised.outputs, openings, strict=True):
        if group.encode(key.commit((*integers.weights, integers.bias), opening.rho)) != output.C_W:
            raise VerificationFailed("model.opening", f"output {output.name!r}: C_W commits to other weights")
    return quantised


def encode_opening(opening: ModelOpening) -> bytes:
    """Canonical bytes of an opening. Secret. Raises UsageError for one that has no encoding."""
    return _CODEC.encode(opening)


def decode_opening(data: bytes) -> ModelOpening:
    """The opening whose `encode_opening` is exactly `data`. Raises DecodeError."""
    return _CODEC.decode(data)


def save_opening(opening: ModelOpening, path: Path) -> None:
    """Write the opening to `path`, readable by its owner alone (0600); a reader sees the old file or the whole new one.

    Raises UsageError for an opening that has no encoding, and OSError; either way `path` is as it was.
    """
    write_private(path, _CODEC.encode(opening))


def load_opening(path: Path) -> ModelOpening:
    """Read an opening written by `save_opening`.

    Raises UsageError for a file that cannot be read, DecodeError for one that is not exactly the encoding of an
    opening.
    """
    return _CODEC.decode(read_limited(path, _MAX_OPENING_BYTES))
