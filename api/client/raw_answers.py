"""Raw answers: what a decryption or an opening gives, digit for digit, in a type that is hard to let out.

CKKS is not secure when raw decryptions are shown to others: their last digits hold noise that depends on the key
(docs/spec/protocol.md, section 6). What leaves the clinic is on the model's public grid, and proven. So nothing here
prints, pickles, copies, iterates, or turns into bytes, JSON or an array what it holds; users get grid points and
yes or no. `reveal_raw` is the one door, for whoever compares answers within this process, and is easy to search for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError

__all__ = ["RawAnswers"]

_KEPT: Final = "raw answers stay in this process: they are not pickled, copied, iterated or turned into bytes"


class RawAnswers:
    """Answers in units of 2^-scale_bits, one row a patient and one column an output. Secret.

    With `versus` the methods are about the difference of two outputs of one patient, output minus versus.
    """

    __slots__ = ("_outputs", "_scale_bits", "_values")

    __iter__: ClassVar[None] = None

    def __init__(self, values: Sequence[Sequence[int]], scale_bits: int) -> None:
        self._values = tuple(tuple(row) for row in values)
        self._scale_bits = scale_bits
        self._outputs = len(self._values[0]) if self._values else 0
        if any(len(row) != self._outputs for row in self._values):
            raise UsageError("every patient has one answer of each output")

    @property
    def shape(self) -> tuple[int, int]:
        """Patients and outputs."""
        return len(self._values), self._outputs

    def nearest(self, patient: int, output: int, grid_bits: int, versus: int | None = None, tolerance: int = 1) -> int:
        """The grid point that is nearest, in steps of 2^-grid_bits; of those that are multiples of `tolerance`.

        Whoever is told an answer to within so many steps would learn more of it from a point of the whole grid.
        """
        step = self._step(grid_bits) * tolerance
        return (self._answer(patient, output, versus) + step // 2) // step * tolerance

    def reaches(self, patient: int, output: int, grid_bits: int, steps: int, versus: int | None = None) -> bool:
        """Whether the answer is at least `steps` grid steps."""
        return self._answer(patient, output, versus) >= steps * self._step(grid_bits)

    def on_grid(self, grid_bits: int) -> NDArray[np.float64]:
        """The nearest grid points in answer units, float64 (patients, outputs)."""
        step = self._step(grid_bits)
        rows = [[float((value + step // 2) // step) for value in row] for row in self._values]
        return np.array(rows, dtype=np.float64).reshape(self.shape) * 2.0**-grid_bits

    def reveal_raw(self) -> NDArray[np.float64]:
        """The answers themselves in answer units, float64 (patients, outputs), read-only.

        For comparisons in this process alone: write them to no file, log, message or screen of anybody else's. What is
        shown to people is `on_grid`.
        """
        scale = 1 << self._scale_bits
        # Python's division of integers rounds once, whatever their size.
        raw = np.array([[value / scale for value in row] for row in self._values], dtype=np.float64)
        raw = raw.reshape(self.shape)
        raw.flags.writeable = False
        return raw

    def _answer(self, patient: int, output: int, versus: int | None) -> int:
        if min(patient, output, versus or 0) < 0:
            raise UsageError("patients and outputs are not negative")
        row = self._values[patient]
        return row[output] if versus is None else row[output] - row[versus]

    def _step(self, grid_bits: int) -> int:
        if not 0 <= grid_bits <= self._scale_bits:
            raise UsageError(f"the grid 2^-{grid_bits} is finer than answers are")
        return 1 << (self._scale_bits - grid_bits)

    def __repr__(self) -> str:
        return f"RawAnswers({self.shape[0]} x {self.shape[1]}, not shown)"

    def __bytes__(self) -> bytes:
        raise UsageError(_KEPT)

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise UsageError(_KEPT)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise UsageError(_KEPT)

    def __getstate__(self) -> Any:
        raise UsageError(_KEPT)

    def __copy__(self) -> Any:
        raise UsageError(_KEPT)

    def __deepcopy__(self, memo: Any) -> Any:
        raise UsageError(_KEPT)
