"""sealproof model: publish a model without its weights, answer for it, say what is public about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from api.cli import weight_policy
from api.cli.common import Folder, Json, LogKey, ModelName, log_key_text, model_argument, out, print_json, progress
from api.client.model_folder import Scheme
from api.client.owner import Owner, audit_folder
from api.client.transport import Server
from api.entries import Network
from privacy.errors import UsageError
from privacy.models.network_artefact import load_any_model
from privacy.models.policy import WeightPolicy
from privacy.models.schema import Schema

app = typer.Typer(help="A model owner: publish, audit, policy, revoke.", no_args_is_help=True)

DEFAULT = Path("owner")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name on the ledger, such as heart-lab.")],
    server: Annotated[str, typer.Option(help="Address of the server.")],
    log_key: LogKey = None,
    folder: Folder = DEFAULT,
) -> None:
    """Register a model owner.

    Example: sealproof model init heart-lab --server http://localhost:8000 --log-key log.vkey
    """
    owner = Owner.init(folder, server, name, log_key=log_key_text(log_key))
    out.print(f"model owner {owner.session.identity.name} registered. Keep {folder} secret.")


@app.command()
def publish(
    file: Annotated[Path, typer.Argument(help="Model file, written by save_model or save_any_model.")],
    schema: Annotated[Path, typer.Option("--schema", "-s", help="Schema that the model file must be for.")],
    version: Annotated[str, typer.Option(help="Version on the ledger.")] = "1",
    scheme: Annotated[
        str | None, typer.Option(help="ckks or mpc; by default ckks for a linear model, mpc for a network.")
    ] = None,
    weight_bits: Annotated[int | None, typer.Option(help="Public bound: weights below 2^(bits-24). ckks.")] = None,
    bias_bits: Annotated[int | None, typer.Option(help="Public bound: bias below 2^(bits-58). ckks.")] = None,
    weight_scale_bits: Annotated[
        list[int] | None, typer.Option(help="Weights are integers at 2^bits; once, or once a layer. mpc.")
    ] = None,
    weight_range_bits: Annotated[
        list[int] | None, typer.Option(help="Public bound: weights below 2^bits; once, or once a layer. mpc.")
    ] = None,
    bias_range_bits: Annotated[
        list[int] | None, typer.Option(help="Public bound: biases below 2^bits; once, or once a layer. mpc.")
    ] = None,
    zero: Annotated[list[str] | None, typer.Option(help="Feature to prove unused; may be repeated.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Weight policy to prove: see `sealproof model policy`. ckks.")
    ] = None,
    card: Annotated[list[str] | None, typer.Option(help="Line of the model card, key=value.")] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Quantise, commit, certify and log a model or network. Its weights are nowhere on the ledger.

    With scheme ckks the server is handed the weights and predicts on encrypted records; with mpc they stay here.

    Example: sealproof model publish heart.json --schema heart-schema.json --card intended-use=screening
    """
    if scheme not in (None, "ckks", "mpc"):
        raise UsageError(f"--scheme is ckks or mpc, not {scheme!r}")
    rules = None if policy is None else WeightPolicy.load(policy)
    loaded = load_any_model(file)
    if Schema.decode_json(schema.read_bytes()).digest() != loaded.schema.digest():
        raise UsageError(f"{file} is a model for another schema than {schema}")
    pairs = [line.partition("=") for line in card or []]
    if any(not middle for _, middle, _ in pairs):
        raise UsageError("--card takes key=value")
    names = loaded.schema.names
    unknown = [feature for feature in zero or [] if feature not in names]
    if unknown:
        raise UsageError(f"--zero {unknown[0]}: the schema has no such feature")
    with progress() as report:
        located = Owner.open(folder).publish(
            loaded,
            version=version,
            scheme=cast("Scheme | None", scheme),
            card={key: value for key, _, value in pairs},
            weight_bits=weight_bits,
            bias_bits=bias_bits,
            zero_weights=[(o, names.index(feature)) for o in range(loaded.outputs) for feature in zero or []],
            policy=rules,
            weight_scale_bits=_per_layer(weight_scale_bits),
            weight_range_bits=_per_layer(weight_range_bits),
            bias_range_bits=_per_layer(bias_range_bits),
            progress=report,
        )
    if as_json:
        mode = "mpc" if isinstance(located.body, Network) else "ckks"
        print_json(
            {
                "model": located.reference.index,
                "leaf": located.reference.leaf.hex(),
                "name": loaded.name,
                "scheme": mode,
            }
        )
    else:
        kind = "network" if isinstance(located.body, Network) else "model"
        out.print(f"{kind} {loaded.name} {version} published as ledger entry {located.reference.index}")


def _per_layer(bits: list[int] | None) -> int | list[int] | None:
    """What is given once is for every layer."""
    return bits[0] if bits and len(bits) == 1 else bits or None


@app.command()
def audit(
    model: ModelName,
    folder: Folder = DEFAULT,
    opened: Annotated[
        Path | None,
        typer.Option(
            help="Auditor: folder with the owner's model.json, salt, and opening.json or network-opening.json."
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(help="With --opened: server with the ledger, which is read whole and checked.")
    ] = None,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Open the commitment of a published model: float file, rule and blindings must reproduce it.

    The owner does so from its own folder. An auditor, to whom the owner shows the weights, does so with --opened and
    --server, and needs no folder.

    Example: sealproof model audit --model heart
    """
    if (opened is None) != (server is None) or (log_key is not None and server is None):
        raise UsageError("an auditor gives --opened and --server, and perhaps --log-key; an owner none of them")
    if opened is not None and server is not None:
        published = weight_policy.published_model(Server(server), log_key, model_argument(model))
        found = audit_folder(published, opened)
    else:
        found = Owner.open(folder).audit(model_argument(model))
    if as_json:
        print_json(
            {
                "model": found.model.reference.index,
                "artefact": found.artefact_digest.hex(),
                "rounding": [float(bound) for bound in found.rounding],
            }
        )
        return
    out.print(
        f"entry {found.model.reference.index} commits to the model file with SHA-256 {found.artefact_digest.hex()}"
    )


app.command("policy")(weight_policy.policy)


@app.command()
def revoke(
    model: ModelName,
    reason: Annotated[str, typer.Option(help="Why, for everybody to read.")],
    folder: Folder = DEFAULT,
) -> None:
    """Withdraw a model from now on. Predictions that were made before stay valid.

    Example: sealproof model revoke --model heart --reason "superseded by version 2"
    """
    reference = Owner.open(folder).revoke(model_argument(model), reason)
    out.print(f"revoked by ledger entry {reference.index}")
