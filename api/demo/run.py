"""`sealproof demo`: real patients, a real server, and everybody's part in the order in which it happens.

Each party has its own folder under <out>/state and uses the SDK as anybody would; the server is another process and
talks HTTP; the auditor is another process still, in which the encryption library and every other library that is not
the auditor's cannot be imported, and which sees no folder with a key in it.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

from api.cli.common import out
from api.client.clinic import Clinic
from api.client.owner import Owner
from api.client.scores import Scores
from api.client.transport import Server, ServerError
from api.client.trust import TrustStore
from api.demo.data import Study, studies
from api.demo.report import PatientRow, Report, Step, StudyReport, Tampering, render
from api.demo.tampering import Forger
from api.signing import load_private_key
from ledger import Checkpoint, Signer
from ledger.errors import LedgerError
from ledger.note import Note
from privacy import attestation
from privacy.models.statements import load_opening
from privacy.zk.generators import cache_folder

__all__ = ["local_server", "run_demo", "warm_up"]

T = TypeVar("T")

_FORBIDDEN = ("tenseal", "torch", "sklearn", "zksk", "petlib", "fastapi", "uvicorn", "matplotlib")
_START_SECONDS = 60


def run_demo(folder: Path) -> bool:
    """Run everything; True if all that should verify did, and all that should be refused was."""
    state = folder / "state"
    _clear(folder)
    state.mkdir(parents=True, mode=0o700)
    started = time.perf_counter()
    _say("Preparing the generators of the commitments (seconds on first use, then cached) ...")
    warm_up()
    origin = f"demo-{secrets.token_hex(4)}.localhost/sealproof"
    with local_server(state / "server", origin) as (url, log_key):
        (folder / "log.vkey").write_text(f"{log_key}\n", encoding="utf-8")
        story = _Story(folder, state, url, log_key)
        told = [story.tell(study) for study in studies()]
        tamperings = story.tamper()
    _retire(state / "server")
    _trust(folder, log_key)
    report = Report(
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        versions=", ".join(f"{name} {version(name)}" for name in ("tenseal", "py_arkworks_bls12381", "numpy")),
        origin=origin,
        log_key=log_key,
        studies=told,
        tamperings=tamperings,
        claims=attestation.CLAIMS,
        not_claimed=attestation.NOT_CLAIMED,
    )
    (folder / "report.html").write_text(render(report), encoding="utf-8")
    _summary(report, folder, time.perf_counter() - started)
    return all(t.check != "none" for t in tamperings)


@dataclass
class _Clock:
    """The steps of one study, as they are timed."""

    steps: list[Step]

    def time(self, actor: str, what: str, work: Callable[[], T], size: Callable[[T], int | None] | None = None) -> T:
        begun = time.perf_counter()
        result = work()
        self.steps.append(Step(actor, what, time.perf_counter() - begun, size(result) if size else None))
        _say(f"  [{actor}] {what} ({self.steps[-1].seconds:.2f} s)")
        return result


class _Story:
    def __init__(self, folder: Path, state: Path, url: str, log_key: str) -> None:
        self._folder, self._state, self._url, self._log_key = folder, state, url, log_key
        self._owner: Owner | None = None
        self._clinic: Clinic | None = None
        self._server = Server(url)

    def tell(self, study: Study) -> StudyReport:
        """One data set, from the CSV file to verified answers. Raises when anything does not hold."""
        _say(f"\n{study.title}: {len(study.cohort)} patients, {study.schema.d} measurements each")
        clock = _Clock([])
        bundle = self._folder / f"{study.name}.sealproof"
        owner, clinic = self._parties(clock)
        model = clock.time(
            "model owner",
            "quantise, commit to, certify and publish the model; its weights stay secret",
            lambda: owner.publish(
                study.model, version="1", card=study.card, weight_bits=study.weight_bits, bias_bits=66
            ),
        )
        table = self._state / f"{study.name}.csv"
        study.write_csv(table)
        records = clock.time(
            "clinic",
            "read the CSV file, encrypt every record, send ciphertexts, commit to them",
            lambda: clinic.submit(table, model, id_column="id"),
        )
        request = clock.time("clinic", "ask for predictions", lambda: clinic.request(records, model))
        clock.time(
            "server",
            "evaluate under encryption, re-randomise, prove, attest; bundle fetched",
            lambda: clinic.fetch(request, bundle, inputs=True),
            lambda path: path.stat().st_size,
        )
        (verdict,) = clock.time(
            "auditor",
            "verify the bundle in a process without any key or encryption library",
            lambda: _audit(self._state, [bundle], self._log_key),
        )
        if verdict["result"] != "verified":
            raise RuntimeError(f"the honest bundle was refused: {verdict}")
        scores = clock.time(
            "clinic", "verify the bundle again, and only then decrypt", lambda: clinic.open_bundle(bundle, request)
        )
        rows = self._server.exposure(clinic.name, model.reference.index)
        return _compare(study, scores, verdict, clock.steps, rows, bundle)

    def _parties(self, clock: _Clock) -> tuple[Owner, Clinic]:
        if self._owner is None:
            self._owner = Owner.init(self._state / "owner", self._url, "heart-lab", log_key=self._log_key)
        if self._clinic is None:
            self._clinic = clock.time(
                "clinic",
                "generate keys and prove, once, that they are honest",
                lambda: Clinic.init(self._state / "clinic", self._url, "st-anna", log_key=self._log_key),
            )
        return self._owner, self._clinic

    def tamper(self) -> list[Tampering]:
        """Every forgery of the first bundle, all given to one auditor's process."""
        if self._owner is None or self._clinic is None:
            raise RuntimeError("nothing was predicted yet")
        _say("\nNow the dishonest: each forgery is signed with whatever keys its maker would have")
        size = Checkpoint.parse(Note.parse(self._server.checkpoint()).text).size
        first = self._folder / f"{studies()[0].name}.sealproof"
        openings = [load_opening(path) for path in (self._state / "owner" / "models").glob("*/opening.json")]
        forger = Forger(
            first,
            self._server.entries(0, size),
            self._state / "forgeries",
            log_signer=Signer.load(self._state / "server" / "log.key"),
            server_key=load_private_key(self._state / "server" / "server.key"),
            owner_key=self._owner.session.identity.private_key,
            clinic_key=self._clinic.session.identity.private_key,
            opening=next(opening for opening in openings if opening.name == first.stem),
        )
        forgeries = forger.all()
        verdicts = _audit(self._state, [f.path for f in forgeries], self._log_key)
        told = []
        for forgery, verdict in zip(forgeries, verdicts, strict=True):
            refused = verdict["result"] != "verified"
            check = verdict["check"] if refused else "none"
            told.append(Tampering(forgery.attacker, forgery.what, check, verdict.get("message", "accepted")))
            _say(f"  {'refused' if refused else 'ACCEPTED'} by {check}: {forgery.what}")
        return told


def _compare(
    study: Study,
    scores: Scores,
    verdict: dict[str, Any],
    steps: list[Step],
    exposure: list[dict[str, Any]],
    bundle: Path,
) -> StudyReport:
    """Attested answers against the float model and against the truth. Raises if the printed bound does not hold."""
    answers = scores.raw[:, 0]
    plain = study.model.predict_raw(study.cohort.values)[:, 0]
    worst, bound = float(np.abs(answers - plain).max()), float(scores.error_bounds[0])
    if worst > bound:
        raise RuntimeError(f"an answer is off by {worst}, the attestation promises {bound}")
    row = exposure[0]
    shown = [
        PatientRow(
            scores.ids[i],
            float(answers[i]),
            study.reading(float(scores.values[i, 0])),
            float(plain[i]),
            study.truth_text(i),
        )
        for i in study.sample
    ]
    sizes = [("bundle, with the encrypted inputs", bundle.stat().st_size)]
    sizes += [(name, size) for name, size in _members(bundle)]
    return StudyReport(
        title=study.title,
        question=study.question,
        patients=len(scores),
        features=study.schema.d,
        quality=study.quality(answers, plain),
        largest_difference=worst,
        bound=bound,
        steps=steps,
        checks=[(c["name"], c["shows"], c["seconds"]) for c in verdict["checks"]],
        sample=shown,
        scores=[(float(a), bool(t)) for a, t in zip(answers, study.truth, strict=True)] if study.classifies else [],
        pairs=[] if study.classifies else [(float(a), float(t)) for a, t in zip(answers, study.truth, strict=True)],
        exposure=(
            f"These answers released {row['released_bits']:,.0f} bits about a model of {row['model_bits']:,}: a clinic "
            "that combines this many answers of a linear model can work out its weights, and the owner is told so "
            "before agreeing; servers can be told to refuse beyond a limit."
        ),
        bundle=str(bundle),
        sizes=sizes,
    )


def _members(bundle: Path) -> list[tuple[str, int]]:
    from api.entries import Prediction, decode_entry
    from privacy.bundle import BundleReader

    with BundleReader(bundle) as reader:
        bodies = [decode_entry(reader.entry(i)).body for i in reader.entry_indices()]
        prediction = next(body for body in bodies if isinstance(body, Prediction))
        proofs = sum(proof.size for proof in prediction.proofs)
        results = sum(len(reader.blob(d)) for proof in prediction.proofs for d in proof.results)
    return [("evaluation proof", proofs), ("result ciphertexts", results)]


# -- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def local_server(data: Path, origin: str) -> Iterator[tuple[str, str]]:
    """A server in its own process on a free port of this machine: its address and its ledger's key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "api.cli", "serve", "--data", str(data), "--port", str(port), "--origin", origin]
    log = data.parent / "server.log"
    with log.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink) as process:  # noqa: S603
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield url, (data / "log.vkey").read_text(encoding="utf-8").strip()
        finally:
            process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    server = Server(url, retries=0)
    for _ in range(_START_SECONDS * 10):
        if process.poll() is not None:
            raise RuntimeError(f"the server did not start:\n{log.read_text(encoding='utf-8')[-2000:]}")
        try:
            server.health()
            return
        except ServerError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not answer within {_START_SECONDS} s; see {log}")


def _audit(state: Path, bundles: list[Path], log_key: str) -> list[dict[str, Any]]:
    """`sealproof verify --json` in a process that has no key and cannot import an encryption library."""
    home = state / "auditor"
    home.mkdir(exist_ok=True)
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({_FORBIDDEN!r})); sys.argv[0] = 'sealproof'; "
        "from api.cli import main; main()"
    )
    paths = [str(bundle.resolve()) for bundle in bundles]
    command = [sys.executable, "-c", program, "verify", *paths, "--log-key", log_key, "--json"]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home.resolve()),
        "SEALPROOF_CACHE": str(cache_folder().resolve()),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(Path(__file__).resolve().parents[2])])),
    }
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise RuntimeError(f"the auditor failed ({done.returncode}): {done.stderr[-2000:]}") from error
    return found if isinstance(found, list) else [found]


def warm_up() -> None:
    """Hash the generators once, here, so that nobody's step is timed with it."""
    from privacy.ckks.key_certificate import PURPOSES
    from privacy.zk.generators import generators

    for purpose, count in (*zip(PURPOSES, (4096, 6 * 4096, 64), strict=True), ("evaluation/u", 4096)):
        generators(purpose, count)
    for purpose in (
        "evaluation/masks",
        "evaluation/quotients",
        "evaluation/t4",
        "model/weights",
        "model/bias",
        "model/bits",
    ):
        generators(purpose, 1)


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
        _say(f"(the ledger's key could not be stored for `sealproof verify`: {error}; use --log-key {folder}/log.vkey)")


def _clear(folder: Path) -> None:
    """Remove what an earlier demonstration left in its folder, and nothing else."""
    # Not by log.vkey: folders of servers and auditors hold one too, and bundles that are not to be lost.
    made_here = (folder / "state" / "server").is_dir() or not (folder.exists() and any(folder.iterdir()))
    if not made_here and [path.name for path in folder.iterdir()] != ["state"]:
        raise FileExistsError(f"{folder} is not empty and was not made by the demo: choose another with --out")
    if folder.exists():
        shutil.rmtree(folder / "state", ignore_errors=True)
        for path in [*folder.glob("*.sealproof"), folder / "report.html", folder / "log.vkey"]:
            path.unlink(missing_ok=True)


def _say(text: str) -> None:
    out.print(text, markup=False, soft_wrap=True)


def _summary(report: Report, folder: Path, seconds: float) -> None:
    table = Table("", *(study.title for study in report.studies), title="Verified, then decrypted")
    table.add_row("patients x measurements", *(f"{s.patients} x {s.features}" for s in report.studies))
    for place in range(max(len(s.quality) for s in report.studies)):
        cells = [s.quality[place] if place < len(s.quality) else ("", "", "") for s in report.studies]
        table.add_row("quality", *(f"{name}: {attested} (plain model {plain})" for name, attested, plain in cells))
    table.add_row("largest difference", *(f"{s.largest_difference:.1e}" for s in report.studies))
    table.add_row("difference promised", *(f"{s.bound:.1e}" for s in report.studies))
    table.add_row(
        "forgeries refused", f"{sum(t.check != 'none' for t in report.tamperings)} of {len(report.tamperings)}"
    )
    out.print(table)
    out.print(f"report:  {folder / 'report.html'}", markup=False)
    for study in report.studies:
        out.print(f"again:   sealproof verify {study.bundle}", markup=False, soft_wrap=True)
    out.print(f"({seconds:.0f} s in all)")
