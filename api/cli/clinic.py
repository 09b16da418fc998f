"""sealproof clinic: keys, cohorts, predictions, verified answers; with `api.cli.consent`, what is shown to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from api.cli.common import (
    Folder,
    Json,
    LogKey,
    ModelName,
    log_key_text,
    model_argument,
    out,
    print_json,
    progress,
)
from api.cli.consent import COMMANDS
from api.client.clinic import Clinic, PredictionRequest, SubmittedRecords
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.scores import Scores
from api.entries import Network, Policy
from privacy.errors import UsageError

app = typer.Typer(
    help="A clinic: encrypt or commit records, ask for predictions, verify, then decrypt; show answers to others.",
    no_args_is_help=True,
)

DEFAULT = Path("clinic")


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="Name on the ledger, such as st-anna.")],
    server: Annotated[str, typer.Option(help="Address of the server.")],
    log_key: LogKey = None,
    mpc_only: Annotated[
        bool, typer.Option("--mpc-only", help="Make no key for encrypted records; multi-party computation needs none.")
    ] = False,
    folder: Folder = DEFAULT,
) -> None:
    """Register a clinic, generate its keys and certify them.

    Run it again without --mpc-only to add a key later.
    Example: sealproof clinic init st-anna --server http://localhost:8000 --log-key log.vkey
    """
    with progress() as report:
        made = Clinic.init(folder, server, name, log_key=log_key_text(log_key), ckks=not mpc_only, progress=report)
    key = f"its key is ledger entry {made.key.index}" if made.has_key else "it has no key for encrypted records"
    out.print(f"clinic {made.name} registered; {key}. Keep {folder} secret.")


@app.command()
def submit(
    cohort: Annotated[Path, typer.Argument(help="CSV file: one row a patient, one column a feature of the schema.")],
    model: ModelName,
    id_column: Annotated[str | None, typer.Option(help="Column with record ids; they stay here.")] = None,
    packing: Annotated[str, typer.Option(help="auto, rows or columns, of encrypted records.")] = "auto",
    until: Annotated[str | None, typer.Option(help="Last moment of use, such as 2027-01-01T00:00:00Z.")] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Encrypt a cohort here, send the ciphertexts, and commit to them on the ledger.

    For a network, commit to the records and send nothing else: they stay here, for the clinic's node.
    Running it again after a crash goes on where it stopped.
    Example: sealproof clinic submit patients.csv --model heart --id-column id
    """
    if packing not in ("auto", "rows", "columns"):
        raise UsageError(f"--packing is auto, rows or columns, not {packing!r}")
    clinic = Clinic.open(folder)
    located = clinic.session.model(model_argument(model))
    policy = Policy((located.reference,), until)
    with progress() as report:
        records = clinic.submit(
            cohort,
            located,
            packing=packing,  # type: ignore[arg-type]  # checked above
            policy=policy,
            id_column=id_column,
            progress=report,
        )
    patients = len(records.handles.ids)
    if as_json:
        print_json({"records": records.index, "leaf": records.reference.leaf.hex(), "patients": patients})
    else:
        out.print(f"{patients} patients committed as records entry {records.index}")


@app.command()
def predict(
    model: ModelName,
    records: Annotated[int | None, typer.Option(help="Records entry; by default the newest for such models.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Where to write the bundle.")] = None,
    inputs: Annotated[bool, typer.Option(help="Put the encrypted inputs into the bundle, too.")] = False,
    scores: Annotated[Path | None, typer.Option(help="Write the answers to this CSV file (mode 0600).")] = None,
    timeout: Annotated[float | None, typer.Option(help="Give up waiting after so many seconds.")] = None,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Ask for a prediction, fetch its bundle, verify it, and only then decrypt.

    A network is computed by the nodes of clinic and owner, which must be running; this command waits for them.
    Example: sealproof clinic predict --model heart --scores scores.csv
    """
    clinic = Clinic.open(folder)
    located = clinic.session.model(model_argument(model))
    chosen = _records(clinic, records, committed=isinstance(located.body, Network))
    with progress() as report:
        request = clinic.request(chosen, located)
        path = clinic.fetch(request, bundle, inputs=inputs, progress=report, timeout=timeout)
        found = clinic.open_bundle(path, request, progress=report)
    _show(found, path, scores, as_json)


@app.command("open")
def open_bundle(
    bundle: Annotated[Path, typer.Argument(help="A bundle about records of this clinic.")],
    scores: Annotated[Path | None, typer.Option(help="Write the answers to this CSV file (mode 0600).")] = None,
    offline: Annotated[bool, typer.Option(help="Ask the server for nothing.")] = False,
    folder: Folder = DEFAULT,
    as_json: Json = False,
) -> None:
    """Verify a bundle, and only then decrypt it. There is no way to decrypt without verifying.

    Example: sealproof clinic open prediction-6.sealproof --scores scores.csv
    """
    clinic = Clinic.open(folder)
    with progress() as report:
        request = None if offline else _request_of(clinic, bundle)
        found = clinic.open_bundle(bundle, request, offline=offline, progress=report)
    _show(found, bundle, scores, as_json)


for command in COMMANDS:
    app.command()(command)


def _records(clinic: Clinic, index: int | None, *, committed: bool) -> SubmittedRecords:
    mine = clinic.records()
    fitting = [records for records in mine if records.committed == committed]
    if index is None and not fitting:
        how = "committed for networks" if committed else "encrypted for linear models"
        raise UsageError(f"this clinic has no records {how} yet: sealproof clinic submit")
    chosen = next((r for r in mine if r.index == index), None) if index is not None else fitting[-1]
    if chosen is None:
        raise UsageError(f"entry {index} is no cohort of this clinic; it has {', '.join(str(r.index) for r in mine)}")
    return chosen


def _request_of(clinic: Clinic, bundle: Path) -> PredictionRequest | None:
    """The request that a bundle answers, as far as this folder remembers it."""
    for request in clinic.requests():
        state = clinic.state(request)
        if state.prediction is not None and bundle.name == f"prediction-{state.prediction}.sealproof":
            return request
    return None


def _show(found: Scores, bundle: Path, scores: Path | None, as_json: bool) -> None:
    """What may be shown on a clinic's own screen: that it holds, and where the answers went."""
    if scores is not None:
        found.to_csv(scores)
    bounds = {name: float(bound) for name, bound in zip(found.outputs, found.shown_bounds, strict=True)}
    if as_json:
        print_json(
            {
                "verified": True,
                "bundle": str(bundle),
                "patients": len(found),
                "error_bounds": bounds,
                "scores": None if scores is None else str(scores),
            }
        )
        return
    how = "opened" if isinstance(found.verified, VerifiedJointPrediction) else "decrypted"
    out.print(f"verified, then {how}: {len(found)} patients, bundle {bundle}")
    for name, bound in bounds.items():
        out.print(f"  {name}: within {bound:.2g} of the float model")
    out.print(f"answers are in {scores}" if scores else "write the answers to a file with --scores FILE")
