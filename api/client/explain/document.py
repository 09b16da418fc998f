"""An explanation as data: sections of sentences, signers and numbers, in the order in which a person reads them.

Words of other people (names, ids of records, purposes, paths) stand in sentences as `repr` writes them, in quotes and
without anything that could steer a terminal. The renderers escape what their format needs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from api.client.prediction import Check

__all__ = ["Arrow", "Explanation", "Picture", "Place", "Quantity", "Section", "Sentence", "Signer"]

Outcome = Literal["verified", "refused", "unreadable", "unreachable"]


@dataclass(frozen=True)
class Sentence:
    """Something in plain words; the same in the field's terms; and the step of the audit that showed it, if one did."""

    plain: str
    terms: str = ""
    step: str = ""


@dataclass(frozen=True)
class Signer:
    """Somebody who signed: in which role, what it said by that, and where that stands.

    `entries` are the indices of what it signed on the ledger, `registered` that of its own entry. `fingerprint` tells
    its key from others: `name:hexdigits`, or what its format calls it.
    """

    role: str
    name: str
    said: str
    entries: tuple[int, ...]
    registered: int | None
    fingerprint: str


@dataclass(frozen=True)
class Quantity:
    """A number: as a person reads it, exactly as the verified objects have it, and what it is."""

    name: str
    shown: str
    exact: int | str | None
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A part of an explanation. `name` is for machines; `commands` are to be typed."""

    name: str
    title: str
    sentences: tuple[Sentence, ...] = ()
    signers: tuple[Signer, ...] = ()
    quantities: tuple[Quantity, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Somebody or something in the picture. `column` and `row` count from 0."""

    key: str
    title: str
    name: str
    column: int
    row: int


@dataclass(frozen=True)
class Arrow:
    """Who gives what to whom: between the keys of two places."""

    start: str
    end: str
    gives: str


@dataclass(frozen=True)
class Picture:
    """Places and numbered arrows between them."""

    places: tuple[Place, ...]
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True)
class Explanation:
    """What there is to say of one bundle. `checks` are the steps that passed; `check`, `message` are of a refusal."""

    bundle: str
    result: Outcome
    kind: Literal["prediction", "disclosure"] | None
    scheme: Literal["ckks", "mpc"] | None
    title: str
    sections: tuple[Section, ...]
    picture: Picture | None = None
    checks: tuple[Check, ...] = ()
    check: str | None = None
    message: str | None = None

    def section(self, name: str) -> Section | None:
        """The section of this name."""
        return next((section for section in self.sections if section.name == name), None)

    def to_json(self) -> dict[str, Any]:
        """For machines: everything but the picture; what is empty or absent is left out."""
        told: dict[str, Any] = {"bundle": self.bundle, "result": self.result, "title": self.title}
        for name in ("kind", "scheme", "check", "message"):
            if getattr(self, name) is not None:
                told[name] = getattr(self, name)
        if self.checks:
            told["checks"] = [
                {"name": check.name, "shows": check.sentence, "seconds": round(check.seconds, 4)}
                for check in self.checks
            ]
        told["sections"] = [
            {name: value for name, value in asdict(section).items() if value != ()} for section in self.sections
        ]
        return told
