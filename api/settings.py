"""Settings of a server: environment variables with the prefix SEALPROOF_, or arguments."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ledger import Verifier
from ledger.errors import UsageError
from privacy.ckks.bounds import MAX_INSTANCES

__all__ = ["Settings"]


def _check_origin(origin: str) -> str:
    try:
        Verifier(origin, bytes(32))
    except UsageError as error:
        raise ValueError(str(error)) from error
    return origin


class Settings(BaseSettings):
    """Everything that an operator chooses. The defaults are for one machine and nobody's patients in particular."""

    model_config = SettingsConfigDict(env_prefix="SEALPROOF_", extra="forbid", frozen=True)

    data: Path = Path("sealproof-data")
    """Folder of everything that the server keeps; created with mode 0700."""

    origin: Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_check_origin)] = "localhost/sealproof"
    """Name of the ledger and of its key. It cannot be changed once the ledger exists."""

    ledger: Annotated[str | None, Field(repr=False)] = None
    """Where the ledger lies: sqlite:PATH, tiles:FOLDER (plain files that any log client reads) or postgresql://...
    (several servers, which share the data folder); None is ledger.sqlite in the data folder."""

    witness_policy: Path | None = None
    """A tlog-policy file with the witnesses that are asked to cosign every head; None asks nobody."""

    witness_seconds: Annotated[float, Field(ge=0, le=60)] = 2.0
    """How long a head waits for the quorum of the witness policy before it is published with what there is."""

    registration: Literal["open", "closed"] = "open"
    """Who may register: anyone, or only whose party entry the operator admitted (`sealproof party add`)."""

    governance: Path | None = None
    """A governance file: only models that enough of its hospitals approve are served; None serves all."""

    governance_rpc: Annotated[str | None, Field(repr=False)] = None
    """A node of the chain of the governance contract: what hospitals have withdrawn there is not served either; None
    believes the ledger alone, where nothing is withdrawn."""

    instances_per_proof: Annotated[int, Field(ge=1, le=MAX_INSTANCES)] = 64
    """Blocks x outputs that one evaluation proof covers at most."""

    exposure_cap: Annotated[Fraction, Field(gt=0)] | None = None
    """Bits released per clinic, model and output, as a fraction of the model's bits; None only shows them."""

    max_blob_bytes: Annotated[int, Field(ge=1, le=1 << 24)] = 1 << 24
    max_ciphertexts_bytes: Annotated[int, Field(ge=1, le=1 << 26)] = 1 << 22
    max_ciphertexts: Annotated[int, Field(ge=1, le=1024)] = 64
    """Uploads: bytes of a blob, bytes and number of ciphertexts of one request."""

    requests_per_minute: Annotated[int, Field(ge=1)] = 1200
    """Signed requests of one party, and registrations of one address, per minute."""

    jobs_per_clinic: Annotated[int, Field(ge=1)] = 16
    """Jobs of one clinic that may wait or run at a time."""

    requests_per_consumer: Annotated[int, Field(ge=1)] = 1000
    """Requests of one consumer, to all clinics, that may be open at a time: neither granted nor refused nor
    withdrawn."""

    mpc_node_seconds: Annotated[float, Field(gt=0)] = 60
    """Joint predictions: how long the nodes of clinic and owner are waited for."""

    mpc_session_seconds: Annotated[float, Field(gt=0)] = 900
    """Joint predictions: how long the two nodes may take from when both were there until the proofs are delivered."""

    min_free_bytes: Annotated[int, Field(ge=0)] = 1 << 28
    """Uploads are refused when the disk would have less than this left."""
