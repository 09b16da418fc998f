"""report.note: a signed note (C2SP signed-note) over the files of a report. Its text:

    sealproof/ledger-report/v1
    log <origin>
    size <entries of the head>
    root <base64>
    from <YYYY-MM-DDTHH:MM:SSZ or ->
    to <YYYY-MM-DDTHH:MM:SSZ or ->
    clinic <name>                         only if the report is about one
    policy <SHA-256 in hex>               only if witnesses dated it: `policy_digest`
    entries <rows of the report>
    flagged <rows that are flagged>
    made-by <version>
    sha256 <hex> <file>                   one for each file, by name

The first line keeps a party's signature under a report from being taken for one under anything else that it signs. A
party signs as `<origin>/party/<index of its entry>`, so that the ledger itself says whose key it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from api.client.identity import Identity
from api.client.ledger_report.report import Period, Report, time_text
from api.version import VERSION
from ledger import Signer
from ledger.encoding import decode_base64, decode_decimal, encode_base64
from ledger.note import Note, sign_note
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError

__all__ = ["CSV", "FILES", "HEADS", "HTML", "NOTE", "PDF", "Manifest", "party_index", "party_signer"]

CSV: Final = "report.csv"
HEADS: Final = "report.heads"
HTML: Final = "report.html"
NOTE: Final = "report.note"
PDF: Final = "report.pdf"
FILES: Final = (CSV, HEADS, HTML, PDF)
"""What a note may be about; the PDF may be missing."""

_HEADER: Final = "sealproof/ledger-report/v1"
_WHAT: Final = "report note"
_MAX_LINES: Final = 16
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_VERSION: Final = re.compile(r"[0-9A-Za-z.+-]{1,40}")


@dataclass(frozen=True)
class Manifest:
    """What report.note says. `digests` are the SHA-256 of the files by name."""

    origin: str
    size: int
    root: bytes
    period: Period
    clinic: str | None
    policy: bytes | None
    entries: int
    flagged: int
    made_by: str
    digests: Mapping[str, bytes]

    @classmethod
    def of(cls, report: Report, digests: Mapping[str, bytes]) -> Manifest:
        """The manifest of a report and its files."""
        head = report.head
        return cls(
            head.origin,
            head.size,
            head.root,
            report.period,
            report.clinic,
            report.policy,
            len(report.rows),
            len(report.flagged),
            VERSION,
            dict(sorted(digests.items())),
        )

    def text(self) -> str:
        """The text under the signature."""
        lines = [
            _HEADER,
            f"log {self.origin}",
            f"size {self.size}",
            f"root {encode_base64(self.root)}",
            f"from {time_text(self.period.start) or '-'}",
            f"to {time_text(self.period.end) or '-'}",
            *([f"clinic {self.clinic}"] if self.clinic is not None else []),
            *([f"policy {self.policy.hex()}"] if self.policy is not None else []),
            f"entries {self.entries}",
            f"flagged {self.flagged}",
            f"made-by {self.made_by}",
            *(f"sha256 {digest.hex()} {name}" for name, digest in self.digests.items()),
        ]
        return "".join(f"{line}\n" for line in lines)

    def sign(self, signer: Signer) -> bytes:
        """report.note."""
        return sign_note(self.text(), [signer]).format()

    @classmethod
    def parse(cls, note: Note) -> Manifest:
        """The manifest whose text is exactly that of `note`, whose signature is the caller's business.

        Raises DecodeError.
        """
        lines = note.text.removesuffix("\n").split("\n")
        if len(lines) > _MAX_LINES:
            raise DecodeError(_WHAT, f"more than {_MAX_LINES} lines")
        if lines.pop(0) != _HEADER:
            raise DecodeError(_WHAT, f"the first line is not {_HEADER}")
        fields: dict[str, str] = {}
        digests: dict[str, bytes] = {}
        for line in lines:
            name, _, value = line.partition(" ")
            if name == "sha256":
                digest, _, file = value.partition(" ")
                if file not in FILES or not _HEX.fullmatch(digest):
                    raise DecodeError(_WHAT, f"{line[:100]!r} names no file of a report")
                digests[file] = bytes.fromhex(digest)
            else:
                fields[name] = value
        try:
            manifest = cls(
                fields["log"],
                decode_decimal(_WHAT, fields["size"]),
                decode_base64(_WHAT, fields["root"], 32),
                Period(_time(fields["from"]), _time(fields["to"])),
                fields.get("clinic"),
                bytes.fromhex(fields["policy"]) if "policy" in fields else None,
                decode_decimal(_WHAT, fields["entries"]),
                decode_decimal(_WHAT, fields["flagged"]),
                fields["made-by"],
                digests,
            )
        except KeyError as error:
            raise DecodeError(_WHAT, f"the line {error.args[0]!r} is missing") from None
        except ValueError as error:  # every error of a part is one
            raise DecodeError(_WHAT, str(error)) from error
        if manifest.text() != note.text or not _VERSION.fullmatch(manifest.made_by):
            raise DecodeError(_WHAT, "not in the form in which such notes are written")
        if not {CSV, HEADS, HTML} <= set(digests):
            raise DecodeError(_WHAT, f"names {', '.join(digests) or 'no file'}; it names at least CSV, heads and HTML")
        return manifest


def party_signer(identity: Identity) -> Signer:
    """The key of a registered party, under the name that says where it is registered. Raises UsageError."""
    return Signer(f"{identity.origin}/party/{identity.reference.index}", identity.private_key.private_bytes_raw())


def party_index(name: str, origin: str) -> int | None:
    """The entry of the party that signs as `name`, or None if it is no party's name."""
    prefix = f"{origin}/party/"
    number = name.removeprefix(prefix)
    return int(number) if name.startswith(prefix) and re.fullmatch(r"0|[1-9][0-9]{0,15}", number) else None


def _time(text: str) -> int | None:
    return None if text == "-" else int(parse_timestamp(text).timestamp())
