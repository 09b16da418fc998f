"""What the auditor hands back of a disclosure: answers of a verified prediction, what is shown of each, and by whose
consent."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from fractions import Fraction
from typing import Any, Literal

from api.binding import Located
from api.client.figures import decimal, rounded_down, times_as_likely
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VERIFIED, Check, VerifiedPrediction, rounded_up
from api.consent import GrantDocument
from api.entries import Disclosure, Grant, Party, Reference, Request
from privacy.errors import UsageError
from privacy.models.linear import sigmoid

__all__ = ["ShownFact", "VerifiedConsent", "VerifiedDisclosure"]


@dataclass(frozen=True)
class ShownFact:
    """What is shown of one answer, or of the difference of two (`output` minus `versus`).

    `value` and `tolerance` are in steps of 2^-grid_bits, `value` of an `open` answer in units of 2^-scale_bits. They
    are about the published answer, from which the committed model's differs by at most `error`: 0 for multi-party
    computation. `handle` is the record's blinded one; `link` says how the model's answers are read.
    """

    record_id: str
    handle: bytes = field(repr=False)
    patient: int
    output: int
    versus: int | None
    output_name: str
    kind: Literal["threshold", "exact", "open"]
    value: int
    tolerance: int
    scale_bits: int
    grid_bits: int
    link: str
    error: Fraction
    versus_name: str | None = None

    @property
    def subject(self) -> str:
        """The name of the answer: its output's, or those of both of a difference."""
        return self.output_name if self.versus_name is None else f"{self.output_name} minus {self.versus_name}"

    @property
    def in_words(self) -> str:
        """What is said of the answer, with exact decimals."""
        value = decimal(self.value, self._bits)
        if self.kind == "threshold":
            return f"is at least {value}"
        if self.kind == "open":
            return f"is {value} exactly"
        return f"is {value}, within {decimal(self.tolerance, self._bits)}"

    @property
    def sentence(self) -> str:
        """What is true of whose answer, in words."""
        return f"{self.subject} of record {self.record_id!r} {self.in_words}"

    @property
    def low(self) -> Fraction:
        """The least answer that the statement admits, in answer units and without `error`."""
        return Fraction(self.value - self.tolerance, 1 << self._bits)

    @property
    def high(self) -> Fraction | None:
        """The largest answer that it admits; of an `exact` one, the first beyond. None: there is no upper end."""
        return None if self.kind == "threshold" else Fraction(self.value + self.tolerance, 1 << self._bits)

    @property
    def probability(self) -> str | None:
        """What it means as a probability, in words; None unless the answer is one's log-odds."""
        if self.link != "logit" or self.versus is not None:
            return None
        return f"{self._about}{rounded_down(float(sigmoid(float(self._least))))}"

    @property
    def meaning(self) -> str | None:
        """How the number is read through the model's link; None where it is the answer itself."""
        if self.probability is not None:
            return f"which are log-odds: a probability {self.probability}"
        if self.link != "softmax" or self.versus is None:
            return None
        times = times_as_likely(float(self._least))
        about = self._about.removeprefix("of ")
        return f"which are log-odds: {self.output_name} is {about}{times} times as likely as {self.versus_name}"

    def to_json(self) -> dict[str, Any]:
        """As commands print it with --json."""
        return {
            "says": self.sentence,
            "meaning": self.meaning,
            "probability": self.probability,
            "record": self.record_id,
            "output": self.output_name,
            "versus": self.versus_name,
            "kind": self.kind,
            "value": str(self.value),
            "tolerance": self.tolerance,
            "scale_bits": self.scale_bits,
            "grid_bits": self.grid_bits,
            "error": rounded_up(self.error) if self.error else "0",
        }

    @property
    def _bits(self) -> int:
        return self.scale_bits if self.kind == "open" else self.grid_bits

    @property
    def _about(self) -> str:
        return {"open": "of ", "exact": "of about ", "threshold": "of at least "}[self.kind]

    @property
    def _least(self) -> Fraction:
        """The value; of a threshold so much less that the committed model's own answer reaches it, too."""
        value = Fraction(self.value, 1 << self._bits)
        return value - self.error if self.kind == "threshold" else value


@dataclass(frozen=True)
class VerifiedConsent:
    """By whose consent it was shown: the clinic's grant, what that says, and the request that it answers.

    `request` and `consumer` are None for somebody who is not on the ledger, such as a patient.
    """

    grant: Located[Grant]
    document: GrantDocument
    request: Located[Request] | None
    consumer: Party | None
    revoked_since: tuple[Reference, ...] = ()
    """Grant or request, where it was revoked after the disclosure, as far as the ledger was asked."""


@dataclass(frozen=True)
class VerifiedDisclosure:
    """What answers of a prediction were shown to be, by whom and to whom. Only `verify_bundle` makes one."""

    prediction: VerifiedPrediction | VerifiedJointPrediction
    clinic: Party
    entry: Located[Disclosure]
    facts: tuple[ShownFact, ...]
    recipient_nonce: bytes
    issued_at: str
    consent: VerifiedConsent | None
    """None: the clinic made it without consent on the ledger, as clinics did until version 0.4."""
    checks: tuple[Check, ...]
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        if made_by is not VERIFIED:
            raise UsageError("a VerifiedDisclosure is made by verify_bundle only")

    @property
    def sentence(self) -> str:
        """What is true now, in words."""
        return "; ".join(fact.sentence for fact in self.facts)
