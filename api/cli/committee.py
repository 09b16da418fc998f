"""sealproof committee: enrolment in a trial by the signatures of a committee, checked by a contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from api.cli.common import (
    Json,
    LogKey,
    ModelName,
    err,
    model_argument,
    out,
    print_json,
    progress,
    trusted_log,
    trusted_logs,
)
from api.client.committee import Member
from api.client.enrolment import CASE, MEMBER, SHARE, SIGNED, TERMS, TrialTerms, combine
from api.client.questions import output_names
from api.client.session import log_errors
from api.client.transport import Server
from api.client.trial_model import published_model, trial_threshold
from api.client.verified_cache import VerifiedCache
from privacy.canonical_json import Codec
from privacy.private_files import read_limited, write_private

if TYPE_CHECKING:
    from ledger.anchors.evm import Chain, Receipt

app = typer.Typer(
    help="A trial's committee: verify what a clinic discloses, sign it, and enrol on a chain.", no_args_is_help=True
)

T = TypeVar("T")
_MAX_FILE = 1 << 17

Terms = Annotated[Path, typer.Option("--trial", help="The trial's terms, from its organiser.")]
CaseFile = Annotated[Path, typer.Option("--case", help="The case: whose nonce the clinic disclosed to.")]
Rpc = Annotated[str, typer.Option("--rpc", help="Address of a node of the chain: http:// or https://.")]
KeyFile = Annotated[Path, typer.Option("--key", help="File with the Ethereum key that pays.")]
Save = Annotated[Path, typer.Option("--save", help="Where to write it.")]


@app.command()
def member(
    name: Annotated[str, typer.Argument(help="Who signs, such as dr-b.")],
    folder: Annotated[Path, typer.Option("--folder", "-f", help="Folder for the key.")] = Path("member"),
    save: Annotated[Path | None, typer.Option(help="Where to write the public file, for the organiser.")] = None,
    as_json: Json = False,
) -> None:
    """Make a committee member's key, and the public file that the organiser needs.

    The file holds a proof that the key's secret is known, without which one member could sign in the name of others.
    Example: sealproof committee member dr-b --folder dr-b --save dr-b.member
    """
    made = Member.create(folder, name)
    path = save or folder / "member.json"
    if save is not None:
        write_private(save, MEMBER.encode(made.public))
    if as_json:
        print_json({"name": name, "key": made.public.key.hex(), "file": str(path)})
    else:
        out.print(f"give {path} to the organiser; keep {folder} secret", soft_wrap=True)


@app.command()
def init(
    members: Annotated[list[Path], typer.Argument(help="Public files of the members, in order.")],
    model: ModelName,
    at_least: Annotated[float, typer.Option(help="Least answer: a probability for a logit, else a raw answer.")],
    quorum: Annotated[int, typer.Option(min=1, help="How many members must sign.")],
    server: Annotated[str, typer.Option(help="Address of the server with the model.")],
    rpc: Rpc,
    key: KeyFile,
    save: Save = Path("trial.json"),
    output: Annotated[str | None, typer.Option(help="Output of the model; by default its first.")] = None,
    contract: Annotated[str | None, typer.Option(help="Go on with a contract that this command began.")] = None,
    log_key: LogKey = None,
    as_json: Json = False,
) -> None:
    """Make a trial: deploy its contract, add the committee and seal it. For the organiser.

    The terms that it writes are for everybody: committee, clinics, auditors. A key that pays makes
    `sealproof ledger anchor key`; it is the organiser's from then on.

    Example: sealproof committee init dr-a.member dr-b.member dr-c.member --quorum 2 --model heart --at-least 0.7
    --server http://localhost:8000 --rpc http://localhost:8545 --key payer.key --save trial.json
    """
    from api.chain.trial import create_trial

    source = Server(server)
    origin = source.health().origin
    published = published_model(source, trusted_log(origin, log_key), model_argument(model))
    place, threshold = trial_threshold(published, output, at_least)
    committee = [_read(MEMBER, path) for path in members]
    gas: list[int] = []

    def told(what: str, receipt: Receipt) -> None:
        # At once: if a later transaction fails, --contract goes on from what was paid for.
        gas.append(receipt.gas_used)
        err.print(f"  {what}: {receipt.gas_used} gas", soft_wrap=True)

    with _chain(rpc, key) as chain:
        terms, _ = create_trial(
            chain,
            origin=origin,
            model=published.reference,
            output=place,
            threshold=threshold,
            quorum=quorum,
            members=committee,
            address=contract,
            told=told,
        )
    write_private(save, TERMS.encode(terms))
    if as_json:
        print_json({**_terms(terms), "gas": sum(gas), "file": str(save)})
    else:
        out.print(
            f"trial at 0x{terms.contract.hex()} on chain {terms.chain}: {quorum} of {len(committee)} members enrol "
            f"whose {output_names(published)[place]} by model {published.body.name} {published.body.version} is "
            f"at least {threshold} / 2^{published.body.grid_bits}; {sum(gas)} gas; give {save} to everybody",
            soft_wrap=True,
        )


@app.command()
def nonce(trial: Terms, rpc: Rpc, key: KeyFile, save: Save, as_json: Json = False) -> None:
    """Issue the nonce of one more case, for the clinic that discloses. For the organiser.

    Example: sealproof committee nonce --trial trial.json --rpc http://localhost:8545 --key payer.key --save case.json
    """
    from api.chain.trial import issue, open_trial

    terms = _read(TERMS, trial)
    with _chain(rpc, key) as chain:
        case = issue(open_trial(chain, terms), terms)
    write_private(save, CASE.encode(case))
    if as_json:
        print_json({"case": case.number, "nonce": case.nonce.hex(), "file": str(save)})
    else:
        out.print(f"case {case.number}: the clinic discloses with --nonce {case.nonce.hex()}", soft_wrap=True)
        out.print(f"give {save} to the committee", soft_wrap=True)


@app.command()
def sign(
    bundle: Annotated[Path, typer.Argument(help="What the clinic disclosed.")],
    trial: Terms,
    case: CaseFile,
    save: Save,
    folder: Annotated[Path, typer.Option("--folder", "-f", help="Folder with the member's key.")] = Path("member"),
    log_key: LogKey = None,
    server: Annotated[str | None, typer.Option(help="Also ask this server: missing inputs, revocations.")] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Check certificates again, even if seen before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Verify a disclosure, all of it, and sign the enrolment only if it reaches the trial's threshold. For a member.

    Example: sealproof committee sign p7.sealproof --trial trial.json --case case.json --folder dr-b --save dr-b.share
    """
    terms, about = _read(TERMS, trial), _read(CASE, case)
    with progress(quiet=as_json) as report:
        signed = Member.load(folder).sign(
            bundle,
            terms,
            about,
            trusted_logs(log_key),
            ledger=Server(server) if server else None,
            progress=report,
            cache=None if no_cache else VerifiedCache(),
        )
    write_private(save, SHARE.encode(signed.share))
    found, share = signed.found, signed.share
    if as_json:
        print_json(
            {
                "case": about.number,
                "member": share.member,
                "says": found.sentence,
                "probability": found.facts[0].probability,
                "clinic": found.clinic.name,
                "consent": found.consent is not None,
                "checks": [{"name": check.name, "shows": check.sentence} for check in found.checks],
                "asked_server": server is not None,
                "file": str(save),
            }
        )
        return
    for check in found.checks:
        out.print(f"  {check.name:<13} {check.seconds:6.2f} s  {check.sentence}", soft_wrap=True)
    out.print(f"VERIFIED: {found.sentence}; {found.clinic.name} disclosed it", soft_wrap=True)
    out.print(f"signed as member {share.member}; give {save} to the organiser", soft_wrap=True)
    if server is None:
        out.print("note: no server was asked whether anything was revoked since (--server)")


@app.command("combine")
def combine_shares(
    shares: Annotated[list[Path], typer.Argument(help="Shares of a quorum.")],
    trial: Terms,
    save: Save,
    as_json: Json = False,
) -> None:
    """Verify the members' shares and add them up to one signature.

    Example: sealproof committee combine dr-a.share dr-b.share --trial trial.json --save p7.enrolment
    """
    signed = combine(_read(TERMS, trial), [_read(SHARE, path) for path in shares])
    write_private(save, SIGNED.encode(signed))
    if as_json:
        print_json({"members": list(signed.members), "handle": signed.enrolment.handle.hex(), "file": str(save)})
    else:
        out.print(f"signed by members {', '.join(map(str, signed.members))}: {save}", soft_wrap=True)


@app.command()
def enrol(
    enrolment: Annotated[Path, typer.Argument(help="What `combine` wrote.")],
    trial: Terms,
    rpc: Rpc,
    key: KeyFile,
    as_json: Json = False,
) -> None:
    """Send the committee's signature to the contract. Anybody may; who sends it pays.

    Example: sealproof committee enrol p7.enrolment --trial trial.json --rpc http://localhost:8545 --key payer.key
    """
    from api.chain import trial as trials

    terms, signed = _read(TERMS, trial), _read(SIGNED, enrolment)
    with _chain(rpc, key) as chain:
        receipt = trials.enrol(trials.open_trial(chain, terms), terms, signed)
    handle = signed.enrolment.handle.hex()
    if as_json:
        told = {"handle": handle, "members": list(signed.members), "block": receipt.block, "gas": receipt.gas_used}
        print_json({**told, "transaction": receipt.transaction.hex()})
    else:
        out.print(f"enrolled {handle} in block {receipt.block}, {receipt.gas_used} gas", soft_wrap=True)


@app.command()
def status(trial: Terms, rpc: Rpc, as_json: Json = False) -> None:
    """Compare the trial's terms with its contract, and list who is enrolled.

    Example: sealproof committee status --trial trial.json --rpc http://localhost:8545
    """
    from api.chain.trial import open_trial

    terms = _read(TERMS, trial)
    with _chain(rpc) as chain:
        contract = open_trial(chain, terms)
        state, enrolled = contract.state(), list(contract.enrolments())
    if as_json:
        print_json(
            {
                **_terms(terms),
                "organiser": state.organiser,
                "cases": state.cases,
                "enrolled": [
                    {
                        "handle": one.handle.hex(),
                        "disclosure": one.disclosure.hex(),
                        "prediction": one.prediction.hex(),
                        "members": list(one.members),
                        "block": one.block,
                    }
                    for one in enrolled
                ],
            }
        )
        return
    out.print(
        f"trial at {contract.address} on chain {terms.chain} has these terms: {terms.quorum} of {len(terms.members)} "
        f"members ({', '.join(member.name for member in terms.members)}), {state.cases} cases, "
        f"{len(enrolled)} enrolled",
        soft_wrap=True,
    )
    for one in enrolled:
        names = ", ".join(terms.members[place].name for place in one.members)
        out.print(f"  block {one.block}: {one.handle.hex()}, by {names}", soft_wrap=True)


def _terms(terms: TrialTerms) -> dict[str, Any]:
    return {
        "contract": f"0x{terms.contract.hex()}",
        "chain": terms.chain,
        "origin": terms.origin,
        "model": {"index": terms.model.index, "leaf": terms.model.leaf.hex()},
        "output": terms.output,
        "threshold": str(terms.threshold),
        "quorum": terms.quorum,
        "members": [member.name for member in terms.members],
        "trial": terms.digest.hex(),
    }


def _read(codec: Codec[T], path: Path) -> T:
    return codec.decode(read_limited(path, _MAX_FILE))


@contextmanager
def _chain(rpc: str, key: Path | None = None) -> Iterator[Chain]:
    """A chain, with what its contract refuses in the terms of the privacy package."""
    with log_errors():
        from api.chain.keys import load_key
        from ledger.anchors.evm import Chain

        with Chain.connect(rpc, None if key is None else load_key(key)) as chain:
            yield chain
