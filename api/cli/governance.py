"""sealproof governance: hospitals approve models, on the ledger and in a contract, and withdraw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.common import Folder, Json, LogKey, ModelName, model_argument, out, print_json, trusted_head
from api.client.governance import (
    LoggedModel,
    SignedAct,
    approval_of,
    create_hospital_key,
    find_model,
    load_act,
    load_hospital_key,
    read_log,
    sign_act,
)
from api.client.owner import Owner
from api.client.session import log_errors
from api.client.transport import Server
from api.governance import ApprovalContract, Governance
from api.registry import Registry
from privacy.errors import UsageError, VerificationFailed

if TYPE_CHECKING:
    from ledger.anchors.evm import Chain

app = typer.Typer(help="Hospitals approve models, and withdraw.", no_args_is_help=True)

GovernanceFile = Annotated[
    Path, typer.Option("--governance", "-g", help="Governance file: chain, contract, threshold and hospitals' keys.")
]
Rpc = Annotated[str, typer.Option(help="Address of a node of the chain, such as http://localhost:8545.")]
ChainKeyFile = Annotated[Path, typer.Option("--chain-key", help="Key that pays: 64 hex digits, mode 0600.")]
Acts = Annotated[list[Path], typer.Argument(help="Signatures of hospitals, from `governance sign`.")]


@app.command()
def keygen(
    file: Annotated[Path, typer.Argument(help="Where to write the secret key, mode 0600.")],
    as_json: Json = False,
) -> None:
    """Make a hospital's key and print its public part, for the governance file. Keep the file secret.

    Example: sealproof governance keygen st-anna.key
    """
    key = create_hospital_key(file).hex()
    if as_json:
        print_json({"key": key})
    else:
        out.print(key)


@app.command()
def deploy(
    rpc: Rpc,
    chain_key: ChainKeyFile,
    hospital: Annotated[list[str], typer.Option(help="Public key of a hospital, 66 hex digits; once for each.")],
    threshold: Annotated[int, typer.Option(help="How many hospitals must approve a model.")],
    origin: Annotated[str, typer.Option(help="Name of the ledger whose models are approved.")],
    save: Annotated[Path, typer.Option(help="Where to write the governance file.")],
    as_json: Json = False,
) -> None:
    """Create the contract and write the governance file. Hospitals, threshold and ledger are fixed for good.

    Example: sealproof governance deploy --rpc http://localhost:8545 --chain-key pay.key --hospital 02c6... --hospital
    03f1... --threshold 2 --origin localhost/sealproof --save governance.json
    """
    keys = tuple(_key(text) for text in hospital)
    Governance(1, bytes(20), threshold, keys)  # what no contract would take is told before anything is paid
    if save.exists():
        raise UsageError(f"{save} exists already")
    with log_errors(), _chain(rpc, chain_key) as chain:
        from ledger.anchors.model_approvals import ModelApprovals, account_of_key

        contract, receipt = ModelApprovals.deploy(chain, [account_of_key(key) for key in keys], threshold, origin)
        address = contract.contract.address
        made = Governance(chain.chain_id, bytes.fromhex(address[2:]), threshold, keys)
    save.write_bytes(made.encode())
    if as_json:
        print_json({"chain": made.chain, "contract": address, "gas_used": receipt.gas_used, "file": str(save)})
    else:
        out.print(
            f"contract {address} on chain {made.chain}, {receipt.gas_used:,} gas; governance file {save}",
            soft_wrap=True,
        )


@app.command()
def sign(
    governance: GovernanceFile,
    key: Annotated[Path, typer.Option(help="The hospital's key, from `governance keygen`.")],
    model: ModelName,
    server: Annotated[str, typer.Option(help="Server with the ledger, which is read whole and checked.")],
    save: Annotated[Path, typer.Option(help="Where to write the signature.")],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Withdraw instead, for good.")] = False,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Approve a model, or withdraw: sign for its ledger entry. Give the file to the owner, or submit it yourself.

    A withdrawal counts once it is in the contract. It cannot be taken back: only a new version can be approved again.

    Example: sealproof governance sign -g governance.json --key st-anna.key --model heart --server
    http://localhost:8000 --log-key log.vkey --save st-anna.json
    """
    found_governance, secret = Governance.load(governance), load_hospital_key(key)
    registry, found = _model(server, log_key, model)
    if not withdraw:
        registry.check_not_revoked(found.reference)
    signed = sign_act(
        "withdraw" if withdraw else "approve", found_governance, _origin(registry), found.reference, secret
    )
    save.write_bytes(signed.encode())
    if as_json:
        print_json({**_told(registry, found), "act": signed.act, "key": signed.key.hex(), "file": str(save)})
    else:
        what = _told(registry, found)
        out.print(
            f"{signed.act}: model {what['name']} {what['version']} of {what['owner']}, ledger entry {what['model']}: "
            f"{save}",
            soft_wrap=True,
        )


@app.command()
def submit(acts: Acts, rpc: Rpc, chain_key: ChainKeyFile, as_json: Json = False) -> None:
    """Bring approvals and withdrawals to the contract. Anybody may; what is there already is not sent again.

    Example: sealproof governance submit st-anna.json st-vitus.json --rpc http://localhost:8545 --chain-key pay.key
    """
    signed = [load_act(path) for path in acts]
    with log_errors(), _chain(rpc, chain_key) as chain:
        rows = [_submitted(chain, act) for act in signed]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        paid = "there already" if row["gas_used"] is None else f"{row['gas_used']:,} gas"
        now = "approved" if row["approved"] else "not approved"
        out.print(f"{row['act']} by {row['hospital']}: {paid}; entry {row['model']} is {now} now", soft_wrap=True)


@app.command("log")
def log_(acts: Acts, governance: GovernanceFile, folder: Folder = Path("owner"), as_json: Json = False) -> None:
    """Put enough approvals of one model on the ledger, as its owner or another one.

    Example: sealproof governance log st-anna.json st-vitus.json -g governance.json
    """
    signed, found = [load_act(path) for path in acts], Governance.load(governance)
    with Owner.open(folder) as owner:
        session = owner.session
        body = approval_of(signed, found, session.identity.origin)
        entry = session.identity.sign(body)
        reference = session.server.append(entry)
        session.check_logged(reference, entry)
    if as_json:
        print_json({"approval": reference.index, "leaf": reference.leaf.hex(), "model": body.model.index})
    else:
        out.print(f"model {body.model.index} approved by {len(body.signatures)} hospitals: entry {reference.index}")


@app.command()
def status(
    governance: GovernanceFile,
    model: ModelName,
    server: Annotated[str, typer.Option(help="Server with the ledger, which is read whole and checked.")],
    rpc: Annotated[str | None, typer.Option(help="A node of the chain: what the contract knows now.")] = None,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Who approves a model: on the ledger, and in the contract. Exit code 1 if it does not count as approved.

    Example: sealproof governance status -g governance.json --model heart --server http://localhost:8000 --rpc
    http://localhost:8545
    """
    found_governance = Governance.load(governance)
    registry, found = _model(server, log_key, model)
    origin, reference = _origin(registry), found.reference
    entries: list[dict[str, Any]] = []
    for approval in registry.approvals_of(reference):
        fits = (approval.body.chain, approval.body.contract) == (found_governance.chain, found_governance.contract)
        signers = found_governance.signers(approval.body) if fits else ()
        entries.append({"approval": approval.reference.index, "hospitals": [key.hex() for key in signers]})
    states: dict[str, str] | None = None
    if rpc is not None:
        with log_errors():
            from api.chain.governance import ChainApprovals

            with ChainApprovals(rpc, found_governance) as contract:
                known = contract.states(origin, reference, found_governance.hospitals)
        states = {key.hex(): state for key, state in zip(found_governance.hospitals, known, strict=True)}
    needed = found_governance.threshold
    logged = any(len(entry["hospitals"]) >= needed for entry in entries)
    held = states is None or list(states.values()).count("approved") >= needed
    result = {
        **_told(registry, found),
        "threshold": needed,
        "logged": entries,
        "contract": states,
        "approved": logged and held,
    }
    if as_json:
        print_json(result)
    else:
        _print_status(result)
    if not result["approved"]:
        raise typer.Exit(1)


def _print_status(result: dict[str, Any]) -> None:
    out.print(f"model {result['name']} {result['version']} of {result['owner']}, ledger entry {result['model']}")
    for entry in result["logged"]:
        out.print(f"  ledger entry {entry['approval']}: {len(entry['hospitals'])} of the hospitals")
    for key, state in (result["contract"] or {}).items():
        out.print(f"  {key}: {state}")
    verdict = "approved" if result["approved"] else "NOT approved"
    out.print(f"{verdict}: {result['threshold']} hospitals are needed", soft_wrap=True)


@contextmanager
def governed(demanded: Governance | None, rpc: str | None) -> Iterator[ApprovalContract | None]:
    """The contract of a governance file, to be asked through the node at `rpc`; None without one.

    Raises UsageError, VerificationFailed, ledger.ChainUnavailable, ledger.MissingDependency.
    """
    if rpc is None:
        yield None
        return
    if demanded is None:
        raise UsageError("--governance-rpc needs --governance: the file says which contract is asked")
    with log_errors():
        from api.chain.governance import ChainApprovals

        with ChainApprovals(rpc, demanded) as contract:
            contract.open()
            yield contract


# -- parts ------------------------------------------------------------------------------------------------------------


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no public key of a hospital: 66 hex digits, from `governance keygen`") from error


def _chain(rpc: str, chain_key: Path) -> Chain:
    from api.chain.keys import load_key
    from ledger.anchors.evm import Chain

    return Chain.connect(rpc, load_key(chain_key))


def _submitted(chain: Chain, signed: SignedAct) -> dict[str, Any]:
    """Bring one act to its contract, unless it is there."""
    from ledger.anchors.model_approvals import ModelApprovals, account_of_key

    if chain.chain_id != signed.chain:
        raise UsageError(f"the node is one of chain {chain.chain_id}, the signature is for chain {signed.chain}")
    contract = ModelApprovals.at(chain, f"0x{signed.contract.hex()}")
    contract.check_origin(signed.origin)
    account, place = account_of_key(signed.key), (signed.model.index, signed.model.leaf)
    gas_used = None
    if contract.states(*place).get(account) != {"approve": "approved", "withdraw": "withdrawn"}[signed.act]:
        send = contract.approve if signed.act == "approve" else contract.withdraw
        gas_used = send(account, *place, signed.signature).gas_used
    return {
        "act": signed.act,
        "hospital": account,
        "model": signed.model.index,
        "gas_used": gas_used,
        "approved": contract.approved(*place),
    }


def _model(server: str, log_key: str | None, model: str) -> tuple[Registry, LoggedModel]:
    """The ledger as its signed head has it, and a model on it."""
    source = Server(server)
    with log_errors():
        registry = read_log(source, trusted_head(source, log_key))
    return registry, find_model(registry, model_argument(model))


def _origin(registry: Registry) -> str:
    if registry.origin is None:
        raise VerificationFailed("log.untrusted", "the ledger has no name")
    return registry.origin


def _told(registry: Registry, model: LoggedModel) -> dict[str, Any]:
    return {
        "model": model.reference.index,
        "leaf": model.reference.leaf.hex(),
        "name": model.body.name,
        "version": model.body.version,
        "owner": registry.author_of(model.reference.index).body.name,
        "origin": registry.origin,
    }
