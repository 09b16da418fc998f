"""The circuit holds of the reference network's values exactly, and of nothing else."""

from __future__ import annotations

import secrets
from random import Random

import pytest

from privacy.models.network_quantise import LayerShape, layer_bounds, word_bits
from privacy.mpc.circuit import Circuit
from privacy.mpc.joint_prover import Row
from privacy.zk.group import ORDER
from tests.support.joint_build import PARAMS, case, schema_of, witness_of

NETWORKS = {
    "linear": ((4, 1), 6),
    "linear, three outputs": ((3, 3), 6),
    "one hidden layer": ((4, 3, 1), 6),
    "one hidden layer, long words": ((2, 3, 2), 22),
    "two hidden layers": ((3, 2, 2, 2), 6),
}


@pytest.mark.parametrize(("widths", "b"), NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_the_reference_network_satisfies_every_constraint(widths: tuple[int, ...], b: int, seed: int) -> None:
    some = case(widths, 3, seed=seed, b=b)
    for witness, record in zip(some.witnesses(), some.records, strict=True):
        assert some.circuit.system.system.violated([*witness, *some.common]) is None
        assert witness[: some.circuit.d] == list(record.values)
    assert [w[i] for w in some.witnesses() for i in some.circuit.answer_range] == some.answers


@pytest.mark.parametrize(("widths", "b"), NETWORKS.values(), ids=NETWORKS)
def test_no_coordinate_can_be_changed(widths: tuple[int, ...], b: int) -> None:
    """Each alone, by 1 and by a random residue; only weights of an input that is 0 say nothing about the answer."""
    some = case(widths, 1, seed=5, b=b)
    circuit, system = some.circuit, some.circuit.system.system
    witness = [*some.witnesses()[0], *some.common]
    silent = set()
    layers = [range(circuit.d), *(layer.outputs for layer in circuit.hidden)]
    for inputs, starts in zip(layers, circuit.row_starts, strict=True):
        silent |= {start + k for start in starts for k, i in enumerate(inputs) if witness[i] == 0}
    assert len(silent) < len(some.common) / 2
    for i in range(system.size):
        for change in (1, ORDER - 1, secrets.randbelow(ORDER - 1) + 1):
            false = list(witness)
            false[i] = (false[i] + change) % ORDER
            assert (system.violated(false) is None) == (i in silent), i


def neuron(h: int, n: int) -> tuple[Circuit, list[int], list[int]]:
    """1-1-1 with weight 0 and bias h, whatever its bounds: circuit, witness of a record 0, and common coordinates."""
    shapes = (LayerShape(1, 1, 4, 6, 61), LayerShape(1, 1, 4, 6, 61))
    circuit = Circuit(shapes, (n,))
    rows = [[Row((0,), h, 1)], [Row((3,), 7, 1)]]
    return circuit, witness_of(circuit, rows, [0]), [0, h, 3, 7]


@pytest.mark.parametrize("n", [40, 64])
@pytest.mark.parametrize("edge", ["least", "least + 1", "minus one", "zero", "one", "most"])
def test_extreme_pre_activations_have_exactly_one_sign(n: int, edge: str) -> None:
    half = 1 << (n - 1)
    h = {"least": -half, "least + 1": 1 - half, "minus one": -1, "zero": 0, "one": 1, "most": half - 1}[edge]
    circuit, witness, common = neuron(h, n)
    layer = circuit.hidden[0]
    assert circuit.system.system.violated([*witness, *common]) is None
    assert witness[layer.signs[0]] == (h < 0)
    assert witness[layer.outputs[0]] == max(h, 0)
    assert witness[circuit.answer_range[0]] == 3 * max(h, 0) + 7
    # No other choice of the bits spells this h: flip the sign, and make up for it in the rest if that were possible.
    for k in range(n):
        false = list(witness)
        false[layer.bits_A[k]] ^= 1
        assert circuit.system.system.violated([*false, *common]) is not None


@pytest.mark.parametrize("n", [40, 64])
@pytest.mark.parametrize("outside", [0, 1, -1, -2])
def test_what_does_not_fit_the_word_has_no_bits(n: int, outside: int) -> None:
    """2^(n-1) and beyond, -2^(n-1) - 1 and beyond: their low bits spell another number."""
    half = 1 << (n - 1)
    circuit, witness, common = neuron(half + outside if outside >= 0 else -half + outside, n)
    assert circuit.system.system.violated([*witness, *common]) is not None


@pytest.mark.parametrize("share", ["zeros", "ones", "random"])
def test_any_xor_shares_of_the_word_will_do(share: str) -> None:
    some = case((4, 3, 1))
    of_A = {"zeros": lambda n: 0, "ones": lambda n: (1 << n) - 1, "random": secrets.randbits}[share]
    witness = witness_of(some.circuit, some.rows, some.records[0].values, of_A)
    assert some.circuit.system.system.violated([*witness, *some.common]) is None


def test_digits_that_are_no_bits_do_not_spell_h() -> None:
    """2 in one place instead of 1 in the next, and r - 1: right sums of wrong digits."""
    some = case((4, 3, 1))
    layer = some.circuit.hidden[0]
    witness = witness_of(some.circuit, some.rows, some.records[0].values, lambda n: 0)
    of_B = layer.bits_B
    place = next(k for k in range(layer.n - 2) if witness[of_B[k]] == 0 and witness[of_B[k + 1]] == 1)
    for low, high in ((2, 0), (ORDER - 2, 2)):
        false = list(witness)
        false[of_B[place]], false[of_B[place + 1]] = low, high
        assert sum(p * b for p, b in zip(layer.powers, false[of_B[0] : of_B[0] + layer.n], strict=True)) % ORDER == (
            witness[layer.values[0]] % ORDER
        )
        broken = some.circuit.system.system.violated([*false, *some.common])
        assert broken is not None and broken < 2 * layer.width * layer.n  # a constraint on bits


@pytest.mark.parametrize(("b_bias", "n"), [(37, 40), (38, 64)])
def test_the_word_grows_exactly_where_the_bound_does(b_bias: int, n: int) -> None:
    """2^21 2^17 = 2^38 from the only feature: with a bias below 2^38 the bound is 2^39 itself."""
    shapes = [LayerShape(1, 1, 4, 21, b_bias), LayerShape(1, 1, 4, 6, 30)]
    bounds = layer_bounds(schema_of(1), shapes, PARAMS.input_scale_bits)
    assert (bounds[0] < 1 << 39) == (n == 40)
    assert Circuit.of(schema_of(1), shapes, PARAMS.input_scale_bits).word_sizes == (n,)
    assert (word_bits((1 << 39) - 1), word_bits(1 << 39)) == (40, 64)


@pytest.mark.parametrize(("widths", "b"), NETWORKS.values(), ids=NETWORKS)
def test_segments_and_owners_cover_every_coordinate_once(widths: tuple[int, ...], b: int) -> None:
    circuit = case(widths, b=b).circuit
    local = circuit.system.local_size
    owners = [circuit.only_A, circuit.only_B, circuit.shared]
    assert sorted(i for part in owners for i in part) == list(range(local))
    assert set(circuit.of_A()) | set(circuit.of_B()) == set(range(local))
    hidden = [i for layer in circuit.hidden for i in range(layer.start, layer.start + layer.size)]
    assert [*range(circuit.d), *hidden, *circuit.answer_range] == list(range(local))
    assert (circuit.system.segments, circuit.system.common) == (circuit.segments, circuit.common)
    assert sum(circuit.segments) == local and sum(circuit.common) == circuit.system.common_size
    for layer in circuit.hidden:
        parts = (layer.bits_A, layer.bits_B, layer.signs, layer.values, layer.outputs)
        assert [i for part in parts for i in part] == list(range(layer.start, layer.start + layer.size))
        assert layer.powers == [1 << k for k in range(layer.n - 1)] + [-(1 << (layer.n - 1))]


def test_random_witnesses_satisfy_nothing() -> None:
    draw, circuit = Random(3), case((4, 3, 1)).circuit
    assert circuit.system.system.violated([draw.randrange(ORDER) for _ in range(circuit.system.system.size)]) == 0


def test_circuits_are_equal_by_their_public_shapes() -> None:
    one, other = (Circuit(case((4, 3, 1), seed=seed).circuit.shapes, (40,)) for seed in (1, 2))
    assert one == other and hash(one) == hash(other)
    assert one != Circuit(one.shapes, (64,))
