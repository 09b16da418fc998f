"""Networks: read from torch and scikit-learn as they compute, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from privacy.errors import UsageError
from privacy.models.linear import LinearModel
from privacy.models.network import (
    MAX_HIDDEN,
    MAX_NEURONS,
    Dense,
    Network,
    from_sklearn_network,
    from_torch_network,
    network_of,
)
from privacy.models.schema import Feature, Schema

PATIENTS = [[20, 100.0, 0], [44, 431.5, 1], [99, 20.0, 1], [63, 599.0, 0]]


def agrees(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.fixture
def small_network(small_schema: Schema) -> Network:
    hidden = Dense([[0.01, -0.02, 0.5], [0.05, 0.01, -1.0]], [0.1, -3.0])  # type: ignore[arg-type]
    last = Dense([[1.5, -0.5]], [0.25])  # type: ignore[arg-type]
    return Network("risk", (hidden, last), ("risk",), "logit", small_schema)


# --- torch --------------------------------------------------------------------------------------------------------


def test_a_perceptron_of_torch_computes_the_same_here(small_schema: Schema) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(4)
    module = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Sequential(nn.Linear(8, 5), nn.ReLU()), nn.Linear(5, 2))
    module.double()
    network = from_torch_network(module, small_schema, link="softmax", name="mlp", output_names=("no", "yes"))
    assert [(layer.inputs, layer.outputs) for layer in network.layers] == [(3, 8), (8, 5), (5, 2)]
    assert (network.name, network.outputs) == ("mlp", 2)
    raw = module(torch.tensor(PATIENTS, dtype=torch.float64))
    agrees(network.predict_raw(PATIENTS), raw.detach().numpy())
    agrees(network.predict(PATIENTS), raw.softmax(dim=1).detach().numpy())


def test_normalisation_dropout_and_layers_without_relu_between_are_folded(small_schema: Schema) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(5)
    module = nn.Sequential(
        nn.BatchNorm1d(3),
        nn.Linear(3, 6),
        nn.BatchNorm1d(6),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.BatchNorm1d(6, affine=False),
        nn.Linear(6, 4, bias=False),
        nn.Identity(),
        nn.Linear(4, 1),
    ).double()
    X = torch.tensor(PATIENTS, dtype=torch.float64)
    module(X)  # running statistics
    module.eval()
    network = from_torch_network(module, small_schema, link="logit")
    assert [(layer.inputs, layer.outputs) for layer in network.layers] == [(3, 6), (6, 1)]
    assert (network.name, network.output_names) == ("ward-Sequential", ("y",))
    agrees(network.predict_raw(PATIENTS), module(X).detach().numpy())
    agrees(network.predict(PATIENTS), module(X).sigmoid().detach().numpy())


def test_weights_in_single_precision_are_read_exactly(small_schema: Schema) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    network = from_torch_network(module, small_schema, link="identity")
    assert network.layers[0].weights.tolist() == module[0].weight.detach().tolist()
    assert network.layers[1].bias.tolist() == module[2].bias.detach().tolist()


def test_a_single_affine_layer_of_torch_is_a_network(small_schema: Schema) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2).double()
    network = from_torch_network(layer, small_schema, link="margin")
    assert len(network.layers) == 1
    agrees(network.predict_raw(PATIENTS), layer(torch.tensor(PATIENTS, dtype=torch.float64)).detach().numpy())


def _torch_refusals() -> dict[str, tuple[Callable[[Any], Any], str]]:
    def hooked(nn: Any) -> Any:
        layer = nn.ReLU()
        layer.register_forward_hook(lambda module, args, output: output**2)
        return nn.Sequential(nn.Linear(3, 2), layer, nn.Linear(2, 1))

    def patched(nn: Any) -> Any:
        layer = nn.Linear(3, 1)
        layer.forward = lambda x: x**2
        return layer

    def subclassed(nn: Any) -> Any:
        return type("ReLU", (nn.ReLU,), {})()

    return {
        "hook": (hooked, "hooks"),
        "patched forward": (patched, "forward of its own"),
        "subclass": (lambda nn: nn.Sequential(nn.Linear(3, 2), subclassed(nn), nn.Linear(2, 1)), "ReLU is not affine"),
        "weight norm": (lambda nn: nn.utils.parametrizations.weight_norm(nn.Linear(3, 1)), "not supported"),
        "dropout": (lambda nn: nn.Sequential(nn.Linear(3, 2), nn.Dropout(), nn.ReLU(), nn.Linear(2, 1)), "call eval"),
        "batch norm": (lambda nn: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)), "call eval"),
        "tanh": (lambda nn: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)), "nn.ReLU, nn.Identity"),
        "leaky": (lambda nn: nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(), nn.Linear(2, 1)), "not supported"),
        "sigmoid": (lambda nn: nn.Sequential(nn.Linear(3, 1), nn.Sigmoid()), "pass link='logit'"),
        "relu last": (lambda nn: nn.Sequential(nn.Linear(3, 1), nn.ReLU()), "ends with an affine layer"),
        "relu first": (lambda nn: nn.Sequential(nn.ReLU(), nn.Linear(3, 1)), "must follow an affine layer"),
        "relu twice": (lambda nn: nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.ReLU()), "no other ReLU between"),
        "nothing": (lambda nn: nn.Sequential(nn.Identity()), "no layer"),
        "width": (lambda nn: nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(3, 1)), "takes 3 numbers, 2 arrive"),
        "features": (lambda nn: nn.Linear(4, 1), "takes 4 numbers, 3 arrive"),
        "four layers": (
            lambda nn: nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(3, 3), nn.ReLU())], nn.Linear(3, 1)),
            "1 to 3 layers, this one has 4",
        ),
        "no module": (lambda nn: None, "NoneType"),
    }


@pytest.mark.parametrize("what", _torch_refusals())
def test_a_torch_module_that_may_compute_something_else_is_refused(small_schema: Schema, what: str) -> None:
    torch = pytest.importorskip("torch")
    build, message = _torch_refusals()[what]
    with pytest.raises(UsageError, match=message):
        from_torch_network(build(torch.nn), small_schema, link="identity")


# --- scikit-learn -------------------------------------------------------------------------------------------------


def _perceptron(kind: str, **settings: Any) -> Any:
    networks = pytest.importorskip("sklearn.neural_network")
    # Stops after a few epochs, without a warning that it did not converge.
    return getattr(networks, kind)(random_state=0, tol=1e9, n_iter_no_change=3, **settings)


def test_a_classifier_of_several_classes_behind_scalers_is_read(multiclass: Any) -> None:
    pipeline = pytest.importorskip("sklearn.pipeline")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    fitted = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        preprocessing.MinMaxScaler((-1, 1)),
        _perceptron("MLPClassifier", hidden_layer_sizes=(7, 5)),
    ).fit(multiclass.X, multiclass.y)
    network = from_sklearn_network(fitted, multiclass.schema)
    assert (network.link, network.output_names) == ("softmax", ("0", "1", "2"))
    assert [layer.outputs for layer in network.layers] == [7, 5, 3]
    agrees(network.predict(multiclass.X), fitted.predict_proba(multiclass.X))


def test_a_classifier_of_two_classes_gives_log_odds(breast_cancer: Any) -> None:
    X, y = breast_cancer.X / 1000, breast_cancer.y
    schema = Schema.from_data("small", 1, [f"x{i}" for i in range(30)], X, margin=0.1)
    fitted = _perceptron("MLPClassifier", hidden_layer_sizes=(6,)).fit(X, y)
    network = from_sklearn_network(fitted, schema, name="bc")
    assert (network.name, network.link, network.output_names) == ("bc", "logit", ("1",))
    agrees(network.predict(X)[:, 0], fitted.predict_proba(X)[:, 1])


def test_a_regressor_of_two_values_is_read(diabetes: Any) -> None:
    y = np.stack([diabetes.y, -diabetes.y], axis=1)
    fitted = _perceptron("MLPRegressor", hidden_layer_sizes=(4,)).fit(diabetes.X, y)
    network = from_sklearn_network(fitted, diabetes.schema)
    assert (network.link, network.output_names) == ("identity", ("y0", "y1"))
    agrees(network.predict_raw(diabetes.X), fitted.predict(diabetes.X))


def test_columns_trained_in_another_order_are_put_in_the_order_of_the_schema() -> None:
    generator = np.random.default_rng(1)
    X = np.stack([generator.uniform(0, 1, 40), generator.uniform(5, 9, 40)], axis=1)
    fitted = _perceptron("MLPRegressor", hidden_layer_sizes=(4,)).fit(X, X[:, 1])
    predicted = fitted.predict(X)
    fitted.feature_names_in_ = np.array(["b", "a"], dtype=object)  # as fit does when given named columns
    schema = Schema("s", 1, (Feature("a", "1", 0, 10), Feature("b", "1", 0, 1)))
    agrees(from_sklearn_network(fitted, schema).predict_raw(X[:, ::-1])[:, 0], predicted)


def test_estimators_that_are_no_relu_networks_are_refused(diabetes: Any) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    networks = pytest.importorskip("sklearn.neural_network")
    tanh = _perceptron("MLPRegressor", hidden_layer_sizes=(2,), activation="tanh").fit(diabetes.X, diabetes.y)
    narrow = _perceptron("MLPRegressor", hidden_layer_sizes=(2,)).fit(diabetes.X[:, :9], diabetes.y)
    deep = _perceptron("MLPRegressor", hidden_layer_sizes=(2, 2, 2)).fit(diabetes.X, diabetes.y)
    subclass = type("Mine", (networks.MLPRegressor,), {})
    other = _perceptron("MLPRegressor", hidden_layer_sizes=(2,)).fit(diabetes.X, diabetes.y)
    other.out_activation_ = "exp"
    cases: list[tuple[Any, str]] = [
        (tanh, "activation='relu'"),
        (narrow, "9 features"),
        (deep, "this one has 4"),
        (other, "output activation 'exp'"),
        (networks.MLPRegressor(), "not fitted"),
        (subclass(), "not supported"),
        (linear_model.Ridge().fit(diabetes.X, diabetes.y), "MLPClassifier and MLPRegressor"),
    ]
    for estimator, message in cases:
        with pytest.raises(UsageError, match=message):
            from_sklearn_network(estimator, diabetes.schema)


# --- the network itself -------------------------------------------------------------------------------------------


def test_a_linear_model_is_a_network_of_one_layer(small_model: LinearModel) -> None:
    network = network_of(small_model)
    assert np.array_equal(network.predict_raw(PATIENTS), small_model.predict_raw(PATIENTS))
    assert np.array_equal(network.predict(PATIENTS), small_model.predict(PATIENTS))
    assert network_of(network) is network


def test_a_network_does_not_show_its_weights_and_cannot_be_changed(small_schema: Schema) -> None:
    weights, bias = np.array([[0.123456, 1.0, 2.0]]), np.array([0.654321])
    network = Network("risk", (Dense(weights, bias),), ("risk",), "logit", small_schema)
    assert "123456" not in repr(network)
    assert "654321" not in repr(network)
    weights[0, 0] = 9.0
    assert network.layers[0].weights[0, 0] == 0.123456
    with pytest.raises(ValueError, match="read-only"):
        network.layers[0].bias[0] = 1.0


@pytest.mark.parametrize(
    ("weights", "bias", "message"),
    [
        ([1.0, 2.0], [0.0], r"shape \(2,\)"),
        (np.zeros((0, 3)), [], r"shape \(0, 3\)"),
        ([[1.0, 2.0]], [0.0, 1.0], r"bias of a layer has shape \(2,\)"),
        ([[1.0, np.nan]], [0.0], "not finite"),
        ([["a"]], [0.0], "not numbers"),
    ],
)
def test_a_layer_whose_parts_do_not_fit_is_refused(weights: Any, bias: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Dense(weights, bias)


def _zeros(*widths: int) -> tuple[Dense, ...]:
    return tuple(Dense(np.zeros((b, a)), np.zeros(b)) for a, b in pairwise(widths))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": ()}, "this one has 0"),
        ({"layers": _zeros(3, 2, 2, 2, 1)}, "this one has 4"),
        ({"layers": _zeros(2, 1)}, "layer 1 takes 2 numbers, 3 arrive"),
        ({"layers": (*_zeros(3, 2), *_zeros(3, 1))}, "layer 2 takes 3 numbers, 2 arrive"),
        ({"layers": _zeros(3, MAX_HIDDEN + 1, 1)}, "at most 256 neurons"),
        ({"layers": _zeros(3, MAX_HIDDEN, MAX_NEURONS - MAX_HIDDEN, 1)}, "512 neurons in all, this one has 513"),
        ({"layers": _zeros(3, 2, 257)}, "1 to 256 outputs"),
        ({"output_names": ("a", "b")}, "1 different output names"),
        ({"name": "a\nb"}, "printable"),
        ({"link": "probit"}, "link 'probit'"),
        ({"link": "softmax"}, "two outputs"),
    ],
    ids=str,
)
def test_a_network_whose_parts_do_not_fit_is_refused(small_schema: Schema, change: Any, message: str) -> None:
    fields: dict[str, Any] = {
        "name": "risk",
        "layers": _zeros(3, 4, 1),
        "output_names": ("risk",),
        "link": "logit",
        "schema": small_schema,
    }
    assert Network(**fields).outputs == 1
    with pytest.raises(UsageError, match=message):
        Network(**(fields | change))


def test_values_outside_the_schema_are_not_predicted(small_network: Network) -> None:
    with pytest.raises(UsageError, match="age"):
        small_network.predict_raw([[17, 100, 0]])
