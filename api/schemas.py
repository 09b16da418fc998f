"""JSON bodies of requests and responses, with the examples that the OpenAPI document shows."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.entries import AnyStatement, Bounded, Model, Network, NetworkLayer, Reference, Sign
from api.errors import Problem
from api.exposure import ExposureRow
from api.jobs import Job
from api.registry import Logged
from privacy.errors import DecodeError

__all__ = [
    "Digests",
    "ErrorBody",
    "ErrorDetail",
    "Health",
    "JobResponse",
    "LayerResponse",
    "Location",
    "ModelDetail",
    "ModelOutputResponse",
    "ModelSummary",
    "PredictionRequest",
    "Queued",
    "Row",
    "StoredBlob",
    "WeightStatementResponse",
    "parsed",
]

_LEAF = "9f3c" * 16
_MODEL: dict[str, Any] = {
    "index": 2,
    "leaf": _LEAF,
    "scheme": "ckks",
    "name": "risk",
    "version": "1.0",
    "owner": "oncology-lab",
    "parameter_set": "linear-4096",
    "schema_digest": _LEAF,
    "grid_bits": 6,
    "outputs": [{"name": "malignant", "link": "logit", "b": 28, "b_bias": 62}],
    "ready": True,
    "revoked": False,
}
_JOB = "5d41402abc4b2a76b9719d911017c592"

Index = Annotated[int, Field(ge=0, le=2**53 - 1)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes."""


def _example(**fields: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [fields]})


class ErrorDetail(BaseModel):
    """What went wrong. `check` is the name of a failed check; `details` holds the numbers of an exposure cap."""

    type: str
    check: str | None
    message: str
    hint: str
    details: dict[str, Any] | None = None


class ErrorBody(BaseModel):
    """The body of every error."""

    model_config = _example(
        error={
            "type": "verification-failed",
            "check": "entry.signature",
            "message": "entry.signature: not signed by the key 9f3c...",
            "hint": "See the check; nothing was changed.",
            "details": None,
        }
    )

    error: ErrorDetail


class Health(BaseModel):
    """Who this server is. `log_key` is the verifier key of its ledger, `server_party` the index of its party entry."""

    model_config = _example(
        status="ok",
        version="0.4.0",
        origin="localhost/sealproof",
        log_key="localhost/sealproof+1a2b3c4d+AQ...",
        server_party=0,
    )

    status: Literal["ok"]
    version: str
    origin: str
    log_key: str
    server_party: Index


class Location(BaseModel):
    """Where an entry stands."""

    model_config = _example(index=3, leaf=_LEAF)

    index: Index
    leaf: Hex32

    @classmethod
    def of(cls, reference: Reference) -> Location:
        return cls(index=reference.index, leaf=reference.leaf.hex())


class StoredBlob(BaseModel):
    """A stored blob."""

    model_config = _example(digest=_LEAF, size=131_072)

    digest: Hex32
    size: int


class Digests(BaseModel):
    """Canonical digests of ciphertexts, in the order of the request."""

    model_config = _example(digests=[_LEAF])

    digests: list[Hex32]


class PredictionRequest(BaseModel):
    """A request for a prediction: entries by index, and 32 fresh random bytes that the attestation repeats."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={"examples": [{"records": 4, "model": 2, "nonce": "00ff" * 16}]},
    )

    records: Index
    model: Index
    nonce: Hex32


RequestT = TypeVar("RequestT", bound=BaseModel)


def parsed(kind: type[RequestT], what: str, data: bytes) -> RequestT:
    """The JSON body of a signed request, which is verified as bytes first. Raises DecodeError."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DecodeError(what, f"{place}: {first['msg']}") from error


class Queued(BaseModel):
    """The id of a job, which whoever knows it may ask for."""

    model_config = _example(job=_JOB)

    job: str


class JobResponse(BaseModel):
    """A job. It takes `total` steps: each block is evaluated, then proven.

    `computing`: the nodes of clinic and owner are at work; `queued` and `running`: the server is, on a joint prediction
    by verifying one proof a step.
    """

    model_config = _example(id=_JOB, state="running", done=3, total=16, prediction=None, error=None)

    id: str
    state: Literal["computing", "queued", "running", "done", "failed"]
    done: int
    total: int
    prediction: Index | None
    error: ErrorDetail | None

    @classmethod
    def of(cls, job: Job) -> JobResponse:
        error = None if job.error is None else ErrorDetail(**job.error)
        return cls(id=job.id, state=job.state, done=job.done, total=job.total, prediction=job.prediction, error=error)


class ModelOutputResponse(BaseModel):
    """A model's output and its public bounds."""

    model_config = _example(name="malignant", link="logit", b=28, b_bias=62)

    name: str
    link: str
    b: int
    b_bias: int


class ModelSummary(BaseModel):
    """A published model. `ready`: this server can predict with it. `revoked`: its owner withdrew it.

    `scheme`: what its records must be, `ckks` encrypted or `mpc` committed. A model of scheme `mpc` is a network, ready
    while its owner's node is there; `b` and `b_bias` of its outputs are those of its last layer.
    """

    model_config = _example(**_MODEL)

    index: Index
    leaf: Hex32
    scheme: Literal["ckks", "mpc"]
    name: str
    version: str
    owner: str
    parameter_set: str
    schema_digest: Hex32
    grid_bits: int
    outputs: list[ModelOutputResponse]
    ready: bool
    revoked: bool

    @classmethod
    def of(
        cls, model: Logged[Model] | Logged[Network], owner: str, ready: bool, revoked: bool, **more: Any
    ) -> ModelSummary:
        body = model.body
        return cls(
            index=model.reference.index,
            leaf=model.reference.leaf.hex(),
            scheme="mpc" if isinstance(body, Network) else "ckks",
            name=body.name,
            version=body.version,
            owner=owner,
            parameter_set=body.parameter_set,
            schema_digest=body.schema.hex(),
            grid_bits=body.grid_bits,
            outputs=_outputs(body),
            ready=ready,
            revoked=revoked,
            **more,
        )


def _outputs(model: Model | Network) -> list[ModelOutputResponse]:
    if isinstance(model, Network):
        last = model.layers[-1]
        return [ModelOutputResponse(name=name, link=model.link, b=last.b, b_bias=last.b_bias) for name in model.outputs]
    return [ModelOutputResponse(name=o.name, link=o.link, b=o.b, b_bias=o.b_bias) for o in model.outputs]


class LayerResponse(BaseModel):
    """A layer of a network and its public bounds."""

    model_config = _example(inputs=30, outputs=16, weight_scale_bits=12, b=16, b_bias=36)

    inputs: int
    outputs: int
    weight_scale_bits: int
    b: int
    b_bias: int

    @classmethod
    def of(cls, layer: NetworkLayer) -> LayerResponse:
        return cls(**{name: getattr(layer, name) for name in cls.model_fields})


class WeightStatementResponse(BaseModel):
    """What is proven of one hidden weight, with the digest of the proof; `says` is the same in words.

    `direction` belongs to the type `sign`, `bound` to `bounded`: -bound <= w <= bound for the integer weight at 2^SW.
    """

    model_config = _example(
        type="bounded",
        output=0,
        feature=3,
        direction=None,
        bound="838860",
        proof=_LEAF,
        says="the weight of 'bmi' in 'malignant' is at most 0.05 in magnitude, per half the range of the feature",
    )

    type: Literal["zero-weight", "sign", "bounded"]
    output: int
    feature: int
    direction: Literal["non-negative", "non-positive"] | None
    bound: Annotated[str, Field(pattern=r"^[1-9][0-9]*$")] | None
    proof: Hex32
    says: str

    @classmethod
    def of(cls, statement: AnyStatement, says: str) -> WeightStatementResponse:
        return cls(
            type=statement.type,
            output=statement.output,
            feature=statement.feature,
            direction=statement.direction if isinstance(statement, Sign) else None,
            bound=str(statement.bound) if isinstance(statement, Bounded) else None,
            proof=statement.proof.hex(),
            says=says,
        )


class ModelDetail(ModelSummary):
    """A published model with its card and the digests of its schema and certificate.

    `statements` are what is proven of single weights; `zero_weights` repeats those of type `zero-weight`. `layers` are
    those of a network, with ReLU between them; a model of scheme `ckks` has none to list.
    """

    model_config = _example(
        **_MODEL,
        certificate=_LEAF,
        card={"purpose": "research"},
        zero_weights=[{"output": 0, "feature": 3}],
        statements=[
            {
                "type": "zero-weight",
                "output": 0,
                "feature": 3,
                "direction": None,
                "bound": None,
                "proof": _LEAF,
                "says": "the weight of 'sex' in 'malignant' is zero",
            }
        ],
        layers=[],
    )

    certificate: Hex32
    card: dict[str, str]
    zero_weights: list[dict[str, int]]
    statements: list[WeightStatementResponse]
    layers: list[LayerResponse]


class Row(BaseModel):
    """Bits released to one clinic of one output of one model.

    `recoverable`: more bits were released than the output has, so its weights may be solved for.
    `cap_bits`: what the operator allows, null if he only shows exposure.
    """

    model_config = _example(
        clinic="clinic-a",
        model=2,
        leaf=_LEAF,
        output="malignant",
        predictions=1,
        released_bits=25605.0,
        model_bits=933,
        share=27.44,
        recoverable=True,
        cap_bits=None,
    )

    clinic: str
    model: Index
    leaf: Hex32
    output: str
    predictions: int
    released_bits: float
    model_bits: int
    share: float
    recoverable: bool
    cap_bits: float | None

    @classmethod
    def of(cls, row: ExposureRow, cap: Fraction | None) -> Row:
        return cls(
            clinic=row.clinic,
            model=row.model.index,
            leaf=row.model.leaf.hex(),
            output=row.output_name,
            predictions=row.predictions,
            released_bits=float(row.exposure.released),
            model_bits=row.exposure.model_bits,
            share=float(row.exposure.share),
            recoverable=row.exposure.recoverable,
            cap_bits=None if cap is None else float(cap * row.exposure.model_bits),
        )


def error_body(problem: Problem) -> dict[str, Any]:
    """The body of an error, in the one shape."""
    return ErrorBody.model_validate(problem.to_json()).model_dump()
