"""The model owner: publish a model without showing its weights, answer for it later, withdraw it.

    owner = Owner.init(Path("owner"), "http://localhost:8000", "heart-lab", log_key="localhost/sealproof+...")
    published = owner.publish(from_sklearn(estimator, schema), version="1")

The folder (mode 0700) keeps, for each published model, its opening (weights and blindings), the salt of the artefact
commitment and the float model: what an auditor is shown, under the owner's eyes, when the commitment is opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from api.binding import Located, model_statement, parameters_of
from api.client.session import Session
from api.entries import Model, ModelOutput, Reference, ZeroWeight
from privacy.ckks.exposure import model_bits, proof_bits
from privacy.ckks.params import parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models import certificate as certificates
from privacy.models.artefact import (
    SALT_BYTES,
    artefact_commitment,
    artefact_digest,
    load_model,
    new_salt,
    save_model,
    verify_artefact_opening,
)
from privacy.models.certificate import WeightOpening, certify_model, commit_model
from privacy.models.linear import LinearModel
from privacy.models.quantise import quantise
from privacy.models.statements import (
    ModelOpening,
    encode_opening,
    load_opening,
    open_commitment,
    prove_zero_weight,
    save_opening,
)
from privacy.private_files import private_folder, read_private, write_private

__all__ = ["Audited", "OutputPolicy", "Owner"]

Progress = Callable[[str, int, int], None]
_STEPS: Final = 5


@dataclass(frozen=True)
class OutputPolicy:
    """What is public about one output, and how far its weights carry.

    `bits` is what the weights and the bias can hold at most, `bits_per_answer` what one patient's answer releases in a
    prediction for one patient, and `answers` how many such answers release as many bits as there are: a cohort larger
    than that may give the model to its clinic (docs/spec/protocol.md, section 5, Exposure).
    """

    name: str
    link: str
    b: int
    b_bias: int
    bits: int
    bits_per_answer: Fraction
    answers: int


@dataclass(frozen=True)
class Audited:
    """A commitment that was opened: the float model is the one that was committed to. Largest error per output."""

    model: Located[Model]
    artefact_digest: bytes
    rounding: tuple[Fraction, ...]


class Owner:
    """A model owner's side. Open one with `init` or `open`; a context manager. Raises as `Clinic` does."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @classmethod
    def init(
        cls,
        folder: Path | str,
        url: str,
        name: str,
        *,
        log_key: str | None = None,
        client: httpx.Client | None = None,
    ) -> Owner:
        """Register the owner `name`. `log_key`: the verifier key of the server's log, learned from its operator."""
        return cls(Session.begin(Path(folder), "owner", name, url, log_key, client))

    @classmethod
    def open(cls, folder: Path | str, url: str | None = None, *, client: httpx.Client | None = None) -> Owner:
        """The owner in `folder`. Raises UsageError."""
        return cls(Session.resume(Path(folder), "owner", url, client))

    @property
    def session(self) -> Session:
        """Identity, server and trusted logs."""
        return self._session

    def close(self) -> None:
        """Close the connections to the server."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(
        self,
        model: LinearModel,
        *,
        version: str,
        card: Mapping[str, str] | None = None,
        params: str = "linear-4096",
        grid_bits: int = 6,
        weight_bits: int | Sequence[int] | None = None,
        bias_bits: int | Sequence[int] | None = None,
        zero_weights: Sequence[tuple[int, int]] = (),
        progress: Progress | None = None,
    ) -> Located[Model]:
        """Quantise, commit, certify and log a model, then hand its opening to the server that is to evaluate it.

        `zero_weights`: (output, feature) pairs to prove zero, for everybody to see. The opening and the float model are
        kept in the folder before anything is sent; publishing the same name and version again finishes what a crash
        broke off. Raises UsageError for a model that cannot be quantised or answers that could wrap.
        """
        report = progress or (lambda step, done, total: None)
        folder = private_folder(private_folder(self._session.folder / "models") / _folder_name(model.name, version))
        chosen = parameter_set(params)
        report("publish", 0, _STEPS)
        quantised = quantise(model, chosen, grid_bits=grid_bits, weight_bits=weight_bits, bias_bits=bias_bits)
        openings = self._openings(folder, model, version, lambda: commit_model(quantised)[1])
        key = certificates.weights_key(quantised.schema.d)
        commitments = [key.group.encode(key.commit(opening.values, opening.rho)) for opening in openings]
        statement = certificates.model_statement(quantised, chosen, version, commitments)
        try:
            open_commitment(statement, model, openings)
        except VerificationFailed as error:
            raise UsageError(f"another model was published as {model.name!r} {version!r}: use a new version") from error
        report("publish", 1, _STEPS)
        certificate = _kept(folder / "certificate", lambda: certify_model(statement, openings))
        zero = [
            (o, f, _kept(folder / f"zero-{o}-{f}", lambda o=o, f=f: prove_zero_weight(statement, o, f, openings[o])))  # type: ignore[misc]
            for o, f in zero_weights
        ]
        report("publish", 2, _STEPS)
        server = self._session.server
        body = Model(
            name=model.name,
            version=version,
            parameter_set=chosen.name,
            schema=server.put_blob(model.schema.encode_json()),
            input_scale_bits=chosen.SX,
            weight_scale_bits=chosen.SW,
            grid_bits=grid_bits,
            outputs=tuple(ModelOutput(o.name, o.link, o.b, o.b_bias, o.C_W) for o in statement.outputs),
            certificate=server.put_blob(certificate),
            artefact=artefact_commitment(artefact_digest(model), _kept(folder / "salt", new_salt)),
            card=dict(card or {}),
            statements=tuple(ZeroWeight("zero-weight", o, f, server.put_blob(proof)) for o, f, proof in zero),
        )
        report("publish", 3, _STEPS)
        reference = self._session.log_once(body, folder, "model")
        report("publish", 4, _STEPS)
        server.put_opening(reference.index, encode_opening(load_opening(folder / "opening.json")))
        report("publish", 5, _STEPS)
        return Located(reference, body)

    def audit(self, model: str | int | Located[Model]) -> Audited:
        """Open the commitment of a published model from what the folder keeps, as an auditor would.

        The float model, the published rule and the blindings must reproduce every C_W, and the artefact commitment must
        open to that very file. Raises VerificationFailed (`model.opening`, `model.artefact`).
        """
        found = self._session.model(model)
        folder = self._session.folder / "models" / _folder_name(found.body.name, found.body.version)
        if not folder.is_dir():
            raise UsageError(f"this folder does not hold the opening of {found.body.name!r} {found.body.version!r}")
        return audit_opening(
            found,
            load_model(folder / "model.json"),
            load_opening(folder / "opening.json"),
            read_private(folder / "salt", SALT_BYTES, "salt"),
        )

    def policy(self, model: str | int | Located[Model]) -> list[OutputPolicy]:
        """What is public about each output of a model, and after how many answers its weights may be known."""
        located = self._session.model(model)
        body, d = located.body, self._session.schema(located).d
        params = parameters_of(body.parameter_set)
        found = []
        for output in body.outputs:
            bits = model_bits(d, output.b, output.b_bias)
            per_answer = proof_bits(
                params, blocks=1, outputs=1, count=1, d=d, b=output.b, b_bias=output.b_bias, grid_bits=body.grid_bits
            )
            answers = -(-bits // per_answer)
            found.append(OutputPolicy(output.name, output.link, output.b, output.b_bias, bits, per_answer, answers))
        return found

    def revoke(self, model: str | int | Located[Model], reason: str) -> Reference:
        """Withdraw a model from now on. Predictions made before stay valid."""
        return self._session.revoke(self._session.model(model).reference, reason)

    def _openings(
        self, folder: Path, model: LinearModel, version: str, draw: Callable[[], tuple[WeightOpening, ...]]
    ) -> tuple[WeightOpening, ...]:
        """The openings in the folder, made and kept with the float model if there are none."""
        path = folder / "opening.json"
        if not path.exists():
            save_model(model, folder / "model.json")
            save_opening(ModelOpening("sealproof/model-opening/v1", model.name, version, draw()), path)
        return load_opening(path).outputs


def audit_opening(found: Located[Model], model: LinearModel, opening: ModelOpening, salt: bytes) -> Audited:
    """Check that a model entry commits to `model`, from its opening and salt. Raises VerificationFailed."""
    statement = model_statement(found.body, model.schema)
    quantised = open_commitment(statement, model, opening.outputs)
    verify_artefact_opening(found.body.artefact, model, salt)
    return Audited(found, artefact_digest(model), tuple(bound.total for bound in quantised.error_bounds))


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """What `path` holds, made and written first if it does not exist."""
    if not path.exists():
        write_private(path, make())
    return read_private(path, 1 << 27, path.name)


def _folder_name(name: str, version: str) -> str:
    return hashlib.sha256(f"{len(name)}/{name}{version}".encode()).hexdigest()[:32]
