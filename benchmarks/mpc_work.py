"""The work of two-party computation that is measured: real patients, two models, and what each party knows of them.

Patients are those of scikit-learn's breast_cancer (569 x 30), models a logistic regression (`linear`) and a network of
16 ReLU neurons (`relu`), trained on 70% of them with fixed seeds and quantised, committed and named as the product
does it. References and digests of ledger entries are made up: nothing that is measured depends on their values.

`prepare` writes a folder that the processes of the parties take up: `public.pickle`, `A.pickle` and `B.pickle` with
each node's secrets, and `float.npz` with the same model and records for CrypTen alone. The folder is temporary.
"""

from __future__ import annotations

import pickle
import secrets
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from api.binding import Located
from api.demo.data import Study, studies
from api.entries import CommittedRecords, Network, Party, Policy, Reference, encode_point_list
from api.joint_binding import network_entry
from api.mpc.session import Terms
from privacy.models.network import Network as FloatNetwork
from privacy.models.network import from_sklearn_network, network_of
from privacy.models.network_certificate import NetworkStatement, RowOpening, commit_network, network_statement
from privacy.models.network_quantise import QuantisedNetwork, quantise_network, reference_network
from privacy.mpc.joint_prover import Row
from privacy.mpc.params import batches, mpc_parameters
from privacy.mpc.records import CommittedRecord, commit_records

__all__ = ["SHAPES", "MpcWork", "Public", "Secret", "load", "study"]

SHAPES = ("linear", "relu")
PARAMETERS = mpc_parameters("mpc-64")
HEAD = (4, sha256(b"head").digest())
_SEED = 0
_HIDDEN, _QUICK_HIDDEN = 16, 3


def _named(name: str) -> bytes:
    """A 32-byte identifier, as on a ledger."""
    return sha256(name.encode()).digest()


@dataclass(frozen=True, eq=False)
class Public:
    """What everybody knows: the entries that a session is about, and what the network's certificate says."""

    terms: Terms
    network: NetworkStatement


@dataclass(frozen=True, eq=False)
class Secret:
    """What one node knows besides: its key, and the openings of the records (A) or of the rows (B)."""

    private_key: bytes
    peer_key: bytes
    openings: tuple[CommittedRecord, ...] | tuple[tuple[Row, ...], ...]


def load(folder: Path, name: str) -> Any:
    """What `prepare` left in the folder as NAME.pickle."""
    return pickle.loads((folder / f"{name}.pickle").read_bytes())


@lru_cache(maxsize=1)
def study() -> Study:
    """breast_cancer and its logistic regression, as the demo has them."""
    return studies()[0]


@lru_cache(maxsize=4)
def _network(shape: str, hidden: int) -> FloatNetwork:
    if shape == "linear":
        return network_of(study().model)
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = np.setdiff1d(np.arange(len(study().cohort)), study().held_out)
    classifier = MLPClassifier((hidden,), alpha=1.0, random_state=_SEED, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small network may stop before it has converged
        pipeline = make_pipeline(StandardScaler(), classifier).fit(study().cohort.values[train], study().truth[train])
    return from_sklearn_network(pipeline, study().schema, name="breast-cancer-relu", output_names=("malignant",))


@dataclass(frozen=True, eq=False)
class MpcWork:
    """One model on the first `count` patients. `quick`: a network of a few neurons."""

    folder: Path
    shape: str
    count: int
    quick: bool = False

    @cached_property
    def network(self) -> FloatNetwork:
        return _network(self.shape, _QUICK_HIDDEN if self.quick else _HIDDEN)

    @cached_property
    def quantised(self) -> QuantisedNetwork:
        return quantise_network(self.network, PARAMETERS.input_scale_bits)

    @property
    def widths(self) -> list[int]:
        """Features, neurons of the hidden layer, outputs."""
        return [self.network.schema.d, *(layer.outputs for layer in self.network.layers)]

    @property
    def records(self) -> NDArray[np.float64]:
        """The patients in raw units."""
        return study().cohort.values[: self.count]

    def expected(self) -> list[int]:
        """The exact integer answers."""
        return [z for patient in reference_network(self.quantised, self.records) for z in patient]

    def prepare(self) -> None:
        """Commit to records and network, and write what each process takes up."""
        self.folder.mkdir()
        schema, quantised = self.network.schema, self.quantised
        keys = {role: Ed25519PrivateKey.generate() for role in ("A", "B")}
        public_keys = {role: key.public_key().public_bytes_raw() for role, key in keys.items()}
        clinic = Party("clinic", "st-anna", public_keys["A"])
        owner = Party("owner", "heart-lab", public_keys["B"])
        layers, rows = commit_network(quantised)
        statement = network_statement(quantised, PARAMETERS, "1", layers)
        commitments, openings = commit_records(schema, PARAMETERS, self.records)
        records = CommittedRecords(
            clinic=clinic.name,
            parameter_set=PARAMETERS.name,
            schema=schema.digest(),
            d=schema.d,
            count=self.count,
            commitments=sha256(encode_point_list(commitments)).digest(),
            certificates=tuple(_named(f"records certificate {k}") for k in range(len(batches(self.count)))),
            handles=_named("handles"),
            policy=Policy("any", None),
        )
        model = network_entry(statement, _named("network certificate"), _named("artefact"), {})
        terms = Terms(
            job="benchmark",
            nonce=secrets.token_bytes(32),
            model=_located(2, model),
            records=_located(3, records),
            clinic=_located(0, clinic),
            owner=_located(1, owner),
            schema=schema,
            commitments=commitments,
            head=HEAD,
            dealer_key=_named("dealer"),
        )
        self._save("public", Public(terms, statement))
        self._save("A", Secret(keys["A"].private_bytes_raw(), public_keys["B"], openings))
        self._save("B", Secret(keys["B"].private_bytes_raw(), public_keys["A"], tuple(map(_rows, rows))))
        self._save_float()

    def _save(self, name: str, value: object) -> None:
        (self.folder / f"{name}.pickle").write_bytes(pickle.dumps(value))

    def _save_float(self) -> None:
        """The float model and the records in the schema's encoding, which keeps CrypTen's fixed point in its range."""
        schema = self.network.schema
        half_widths = np.array([feature.half_width for feature in schema.features])
        centers = np.array([feature.center for feature in schema.features])
        arrays = {"records": schema.encode(self.records)}
        for k, layer in enumerate(self.network.layers):
            first = k == 0
            arrays[f"W{k}"] = layer.weights * half_widths if first else layer.weights
            arrays[f"b{k}"] = layer.bias + layer.weights @ centers if first else layer.bias
        np.savez(self.folder / "float.npz", **arrays)


def _located(index: int, body: Party | Network | CommittedRecords) -> Located[Any]:
    return Located(Reference(index, _named(f"entry {index}")), body)


def _rows(layer: tuple[RowOpening, ...]) -> tuple[Row, ...]:
    return tuple(Row(row.weights, row.bias, row.rho) for row in layer)
