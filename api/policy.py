"""What forbids a prediction, of whichever scheme: policy, expiry, revocation, and the operator's exposure cap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from api.binding import Located
from api.entries import Policy, Reference
from api.errors import ExposureCap, PredictionRefused
from api.exposure import ExposureRow
from api.registry import Registry
from privacy.canonical_json import parse_timestamp

__all__ = ["check_cap", "check_use"]


def check_use(registry: Registry, policy: Policy, model: Reference, entries: Sequence[Located[Any]]) -> None:
    """The policy of the records allows this model now, and none of `entries` was revoked.

    Raises PredictionRefused: `policy.models`, `policy.until`, `ledger.revoked`.
    """
    if policy.models != "any" and model not in policy.models:
        raise PredictionRefused("policy.models", "the clinic did not commit these records for this model")
    if policy.until is not None and parse_timestamp(policy.until) < datetime.now(UTC):
        raise PredictionRefused("policy.until", f"these records were committed for use until {policy.until}")
    for what in entries:
        index = registry.revocation(what.reference)
        if index is not None:
            detail = f"the {what.body.KIND} in entry {what.reference.index} was revoked by entry {index}"
            raise PredictionRefused("ledger.revoked", detail)


def check_cap(
    share: Fraction,
    outputs: Sequence[tuple[str, int]],
    released: Sequence[ExposureRow],
    waiting: Mapping[int, Fraction],
    asked: Mapping[int, Fraction],
) -> None:
    """Refuse what would release more than `share` of the bits of any output.

    `outputs` are names and bits of the model's outputs, `released` the rows of `recount` about this model and clinic,
    `waiting` what unfinished jobs will release, by output. Raises ExposureCap.
    """
    before = {row.output: row.exposure.released for row in released}
    for number, (name, bits) in enumerate(outputs):
        told, cap = before.get(number, Fraction(0)), share * bits
        if told + waiting[number] + asked[number] > cap:
            raise ExposureCap(name, told, waiting[number], asked[number], cap)
