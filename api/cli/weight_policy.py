"""sealproof model policy: rules that hidden weights must obey, against a model file or a published model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from api.binding import Located
from api.cli.common import EXIT_REFUSED, Folder, Json, model_argument, one_line, out, print_json, trusted_head
from api.client.governance import find_model, read_log
from api.client.owner import Owner
from api.client.session import LocatedModel, log_errors
from api.client.transport import Server
from api.client.weight_policy import verify_weights
from api.entries import Model
from privacy.ckks.params import parameter_set
from privacy.errors import UsageError
from privacy.models.linear import LinearModel
from privacy.models.network_artefact import load_any_model
from privacy.models.policy import Demand, ModelShape, WeightPolicy
from privacy.models.quantise import quantise
from privacy.models.schema import Schema

__all__ = ["policy", "published_model"]


def policy(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="POLICY", help="Weight policy: a TOML file of rules. Without it: what is public about a model."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Published model: its name, 'name version', or ledger index.")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help="Anybody: read the whole ledger of this server. Without it: as the owner of --folder."),
    ] = None,
    log_key: Annotated[
        str | None,
        typer.Option("--log-key", help="With --server: the ledger's verifier key, or a file with it or a tlog-policy."),
    ] = None,
    model_file: Annotated[Path | None, typer.Option(help="Owner, before publishing: the model's file.")] = None,
    schema: Annotated[
        Path | None, typer.Option("--schema", "-s", help="Schema that the model file must be for.")
    ] = None,
    weight_bits: Annotated[int | None, typer.Option(help="As for publish; with --model-file.")] = None,
    bias_bits: Annotated[int | None, typer.Option(help="As for publish; with --model-file.")] = None,
    folder: Folder = Path("owner"),
    as_json: Json = False,
) -> None:
    """Compare a model's hidden weights with a policy: what is proven of a published model, or what is true of a file.

    A policy is a TOML file with a [[rule]] for each thing that must be true. A rule has feature = "sex", and must =
    "be zero", "not decrease the answer", "not increase the answer", or "stay within" together with at_most = 0.05; with
    output = "risk" it is for one output, without for all. The answer is the raw one, log-odds where there are
    probabilities. at_most is how far it may move from the middle of the feature's range to either end of it or, for a
    feature with the encoding "identity", over one unit. Exit code 1 if a rule is not satisfied.

    Before publishing: sealproof model policy rules.toml --model-file heart.json --schema heart-schema.json

    Proving every rule: sealproof model publish heart.json --schema heart-schema.json --policy rules.toml

    What is public about a model, and after how many answers its weights may be known: sealproof model policy -m heart

    Example: sealproof model policy rules.toml --model heart --server http://localhost:8000 --log-key log.vkey
    """
    if (model is None) == (model_file is None):
        raise UsageError("give --model, for a published model, or --model-file, for one that is not published yet")
    if model_file is not None:
        if file is None:
            raise UsageError("--model-file is compared with a policy: give the file with its rules")
        if server is not None or log_key is not None:
            raise UsageError("--server and --log-key are for a published model: give --model instead of --model-file")
        _print_report(_file_report(WeightPolicy.load(file), model_file, schema, weight_bits, bias_bits), as_json)
        return
    if schema is not None or weight_bits is not None or bias_bits is not None:
        raise UsageError("--schema, --weight-bits and --bias-bits go with --model-file")
    if log_key is not None and server is None:
        raise UsageError("--log-key goes with --server; an owner's folder has its own")
    which = model_argument(model or "")
    if file is not None:
        _print_report(_published_report(WeightPolicy.load(file), which, server, log_key, folder), as_json)
    elif server is not None:
        raise UsageError("--server is for comparing a model with a policy: give the file with its rules")
    else:
        _print_public(folder, which, as_json)


def _file_report(
    policy: WeightPolicy, path: Path, schema: Path | None, weight_bits: int | None, bias_bits: int | None
) -> dict[str, Any]:
    """What is true of the integers that publishing this file would commit to."""
    loaded = load_any_model(path)
    if schema is not None and Schema.decode_json(schema.read_bytes()).digest() != loaded.schema.digest():
        raise UsageError(f"{path} is a model for another schema than {schema}")
    if not isinstance(loaded, LinearModel):
        raise UsageError(
            f"{path} is a network: nothing can be proven of single weights of a network, so no weight policy applies"
        )
    quantised = quantise(loaded, parameter_set("linear-4096"), weight_bits=weight_bits, bias_bits=bias_bits)
    broken = policy.broken(quantised)
    demands = policy.demands(ModelShape.of(quantised))
    rows = [_row(demand, demand not in broken, "broken", ()) for demand in demands]
    return {"model": str(path), "satisfied": not broken, "rules": rows}


def _published_report(
    policy: WeightPolicy, which: str | int, server: str | None, log_key: str | None, folder: Path
) -> dict[str, Any]:
    """What is proven of a model on the ledger."""
    if server is None:
        with Owner.open(folder) as owner:
            found = owner.session.model(which)
            verified = verify_weights(found.body, owner.session.server.blob)
    else:
        source = Server(server)
        found = published_model(source, log_key, which)
        verified = verify_weights(found.body, source.blob)
    verdicts = verified.verdicts(policy)
    rows = [_row(v.demand, v.satisfied, "missing", v.proven) for v in verdicts]
    name, satisfied = f"{found.body.name} {found.body.version}", all(v.satisfied for v in verdicts)
    return {"model": name, "entry": found.reference.index, "satisfied": satisfied, "rules": rows}


def published_model(source: Server, log_key: str | None, which: str | int) -> LocatedModel:
    """A model on the ledger, which is read whole and checked; refused if it was withdrawn."""
    with log_errors():
        registry = read_log(source, trusted_head(source, log_key))
    found = find_model(registry, which)
    registry.check_not_revoked(found.reference)
    if isinstance(found.body, Model):
        return Located(found.reference, found.body)
    return Located(found.reference, found.body)


def _row(demand: Demand, satisfied: bool, otherwise: str, proven: Sequence[str]) -> dict[str, Any]:
    state = "satisfied" if satisfied else otherwise
    return {"rule": demand.rule, "state": state, "says": demand.sentence, "proven": list(proven)}


def _print_report(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(report)
    else:
        for row in report["rules"]:
            out.print(f"  rule {row['rule']:<3} {row['state']:<10} {one_line(row['says'])}", soft_wrap=True)
            for words in row["proven"]:
                out.print(f"{'':22}proven: {one_line(words)}", soft_wrap=True)
        missing = sum(row["state"] != "satisfied" for row in report["rules"])
        total, name = len(report["rules"]), one_line(report["model"])
        published = "entry" in report
        if not missing:
            done = f"proven by ledger entry {report['entry']}" if published else "true; publish it with --policy"
            out.print(f"{name}: all {total} are {done}", soft_wrap=True)
        else:
            out.print(f"{name}: {missing} of {total} {'not proven' if published else 'not true'}", soft_wrap=True)
    if not report["satisfied"]:
        raise typer.Exit(EXIT_REFUSED)


def _print_public(folder: Path, which: str | int, as_json: bool) -> None:
    """What is public about a model, as its owner is told."""
    with Owner.open(folder) as owner:
        found = owner.policy(which)
    if as_json:
        print_json([{**vars(p), "bits_per_answer": float(p.bits_per_answer)} for p in found])
        return
    for output in found:
        out.print(
            f"{output.name} ({output.link}): weights in {output.b} bits, bias in {output.b_bias}; "
            f"{output.bits} bits in all, {float(output.bits_per_answer):.1f} an answer: "
            f"after {output.answers} answers a clinic may know this output",
            soft_wrap=True,
        )
        for words in output.statements:
            out.print(f"  proven: {one_line(words)}", soft_wrap=True)
