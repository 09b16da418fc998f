"""The model owner: publish a model or a network without showing its weights, answer for it later, withdraw it.

    owner = Owner.init(Path("owner"), "http://localhost:8000", "heart-lab", log_key="localhost/sealproof+...")
    published = owner.publish(from_sklearn(estimator, schema), version="1")

The folder (mode 0700) keeps, for each published model, its opening (weights and blindings), the salt of the artefact
commitment and the float model: what an auditor is shown, under the owner's eyes, when the commitment is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict, Unpack, overload

import httpx

from api.binding import Located, model_statement, parameters_of, statement_sentences
from api.client.model_folder import MODEL_FILE, Scheme, existing_folder, keep_model, kept, model_folder, opening_path
from api.client.network_owner import (
    PerLayer,
    audit_network,
    audit_network_opening,
    network_policy,
    network_rows,
    publish_network,
)
from api.client.owner_results import Audited, OutputPolicy
from api.client.party_client import PartyClient
from api.client.session import LocatedModel, Session
from api.entries import AnyStatement, Bounded, Model, ModelOutput, Network, Reference, Sign, ZeroWeight
from api.exposure import hidden_bits
from privacy.ckks.exposure import proof_bits
from privacy.ckks.params import ParameterSet, parameter_set
from privacy.errors import UsageError, VerificationFailed
from privacy.models import certificate as certificates
from privacy.models.artefact import (
    SALT_BYTES,
    artefact_commitment,
    artefact_digest,
    load_model,
    new_salt,
    verify_artefact_opening,
)
from privacy.models.certificate import WeightOpening, certify_model, commit_model
from privacy.models.linear import LinearModel
from privacy.models.network import Network as FloatNetwork
from privacy.models.network_artefact import load_any_model
from privacy.models.network_certificate import load_network_opening
from privacy.models.policy import ModelShape, WeightPolicy
from privacy.models.quantise import QuantisedModel, quantise
from privacy.models.statements import (
    ModelOpening,
    encode_opening,
    load_opening,
    open_commitment,
    save_opening,
)
from privacy.models.weight_proofs import prove_statement
from privacy.models.weight_statements import HasSign, IsWithin, IsZero, WeightStatement
from privacy.mpc.joint_prover import Row
from privacy.private_files import read_private

__all__ = ["Audited", "OutputPolicy", "Owner"]

Progress = Callable[[str, int, int], None]
_STEPS: Final = 5


class _Options(TypedDict, total=False):
    """Keywords of `Owner.publish` for both schemes."""

    card: Mapping[str, str] | None
    params: str | None
    grid_bits: int
    progress: Progress | None


class _ModelOptions(_Options, total=False):
    weight_bits: int | Sequence[int] | None
    bias_bits: int | Sequence[int] | None
    zero_weights: Sequence[tuple[int, int]]
    policy: WeightPolicy | None


class _NetworkOptions(_Options, total=False):
    weight_scale_bits: PerLayer
    weight_range_bits: PerLayer
    bias_range_bits: PerLayer


class _AllOptions(_ModelOptions, _NetworkOptions, total=False):
    pass


class Owner(PartyClient):
    """A model owner's side. Open one with `init` or `open`; a context manager. Raises as `Clinic` does."""

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

    @overload
    def publish(
        self,
        model: LinearModel,
        *,
        version: str,
        scheme: Literal["ckks"] | None = None,
        **options: Unpack[_ModelOptions],
    ) -> Located[Model]: ...

    @overload
    def publish(
        self,
        model: FloatNetwork,
        *,
        version: str,
        scheme: Literal["mpc"] | None = None,
        **options: Unpack[_NetworkOptions],
    ) -> Located[Network]: ...

    @overload
    def publish(
        self,
        model: LinearModel | FloatNetwork,
        *,
        version: str,
        scheme: Literal["mpc"],
        **options: Unpack[_NetworkOptions],
    ) -> Located[Network]: ...

    @overload
    def publish(
        self,
        model: LinearModel | FloatNetwork,
        *,
        version: str,
        scheme: Scheme | None = None,
        **options: Unpack[_AllOptions],
    ) -> LocatedModel: ...

    def publish(
        self,
        model: LinearModel | FloatNetwork,
        *,
        version: str,
        scheme: Scheme | None = None,
        card: Mapping[str, str] | None = None,
        params: str | None = None,
        grid_bits: int = 6,
        weight_bits: int | Sequence[int] | None = None,
        bias_bits: int | Sequence[int] | None = None,
        zero_weights: Sequence[tuple[int, int]] = (),
        policy: WeightPolicy | None = None,
        weight_scale_bits: PerLayer = None,
        weight_range_bits: PerLayer = None,
        bias_range_bits: PerLayer = None,
        progress: Progress | None = None,
    ) -> LocatedModel:
        """Quantise, commit, certify and log a model or a network.

        `scheme` ckks (by default that of a linear model): predictions on encrypted records, by the server, which is
        handed the opening of the weights. `weight_bits` and `bias_bits` bound the integers of each output, and
        `zero_weights` are (output, feature) pairs to prove zero, for everybody to see. Every rule of `policy` is proven
        too; one that is false of the model is refused before anything is kept or sent.

        `scheme` mpc (always that of a network): predictions together with the clinic, by the owner's own node. The
        weights never leave the folder. `weight_scale_bits`, `weight_range_bits` and `bias_range_bits`, one number or
        one a layer, are those of `privacy.models.network_quantise.quantise_network`.

        The opening and the float model are kept in the folder before anything is sent; publishing the same name and
        version again finishes what a crash broke off. Raises UsageError for a model that cannot be quantised, answers
        that could wrap, or an option of the other scheme.
        """
        report = progress or (lambda step, done, total: None)
        if scheme is None:
            scheme = "ckks" if isinstance(model, LinearModel) else "mpc"
        if scheme == "mpc":
            if weight_bits is not None or bias_bits is not None or zero_weights:
                raise UsageError("weight_bits, bias_bits and zero_weights are for linear models with scheme ckks")
            if policy is not None:
                raise UsageError(
                    "a weight policy is for linear models with scheme ckks: nothing can be proven of single weights of "
                    "a network"
                )
            return publish_network(
                self._session,
                model,
                version=version,
                card=card or {},
                params="mpc-64" if params is None else params,
                grid_bits=grid_bits,
                weight_scale_bits=weight_scale_bits,
                weight_range_bits=weight_range_bits,
                bias_range_bits=bias_range_bits,
                report=report,
            )
        if not isinstance(model, LinearModel):
            raise UsageError("a network is computed by multi-party computation: scheme ckks takes linear models")
        if (weight_scale_bits, weight_range_bits, bias_range_bits) != (None, None, None):
            raise UsageError("weight_scale_bits, weight_range_bits and bias_range_bits are for scheme mpc")
        chosen = parameter_set("linear-4096" if params is None else params)
        quantised = quantise(model, chosen, grid_bits=grid_bits, weight_bits=weight_bits, bias_bits=bias_bits)
        stated: list[WeightStatement] = [IsZero(output, feature) for output, feature in zero_weights]
        if policy is not None:
            check_policy(policy, quantised)
            stated += policy.statements(ModelShape.of(quantised), stated)
        return self._publish_model(model, version, card or {}, chosen, quantised, stated, report)

    def _publish_model(
        self,
        model: LinearModel,
        version: str,
        card: Mapping[str, str],
        chosen: ParameterSet,
        quantised: QuantisedModel,
        stated: Sequence[WeightStatement],
        report: Progress,
    ) -> Located[Model]:
        """Publish a linear model for encrypted records and hand its opening to the server that is to evaluate it."""
        report("publish", 0, _STEPS)
        folder = model_folder(self._session.folder, model.name, version)
        openings = self._openings(folder, model, version, lambda: commit_model(quantised)[1])
        key = certificates.weights_key(quantised.schema.d)
        commitments = [key.group.encode(key.commit(opening.values, opening.rho)) for opening in openings]
        statement = certificates.model_statement(quantised, chosen, version, commitments)
        try:
            open_commitment(statement, model, openings)
        except VerificationFailed as error:
            raise UsageError(f"another model was published as {model.name!r} {version!r}: use a new version") from error
        report("publish", 1, _STEPS)
        certificate = kept(folder / "certificate", lambda: certify_model(statement, openings))
        proofs = [
            kept(folder / _proof_file(s), lambda s=s: prove_statement(statement, s, openings[s.output]))  # type: ignore[misc]
            for s in stated
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
            grid_bits=quantised.grid_bits,
            outputs=tuple(ModelOutput(o.name, o.link, o.b, o.b_bias, o.C_W) for o in statement.outputs),
            certificate=server.put_blob(certificate),
            artefact=artefact_commitment(artefact_digest(model), kept(folder / "salt", new_salt)),
            card=dict(card),
            statements=tuple(
                _entry_statement(s, server.put_blob(proof)) for s, proof in zip(stated, proofs, strict=True)
            ),
        )
        report("publish", 3, _STEPS)
        reference = self._session.log_once(body, folder, "model")
        report("publish", 4, _STEPS)
        server.put_opening(reference.index, encode_opening(load_opening(opening_path(folder, "ckks"))))
        report("publish", 5, _STEPS)
        return Located(reference, body)

    def network_rows(self, model: str | int | LocatedModel) -> list[list[Row]]:
        """The rows of every layer of a published network, for this owner's node. Secret.

        Raises UsageError for a model that is no network or was not published from this folder.
        """
        found = self._session.model(model)
        if not isinstance(found.body, Network):
            raise UsageError(
                f"{found.body.name!r} {found.body.version!r} is computed on encrypted records, by the server"
            )
        return network_rows(self._session, Located(found.reference, found.body))

    def audit(self, model: str | int | LocatedModel) -> Audited:
        """Open the commitment of a published model from what the folder keeps, as an auditor would.

        The float model, the published rule and the blindings must reproduce every commitment, and the artefact
        commitment must open to that very file. Raises VerificationFailed (`model.opening`, `network.opening`,
        `model.artefact`).
        """
        found = self._session.model(model)
        if isinstance(found.body, Network):
            return audit_network(self._session, Located(found.reference, found.body))
        return audit_folder(found, existing_folder(self._session.folder, found.body.name, found.body.version))

    def policy(self, model: str | int | LocatedModel) -> list[OutputPolicy]:
        """What is public about each output of a model, and after how many answers its weights may be known."""
        located = self._session.model(model)
        body = located.body
        if isinstance(body, Network):
            return network_policy(body)
        schema, params = self._session.schema(located), parameters_of(body.parameter_set)
        d, says = schema.d, statement_sentences(body, schema)
        found = []
        for place, output in enumerate(body.outputs):
            bits = hidden_bits(body, d, place)
            per_answer = proof_bits(
                params, blocks=1, outputs=1, count=1, d=d, b=output.b, b_bias=output.b_bias, grid_bits=body.grid_bits
            )
            answers = -(-bits // per_answer)
            stated = tuple(words for s, words in zip(body.statements, says, strict=True) if s.output == place)
            found.append(
                OutputPolicy(output.name, output.link, output.b, output.b_bias, bits, per_answer, answers, stated)
            )
        return found

    def revoke(self, model: str | int | LocatedModel, reason: str) -> Reference:
        """Withdraw a model from now on. Predictions made before stay valid."""
        return self._session.revoke(self._session.model(model).reference, reason)

    def _openings(
        self, folder: Path, model: LinearModel, version: str, draw: Callable[[], tuple[WeightOpening, ...]]
    ) -> tuple[WeightOpening, ...]:
        """The openings in the folder, made and kept with the float model if there are none."""
        path = keep_model(folder, "ckks", model, version)
        if not path.exists():
            save_opening(ModelOpening("sealproof/model-opening/v1", model.name, version, draw()), path)
        return load_opening(path).outputs


def check_policy(policy: WeightPolicy, model: QuantisedModel) -> None:
    """Raise UsageError, which names the rules but no weight, unless the owner's model obeys every rule of `policy`."""
    broken = policy.broken(model)
    if broken:
        told = "; ".join(f"rule {demand.rule}: {demand.sentence}" for demand in broken)
        raise UsageError(f"the model does not obey the policy, and nothing was sent. {told}")


def _proof_file(stated: WeightStatement) -> str:
    """Under what name the proof of a statement is kept in the folder of its model."""
    place = f"{stated.output}-{stated.feature}"
    match stated:
        case IsZero():
            return f"zero-{place}"
        case HasSign():
            return f"sign-{place}-{stated.direction}"
        case IsWithin():
            return f"bounded-{place}-{stated.bound}"


def _entry_statement(stated: WeightStatement, proof: bytes) -> AnyStatement:
    """A statement as the model's entry has it, with the digest of its proof."""
    match stated:
        case IsZero():
            return ZeroWeight("zero-weight", stated.output, stated.feature, proof)
        case HasSign():
            return Sign("sign", stated.output, stated.feature, stated.direction, proof)
        case IsWithin():
            return Bounded("bounded", stated.output, stated.feature, stated.bound, proof)


def audit_folder(found: LocatedModel, folder: Path) -> Audited:
    """Open the commitment of a model or network from the files in `folder`: the owner's own, or copies for an auditor.

    They are `model.json`, `salt`, and `opening.json` or, of a network, `network-opening.json`; all of them secret, with
    mode 0600 or less. Raises UsageError, DecodeError, and VerificationFailed as `Owner.audit` does.
    """
    salt = read_private(folder / "salt", SALT_BYTES, "salt")
    if isinstance(found.body, Network):
        return audit_network_opening(
            Located(found.reference, found.body),
            load_any_model(folder / MODEL_FILE),
            load_network_opening(opening_path(folder, "mpc")),
            salt,
        )
    model, opening = load_model(folder / MODEL_FILE), load_opening(opening_path(folder, "ckks"))
    return audit_opening(Located(found.reference, found.body), model, opening, salt)


def audit_opening(found: Located[Model], model: LinearModel, opening: ModelOpening, salt: bytes) -> Audited:
    """Check that a model entry commits to `model`, from its opening and salt. Raises VerificationFailed."""
    statement = model_statement(found.body, model.schema)
    quantised = open_commitment(statement, model, opening.outputs)
    verify_artefact_opening(found.body.artefact, model, salt)
    return Audited(found, artefact_digest(model), tuple(bound.total for bound in quantised.error_bounds))
