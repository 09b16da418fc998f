"""Watching a log over time and from several places: has it kept what it signed, and does it say the same to everybody?

A monitor reads the log under one or several addresses (views): the server, mirrors, the same server by other networks.
In each round, for each view:

    1. the head is signed by the log                               note.*, checkpoint.*
    2. enough witnesses of the policy cosigned it                  policy.quorum
    3. it is not smaller than the last one there                   monitor.rollback
    4. its tree is that of the last head there and the entries
       since, which are read and hashed; every tile agrees         entries.*, tile.*, tree.*, monitor.fork, .consistency

and then over all heads that were ever kept, of this round, or handed in from elsewhere:

    5. all lie on one line: of any two, one extends the other      monitor.fork, monitor.consistency

What fails is a finding; nothing is kept of a view with findings, so that the next round starts from the same place. Two
signed heads that cannot both be true convict the log. They are kept with the hashes that show it, and anybody can check
them (`api.client.log_evidence`): the monitor's word is not needed.

    <folder>/views/<SHA-256 of the address>.note   the last head there that passed everything
    <folder>/evidence/...
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.client.log_evidence import check_extends, check_growth, keep_evidence, shown_head
from api.client.state_folder import StateFolder
from api.client.tile_source import TileSource
from api.client.transport import ServerError
from api.client.trust import TrustedLog
from ledger import (
    DecodeError,
    Fork,
    InconsistentGrowth,
    LogMisbehaved,
    StorageError,
    UsageError,
    VerificationFailed,
    VerifiedHead,
    open_checkpoint,
)
from ledger.note import MAX_NOTE_BYTES
from ledger.trust_policy import Cosigned

__all__ = ["Finding", "Monitor", "Round", "ViewReport"]

Progress = Callable[[str, int, int], None]
"""Name of the view, entries checked, entries in all."""


@dataclass(frozen=True)
class Finding:
    """A check that failed. `evidence` is the folder of two contradicting notes, `convicts` whether they prove it."""

    view: str
    check: str
    detail: str
    evidence: Path | None = None
    convicts: bool = False


@dataclass(frozen=True)
class ViewReport:
    """A view that passed its own checks: sizes before and now, and who cosigned the head, when (seconds since 1970)."""

    view: str
    since: int
    head: VerifiedHead
    cosigned: tuple[Cosigned, ...]
    time: int | None


@dataclass(frozen=True)
class Round:
    """What one look at all views gave; `unreachable` has (view, reason)."""

    views: tuple[ViewReport, ...]
    findings: tuple[Finding, ...]
    unreachable: tuple[tuple[str, str], ...]

    @property
    def convicted(self) -> bool:
        """Whether the log's own signatures prove that it lied."""
        return any(finding.convicts for finding in self.findings)


@dataclass(frozen=True)
class _Seen:
    """A head that the log signed, whatever else is wrong with it, and where it was seen."""

    where: str
    head: VerifiedHead


class Monitor:
    """Watches the log `log` through `views`; remembers in `folder`, which is made when needed.

    `others` are signed checkpoints of the log from elsewhere, such as a bundle's or a colleague's: step 5 alone.
    Raises UsageError for no view and for two of one name, DecodeError and VerificationFailed for a note of `others`
    that the log did not sign.
    """

    def __init__(
        self, views: Sequence[TileSource], log: TrustedLog, folder: Path, others: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        names = [view.name for view in views]
        if not names or len(set(names)) != len(names):
            raise UsageError(f"a monitor needs one or several different addresses of a log, got {names}")
        self._views = tuple(views)
        self._log = log
        self._state = StateFolder(folder)
        self._others = [_Seen(name, self._open(note)) for name, note in others]

    def check(self, progress: Progress | None = None, *, whole: bool = False) -> Round:
        """Look at every view once; `whole` reads the old entries again too, in case their files were changed since.

        Raises StorageError when the folder cannot be used or is damaged.
        """
        with self._state.locked():
            look = _Look(self._state, self._log, self._open, whole)
            for view in self._views:
                look.at(view, progress)
            look.remember({view.name for view in self._views})
            look.compare(self._others)
            return look.end()

    def _open(self, note: bytes) -> VerifiedHead:
        return open_checkpoint(note, self._log.verifier, self._log.origin)


class _Look:
    """One round."""

    def __init__(
        self, state: StateFolder, log: TrustedLog, open_note: Callable[[bytes], VerifiedHead], whole: bool
    ) -> None:
        self._state = state
        self._whole = whole
        self._log = log
        self._open = open_note
        self._seen: list[_Seen] = []
        self._rebuilt: list[tuple[TileSource, VerifiedHead]] = []
        self._reports: list[ViewReport] = []
        self._findings: list[Finding] = []
        self._unreachable: list[tuple[str, str]] = []

    def at(self, view: TileSource, progress: Progress | None) -> None:
        """Steps 1 to 4."""
        last = self._last(_file(view.name))
        if last is not None:
            self._seen.append(_Seen(f"{view.name} (before)", last))
        try:
            head = shown_head(view, self._log)
            self._seen.append(_Seen(view.name, head))
            # The quorum is judged after the tree: a head without witnesses is a finding, a fork is a conviction.
            self._rebuild(view, last, head, progress)
            if self._whole and last is not None and last.size:
                self._rebuild(view, None, head, progress)
            self._rebuilt.append((view, head))
            witnessed = self._log.witnesses(head.note)
        except LogMisbehaved as error:
            self._misbehaved(view.name, error, (f"{view.name} (before)", view.name))
        except VerificationFailed as error:
            self._findings.append(Finding(view.name, error.check, error.detail))
        except (ServerError, StorageError) as error:
            self._unreachable.append((view.name, str(error)))
        else:
            cosigned, time = (witnessed.cosigned, witnessed.time) if witnessed is not None else ((), None)
            self._reports.append(ViewReport(view.name, last.size if last else 0, head, cosigned, time))

    def _rebuild(
        self, view: TileSource, last: VerifiedHead | None, head: VerifiedHead, progress: Progress | None
    ) -> None:
        check_growth(
            last,
            head,
            self._log.verifier,
            view.fetch,
            fetch_many=view.fetch_many,
            progress=None if progress is None else lambda done, total: progress(view.name, done, total),
        )

    def remember(self, names: set[str]) -> None:
        """Heads of views that were looked at in earlier rounds, and are not in this one."""
        for file in self._state.names("views", ".note"):
            head = None if file in map(_file, names) else self._last(file)
            if head is not None:
                self._seen.append(_Seen(f"an earlier view ({file})", head))

    def compare(self, others: Sequence[_Seen]) -> None:
        """Step 5: every head against the largest tree that was rebuilt, and heads of one size with each other."""
        heads = [*self._seen, *others]
        for one, other in _same_size_other_root(heads):
            self._misbehaved(other.where, Fork(one.head.size, one.head.note, other.head.note), (one.where, other.where))
        if not self._rebuilt:
            return
        view, largest = max(self._rebuilt, key=lambda found: found[1].size)
        compared = {(largest.size, largest.root)}
        for other in others:
            if other.head.size > largest.size:
                # Not silently: a log that hides its newest entries from the monitor would pass.
                reason = f"not compared: it has {other.head.size} entries, no view shows more than {largest.size}"
                self._unreachable.append((other.where, reason))
        for seen in heads:
            if seen.head.size >= largest.size or (seen.head.size, seen.head.root) in compared:
                continue
            compared.add((seen.head.size, seen.head.root))
            try:
                check_extends(seen.head, largest, view.fetch)
            except LogMisbehaved as error:
                self._misbehaved(seen.where, error, (seen.where, view.name))
            except VerificationFailed as error:
                self._findings.append(Finding(view.name, error.check, error.detail))
            except (ServerError, StorageError) as error:
                self._unreachable.append((view.name, str(error)))

    def end(self) -> Round:
        """Keep the heads of views without findings; after a conviction, none."""
        round_ = Round(tuple(self._reports), tuple(self._findings), tuple(self._unreachable))
        bad = {finding.view for finding in self._findings}
        kept = {
            _file(report.view): report.head.note
            for report in self._reports
            if report.view not in bad and not round_.convicted
        }
        if kept:
            self._state.write(kept)
        return round_

    def _last(self, file: str) -> VerifiedHead | None:
        note = self._state.read(file, MAX_NOTE_BYTES)
        if note is None:
            return None
        try:
            return self._open(note)
        except (DecodeError, VerificationFailed) as error:
            path = self._state.folder / file
            raise StorageError(f"{path} is no head of the log {self._log.origin!r} ({error})") from error

    def _misbehaved(self, view: str, error: LogMisbehaved, seen: tuple[str, str]) -> None:
        folder = keep_evidence(self._state, error, seen)
        convicts = isinstance(error, Fork | InconsistentGrowth)
        finding = Finding(view, error.check, error.detail, folder, convicts)
        if finding not in self._findings:
            self._findings.append(finding)


def _same_size_other_root(heads: Sequence[_Seen]) -> Iterator[tuple[_Seen, _Seen]]:
    """The first head of each size, with every later one that has another root."""
    first: dict[int, _Seen] = {}
    for seen in heads:
        known = first.setdefault(seen.head.size, seen)
        if known.head.root != seen.head.root:
            yield known, seen


def _file(name: str) -> str:
    return f"views/{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}.note"
