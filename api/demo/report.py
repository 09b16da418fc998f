"""The page that `sealproof demo` leaves: one HTML file, no scripts, nothing fetched from anywhere.

Written for a physician first: what was computed, whether it can be trusted, what was tried against it. Numbers and
digests for auditors follow. Pictures are inline SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from api.demo.ckks_report import EncryptedReport, render_encrypted
from api.demo.consumer_report import ConsumerReport, render_consumer
from api.demo.joint_report import JointReport, render_joint
from api.demo.ledger_report import LedgerReport, render_ledger
from api.demo.page import STYLE, Tampering, table

__all__ = ["Report", "render"]


@dataclass(frozen=True)
class Report:
    """Everything on the page; a part that was not told is None."""

    created: str
    machine: str
    versions: str
    origin: str
    log_key: str | None
    encrypted: EncryptedReport | None
    together: JointReport | None
    ledger: LedgerReport | None
    consumer: ConsumerReport | None = None

    @property
    def tamperings(self) -> list[Tampering]:
        """Every forgery and lie of all parts."""
        parts = (self.encrypted, self.consumer, self.together, self.ledger)
        return [t for part in parts if part is not None for t in part.tamperings]

    @property
    def bundles(self) -> list[str]:
        """Every honest bundle, in order, and the disclosures."""
        first = [] if self.encrypted is None else [study.bundle for study in self.encrypted.studies]
        second = [] if self.together is None else [model.bundle for model in self.together.models]
        shown = [] if self.together is None else [self.together.disclosure.path]
        asked = [] if self.consumer is None else [one.path for one in self.consumer.answered]
        return first + asked + second + shown

    @property
    def answers(self) -> int:
        """Predictions that were made, of all patients and models together."""
        first = 0 if self.encrypted is None else sum(study.patients for study in self.encrypted.studies)
        second = 0 if self.together is None else sum(model.patients for model in self.together.models)
        return first + second


def render(report: Report) -> str:
    """The whole page. Every text is escaped."""
    count = len(report.tamperings)
    refused = sum(tampering.check != "none" for tampering in report.tamperings)
    tiles = [(f"{refused} of {count}", "manipulations refused, each by a named check")]
    if report.answers:
        tiles = [
            (f"{report.answers:,}", "predictions, each without anybody seeing the record but its clinic"),
            ("verified", "by an auditor's process with no key and no encryption library"),
            *tiles,
        ]
    if report.together is not None:
        tiles.append(("caught", "a node that cheated while it computed, before it could read a measurement"))
    parts = []
    if report.encrypted is not None:
        parts.append('<h2 class="part">On encrypted records</h2>' + render_encrypted(report.encrypted))
    if report.consumer is not None:
        parts.append('<h2 class="part">Shown to somebody who believes nobody</h2>' + render_consumer(report.consumer))
    if report.together is not None:
        parts.append('<h2 class="part">Computed together</h2>' + render_joint(report.together))
    if report.ledger is not None:
        parts.append('<h2 class="part">The ledger</h2>' + render_ledger(report.ledger))
    return "".join(
        [
            '<!doctype html><html lang="en"><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f"<title>Sealproof demonstration</title><style>{STYLE}</style><main>",
            "<h1>Predictions on hidden patient records that anyone can check</h1>",
            f'<p class="lead">Made on {escape(report.created)} by <code>sealproof demo</code>.</p>',
            '<div class="verdict">',
            *(f'<div class="tile"><b class="good">{escape(a)}</b><span>{escape(b)}</span></div>' for a, b in tiles),
            "</div>",
            _two_ways() if report.encrypted is not None and report.together is not None else "",
            *parts,
            _auditor(report),
            "</main></html>",
        ]
    )


def _two_ways() -> str:
    rows: Sequence[tuple[str, str, str]] = [
        ("the records", "are encrypted and sent", "stay in the clinic"),
        ("who computes", "the server, alone", "the clinic's computer and the owner's, together"),
        ("what can be computed", "linear models", "linear models and small neural networks"),
        ("answers", "within a promised rounding error", "exactly the committed model's"),
        ("patients at a time", "thousands, cheaply", "a few hundred"),
        ("must be online", "the server", "both computers, and a dealer of random numbers"),
    ]
    return (
        "<section><h2>Two ways to the same end</h2><p>A prediction can be made in either of two ways. In both, the "
        "model owner never sees a record, the clinic never sees the model's weights, and anybody can check afterwards "
        f"that the answers are right.</p>{table(['', 'on encrypted records', 'computed together'], rows)}</section>"
    )


def _auditor(report: Report) -> str:
    if report.log_key is None:
        return f"<section><p class='lead'>{escape(report.machine)}; {escape(report.versions)}</p></section>"
    bundles = "".join(f"<li><code>sealproof verify {escape(bundle)}</code></li>" for bundle in report.bundles)
    return (
        f"<section><h2>Check it yourself</h2><ul>{bundles}</ul><p>Ledger <code>{escape(report.origin)}</code>, key "
        f"<code>{escape(report.log_key)}</code>.</p><p class='lead'>{escape(report.machine)}; "
        f"{escape(report.versions)}</p></section>"
    )
