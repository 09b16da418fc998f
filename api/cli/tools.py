"""sealproof exposure, demo, bench, doctor."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from api.cli.common import EXIT_ENVIRONMENT, Json, LogKey, out, print_json, trusted_head
from api.client.history import whole_log
from api.client.transport import Server
from api.exposure import recount as count_exposure
from api.registry import Registry
from privacy.errors import MissingDependency, UsageError

_BENCHMARKS = {"overhead": "overhead", "latency": "latency", "mpc": "mpc", "ledger": "ledger_log", "evm": "evm"}
"""Script of each. None has the name of a package of ours, which it would hide from the others."""
_PARTS: tuple[tuple[str, str, str], ...] = (
    ("py_arkworks_bls12381", "verify bundles", "pip install sealproof"),
    ("tenseal", "clinic: encrypt and decrypt", "pip install 'sealproof[ckks]'"),
    ("sklearn", "publish scikit-learn models, demo data", "pip install 'sealproof[models]'"),
    ("torch", "publish torch models, compute with another party", "pip install 'sealproof[torch]'"),
    ("fastapi", "run a server", "pip install 'sealproof[service]'"),
    ("uvicorn", "run a server", "pip install 'sealproof[service]'"),
    ("psycopg", "several servers on one ledger, in PostgreSQL", "pip install 'sealproof[postgres]'"),
    ("web3", "anchor heads, approve models, enrol in trials: contracts", "pip install 'sealproof[evm]'"),
    ("fpdf", "a ledger report as PDF", "pip install 'sealproof[report]'"),
    ("pyhanko", "sign that PDF", "pip install 'sealproof[report]'"),
    ("matplotlib", "plots of benchmarks", "pip install 'sealproof[bench]'"),
    ("zksk", "prove zero weights", "make setup, in a checkout"),
    (
        "crypten",
        "compute with another party",
        "pip install 'sealproof[mpc]' && pip install --no-deps crypten==0.4.1",
    ),
)
_DEMO = ("sklearn", "fastapi", "uvicorn")
_DEMO_ENCRYPTED = ("tenseal",)
_DEMO_TOGETHER = ("torch", "crypten")


def exposure(
    server: Annotated[str, typer.Option(help="Address of the server.")],
    clinic: Annotated[str | None, typer.Option(help="One clinic only.")] = None,
    model: Annotated[int | None, typer.Option(help="One model only, by ledger index.")] = None,
    recount: Annotated[
        bool, typer.Option("--recount", help="Take nobody's word: recount from the whole ledger.")
    ] = False,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Bits of each model output that answers have released to each clinic, against the bits it has.

    Example: sealproof exposure --server http://localhost:8000 --clinic st-anna --recount
    """
    source = Server(server)
    rows = _recounted(source, log_key, clinic, model) if recount else source.exposure(clinic, model)
    if as_json:
        print_json(rows)
        return
    table = Table("clinic", "model", "output", "predictions", "released bits", "bits it has", "may be known")
    for row in rows:
        table.add_row(
            row["clinic"],
            str(row["model"]),
            row["output"],
            str(row["predictions"]),
            f"{row['released_bits']:,.0f}",
            f"{row['model_bits']:,}",
            "yes" if row["recoverable"] else "no",
        )
    out.print(table)


def _recounted(source: Server, log_key: str | None, clinic: str | None, model: int | None) -> list[dict[str, Any]]:
    """The server's rows, from the entries under the signed head."""
    head = trusted_head(source, log_key)
    registry = Registry(head.origin)
    for _, entry in whole_log(source, head):
        registry.add(entry)
    return [
        {
            "clinic": row.clinic,
            "model": row.model.index,
            "leaf": row.model.leaf.hex(),
            "output": row.output_name,
            "predictions": row.predictions,
            "released_bits": float(row.exposure.released),
            "model_bits": row.exposure.model_bits,
            "share": float(row.exposure.share),
            "recoverable": row.exposure.recoverable,
        }
        for row in count_exposure(registry, clinic, model)
    ]


def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the report and the bundles.")] = Path(
        "demo-out"
    ),
    ckks: Annotated[bool, typer.Option("--ckks", help="The part on encrypted records alone.")] = False,
    mpc: Annotated[bool, typer.Option("--mpc", help="The part that clinic and owner compute together, alone.")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="The part on the ledger and its witnesses, alone.")] = False,
    consumer: Annotated[
        bool, typer.Option("--consumer", help="The part in which an insurer asks a clinic a question, alone.")
    ] = False,
) -> None:
    """The whole story on real patient data: publish, encrypt or commit, predict, prove, verify, read, and forgeries.

    First on encrypted records, of which an insurer is shown what it asked, and nothing that a crooked clinic makes up;
    then computed together by the nodes of clinic and owner, one of which cheats once; then the ledger, whose server
    lies and is caught by witnesses, monitor, fsck and contracts.
    Leaves report.html and one bundle a prediction. Example: sealproof demo
    """
    every = not (ckks or mpc or ledger or consumer)
    encrypted, together, asked = ckks or every, mpc or every, consumer or every
    needed = (*_DEMO, *(_DEMO_ENCRYPTED if encrypted or asked else ()), *(_DEMO_TOGETHER if together else ()))
    missing = {
        module: how for module, _, how in _PARTS if module in needed and importlib.util.find_spec(module) is None
    }
    if missing:
        raise MissingDependency(", ".join(missing), "all", " && ".join(dict.fromkeys(missing.values())))
    from api.demo.run import run_demo

    if not run_demo(out_folder, encrypted=encrypted, together=together, ledger=ledger or every, consumer=asked):
        raise typer.Exit(1)


def bench(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(_BENCHMARKS)}.")] = "overhead",
    arguments: Annotated[list[str] | None, typer.Argument(help="Passed on to the script; see its --help.")] = None,
) -> None:
    """Measure, and write benchmarks/results/NAME.json and a plot. Needs a checkout of the source.

    Example: sealproof bench overhead -- --blocks 8
    """
    if name not in _BENCHMARKS:
        raise UsageError(f"no benchmark {name!r}; there is {', '.join(_BENCHMARKS)}")
    script = Path(__file__).resolve().parents[2] / "benchmarks" / f"{_BENCHMARKS[name]}.py"
    if not script.exists():
        raise UsageError("benchmarks are part of the source: run this in a checkout")
    raise typer.Exit(subprocess.run([sys.executable, str(script), *(arguments or [])], check=False).returncode)  # noqa: S603


def doctor(as_json: Json = False) -> None:
    """What is installed, what is missing for which part, and the command that installs it.

    Example: sealproof doctor
    """
    packages = importlib.metadata.packages_distributions()
    rows = []
    for module, purpose, how in _PARTS:
        found = importlib.util.find_spec(module) is not None
        version = importlib.metadata.version(packages.get(module, [module])[0]) if found else ""
        rows.append({"module": module, "for": purpose, "installed": found, "version": version, "install": how})
    rows.append(_development_chain())
    if as_json:
        print_json(rows)
    else:
        table = Table("module", "for", "installed", "install with")
        for row in rows:
            missing = "" if row["installed"] else str(row["install"])
            installed = str(row["version"]) or "yes" if row["installed"] else "no"
            table.add_row(str(row["module"]), str(row["for"]), installed, missing)
        out.print(table)
    if not rows[0]["installed"]:
        raise typer.Exit(EXIT_ENVIRONMENT)


def _development_chain() -> dict[str, Any]:
    """The row of the one thing that is no Python module."""
    from api.demo.play_chain import anvil_version, find_anvil

    program = find_anvil()
    return {
        "module": "anvil",
        "for": "a chain with play money, for the demonstration and tests of the contracts",
        "installed": program is not None,
        "version": "" if program is None else anvil_version(program),
        "install": "make anvil, in a checkout (needs npm)",
    }
