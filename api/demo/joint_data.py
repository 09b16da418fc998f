"""What clinic and owner compute together in the demonstration: held-out patients, a linear model and a small network.

The patients are some of those that the models of `api.demo.data` were not trained on. Networks are trained here, with
torch in double precision and from fixed seeds, in about a second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from api.demo.data import Study, studies
from privacy.models.linear import LinearModel
from privacy.models.network import Network, from_torch_network, network_of
from privacy.models.network_quantise import QuantisedNetwork, quantise_network
from privacy.mpc.params import mpc_parameters

__all__ = ["HIDDEN", "PATIENTS", "JointModel", "JointStudy", "joint_studies"]

PATIENTS: Final = 64
"""One proof's worth."""
HIDDEN: Final = 16

_SEED: Final = 7
_RATE: Final = 0.01
_TRAINING: Final = {"breast-cancer": (200, 1.0), "diabetes": (100, 2.0)}
"""Rounds, and how strongly weights are held small."""

Plain = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Raw records to raw answers, in float64, for a network by torch itself: (patients, d) to (patients, outputs)."""

_Bits = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class JointModel:
    """One model: the float one that the owner has, how it is quantised, and `plain`, which evaluates it.

    `scale_bits`, `range_bits` and `bias_bits`, one number a layer, are public, and chosen from what such models look
    like, not from these weights (`privacy.models.network_quantise.quantise_network`).
    """

    label: str
    model: LinearModel | Network
    scale_bits: tuple[int, ...]
    range_bits: tuple[int, ...]
    bias_bits: tuple[int, ...]
    plain: Plain

    @cached_property
    def quantised(self) -> QuantisedNetwork:
        """The integers that are committed: the reference that answers must equal exactly."""
        return quantise_network(
            network_of(self.model),
            mpc_parameters("mpc-64").input_scale_bits,
            weight_scale_bits=self.scale_bits,
            weight_range_bits=self.range_bits,
            bias_range_bits=self.bias_bits,
        )


@dataclass(frozen=True, eq=False)
class JointStudy:
    """A study restricted to patients that were not trained on, and the models that score them."""

    study: Study
    models: tuple[JointModel, ...]


def joint_studies() -> list[JointStudy]:
    """breast_cancer and diabetes, each with its linear model and a network of one hidden layer."""
    breast_cancer, diabetes = studies()
    return [
        _joint(breast_cancer, ((16,), (3,), (8,)), ((13, 18), (3, 0), (8, 8))),
        _joint(diabetes, ((16,), (9,), (10,)), ((14, 12), (2, 6), (8, 10))),
    ]


def _joint(study: Study, linear: _Bits, relu: _Bits) -> JointStudy:
    named = replace(study.model, name=f"{study.name}-mpc-linear")
    network, plain = _train(study)
    models = (
        JointModel("linear model", named, *linear, plain=named.predict_raw),
        JointModel(f"network {study.schema.d}-{HIDDEN}-1", network, *relu, plain=plain),
    )
    chosen = np.sort(study.held_out[:PATIENTS])
    cohort = study.schema.cohort(study.cohort.values[chosen], [study.cohort.ids[i] for i in chosen])
    few = replace(study, cohort=cohort, truth=study.truth[chosen], held_out=np.arange(len(chosen), dtype=np.int64))
    return JointStudy(few, models)


def _train(study: Study) -> tuple[Network, Plain]:
    """Linear, ReLU, linear, trained on the patients that the study's own model was trained on; and as torch has it."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(_SEED)
    training = np.setdiff1d(np.arange(len(study.truth)), study.held_out)
    values, truth = _tensors(study, training)
    width = study.schema.d
    scaler = torch.nn.BatchNorm1d(width, affine=False, eps=0.0).double()
    scaler.running_mean, scaler.running_var = values.mean(0), values.var(0, correction=0)
    scaler.eval()
    center, spread = (0.0, 1.0) if study.classifies else (float(truth.mean()), float(truth.std()))
    inputs, targets = scaler(values), (truth - center) / spread
    layers = torch.nn.Sequential(torch.nn.Linear(width, HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)).double()
    functional = torch.nn.functional
    loss_of = functional.binary_cross_entropy_with_logits if study.classifies else functional.mse_loss
    rounds, decay = _TRAINING[study.name]
    optimiser = torch.optim.AdamW(layers.parameters(), lr=_RATE, weight_decay=decay)
    for _ in range(rounds):
        optimiser.zero_grad()
        loss_of(layers(inputs)[:, 0], targets).backward()
        optimiser.step()
    # Answers in the units of the study; what is affine on either side is folded into the layers when it is read.
    units = torch.nn.Linear(1, 1).double()
    with torch.no_grad():
        units.weight.fill_(spread)
        units.bias.fill_(center)
    module = torch.nn.Sequential(scaler, *layers, units).eval()
    network = from_torch_network(
        module,
        study.schema,
        link=study.model.link,
        name=f"{study.name}-mpc-relu",
        output_names=study.model.output_names,
    )

    def plain(values: NDArray[np.float64]) -> NDArray[np.float64]:
        with torch.no_grad():
            return np.asarray(module(torch.tensor(values, dtype=torch.float64)).numpy())

    return network, plain


def _tensors(study: Study, patients: NDArray[np.int64]) -> tuple[Any, Any]:
    import torch

    return (
        torch.tensor(study.cohort.values[patients], dtype=torch.float64),
        torch.tensor(study.truth[patients], dtype=torch.float64),
    )
