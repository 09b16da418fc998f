"""Linear models of one or several outputs, in terms of raw features (docs/spec/protocol.md, sections 2 and 3).

Whatever preprocessing a model was trained with is folded into its weights here, so that it stays as secret as they are
and the public schema is all that a clinic needs to know. The weights and the bias are secret: `repr` never shows them.

scikit-learn and torch are imported only by the function that reads their objects.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privacy.errors import MissingDependency, UsageError
from privacy.models.schema import Schema

__all__ = [
    "MAX_OUTPUTS",
    "LinearModel",
    "Link",
    "apply_link",
    "from_sklearn",
    "from_torch",
    "logit",
    "raw_threshold",
    "sigmoid",
    "softmax",
]

Link = Literal["identity", "logit", "softmax", "margin"]
"""How raw answers are read: `identity` the prediction itself, `logit` and `softmax` the log-odds of probabilities,
`margin` a signed score without a probability."""

Float64 = NDArray[np.float64]

MAX_OUTPUTS = 256

_SUPPORTED_SKLEARN = (
    "LogisticRegression, LinearRegression, Ridge, LinearSVC, SGDClassifier, SGDRegressor, alone or as the last step "
    "of a Pipeline after StandardScaler, MinMaxScaler, MaxAbsScaler or RobustScaler"
)
_SUPPORTED_TORCH = "nn.Linear, nn.Identity, nn.BatchNorm1d in evaluation mode, and nn.Sequential of these"


@dataclass(frozen=True, eq=False)
class LinearModel:
    """answers = weights @ x + bias, x a record in the schema's raw units and order.

    `weights` float64 (outputs, d) and `bias` float64 (outputs,) are copied and made read-only. Raises UsageError when
    shapes, names, link or schema do not fit together or a number is not finite.
    """

    name: str
    weights: Float64 = field(repr=False)
    bias: Float64 = field(repr=False)
    output_names: tuple[str, ...]
    link: Link
    schema: Schema = field(repr=False)

    def __post_init__(self) -> None:
        weights = frozen_copy("weights", self.weights)
        bias = frozen_copy("bias", self.bias)
        if weights.ndim != 2 or weights.shape[1] != self.schema.d:
            raise UsageError(
                f"weights have shape {weights.shape}, expected (outputs, {self.schema.d}) for schema "
                f"{self.schema.name!r}"
            )
        outputs = len(weights)
        if not 1 <= outputs <= MAX_OUTPUTS:
            raise UsageError(f"a model has 1 to {MAX_OUTPUTS} outputs, this one has {outputs}")
        if bias.shape != (outputs,):
            raise UsageError(f"bias has shape {bias.shape}, expected ({outputs},)")
        names = tuple(self.output_names)
        check_names(self.name, names, outputs, self.link)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", bias)
        object.__setattr__(self, "output_names", names)

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.output_names)

    def predict_raw(self, values: ArrayLike) -> Float64:
        """Raw answers in float64, shape (patients, outputs), of records in raw units, shape (patients, d).

        The reference that attested answers are compared with: scikit-learn's decision_function of a classifier,
        predict of a regression. Raises UsageError for values outside the schema.
        """
        return np.asarray(self.schema.validate(values) @ self.weights.T + self.bias, dtype=np.float64)

    def predict(self, values: ArrayLike) -> Float64:
        """`predict_raw` read through the link: probabilities, or the raw answers when the link has none."""
        return apply_link(self.link, self.predict_raw(values))


def check_names(name: str, output_names: Sequence[str], outputs: int, link: str) -> None:
    """Raises UsageError unless a model of `outputs` outputs can be called so and its answers can be read so."""
    if len(output_names) != outputs or len(set(output_names)) != outputs:
        raise UsageError(f"expected {outputs} different output names, got {tuple(output_names)!r}")
    for text in (name, *output_names):
        if not isinstance(text, str) or not 1 <= len(text) <= 200 or text != text.strip() or not text.isprintable():
            raise UsageError(f"name {text!r} must be 1 to 200 printable characters, no space at either end")
    if link not in get_args(Link):
        raise UsageError(f"link {link!r} is not one of {', '.join(get_args(Link))}")
    if link == "softmax" and outputs < 2:
        raise UsageError("softmax needs two outputs or more; a single output of log-odds has the link 'logit'")


def default_output_names(outputs: int) -> tuple[str, ...]:
    """y, or y0, y1, ..."""
    return ("y",) if outputs == 1 else tuple(f"y{k}" for k in range(outputs))


# --- reading answers ----------------------------------------------------------------------------------------------


def sigmoid(raw: ArrayLike) -> Float64:
    """1 / (1 + exp(-raw)), without overflow."""
    values = np.asarray(raw, dtype=np.float64)
    small = np.exp(-np.abs(values))
    return np.where(values >= 0, 1.0, small) / (1.0 + small)


def logit(probability: float) -> float:
    """log(p / (1 - p)), the inverse of `sigmoid`. Raises UsageError unless 0 < p < 1."""
    if not 0 < probability < 1:
        raise UsageError(f"probability {probability!r} is not between 0 and 1, both excluded")
    return math.log(probability) - math.log1p(-probability)


def softmax(raw: ArrayLike) -> Float64:
    """exp(raw) normalised over the last axis, without overflow."""
    values = np.asarray(raw, dtype=np.float64)
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float64)


def apply_link(link: Link, raw: ArrayLike) -> Float64:
    """Raw answers (..., outputs) to what a person reads: probabilities for `logit` and `softmax`, else unchanged."""
    if link == "logit":
        return sigmoid(raw)
    if link == "softmax":
        return softmax(raw)
    return np.array(raw, dtype=np.float64)


def raw_threshold(link: Link, threshold: float, grid_bits: int) -> int:
    """The public grid point t = n * 2^-grid_bits that "score >= threshold" becomes on the raw answer; returns n.

    `threshold` is a probability for `logit`, a raw answer for `identity` and `margin`. Rounded up, so that
    raw >= t implies what was asked (docs/spec/protocol.md, section 6). Raises UsageError for `softmax`, whose
    probabilities are not a function of one raw answer, and for a threshold that is not finite or no probability.
    """
    if link == "softmax":
        raise UsageError("a softmax probability depends on all outputs: no threshold on a single raw answer states it")
    raw = logit(threshold) if link == "logit" else float(threshold)
    if not math.isfinite(raw):
        raise UsageError(f"threshold {threshold!r} is not finite")
    return math.ceil(Fraction(raw) * (1 << grid_bits))


# --- scikit-learn -------------------------------------------------------------------------------------------------


def from_sklearn(
    estimator: object, schema: Schema, *, name: str | None = None, output_names: Sequence[str] | None = None
) -> LinearModel:
    """The linear model that a fitted scikit-learn estimator computes, its scalers folded into the weights.

    `estimator` is exactly one of LogisticRegression, LinearRegression, Ridge, LinearSVC, SGDClassifier, SGDRegressor,
    or a Pipeline that ends in one after scalers that act on each feature alone. It was trained on columns in the
    schema's order, or on named columns that are a permutation of the schema's. `output_names` default to the class
    names (for two classes: the positive one) or to y, y0, y1, ...

    Raises UsageError for anything else (subclasses too, as they may compute something different), and
    MissingDependency without scikit-learn.
    """
    steps = list(sklearn_steps(estimator))
    last = steps[-1]
    weights, bias, link, default_names = _sklearn_estimator(last)
    weights, bias = fold_sklearn_steps(steps, weights, bias, schema)
    return LinearModel(
        name=name if name is not None else f"{schema.name}-{type(last).__name__}",
        weights=weights,
        bias=bias,
        output_names=default_names if output_names is None else tuple(output_names),
        link=link,
        schema=schema,
    )


def sklearn_steps(estimator: Any, supported: str = _SUPPORTED_SKLEARN) -> Iterator[Any]:
    """The steps of a Pipeline that do something, in order, or the estimator itself."""
    try:
        from sklearn.pipeline import Pipeline
    except ImportError as error:
        raise MissingDependency("scikit-learn", "models") from error
    if type(estimator) is not Pipeline:
        yield estimator
        return
    for position, (_, step) in enumerate(estimator.steps):
        if step is None or step == "passthrough":
            if position == len(estimator.steps) - 1:
                raise UsageError(f"the Pipeline ends without an estimator; supported: {supported}")
            continue
        yield step


def fold_sklearn_steps(
    steps: Sequence[Any], weights: Float64, bias: Float64, schema: Schema
) -> tuple[Float64, Float64]:
    """`weights` and `bias` of the last step's affine map, in terms of the schema's raw features in its order."""
    scalers = [_sklearn_scaler(step, schema) for step in steps[:-1]]
    _check_width(steps[-1], weights.shape[1], schema)
    # x -> a*x + c in front of (w, b) gives (w*a, b + w.c), from the last scaler back to the first.
    for scale, shift in reversed(scalers):
        bias = np.array([math.fsum([b, *(w * shift)]) for w, b in zip(weights, bias, strict=True)])
        weights = weights * scale
    return weights[:, _sklearn_order(steps[0], schema)], bias


def _sklearn_estimator(estimator: Any) -> tuple[Float64, Float64, Link, tuple[str, ...]]:
    """(weights (outputs, d), bias (outputs,), link, output names) of a fitted estimator."""
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier, SGDRegressor
    from sklearn.svm import LinearSVC

    kind = type(estimator)
    if kind not in (LinearRegression, LogisticRegression, Ridge, SGDClassifier, SGDRegressor, LinearSVC):
        raise UsageError(f"{kind.__module__}.{kind.__name__} is not supported; supported: {_SUPPORTED_SKLEARN}")
    if not hasattr(estimator, "coef_"):
        raise UsageError(f"{kind.__name__} is not fitted: call fit first")
    coefficients = estimator.coef_
    dense = coefficients.toarray() if hasattr(coefficients, "toarray") else coefficients
    weights = np.atleast_2d(np.asarray(dense, dtype=np.float64))
    outputs = len(weights)
    intercept = np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1)
    bias = np.array(np.broadcast_to(intercept, (outputs,)))  # fit_intercept=False leaves a single 0
    link: Link
    if not hasattr(estimator, "classes_"):
        return weights, bias, "identity", default_output_names(outputs)
    classes = [str(label) for label in estimator.classes_]
    names = (classes[1],) if outputs == 1 else tuple(classes)
    if kind is LogisticRegression:
        link = _logistic_link(estimator, outputs)
    elif kind is SGDClassifier and estimator.loss == "log_loss" and outputs == 1:
        link = "logit"
    else:
        # One-versus-rest scores of several classes have no probability that is a function of the link alone.
        link = "margin"
    return weights, bias, link, names


def _logistic_link(estimator: Any, outputs: int) -> Link:
    # Older releases also train one-versus-rest for several classes, and a two-class softmax whose log-odds are twice
    # the decision function: neither is what the links below mean.
    scheme = getattr(estimator, "multi_class", "auto")
    if outputs == 1:
        if scheme == "multinomial":
            raise UsageError(
                "LogisticRegression(multi_class='multinomial') on two classes: train it without multi_class"
            )
        return "logit"
    if scheme == "ovr" or estimator.solver == "liblinear":
        raise UsageError(
            "one-versus-rest LogisticRegression of several classes: train it as multinomial (solver 'lbfgs')"
        )
    return "softmax"


def _check_width(step: Any, width: int, schema: Schema) -> None:
    if width != schema.d:
        raise UsageError(f"{type(step).__name__} has {width} features, schema {schema.name!r} has {schema.d}")


def _sklearn_scaler(step: Any, schema: Schema) -> tuple[Float64, Float64]:
    """(scale, shift), both (d,): what a fitted scaler computes is x * scale + shift."""
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

    kind = type(step)
    if kind not in (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler):
        raise UsageError(f"step {kind.__name__} cannot be folded into weights; supported: {_SUPPORTED_SKLEARN}")
    if not hasattr(step, "n_features_in_"):
        raise UsageError(f"{kind.__name__} is not fitted: call fit first")
    _check_width(step, step.n_features_in_, schema)
    if getattr(step, "clip", False):
        raise UsageError(
            f"{kind.__name__}(clip=True) is not affine; use clip=False: the schema's ranges bound the values"
        )
    if kind is MinMaxScaler:
        scale, shift = step.scale_, step.min_
    else:
        center: Any = 0.0
        if kind is StandardScaler and step.with_mean:
            center = step.mean_
        elif kind is RobustScaler and step.with_centering:
            center = step.center_
        scale = 1.0 / np.asarray(1.0 if step.scale_ is None else step.scale_, dtype=np.float64)
        shift = -np.asarray(center, dtype=np.float64) * scale
    return (
        np.array(np.broadcast_to(np.asarray(scale, dtype=np.float64), (schema.d,))),
        np.array(np.broadcast_to(np.asarray(shift, dtype=np.float64), (schema.d,))),
    )


def _sklearn_order(first: Any, schema: Schema) -> list[int]:
    """For each schema feature, the estimator's column that is called so; columns without names are in order."""
    trained = getattr(first, "feature_names_in_", None)
    if trained is None:
        return list(range(schema.d))
    columns = {str(column): i for i, column in enumerate(trained)}
    missing = [name for name in schema.names if name not in columns]
    if missing or len(columns) != schema.d:
        raise UsageError(
            f"the estimator was trained on columns {sorted(columns)[:8]}..., schema {schema.name!r} names others: "
            f"{missing[:8]}"
        )
    return [columns[name] for name in schema.names]


# --- torch --------------------------------------------------------------------------------------------------------


def from_torch(
    module: object, schema: Schema, *, link: Link, name: str | None = None, output_names: Sequence[str] | None = None
) -> LinearModel:
    """The affine map that a torch module computes, composed in float64.

    `module` is nn.Linear, or nn.Sequential of nn.Linear, nn.Identity and nn.BatchNorm1d in evaluation mode. A final
    Sigmoid or Softmax is left out by the caller and said by `link`. `output_names` default to y, y0, y1, ...

    Raises UsageError for anything else, hooks included, and MissingDependency without torch.
    """
    weights, bias = np.eye(schema.d), np.zeros(schema.d)
    for layer in torch_layers(module):
        matrix, offset = torch_affine(layer, len(weights))
        weights, bias = matrix @ weights, matrix @ bias + offset
    names = default_output_names(len(weights))
    return LinearModel(
        name=name if name is not None else f"{schema.name}-{type(module).__name__}",
        weights=weights,
        bias=bias,
        output_names=names if output_names is None else tuple(output_names),
        link=link,
        schema=schema,
    )


def torch_layers(module: Any, also: Sequence[str] = (), supported: str = _SUPPORTED_TORCH) -> Iterator[Any]:
    """The layers of a module in the order in which they act, each of exactly an affine type or one of nn's `also`."""
    try:
        from torch import nn
    except ImportError as error:
        raise MissingDependency("torch", "torch") from error
    kind = type(module)
    others = tuple(getattr(nn, name) for name in also)
    if kind not in (nn.Linear, nn.Identity, nn.BatchNorm1d, nn.Sequential, *others):
        hint = "; leave it out and pass link='logit' or 'softmax'" if kind in (nn.Sigmoid, nn.Softmax) else ""
        raise UsageError(
            f"{kind.__module__}.{kind.__name__} is not affine or not supported{hint}; supported: {supported}"
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise UsageError(f"{kind.__name__} has forward hooks, which may change what it computes: remove them")
    if "forward" in vars(module):
        raise UsageError(f"{kind.__name__} has a forward of its own, which may compute something else: remove it")
    if kind is nn.Sequential:
        for child in module:
            yield from torch_layers(child, also, supported)
    else:
        yield module


def torch_affine(layer: Any, width: int) -> tuple[Float64, Float64]:
    """(matrix, offset) of one layer that takes `width` numbers."""
    from torch import nn

    def double(tensor: Any, default: float, shape: int) -> Float64:
        if tensor is None:
            return np.full(shape, default)
        return np.array(tensor.detach().cpu().double().numpy(), dtype=np.float64)

    if type(layer) is nn.Identity:
        return np.eye(width), np.zeros(width)
    expected = layer.in_features if type(layer) is nn.Linear else layer.num_features
    if expected != width:
        raise UsageError(f"{type(layer).__name__} takes {expected} numbers, {width} arrive")
    if type(layer) is nn.Linear:
        return double(layer.weight, 0.0, 0), double(layer.bias, 0.0, layer.out_features)
    if layer.training or layer.running_mean is None:
        raise UsageError("BatchNorm1d uses the statistics of the batch: call eval(), with track_running_stats=True")
    scale = double(layer.weight, 1.0, width) / np.sqrt(double(layer.running_var, 1.0, width) + layer.eps)
    return np.diag(scale), double(layer.bias, 0.0, width) - scale * double(layer.running_mean, 0.0, width)


def frozen_copy(what: str, values: ArrayLike) -> Float64:
    """`values` as a read-only float64 array of its own. Raises UsageError unless they are finite numbers."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what} are not numbers: {error}") from error
    if not np.isfinite(array).all():
        raise UsageError(f"{what} contain a number that is not finite")
    array.flags.writeable = False
    return array
