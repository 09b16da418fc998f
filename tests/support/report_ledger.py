"""A ledger for tests of reports: entries of every kind, published heads with dates, and a source that may lie."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api.client.ledger_report.csv_file import csv_bytes
from api.client.ledger_report.heads import policy_digest, read_archive
from api.client.ledger_report.reading import LedgerReading, read_ledger
from api.client.ledger_report.report import Period, Report, build_report
from api.client.trust import TrustedLog
from api.clock import clock_name
from api.entries import (
    Body,
    Clearance,
    CommittedRecords,
    Disclosure,
    ErrorBound,
    Grant,
    JointPrediction,
    JointProof,
    Key,
    Model,
    ModelOutput,
    Network,
    NetworkLayer,
    Party,
    Policy,
    Prediction,
    PredictionProof,
    Records,
    Reference,
    Refusal,
    Request,
    Revocation,
    Suspension,
    sign_entry,
)
from ledger import Checkpoint, Signer, VerifiedHead, leaf_hash, open_checkpoint
from ledger.checkpoint import sign_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.merkle import Frontier
from ledger.note import Note
from ledger.trust_policy import TlogPolicy

ORIGIN = "example.org/ledger"
NOON = 1_767_268_800
"""2026-01-01T12:00:00Z."""
HOUR = 3600
POINT = b"\x80" * 48
ALWAYS = Period()
REPORTER = Signer("reporter.example", bytes(range(32)))


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass
class Source:
    """What a server shows: the newest of `notes`, all of them, and the entries."""

    entries_: list[bytes]
    notes: list[bytes]

    def checkpoint(self) -> bytes:
        return self.notes[-1]

    def entries(self, start: int, stop: int) -> Sequence[bytes]:
        return self.entries_[start:stop]

    def publications(self, start: int, limit: int) -> Sequence[bytes]:
        return [note for note in self.notes if size_of(note) >= start][:limit]


def size_of(note: bytes) -> int:
    return Checkpoint.parse(Note.parse(note).text).size


@dataclass
class ReportLedger:
    """Keys of everybody, entries so far, published heads so far; `at` are the references by name."""

    log: Signer = field(default_factory=lambda: Signer(ORIGIN, digest("log")))
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)
    at: dict[str, Reference] = field(default_factory=dict)
    entries: list[bytes] = field(default_factory=list)
    notes: list[bytes] = field(default_factory=list)
    witnesses: list[Cosigner] = field(
        default_factory=lambda: [Cosigner(f"witness-{i}.example", digest(f"witness {i}")) for i in range(3)]
    )

    # -- entries

    def raw(self, name: str, entry: bytes) -> Reference:
        self.at[name] = Reference.to(len(self.entries), entry)
        self.entries.append(entry)
        return self.at[name]

    def party(self, role: Any, name: str) -> Reference:
        key = self.keys.setdefault(name, Ed25519PrivateKey.from_private_bytes(digest(f"party {name}")))
        return self.raw(name, sign_entry(Party(role, name, key.public_key().public_bytes_raw()), None, key))

    def sign(self, author: str, body: Body, key: str | None = None) -> bytes:
        return sign_entry(body, self.at[author], self.keys[key or author])

    def add(self, name: str, author: str, body: Body) -> Reference:
        return self.raw(name, self.sign(author, body))

    # -- heads

    @property
    def clock(self) -> Cosigner:
        return Cosigner(clock_name(ORIGIN), self.keys["server"].private_bytes_raw())

    def head_note(self, size: int | None = None, root: bytes | None = None) -> bytes:
        """A head signed by the log alone; of the first `size` entries, or a lie about their root."""
        size = len(self.entries) if size is None else size
        tree = Frontier().extend(map(leaf_hash, self.entries[:size]))[0]
        return sign_checkpoint(Checkpoint(ORIGIN, size, tree.root() if root is None else root), self.log)

    def publish(
        self, time: int, witnesses: dict[int, int] | None = None, clock: bool = True, note: bytes | None = None
    ) -> bytes:
        """Publish a head, dated by the clock and, at times of their own, by witnesses (number to time)."""
        note = self.head_note() if note is None else note
        text = Note.parse(note).text.encode()
        signatures = [self.clock.cosign(text, time)] if clock else []
        signatures += [self.witnesses[i].cosign(text, t) for i, t in (witnesses or {}).items()]
        self.notes.append(with_cosignatures(note, signatures))
        return self.notes[-1]

    # -- reading

    @property
    def policy(self) -> TlogPolicy:
        """Two of three witnesses."""
        lines = [f"log {self.log.verifier}"]
        lines += [f"witness w{i} {witness.verifier}" for i, witness in enumerate(self.witnesses)]
        return TlogPolicy.parse("\n".join([*lines, "group g 2 w0 w1 w2", "quorum g", ""]))

    @property
    def source(self) -> Source:
        return Source(list(self.entries), list(self.notes))

    def trusted(self, witnessed: bool = False) -> TrustedLog:
        return TrustedLog(self.log.verifier, self.policy if witnessed else None)

    def head(self, source: Source | None = None) -> VerifiedHead:
        return open_checkpoint((source or self.source).checkpoint(), self.log.verifier, ORIGIN)

    def read(self, source: Source | None = None, witnessed: bool = False) -> LedgerReading:
        source = source or self.source
        heads = read_archive(source, self.head(source), self.log.verifier)
        return read_ledger(source, heads, self.log.verifier, self.policy if witnessed else None)


# -- bodies -----------------------------------------------------------------------------------------------------------


def key() -> Key:
    return Key("st-anna", "linear-4096", 1, digest("p0"), POINT, POINT, {}, digest("certificate"))


def model(**changes: Any) -> Model:
    outputs = (ModelOutput("risk", "logit", 28, 62, POINT),)
    fixed = (digest("schema"), 34, 24, 6, outputs, digest("certificate"), digest("artefact"), {}, ())
    return replace(Model("heart", "1", "linear-4096", *fixed), **changes)


def records(ledger: ReportLedger, until: str | None = None) -> Records:
    fixed = (digest("list"), digest(f"handles {len(ledger.entries)}"), Policy("any", until))
    return Records("st-anna", ledger.at["key"], "linear-4096", digest("schema"), "columns", 30, 4097, 2, *fixed)


def prediction(ledger: ReportLedger, records: str = "records", size: int | None = None) -> Prediction:
    at, size = ledger.at, len(ledger.entries) if size is None else size
    proofs = tuple(
        PredictionProof(block, 1, count, (0,), (digest(f"result {block} {size}"),), digest("proof"), 9, 25)
        for block, count in ((0, 4096), (1, 1))
    )
    return Prediction(at[records], at["model"], at["key"], proofs, ErrorBound(1, 58, 6), size, digest("root"))


def network() -> Network:
    layers = (NetworkLayer(3, 2, 10, 14, 34, (POINT, POINT)), NetworkLayer(2, 1, 10, 12, 44, (POINT,)))
    fixed = (16, 6, 50, "logit", ("risk",), layers, digest("certificate"), digest("artefact"), {})
    return Network("net", "2", "mpc-64", digest("schema"), *fixed)


def committed(clinic: str = "st-anna") -> CommittedRecords:
    fixed = (3, 65, digest("list"), (digest("first"), digest("second")), digest("handles"), Policy("any", None))
    return CommittedRecords(clinic, "mpc-64", digest("schema"), *fixed)


def joint(ledger: ReportLedger, records: str = "committed", size: int | None = None) -> JointPrediction:
    size = len(ledger.entries) if size is None else size
    proofs = tuple(
        JointProof(first, count, digest(f"proof {first}"), 9, digest(f"answers {first}"))
        for first, count in ((0, 64), (64, 1))
    )
    session = digest(f"session {len(ledger.entries)}")
    return JointPrediction(ledger.at[records], ledger.at["network"], session, proofs, 36, 6, size, digest("root"))


UNTIL = "2026-02-01T00:00:00Z"
"""After every head of these ledgers."""


def request(
    ledger: ReportLedger, clinic: str = "st-anna", document: str = "request", box: str | None = None
) -> Request:
    return Request(ledger.at[clinic], digest(document), None if box is None else digest(box))


def grant(ledger: ReportLedger, request: str | None = "request", document: str = "grant", until: str = UNTIL) -> Grant:
    return Grant(None if request is None else ledger.at[request], digest(document), until)


def shown(
    ledger: ReportLedger, prediction: str = "joint", grant: str | None = "grant", text: str = "shown"
) -> Disclosure:
    under = None if grant is None else ledger.at[grant]
    return Disclosure(ledger.at[prediction], digest(text), digest(f"proof {text}"), under)


def everything() -> ReportLedger:
    """Two clinics, an owner, both ways to compute; a head every hour from noon on, witnessed a minute later.

    Entries 0 to 3 parties, 4 key, 5 model, 6 records, 7 prediction, 8 network, 9 and 10 committed records, 11 and 12
    joint predictions, 13 disclosure, 14 suspension, 15 and 16 clearances, 17 revocation of the records of entry 6, 18
    a suspension that stays.
    """
    ledger = ReportLedger()
    for role, name in (("server", "server"), ("clinic", "st-anna"), ("clinic", "city"), ("owner", "heart-lab")):
        ledger.party(role, name)
    hours = iter(range(NOON, NOON + 100 * HOUR, HOUR))

    def head() -> None:
        time = next(hours)
        ledger.publish(time, {0: time + 60, 1: time + 61})

    head()
    ledger.add("key", "st-anna", key())
    ledger.add("model", "heart-lab", model())
    head()
    ledger.add("records", "st-anna", records(ledger))
    head()
    ledger.add("prediction", "server", prediction(ledger))
    head()
    ledger.add("network", "heart-lab", network())
    ledger.add("committed", "st-anna", committed())
    ledger.add("city records", "city", committed("city"))
    head()
    ledger.add("joint", "server", joint(ledger))
    ledger.add("city joint", "server", joint(ledger, "city records"))
    head()
    ledger.add("disclosure", "st-anna", Disclosure(ledger.at["joint"], digest("statement"), digest("proof")))
    parties = ledger.at["st-anna"], ledger.at["heart-lab"]
    ledger.add("suspension", "st-anna", Suspension(*parties, digest("failed"), "the other node stalled"))
    ledger.add("cleared", "st-anna", Clearance(ledger.at["suspension"]))
    ledger.add("cleared too", "heart-lab", Clearance(ledger.at["suspension"]))
    head()
    ledger.add("revocation", "st-anna", Revocation(ledger.at["records"], "consent was withdrawn"))
    ledger.add("stays", "heart-lab", Suspension(*parties, digest("failed again"), "no answer"))
    head()
    return ledger


def consented() -> ReportLedger:
    """`everything`, and then two consumers: entries 19 and 20. A head every hour from the 30th hour on.

    21 a request, 22 a request that 23 refuses, 24 a grant of 21, 25 and 26 what was shown under it (of either scheme),
    27 a request that 28 withdraws, 29 a grant to nobody on the ledger and 30 what was shown under it, 31 a grant that
    32 revokes, 33 something shown without a grant, 34 a request that nobody has answered.
    """
    ledger = everything()
    hours = iter(range(NOON + 30 * HOUR, NOON + 130 * HOUR, HOUR))

    def head() -> None:
        time = next(hours)
        ledger.publish(time, {0: time + 60, 1: time + 61})

    ledger.party("consumer", "insurer")
    ledger.party("consumer", "sponsor")
    head()
    ledger.add("request", "insurer", request(ledger))
    ledger.add("unwelcome", "sponsor", request(ledger, "city", "unwelcome"))
    ledger.add("refusal", "city", Refusal(ledger.at["unwelcome"], "no-consent"))
    ledger.add("grant", "st-anna", grant(ledger))
    head()
    ledger.add("shown", "st-anna", shown(ledger))
    ledger.add("shown too", "st-anna", shown(ledger, "prediction", text="shown too"))
    head()
    ledger.add("regret", "insurer", request(ledger, document="regret"))
    ledger.add("withdrawal", "insurer", Revocation(ledger.at["regret"], "asked by mistake"))
    ledger.add("unasked", "st-anna", grant(ledger, None, "unasked"))
    ledger.add("shown to nobody", "st-anna", shown(ledger, grant="unasked", text="to nobody"))
    head()
    ledger.add("grant too", "st-anna", grant(ledger, document="grant too"))
    ledger.add("revoked", "st-anna", Revocation(ledger.at["grant too"], "the patient has withdrawn consent"))
    ledger.add("ungranted", "city", shown(ledger, "city joint", None, "ungranted"))
    ledger.add("waiting", "sponsor", request(ledger, document="waiting"))
    head()
    return ledger


def started() -> ReportLedger:
    """Parties, a key and a model (entries 0 to 4), nothing published yet."""
    ledger = ReportLedger()
    for role, name in (("server", "server"), ("clinic", "st-anna"), ("owner", "heart-lab")):
        ledger.party(role, name)
    ledger.add("key", "st-anna", key())
    ledger.add("model", "heart-lab", model())
    return ledger


# -- reports ----------------------------------------------------------------------------------------------------------


def report_of(
    ledger: ReportLedger, period: Period = ALWAYS, clinic: str | None = None, witnessed: bool = False
) -> Report:
    digest = policy_digest(ledger.policy) if witnessed else None
    return build_report(ledger.read(witnessed=witnessed), period, clinic, digest)


def cells(report: Report) -> list[dict[str, str]]:
    """The CSV, read as a spreadsheet does."""
    text = csv_bytes(report).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))
