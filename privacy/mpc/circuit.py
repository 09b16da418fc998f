"""What is proved of one patient: the constraints of a ReLU network over F_r (docs/spec/protocol.md, section 7).

Coordinates of one copy, segment by segment, and after them those that all patients share:

    record    x_1 .. x_d
    hidden    for each hidden layer: A's share bits, B's share bits (n a neuron, lowest first), then signs s, pre-
              activations h, outputs a of its neurons; absent in a linear model
    answer o  z_o, one segment an output, so that each answer has a commitment of its own
    common    (w_1 .. w_m, bias) of every neuron, layer by layer: the rows that the model entry commits to

Constraints of a neuron with inputs y (the record, or the outputs of the layer before):

    beta_k = bA_k + bB_k - 2 bA_k bB_k, bA_k and bB_k bits
    h = sum_{k<n-1} 2^k beta_k - 2^(n-1) beta_(n-1)      two's complement, so that s = beta_(n-1) is its sign
    h = <w, y> + bias,   a = h - s h

and z_o = <w, y> + bias for the outputs. Nothing is assumed of how the parties came by their bits: the two's complement
of h is unique in F_r, since n bits and the certified bounds of x and w stay far below r. n is 40 where the bound of the
layer allows, else 64. Products of bits have no coordinates: the relations are quadratic as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from privacy.models.network_quantise import LayerShape, layer_bounds, word_bits
from privacy.models.schema import Schema
from privacy.zk.copies import CopySystem
from privacy.zk.quadratic import QuadraticSystem

__all__ = ["Circuit", "Hidden"]


@dataclass(frozen=True)
class Hidden:
    """Where the coordinates of one hidden layer are, in a copy: `width` neurons of `n` bits."""

    width: int
    n: int
    start: int

    @property
    def size(self) -> int:
        """Coordinates of the layer."""
        return self.width * (2 * self.n + 3)

    @property
    def bits_A(self) -> range:  # noqa: N802
        """A's share bits, neuron by neuron."""
        return range(self.start, self.start + self.width * self.n)

    @property
    def bits_B(self) -> range:  # noqa: N802
        """B's share bits, neuron by neuron."""
        return range(self.bits_A.stop, self.bits_A.stop + self.width * self.n)

    @property
    def signs(self) -> range:
        """s of every neuron."""
        return range(self.bits_B.stop, self.bits_B.stop + self.width)

    @property
    def values(self) -> range:
        """h of every neuron."""
        return range(self.signs.stop, self.signs.stop + self.width)

    @property
    def outputs(self) -> range:
        """a of every neuron."""
        return range(self.values.stop, self.values.stop + self.width)

    @property
    def powers(self) -> list[int]:
        """What bit k counts in two's complement."""
        return [1 << k for k in range(self.n - 1)] + [-(1 << (self.n - 1))]


@dataclass(frozen=True)
class Circuit:
    """The network that is proved, by its public shapes. Hashable by value; derived parts are computed once.

    `word_sizes` are the n of the hidden layers.
    """

    shapes: tuple[LayerShape, ...]
    word_sizes: tuple[int, ...]

    @staticmethod
    def of(schema: Schema, shapes: Sequence[LayerShape], input_scale_bits: int) -> Circuit:
        """The circuit of layers whose bounds were checked (`verify_bounds`)."""
        bounds = layer_bounds(schema, shapes, input_scale_bits)
        return Circuit(tuple(shapes), tuple(word_bits(bound) for bound in bounds[:-1]))

    @property
    def d(self) -> int:
        """Features of a record."""
        return self.shapes[0].inputs

    @property
    def answers(self) -> int:
        """Outputs of the network."""
        return self.shapes[-1].outputs

    @cached_property
    def hidden(self) -> tuple[Hidden, ...]:
        """The hidden layers, in order."""
        layers, start = [], self.d
        for shape, n in zip(self.shapes, self.word_sizes, strict=False):
            layers.append(Hidden(shape.outputs, n, start))
            start += layers[-1].size
        return tuple(layers)

    @cached_property
    def hidden_size(self) -> int:
        """Coordinates of the hidden segment; 0 for a linear model."""
        return sum(layer.size for layer in self.hidden)

    @cached_property
    def answer_range(self) -> range:
        """The coordinates z_o."""
        start = self.d + self.hidden_size
        return range(start, start + self.answers)

    @cached_property
    def row_starts(self) -> tuple[tuple[int, ...], ...]:
        """First coordinate of every row, layer by layer."""
        starts, at = [], self.answer_range.stop
        for shape in self.shapes:
            starts.append(tuple(at + row * (shape.inputs + 1) for row in range(shape.outputs)))
            at += shape.outputs * (shape.inputs + 1)
        return tuple(starts)

    @cached_property
    def segments(self) -> tuple[int, ...]:
        """Coordinates of a copy that are committed together, in order."""
        return (self.d, *([self.hidden_size] if self.hidden else []), *([1] * self.answers))

    @cached_property
    def common(self) -> tuple[int, ...]:
        """Coordinates of each row."""
        return tuple(shape.inputs + 1 for shape in self.shapes for _ in range(shape.outputs))

    @cached_property
    def system(self) -> CopySystem:
        """Constraints of one patient, and the segments that are committed apart."""
        system = QuadraticSystem(sum(self.segments) + sum(self.common))
        inputs: Sequence[int] = range(self.d)
        for layer, starts in zip(self.hidden, self.row_starts, strict=False):
            system.add_bits(layer.start, 2 * layer.width * layer.n)
            for neuron in range(layer.width):
                _add_neuron(system, layer, neuron)
                _add_row(system, starts[neuron], inputs, layer.values[neuron])
            inputs = layer.outputs
        for start, answer in zip(self.row_starts[-1], self.answer_range, strict=True):
            _add_row(system, start, inputs, answer)
        return CopySystem(system, self.segments, self.common)

    @cached_property
    def shared(self) -> tuple[int, ...]:
        """Coordinates of a copy that neither party knows: s, h, a and z. Each holds an additive share mod r."""
        hidden = [i for layer in self.hidden for part in (layer.signs, layer.values, layer.outputs) for i in part]
        return (*hidden, *self.answer_range)

    @cached_property
    def only_A(self) -> tuple[int, ...]:  # noqa: N802
        """Coordinates of a copy that A alone knows: the record and its share bits."""
        return (*range(self.d), *(i for layer in self.hidden for i in layer.bits_A))

    @cached_property
    def only_B(self) -> tuple[int, ...]:  # noqa: N802
        """Coordinates of a copy that B alone knows: its share bits. The common ones are B's, too."""
        return tuple(i for layer in self.hidden for i in layer.bits_B)

    def of_A(self) -> tuple[int, ...]:  # noqa: N802
        """Coordinates of a copy of which A has a share."""
        return self.only_A + self.shared

    def of_B(self) -> tuple[int, ...]:  # noqa: N802
        """Coordinates of a copy of which B has a share."""
        return self.only_B + self.shared


def _add_neuron(system: QuadraticSystem, layer: Hidden, neuron: int) -> None:
    """h from the bits, the sign, and the ReLU. The bits themselves are constrained by the caller."""
    n, s, h, a = layer.n, layer.signs[neuron], layer.values[neuron], layer.outputs[neuron]
    of_A = layer.bits_A[neuron * n : (neuron + 1) * n]
    of_B = layer.bits_B[neuron * n : (neuron + 1) * n]
    system.add(
        [(i, j, -2 * power) for i, j, power in zip(of_A, of_B, layer.powers, strict=True)],
        [*zip(of_A, layer.powers, strict=True), *zip(of_B, layer.powers, strict=True), (h, -1)],
    )
    system.add([(of_A[-1], of_B[-1], -2)], [(of_A[-1], 1), (of_B[-1], 1), (s, -1)])
    system.add([(s, h, 1)], [(a, 1), (h, -1)])


def _add_row(system: QuadraticSystem, start: int, inputs: Sequence[int], output: int) -> None:
    """output = <w, inputs> + bias, with (w, bias) from coordinate `start` on."""
    weights = [(i, start + k, 1) for k, i in enumerate(inputs)]
    system.add(weights, [(start + len(inputs), 1), (output, -1)])
