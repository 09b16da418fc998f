"""sealproof mpc: the dealer, the nodes of clinics and owners, and what to do after a session that broke."""

from __future__ import annotations

import logging
import signal
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.cli.common import Folder, Json, out, print_json, progress
from api.client.identity import Identity
from api.client.session import Session
from privacy.errors import UsageError

app = typer.Typer(help="Two-party computation: dealer, nodes, suspended pairs.", no_args_is_help=True)

_LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


@app.command()
def dealer(
    folder: Annotated[Path, typer.Option("--folder", "-f", help="Folder for the dealer's key.")] = Path("dealer"),
    listen: Annotated[str, typer.Option(help="Where to listen, host:port.")] = "127.0.0.1:7200",
) -> None:
    """Deal correlated randomness to pairs of nodes. It sees no records, no weights and no answers.

    Clinic and owner must both trust it not to work with the other. Example: sealproof mpc dealer --listen 0.0.0.0:7200
    """
    from api.mpc.dealer_process import DealerServer
    from api.mpc.link import parse_address
    from api.signing import load_private_key, save_private_key
    from privacy.private_files import private_folder

    _log_to_stderr()
    path = private_folder(folder) / "dealer.key"
    if not path.exists():
        save_private_key(Ed25519PrivateKey.generate(), path)
    private = load_private_key(path)
    public = private.public_key().public_bytes_raw().hex()
    (folder / "dealer.pub").write_text(f"{public}\n", encoding="ascii")
    address = parse_address(listen)
    server = DealerServer(address, private)
    _on_signals(server.close)
    out.print(f"dealer key, for both nodes (also in {folder / 'dealer.pub'}):\n{public}", soft_wrap=True)
    out.print(f"dealing at {address.host}:{server.port}")
    server.serve()


@app.command()
def node(
    dealer_address: Annotated[str, typer.Option("--dealer", help="Address of the dealer, host:port.")],
    dealer_key: Annotated[str, typer.Option(help="Key of the dealer: 64 hex digits, or a file with them.")],
    folder: Folder,
    listen: Annotated[
        str | None, typer.Option(help="Owner only: where to listen for clinics' nodes, host:port.")
    ] = None,
    advertise: Annotated[
        str | None, typer.Option(help="Owner only: where clinics reach this node, if not at --listen.")
    ] = None,
    exposure_cap: Annotated[
        str | None, typer.Option(help="Owner only: refuse beyond this share of a network's bits, such as 1/2.")
    ] = None,
) -> None:
    """Compute predictions for the party of a folder, a clinic or an owner, until interrupted.

    Weights and records stay in their folder. A clinic's node needs no --listen.
    Example: sealproof mpc node -f owner --listen 192.0.2.7:7100 --dealer dealer.example:7200 --dealer-key dealer.pub
    """
    from api.mpc.link import parse_address
    from api.mpc.node import NodeDealer
    from api.mpc.nodes import node_of

    _log_to_stderr()
    chosen = NodeDealer(parse_address(dealer_address), _dealer_key(dealer_key))
    with progress() as report:
        made = node_of(
            folder,
            chosen,
            listen=None if listen is None else parse_address(listen),
            advertise=None if advertise is None else parse_address(advertise),
            exposure_cap=_fraction(exposure_cap),
            progress=report,
        )
        with made:
            _on_signals(made.stop)
            identity = made.session.identity
            where = f", reached at {made.address}" if made.address else ""
            out.print(f"node of {identity.role} {identity.name} is ready{where}")
            made.run()


@app.command()
def clear(
    peer: Annotated[str, typer.Argument(help="Name of the other party.")],
    folder: Folder,
    as_json: Json = False,
) -> None:
    """Allow sessions with a party again, after a session that broke. The other owner must do the same.

    Find out first why it broke (`sealproof mpc status`): a party that cheats learns one bit each time.
    Example: sealproof mpc clear st-anna -f owner
    """
    from api.mpc.clearing import clear as clear_pair

    here, entries = clear_pair(_session(folder), peer)
    if as_json:
        print_json({"peer": peer, "local": here, "entries": [reference.index for reference in entries]})
        return
    listed = ", ".join(str(reference.index) for reference in entries) or "none"
    out.print(f"cleared with {peer}: {here} here, ledger entries: {listed}. The other owner must clear it, too.")


@app.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """Which parties this one may not compute with, and why.

    Example: sealproof mpc status -f clinic
    """
    from api.mpc.clearing import standing

    found = standing(_session(folder))
    if as_json:
        print_json(
            [
                {"peer": s.peer, "local": list(s.local), "ledger": [{"entry": r.index, "reason": t} for r, t in s.open]}
                for s in found
            ]
        )
        return
    if not found:
        out.print("no pair is suspended")
    for one in found:
        out.print(f"suspended: {one.peer}")
        for reason in one.local:
            out.print(f"  here, since {reason}", soft_wrap=True)
        for reference, reason in one.open:
            out.print(f"  ledger entry {reference.index}: {reason}", soft_wrap=True)


def _session(folder: Path) -> Session:
    return Session.resume(folder, Identity.load(folder).role, None, None)


def _dealer_key(text: str) -> bytes:
    path = Path(text)
    found = path.read_text(encoding="ascii").strip() if len(text) != 64 and path.exists() else text
    try:
        key = bytes.fromhex(found)
    except ValueError as error:
        raise UsageError(f"--dealer-key: {text!r} is neither 64 hex digits nor a file with them") from error
    if len(key) != 32:
        raise UsageError(f"--dealer-key: {len(key)} bytes, expected 32 (64 hex digits)")
    return key


def _fraction(text: str | None) -> Fraction | None:
    if text is None:
        return None
    try:
        share = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(f"--exposure-cap: {text!r} is no fraction such as 1/2") from error
    if share <= 0:
        raise UsageError("--exposure-cap is above 0")
    return share


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format=_LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _on_signals(stop: object) -> None:
    """SIGTERM and SIGINT end the process in good order."""

    def handle(number: int, frame: object) -> None:
        del frame
        if callable(stop):
            stop()
        if number == signal.SIGINT:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
