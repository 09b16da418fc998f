"""Tables of derived numbers of two-party computation: sizes, bounds, exposure. Computed from public shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from math import ceil, log2

import numpy as np
from doc_tables import table

from privacy.models.network import Dense, Network
from privacy.models.network_certificate import NetworkStatement, network_certificate_size, network_statement
from privacy.models.network_quantise import CommittedLayer, QuantisedNetwork, feature_bits, quantise_network
from privacy.models.schema import Feature, Schema
from privacy.mpc.circuit import Circuit
from privacy.mpc.joint_proof import proof_size
from privacy.mpc.params import PATIENTS_PER_PROOF, mpc_parameters
from privacy.zk.copies import encoded_size
from privacy.zk.group import POINT_BYTES

__all__ = ["NETWORKS", "PARTS", "answer_bits", "bits_of"]

FEATURES = 30
PARAMS = mpc_parameters("mpc-64")
NETWORKS: Mapping[str, Sequence[int]] = {
    "linear": (FEATURES, 1),
    "30-16-1": (FEATURES, 16, 1),
    "30-32-16-1": (FEATURES, 32, 16, 1),
}


def _schema() -> Schema:
    return Schema("table", 1, tuple(Feature(f"x{i}", "1", 0.0, 1.0) for i in range(FEATURES)))


@cache
def _quantised(name: str) -> QuantisedNetwork:
    """A network of this shape with the default scales; its public numbers do not depend on its weights."""
    layers = [Dense(np.zeros((m, d)), np.zeros(m)) for d, m in pairwise(NETWORKS[name])]
    return quantise_network(Network("table", tuple(layers), ("y",), "identity", _schema()), PARAMS.input_scale_bits)


def _statement(name: str) -> NetworkStatement:
    quantised = _quantised(name)
    blank = [CommittedLayer(shape, (bytes(POINT_BYTES),) * shape.outputs) for shape in quantised.shapes]
    return network_statement(quantised, PARAMS, "1", blank)


def answer_bits(name: str) -> int:
    """Bits that an exact answer counts: bit_length(2 z_max)."""
    return (2 * _statement(name).bounds[-1]).bit_length()


def bits_of(name: str) -> int:
    """Bits of a whole network."""
    shapes = _quantised(name).shapes
    return sum(shape.outputs * (shape.inputs * (shape.b + 1) + shape.b_bias + 1) for shape in shapes)


def joint_sizes() -> str:
    """What a network of ordinary width takes."""
    rows = []
    full = PATIENTS_PER_PROOF
    for name in NETWORKS:
        shapes = _quantised(name).shapes
        circuit = Circuit.of(_schema(), shapes, PARAMS.input_scale_bits)
        bounds = _statement(name).bounds
        rows.append(
            [
                name,
                ", ".join(f"2^{log2(bound):.1f}" for bound in bounds),
                ", ".join(map(str, circuit.word_sizes)) or "none",
                f"{circuit.system.local_size:,} + {circuit.system.common_size:,}",
                f"{proof_size(circuit, 1):,}",
                f"{proof_size(circuit, full) / full:,.0f}",
                f"{network_certificate_size(_statement(name)):,}",
            ]
        )
    widths = [k + 1 for k in feature_bits(_schema(), PARAMS.input_scale_bits)]
    tag = len(b"sealproof/records-certificate/v1\n")
    records = tag + POINT_BYTES * full + encoded_size((FEATURES, sum(widths)), (), full)
    header = ["network", "B_l", "n", "coordinates", "proof, 1 patient", f"a patient of {full}", "network certificate"]
    return (
        f"{table(header, rows)}\n\nDefault scales, {FEATURES} features in `unit` encoding; coordinates are those of a "
        f"patient and those that all share; sizes are bytes. The certificate of a batch of {full} records has "
        f"{records:,} bytes, {records / full:,.0f} a patient; beside it stand {POINT_BYTES} bytes a patient of C_x."
    )


def joint_exposure() -> str:
    """Bits of an exact answer against the bits of a network."""
    rows = [
        [name, f"{bits_of(name):,}", str(answer_bits(name)), str(ceil(bits_of(name) / answer_bits(name)))]
        for name in NETWORKS
    ]
    return table(["network, 30 features", "bits of it", "bits an answer", "answers that count as all of it"], rows)


PARTS: Mapping[str, Callable[[], str]] = {"joint-sizes": joint_sizes, "joint-exposure": joint_exposure}
