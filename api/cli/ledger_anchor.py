"""sealproof ledger anchor: the log's head on chains, where its operator cannot take it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.chain.anchors import Anchor, Pushed, add_anchor, open_anchor, push_head, read_anchors
from api.cli.common import (
    EXIT_ENVIRONMENT,
    EXIT_REFUSED,
    Json,
    LogKey,
    err,
    exit_code,
    out,
    print_json,
    trusted_head,
)
from api.client.session import log_errors
from api.client.times import told
from api.client.transport import Server
from ledger.errors import VerificationFailed as LedgerVerificationFailed
from privacy.errors import UsageError, VerificationFailed

app = typer.Typer(help="The ledger's head on chains: contracts that it can only grow in.", no_args_is_help=True)

Address = Annotated[str, typer.Option("--server", help="Address of the server.")]
Config = Annotated[Path, typer.Option("--config", help="The list of anchors.")]


@app.command()
def key(file: Annotated[Path, typer.Argument(help="New file, mode 0600.")], as_json: Json = False) -> None:
    """Make a key that pays for transactions, and print its account: send it some of the chain's currency.

    Example: sealproof ledger anchor key chain.key
    """
    from api.chain.keys import create_key

    address = create_key(file).address
    if as_json:
        print_json({"address": address, "file": str(file)})
    else:
        out.print(f"account: {address}")


@app.command()
def deploy(
    server: Address,
    rpc: Annotated[str, typer.Option(help="Address of a node of the chain: http:// or https://.")],
    key_file: Annotated[Path, typer.Option("--key", help="File with the key that pays; it alone can push.")],
    name: Annotated[str, typer.Option(help="What this anchor is called in the list.")],
    config: Config = Path("anchors.json"),
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Create the contract for the server's log on a chain, and put it into the list of anchors.

    Example: sealproof ledger anchor deploy --server http://localhost:8000 --rpc http://localhost:8545 --key chain.key
    --name main --log-key log.vkey
    """
    from api.chain.keys import load_key
    from ledger.anchors.evm import Chain
    from ledger.anchors.head_anchor import HeadAnchor

    head, payer = trusted_head(Server(server), log_key), load_key(key_file)
    if config.exists() and any(anchor.name == name for anchor in read_anchors(config)):
        raise UsageError(f"{config} has an anchor {name!r} already: give another --name")
    with log_errors(), Chain.connect(rpc, payer) as chain:
        contract, receipt = HeadAnchor.deploy(chain, head.origin)
        try:
            add_anchor(config, Anchor(name, rpc, contract.contract.address, key_file.resolve()))
        except OSError as error:
            # Paid for already: the address must not be lost.
            raise UsageError(
                f"deployed {contract.name}, but cannot write {config} ({error}): add it by hand"
            ) from error
        told = {
            "name": name,
            "contract": contract.contract.address,
            "chain": chain.chain_id,
            "origin": head.origin,
            "block": receipt.block,
            "transaction": receipt.transaction.hex(),
            "gas": receipt.gas_used,
        }
    if as_json:
        print_json(told)
    else:
        out.print(
            f"anchor {name}: {told['contract']} on chain {told['chain']}, for the log {head.origin}", soft_wrap=True
        )
        out.print(
            f"  {receipt.gas_used} gas, block {receipt.block}; it is in {config}, and holds no head yet", soft_wrap=True
        )


@app.command()
def push(server: Address, config: Config = Path("anchors.json"), log_key: LogKey = None, as_json: Json = False) -> None:
    """Move every anchor to the server's published head. One that fails does not keep the others.

    Exit code 1 if a head was refused (a rollback or a fork), else 3 if a chain could not be used.

    Example: sealproof ledger anchor push --server http://localhost:8000 --log-key log.vkey
    """
    source = Server(server)
    head, anchors = trusted_head(source, log_key), read_anchors(config)
    if not anchors:
        raise UsageError(f"{config} lists no anchors: sealproof ledger anchor deploy makes one")
    rows, worst = [], 0
    for anchor in anchors:
        try:
            with log_errors(), open_anchor(anchor, to_push=True) as opened:
                rows.append(_pushed(anchor, push_head(opened, head, source.consistency), head.size))
        except Exception as error:
            row, code = _failed(anchor, error)
            rows.append(row)
            worst = EXIT_REFUSED if EXIT_REFUSED in (code, worst) else EXIT_ENVIRONMENT
    _show({"origin": head.origin, "size": head.size, "root": head.root.hex(), "anchors": rows}, as_json)
    raise typer.Exit(worst)


@app.command()
def status(
    config: Config = Path("anchors.json"),
    server: Annotated[str | None, typer.Option(help="Also say how far the anchors are behind this server.")] = None,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """What every anchor holds. Exit code 3 if a chain could not be read.

    Example: sealproof ledger anchor status --server http://localhost:8000 --log-key log.vkey
    """
    head = trusted_head(Server(server), log_key) if server else None
    rows, worst = [], 0
    for anchor in read_anchors(config):
        try:
            with log_errors(), open_anchor(anchor) as opened:
                newest = opened.newest()
                row = {
                    **_named(anchor, "holds"),
                    "chain": opened.contract.chain.chain_id,
                    "origin": newest.origin,
                    "operator": opened.operator,
                    "size": newest.size,
                    "root": newest.root.hex(),
                    "block": newest.block,
                    "time": newest.time and told(newest.time),
                    "behind": None if head is None else head.size - newest.size,
                }
            row["message"] = f"{newest.size} entries of {newest.origin}" + (
                f", since {row['time']} (block {newest.block})" if newest.size else ""
            )
            if head is not None:
                row["message"] += f"; {row['behind']} behind the server"
            rows.append(row)
        except Exception as error:
            row, code = _failed(anchor, error)
            rows.append(row)
            worst = EXIT_REFUSED if EXIT_REFUSED in (code, worst) else EXIT_ENVIRONMENT
    _show({"anchors": rows, "server": None if head is None else {"origin": head.origin, "size": head.size}}, as_json)
    raise typer.Exit(worst)


def _pushed(anchor: Anchor, pushed: Pushed, size: int) -> dict[str, Any]:
    if pushed.receipt is None:
        return {**_named(anchor, "current"), "message": f"at {size} entries, nothing to do"}
    return {
        **_named(anchor, "pushed"),
        "from": pushed.before.size,
        "block": pushed.receipt.block,
        "transaction": pushed.receipt.transaction.hex(),
        "gas": pushed.receipt.gas_used,
        "message": f"from {pushed.before.size} to {size} entries, block {pushed.receipt.block}, "
        f"{pushed.receipt.gas_used} gas",
    }


def _failed(anchor: Anchor, error: Exception) -> tuple[dict[str, Any], int]:
    """What is told of an anchor that failed, and the exit code of that. Raises `error` again if it is a bug."""
    code = exit_code(error)
    if code is None:
        raise error
    refused = isinstance(error, VerificationFailed | LedgerVerificationFailed)
    return {**_named(anchor, "refused" if refused else "failed"), "message": str(error)}, code


def _named(anchor: Anchor, result: str) -> dict[str, Any]:
    return {"name": anchor.name, "contract": anchor.contract, "result": result}


def _show(told: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    for row in told["anchors"]:
        console = err if row["result"] in ("refused", "failed") else out
        console.print(f"{row['name']}: {row['result']} {' '.join(row['message'].split())}", soft_wrap=True)
    if not told["anchors"]:
        out.print("no anchors are listed: sealproof ledger anchor deploy")
