"""What one batch takes of the dealer, and where A's coordinates meet B's (docs/spec/protocol.md, section 7).

Both follow from the circuit and the number of patients, so that both parties ask for the same without talking of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from privacy.mpc.circuit import Circuit
from privacy.mpc.dealer import FieldProducts, Plan
from privacy.zk.group import ORDER
from privacy.zk.quadratic import Folded

__all__ = ["CrossTerms", "Lengths", "batch_plan", "cross_terms"]


def batch_plan(circuit: Circuit, patients: int) -> Plan:
    """The correlated randomness that one batch takes, in order: what both parties ask the dealer for."""
    lengths = Lengths(circuit, patients)
    if not circuit.hidden:
        return (FieldProducts(lengths.answers), FieldProducts(lengths.masks))
    from privacy.mpc.backend import ring_plan  # a linear model needs no CrypTen

    products = (lengths.bits, lengths.relu, lengths.answers, lengths.masks)
    return (*ring_plan(circuit.shapes, patients), *map(FieldProducts, products))


@dataclass(frozen=True)
class Lengths:
    """Groups of the inner products of one batch."""

    circuit: Circuit
    patients: int

    @property
    def bits(self) -> tuple[int, ...]:
        """h of every neuron, then s of every neuron."""
        layers = self.circuit.hidden
        values = [layer.n for _ in range(self.patients) for layer in layers for _ in range(layer.width)]
        return (*values, *([1] * len(values)))

    @property
    def relu(self) -> tuple[int, ...]:
        """s h of every neuron: two cross terms."""
        return (2,) * (self.patients * sum(layer.width for layer in self.circuit.hidden))

    @property
    def answers(self) -> tuple[int, ...]:
        """<w, y> of every patient and output."""
        return (self.circuit.shapes[-1].inputs,) * (self.patients * self.circuit.answers)

    @property
    def masks(self) -> tuple[int, ...]:
        """The cross terms of t0, and of t1."""
        size = self.patients * len(cross_terms(self.circuit).support)
        return (size, 2 * size)


@dataclass(frozen=True)
class CrossTerms:
    """Where A's coordinates meet B's: `pairs` are (place in `support`, coordinate of B, number of the quadratic term).

    `support` lists the coordinates of A that meet any of B's.
    """

    support: tuple[int, ...]
    pairs: tuple[tuple[int, int, int], ...]

    def times(self, form: Folded, vector: Sequence[int], weight: int) -> list[int]:
        """weight (Gamma + Gamma^T) vector on `support`, for B's vector of a copy and the common part."""
        out = [0] * len(self.support)
        quadratic = form.quadratic
        for place, j, term in self.pairs:
            out[place] += quadratic[term][2] * vector[j]
        return [value * weight % ORDER for value in out]


def cross_terms(circuit: Circuit) -> CrossTerms:
    """The cross terms of a circuit; they depend on where its constraints have terms, not on zeta."""
    found = _CROSS.get(circuit)
    if found is None:
        system = circuit.system
        of_A = set(circuit.of_A())
        of_B = set(circuit.of_B()) | set(range(system.local_size, system.system.size))
        met = []
        # A folded form lists its terms in the same order for every zeta.
        for term, (i, j, _) in enumerate(system.system.fold(1).quadratic):
            met += [(a, b, term) for a, b in ((i, j), (j, i)) if a in of_A and b in of_B]
        support = tuple(sorted({a for a, _, _ in met}))
        places = {a: place for place, a in enumerate(support)}
        found = _CROSS[circuit] = CrossTerms(support, tuple((places[a], b, term) for a, b, term in met))
        while len(_CROSS) > _MOST_CIRCUITS:
            _CROSS.pop(next(iter(_CROSS)))
    return found


_CROSS: dict[Circuit, CrossTerms] = {}
_MOST_CIRCUITS: Final = 2
