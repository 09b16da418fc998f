"""`sealproof demo`: real patients, a real server, and everybody's part in the order in which it happens.

Each party has its own folder under <out>/state and uses the SDK as anybody would; the server is another process and
talks HTTP, and so are the dealer and both nodes of two-party computation; the auditor is another process still, in
which every library that is not the auditor's cannot be imported, and which sees no folder with a key in it.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from rich.table import Table

from api.cli.common import out
from api.client.clinic import Clinic
from api.client.owner import Owner
from api.client.trust import TrustStore
from api.demo import ckks, mpc
from api.demo.ckks_report import EncryptedReport, StudyReport
from api.demo.consumer import ConsumerStory
from api.demo.consumer_report import ConsumerReport
from api.demo.joint_report import JointModelReport, JointReport
from api.demo.ledger_story import LEDGER_FOLDER, tell_ledger
from api.demo.processes import local_server
from api.demo.report import Report, render
from api.demo.telling import say
from ledger.errors import LedgerError

__all__ = ["local_server", "run_demo", "warm_up"]

_PACKAGES: Final = ("tenseal", "crypten", "torch", "py_arkworks_bls12381", "numpy")


def run_demo(
    folder: Path, *, encrypted: bool = True, together: bool = True, ledger: bool = True, consumer: bool = True
) -> bool:
    """Run these parts; True if all that should verify did, and all that should be refused was."""
    state = folder / "state"
    _clear(folder)
    state.mkdir(parents=True, mode=0o700)
    started = time.perf_counter()
    say("Preparing the generators of the commitments (seconds on first use, then cached) ...")
    warm_up(encrypted=encrypted or consumer, together=together or ledger)
    origin = f"demo-{secrets.token_hex(4)}.localhost/sealproof"
    first: EncryptedReport | None = None
    second: JointReport | None = None
    asked: ConsumerReport | None = None
    log_key: str | None = None
    if encrypted or together or consumer:
        with local_server(state / "server", origin) as (url, log_key):
            (folder / "log.vkey").write_text(f"{log_key}\n", encoding="utf-8")
            parties: tuple[Owner, Clinic] | None = None
            if encrypted or consumer:
                story = ckks.EncryptedStory(folder, state, url, log_key)
                if encrypted:
                    first = story.tell()
                else:
                    story.prepare()
                parties = story.parties
            if consumer:
                asked = ConsumerStory(folder, state, url, log_key, *story.disclosable()).tell()
            if together:
                second = mpc.tell_together(folder, state, url, log_key, parties)
        _retire(state / "server")
        _trust(folder, log_key)
    third = tell_ledger(folder, state) if ledger else None
    if third is not None:
        _retire(state / LEDGER_FOLDER)
    report = Report(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        versions=_versions(),
        origin=origin,
        log_key=log_key,
        encrypted=first,
        together=second,
        ledger=third,
        consumer=asked,
    )
    (folder / "report.html").write_text(render(report), encoding="utf-8")
    _summary(report, folder, time.perf_counter() - started)
    return all(tampering.check != "none" for tampering in report.tamperings)


def warm_up(*, encrypted: bool = True, together: bool = False) -> None:
    """Hash the generators once, here, so that nobody's step is timed with it."""
    if encrypted:
        ckks.warm_up()
    if together:
        mpc.warm_up()


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def _retire(data: Path) -> None:
    """Destroy the signing keys of the demonstration's ledger and server: nobody can add to what will be trusted."""
    for name in ("log.key", "server.key"):
        (data / name).unlink()


def _trust(folder: Path, log_key: str) -> None:
    """Trust the demonstration's ledger on this machine, so that `sealproof verify` can be typed as it stands."""
    store = TrustStore()
    try:
        for old in store.list():
            if old.name.startswith("demo-") and old.name.endswith(".localhost/sealproof"):
                store.remove(old.name)
        store.add(log_key)
    except (OSError, LedgerError) as error:
        say(f"(the ledger's key could not be stored for `sealproof verify`: {error}; use --log-key {folder}/log.vkey)")


def _clear(folder: Path) -> None:
    """Remove what an earlier demonstration left in its folder, and nothing else."""
    # Not by log.vkey: folders of servers and auditors hold one too, and bundles that are not to be lost.
    made_here = any((folder / "state" / name).is_dir() for name in ("server", LEDGER_FOLDER)) or not (
        folder.exists() and any(folder.iterdir())
    )
    if not made_here and [path.name for path in folder.iterdir()] != ["state"]:
        raise FileExistsError(f"{folder} is not empty and was not made by the demo: choose another with --out")
    if folder.exists():
        shutil.rmtree(folder / "state", ignore_errors=True)
        made = ("report.html", "log.vkey", "auditor.policy")
        for path in [*folder.glob("*.sealproof"), *(folder / name for name in made)]:
            path.unlink(missing_ok=True)


def _summary(report: Report, folder: Path, seconds: float) -> None:
    if report.encrypted is not None:
        _table("Verified, then decrypted", report.encrypted.studies)
    if report.together is not None:
        _table("Computed together, verified, then opened", report.together.models)
    refused = sum(tampering.check != "none" for tampering in report.tamperings)
    say(f"forgeries and lies refused: {refused} of {len(report.tamperings)}")
    say(f"report:  {folder / 'report.html'}")
    for bundle in report.bundles:
        say(f"again:   sealproof verify {bundle}")
    for command in () if report.ledger is None else report.ledger.commands:
        say(f"again:   {command}")
    say(f"({seconds:.0f} s in all)")


def _table(title: str, columns: Sequence[StudyReport] | Sequence[JointModelReport]) -> None:
    table = Table("", *(column.title for column in columns), title=title)
    table.add_row("patients x measurements", *(f"{c.patients} x {c.features}" for c in columns))
    for place in range(max(len(column.quality) for column in columns)):
        cells = [column.quality[place] if place < len(column.quality) else ("", "", "") for column in columns]
        table.add_row("quality", *(f"{name}: {attested} (plain model {plain})" for name, attested, plain in cells))
    table.add_row("largest difference", *(f"{c.largest_difference:.1e}" for c in columns))
    table.add_row("difference promised", *(f"{c.bound:.1e}" for c in columns))
    out.print(table)
