"""The ledger's part of the demonstration's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from api.demo.page import Step, Tampering, steps_table, table

__all__ = ["WATCHERS", "Caught", "LedgerReport", "render_ledger"]

WATCHERS = ("witness", "monitor", "fsck", "contract")


@dataclass(frozen=True)
class Caught:
    """A lie, and what each of the watchers said to it: the name of a check, "" where it is not theirs to notice."""

    name: str
    what: str
    by: dict[str, str]
    missed: tuple[str, ...]
    """Those who should have noticed, and did not."""


@dataclass(frozen=True)
class LedgerReport:
    """What was shown of the ledger; `anchors`: contracts and chains, none where no chain could be started."""

    steps: Sequence[Step]
    policy: str
    note: str
    anchors: Sequence[str]
    gas: Sequence[int]
    caught: Sequence[Caught]
    mirror: str
    policy_file: str
    evidence: Sequence[str]
    """Folders with two signed heads each, kept by the monitor, that cannot both be true."""

    @property
    def commands(self) -> list[str]:
        """What a reader can check again, now that the server is gone."""
        looked_at = [f"fsck {self.mirror}", *(f"evidence {folder}" for folder in self.evidence)]
        return [f"sealproof ledger {what} --policy {self.policy_file}" for what in looked_at]

    @property
    def tamperings(self) -> list[Tampering]:
        """One row a lie: `none` if somebody did not notice who should have."""
        return [
            Tampering("server", lie.what, "none" if lie.missed else lie.by["monitor"], "; ".join(lie.missed))
            for lie in self.caught
        ]


def render_ledger(report: LedgerReport) -> str:
    """HTML; every text is escaped."""
    watchers = [who for who in WATCHERS if any(who in lie.by for lie in report.caught)]
    rows = [
        (
            escape(lie.what),
            *(f'<span class="bad">{escape(lie.by[who])}</span>' if lie.by.get(who) else "" for who in watchers),
        )
        for lie in report.caught
    ]
    anchors = "".join(f"<li><code>{escape(anchor)}</code></li>" for anchor in report.anchors)
    chains = (
        f"<h3>Anchored on {len(report.anchors)} chains</h3><p>A contract on each takes a head only with a proof that "
        f"it extends the last one ({', '.join(f'{gas:,}' for gas in report.gas)} gas for these).</p><ul>{anchors}</ul>"
        if report.anchors
        else "<p>There was no development chain here, so no head was anchored.</p>"
    )
    return (
        "<section><h2>Who watches the ledger</h2><p>The server keeps the ledger, and its key can sign any history. "
        "So two other hospitals cosign every head, and the auditor believes no head that neither of them has seen. "
        "Cosignatures are dated: nobody can claim later to have logged something earlier.</p>"
        f"{steps_table(report.steps)}<details><summary>The auditor's policy, and a head that fulfils it</summary>"
        f"<pre><code>{escape(report.policy)}</code></pre><pre><code>{escape(report.note)}</code></pre></details>"
        f"{chains}</section>"
        "<section><h2>The server turns crooked</h2><p>It still has the log's key. Each lie is caught by whoever could "
        "know better; an empty place means that this one alone could not.</p>"
        f"{table(['the server', *watchers], rows)}"
        f"<p>The monitor kept {len(report.evidence)} pairs of signed heads that cannot both be true. Anybody can check "
        "them, and they convict the server without the word of a witness.</p>"
        f"<ul>{''.join(f'<li><code>{escape(command)}</code></li>' for command in report.commands)}</ul></section>"
    )
