"""Networks of up to three dense layers with ReLU between them, in terms of raw features (docs/spec/protocol.md, 7).

A linear model is a network of one layer. Whatever preprocessing a network was trained with is folded into its layers
here, so that it stays as secret as they are. How many layers there are and how wide they are is public; weights and
biases are secret, and `repr` never shows them.

scikit-learn and torch are imported only by the function that reads their objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import UsageError
from privacy.models.linear import (
    MAX_OUTPUTS,
    LinearModel,
    Link,
    apply_link,
    check_names,
    default_output_names,
    fold_sklearn_steps,
    frozen_copy,
    sklearn_steps,
    torch_affine,
    torch_layers,
)
from privacy.models.schema import Schema

__all__ = [
    "MAX_HIDDEN",
    "MAX_LAYERS",
    "MAX_NEURONS",
    "Dense",
    "Network",
    "from_sklearn_network",
    "from_torch_network",
    "network_of",
]

Float64 = NDArray[np.float64]

MAX_LAYERS = 3
MAX_HIDDEN = 256
"""Neurons of a hidden layer, at most."""
MAX_NEURONS = 512
"""Neurons of all layers together, outputs included, at most."""

_SUPPORTED_TORCH = (
    "nn.Linear, nn.ReLU, nn.Identity, nn.BatchNorm1d and nn.Dropout in evaluation mode, and nn.Sequential of these"
)
_SUPPORTED_SKLEARN = (
    "MLPClassifier and MLPRegressor with activation 'relu', alone or as the last step of a Pipeline after "
    "StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler"
)


@dataclass(frozen=True, eq=False)
class Dense:
    """One affine layer: weights @ a + bias, a what arrives from the layer before.

    `weights` float64 (outputs, inputs) and `bias` float64 (outputs,) are copied and made read-only. Raises UsageError
    when the shapes do not fit together or a number is not finite.
    """

    weights: Float64 = field(repr=False)
    bias: Float64 = field(repr=False)

    def __post_init__(self) -> None:
        weights = frozen_copy("weights of a layer", self.weights)
        bias = frozen_copy("bias of a layer", self.bias)
        if weights.ndim != 2 or not weights.size:
            raise UsageError(f"weights of a layer have shape {weights.shape}, expected (outputs, inputs)")
        if bias.shape != weights.shape[:1]:
            raise UsageError(f"bias of a layer has shape {bias.shape}, expected ({len(weights)},)")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", bias)

    @property
    def inputs(self) -> int:
        """How many numbers arrive."""
        return int(self.weights.shape[1])

    @property
    def outputs(self) -> int:
        """How many numbers leave: the neurons of the layer."""
        return len(self.weights)


@dataclass(frozen=True, eq=False)
class Network:
    """Dense layers with ReLU between them, none after the last, on records in the schema's raw units and order.

    Raises UsageError unless there are one to three layers that fit together and to the schema, hidden layers of at
    most 256 neurons, 1 to 256 outputs and at most 512 neurons in all, and names and a link that fit the outputs.
    """

    name: str
    layers: tuple[Dense, ...]
    output_names: tuple[str, ...]
    link: Link
    schema: Schema = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "output_names", tuple(self.output_names))
        if not 1 <= len(self.layers) <= MAX_LAYERS:
            raise UsageError(f"a network has 1 to {MAX_LAYERS} layers, this one has {len(self.layers)}")
        width = self.schema.d
        for number, layer in enumerate(self.layers, start=1):
            if layer.inputs != width:
                raise UsageError(
                    f"layer {number} takes {layer.inputs} numbers, {width} arrive"
                    + (f" (schema {self.schema.name!r})" if number == 1 else "")
                )
            width = layer.outputs
        if width > MAX_OUTPUTS:
            raise UsageError(f"a model has 1 to {MAX_OUTPUTS} outputs, this one has {width}")
        widest = max((layer.outputs for layer in self.layers[:-1]), default=0)
        if widest > MAX_HIDDEN:
            raise UsageError(f"a hidden layer has at most {MAX_HIDDEN} neurons, this network has one of {widest}")
        neurons = sum(layer.outputs for layer in self.layers)
        if neurons > MAX_NEURONS:
            raise UsageError(f"a network has at most {MAX_NEURONS} neurons in all, this one has {neurons}")
        check_names(self.name, self.output_names, width, self.link)

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.output_names)

    def predict_raw(self, values: ArrayLike) -> Float64:
        """Raw answers in float64, shape (patients, outputs), of records in raw units, shape (patients, d).

        The reference that attested answers are compared with. Raises UsageError for values outside the schema.
        """
        a = self.schema.validate(values)
        for layer in self.layers[:-1]:
            a = np.maximum(a @ layer.weights.T + layer.bias, 0.0)
        return np.asarray(a @ self.layers[-1].weights.T + self.layers[-1].bias, dtype=np.float64)

    def predict(self, values: ArrayLike) -> Float64:
        """`predict_raw` read through the link: probabilities, or the raw answers when the link has none."""
        return apply_link(self.link, self.predict_raw(values))


def network_of(model: LinearModel | Network) -> Network:
    """The network of one layer that computes exactly what a linear model computes; a network is one already."""
    if isinstance(model, Network):
        return model
    layers = (Dense(model.weights, model.bias),)
    return Network(model.name, layers, model.output_names, model.link, model.schema)


# --- torch --------------------------------------------------------------------------------------------------------


def from_torch_network(
    module: object, schema: Schema, *, link: Link, name: str | None = None, output_names: Sequence[str] | None = None
) -> Network:
    """The network that a torch module computes, what is affine between two ReLUs composed in float64.

    `module` is nn.Linear, or nn.Sequential of nn.Linear, nn.ReLU, nn.Identity, and nn.BatchNorm1d and nn.Dropout in
    evaluation mode. A final Sigmoid or Softmax is left out by the caller and said by `link`. `output_names` default to
    y, y0, y1, ...

    Raises UsageError for anything else, hooks included, and MissingDependency without torch.
    """
    layers: list[Dense] = []
    affine: tuple[Float64, Float64] | None = None
    width = schema.d
    # The type of every layer is exactly one of torch's own here: a name says all.
    for layer in torch_layers(module, also=("ReLU", "Dropout"), supported=_SUPPORTED_TORCH):
        kind = type(layer).__name__
        if kind == "Dropout":
            if layer.training:
                raise UsageError("Dropout drops numbers at random in training mode: call eval()")
        elif kind == "ReLU":
            if affine is None:
                raise UsageError("ReLU must follow an affine layer, with no other ReLU between")
            layers.append(Dense(*affine))
            affine = None
        elif kind != "Identity":
            matrix, offset = torch_affine(layer, width)
            affine = (matrix, offset) if affine is None else (matrix @ affine[0], matrix @ affine[1] + offset)
            width = len(matrix)
    if affine is None:
        raise UsageError("a network ends with an affine layer, not with ReLU" if layers else "the module has no layer")
    layers.append(Dense(*affine))
    return Network(
        name=name if name is not None else f"{schema.name}-{type(module).__name__}",
        layers=tuple(layers),
        output_names=default_output_names(width) if output_names is None else tuple(output_names),
        link=link,
        schema=schema,
    )


# --- scikit-learn -------------------------------------------------------------------------------------------------


def from_sklearn_network(
    estimator: object, schema: Schema, *, name: str | None = None, output_names: Sequence[str] | None = None
) -> Network:
    """The network that a fitted scikit-learn estimator computes, its scalers folded into the first layer.

    `estimator` is exactly MLPClassifier or MLPRegressor with activation 'relu', or a Pipeline that ends in one after
    scalers that act on each feature alone. Columns and names are as in `from_sklearn`; raw answers of a classifier are
    log-odds.

    Raises UsageError for anything else (subclasses too, as they may compute something different), and
    MissingDependency without scikit-learn.
    """
    steps = list(sklearn_steps(estimator, _SUPPORTED_SKLEARN))
    last = steps[-1]
    matrices, biases, link, default_names = _sklearn_network(last)
    matrices[0], biases[0] = fold_sklearn_steps(steps, matrices[0], biases[0], schema)
    return Network(
        name=name if name is not None else f"{schema.name}-{type(last).__name__}",
        layers=tuple(map(Dense, matrices, biases)),
        output_names=default_names if output_names is None else tuple(output_names),
        link=link,
        schema=schema,
    )


def _sklearn_network(estimator: Any) -> tuple[list[Float64], list[Float64], Link, tuple[str, ...]]:
    """(weights (outputs, inputs) and bias (outputs,) of each layer, link, output names) of a fitted estimator."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = type(estimator)
    if kind not in (MLPClassifier, MLPRegressor):
        raise UsageError(f"{kind.__module__}.{kind.__name__} is not supported; supported: {_SUPPORTED_SKLEARN}")
    if not hasattr(estimator, "coefs_"):
        raise UsageError(f"{kind.__name__} is not fitted: call fit first")
    if estimator.activation != "relu":
        raise UsageError(f"{kind.__name__}(activation={estimator.activation!r}): train it with activation='relu'")
    matrices = [np.array(matrix, dtype=np.float64).T for matrix in estimator.coefs_]
    biases = [np.array(bias, dtype=np.float64) for bias in estimator.intercepts_]
    links: dict[str, Link] = {"identity": "identity", "logistic": "logit", "softmax": "softmax"}
    if estimator.out_activation_ not in links:
        raise UsageError(f"{kind.__name__}: output activation {estimator.out_activation_!r} is not supported")
    outputs = len(biases[-1])
    if kind is MLPRegressor:
        names = default_output_names(outputs)
    else:
        classes = [str(label) for label in estimator.classes_]
        names = (classes[1],) if outputs == 1 else tuple(classes)
    return matrices, biases, links[estimator.out_activation_], names
