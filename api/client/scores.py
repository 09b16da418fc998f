"""What a clinic reads at the end: answers of its own patients, verified and only then decrypted or opened."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction
from api.client.raw_answers import RawAnswers
from privacy.ckks.keys import ClinicKeys
from privacy.errors import UsageError, VerificationFailed
from privacy.models.linear import Link, apply_link
from privacy.mpc.answers import AnswerOpening
from privacy.private_files import write_private

__all__ = ["Scores", "decrypt", "read_openings"]


@dataclass(frozen=True, eq=False)
class Scores:
    """Answers of a verified prediction, one row a patient, one column an output. Secret: `repr` shows none.

    What is read are `values`: answers on the model's public grid, through the model's link. `raw` holds what was
    decrypted or opened, and keeps it: raw answers never leave the clinic (docs/spec/protocol.md, section 6).
    `error_bounds[o]`: no raw answer of output o is further from the float model.
    """

    ids: tuple[str, ...] = field(repr=False)
    outputs: tuple[str, ...]
    links: tuple[Link, ...]
    raw: RawAnswers = field(repr=False)
    grid_bits: int
    error_bounds: tuple[Fraction, ...]
    verified: VerifiedPrediction | VerifiedJointPrediction = field(repr=False)

    @property
    def values(self) -> NDArray[np.float64]:
        """Answers as a person reads them, float64 (patients, outputs).

        Each raw answer is rounded to the nearest point of the model's public grid, 2^-grid_bits apart, and then read
        through the model's link: a probability for `logit` and `softmax`.
        """
        answers = self.raw.on_grid(self.grid_bits)
        if self.links[0] == "softmax":
            return apply_link("softmax", answers)
        return np.column_stack([apply_link(link, answers[:, o]) for o, link in enumerate(self.links)])

    @property
    def shown_bounds(self) -> tuple[Fraction, ...]:
        """How far an answer on the grid, before the link, may be from the float model: half a grid step more."""
        return tuple(bound + Fraction(1, 2 << self.grid_bits) for bound in self.error_bounds)

    def __len__(self) -> int:
        return len(self.ids)

    def to_csv(self, path: Path) -> None:
        """Write `id` and one column an output (`values`, on the grid) for the clinic's own use, mode 0600.

        The owner chose the outputs' names: one that a spreadsheet would compute gets a quote before it. Raises OSError.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(["id", *(f"'{name}" if name[0] in "=+-@" else name for name in self.outputs)])
        for patient, row in zip(self.ids, self.values.tolist(), strict=True):
            writer.writerow([patient, *map(repr, row)])
        write_private(path, text.getvalue().encode("utf-8"))


def decrypt(verified: VerifiedPrediction, keys: ClinicKeys, ids: Sequence[str]) -> Scores:
    """Decrypt a verified prediction that was made under `keys`; there is no other way to decrypt one.

    The caller has checked that the records are its own, of patients `ids`. Raises VerificationFailed
    (`clinic.key`, or `bundle.blob-digest` for a file that was changed since), DecodeError, OSError.
    """
    if not isinstance(verified, VerifiedPrediction):
        raise UsageError("only a VerifiedPrediction is decrypted: verify the bundle first")
    key = verified.key.body
    if (key.clinic, key.number, key.p0) != (keys.clinic_id, keys.number, keys.public.digest):
        raise VerificationFailed("clinic.key", "the prediction was made under another key")
    if len(ids) != verified.count:
        raise VerificationFailed("clinic.records", f"{verified.count} answers for {len(ids)} patients")
    outputs, params = verified.output_names, keys.params
    found: list[list[int | None]] = [[None] * len(outputs) for _ in range(verified.count)]
    for result in verified.results():
        for place, answer in enumerate(keys.decrypt_integers_unverified(result.ciphertext), result.first_patient):
            found[place][result.output] = answer
    answers = [[answer for answer in row if answer is not None] for row in found]
    if any(len(row) != len(outputs) for row in answers):
        raise VerificationFailed("prediction.coverage", "a patient has no answer")
    bounds = tuple(verified.error_bound(output) for output in range(len(outputs)))
    # The model's certificate was verified, which refuses unknown links and softmax beside others.
    links = cast("tuple[Link, ...]", tuple(output.link for output in verified.model.body.outputs))
    raw = RawAnswers(answers, params.D)
    return Scores(tuple(ids), outputs, links, raw, verified.model.body.grid_bits, bounds, verified)


def read_openings(verified: VerifiedJointPrediction, openings: Sequence[AnswerOpening], ids: Sequence[str]) -> Scores:
    """The scores of a verified joint prediction, from the openings of its answers, which the caller has checked.

    The caller has also checked that the records are its own, of patients `ids`. Raises VerificationFailed
    (`clinic.records`).
    """
    if not isinstance(verified, VerifiedJointPrediction):
        raise UsageError("only a VerifiedJointPrediction is opened: verify the bundle first")
    if len(ids) != verified.count:
        raise VerificationFailed("clinic.records", f"{verified.count} answers for {len(ids)} patients")
    outputs = verified.output_names
    if len(openings) != verified.count * len(outputs):
        raise VerificationFailed("prediction.coverage", f"{len(openings)} openings of {verified.count} patients")
    width = len(outputs)
    answers = [[opening.z for opening in openings[at : at + width]] for at in range(0, len(openings), width)]
    bounds = tuple(verified.error_bound(output) for output in range(width))
    # The network's certificate was verified, which refuses unknown links.
    links = (cast("Link", verified.model.body.link),) * width
    raw = RawAnswers(answers, verified.answer_scale_bits)
    return Scores(tuple(ids), outputs, links, raw, verified.model.body.grid_bits, bounds, verified)
