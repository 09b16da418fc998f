"""Linear models: folding equals the pipeline, and what is not affine is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from privacy.errors import UsageError
from privacy.models.linear import (
    LinearModel,
    apply_link,
    from_sklearn,
    from_torch,
    logit,
    raw_threshold,
    sigmoid,
    softmax,
)
from privacy.models.schema import Schema

pytest.importorskip("sklearn")
from sklearn import linear_model, preprocessing, svm
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline

RTOL = 1e-9  # the promise: folding changes answers by rounding only


def agrees(ours: Any, theirs: Any) -> None:
    theirs = np.asarray(theirs).reshape(len(ours), -1)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=RTOL, atol=RTOL * float(np.abs(theirs).max()))


SCALERS = [
    preprocessing.StandardScaler(),
    preprocessing.StandardScaler(with_mean=False),
    preprocessing.StandardScaler(with_std=False),
    preprocessing.StandardScaler(with_mean=False, with_std=False),
    preprocessing.MinMaxScaler((-2, 3)),
    preprocessing.MaxAbsScaler(),
    preprocessing.RobustScaler(unit_variance=True),
    preprocessing.RobustScaler(with_centering=False),
    preprocessing.RobustScaler(with_scaling=False),
]


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_folding_a_scaler_equals_the_pipeline(breast_cancer: Any, scaler: Any) -> None:
    # Ridge has a closed form, so every scaling trains without a warning.
    pipeline = make_pipeline(scaler, linear_model.Ridge()).fit(breast_cancer.X, breast_cancer.y)
    model = from_sklearn(pipeline, breast_cancer.schema)
    agrees(model.predict_raw(breast_cancer.X), pipeline.predict(breast_cancer.X))


def test_several_scalers_and_passthrough_fold_in_order(breast_cancer: Any) -> None:
    pipeline = Pipeline(
        [
            ("a", preprocessing.MinMaxScaler()),
            ("none", "passthrough"),
            ("b", preprocessing.StandardScaler()),
            ("last", linear_model.LogisticRegression()),
        ]
    ).fit(breast_cancer.X, breast_cancer.y)
    model = from_sklearn(pipeline, breast_cancer.schema)
    agrees(model.predict_raw(breast_cancer.X), pipeline.decision_function(breast_cancer.X))
    agrees(model.predict(breast_cancer.X), pipeline.predict_proba(breast_cancer.X)[:, 1])
    assert model.output_names == ("1",)


@pytest.mark.parametrize(
    ("estimator", "link"),
    [
        (linear_model.LogisticRegression(), "logit"),
        (linear_model.LogisticRegression(fit_intercept=False), "logit"),
        (svm.LinearSVC(), "margin"),
        (linear_model.SGDClassifier(loss="log_loss", random_state=1), "logit"),
        (linear_model.SGDClassifier(loss="hinge", random_state=1), "margin"),
        (linear_model.SGDClassifier(loss="modified_huber", random_state=1), "margin"),
    ],
    ids=str,
)
def test_binary_classifiers(breast_cancer: Any, estimator: Any, link: str) -> None:
    pipeline = make_pipeline(preprocessing.StandardScaler(), estimator).fit(breast_cancer.X, breast_cancer.y)
    model = from_sklearn(pipeline, breast_cancer.schema)
    assert model.link == link
    agrees(model.predict_raw(breast_cancer.X), pipeline.decision_function(breast_cancer.X))


@pytest.mark.parametrize(
    ("estimator", "link"),
    [
        (linear_model.LogisticRegression(), "softmax"),
        (svm.LinearSVC(), "margin"),
        (linear_model.SGDClassifier(loss="log_loss", random_state=1), "margin"),
    ],
    ids=str,
)
def test_classifiers_of_several_classes(multiclass: Any, estimator: Any, link: str) -> None:
    pipeline = make_pipeline(preprocessing.StandardScaler(), estimator).fit(multiclass.X, multiclass.y)
    model = from_sklearn(pipeline, multiclass.schema)
    assert (model.link, model.output_names) == (link, ("0", "1", "2"))
    agrees(model.predict_raw(multiclass.X), pipeline.decision_function(multiclass.X))
    if link == "softmax":
        agrees(model.predict(multiclass.X), pipeline.predict_proba(multiclass.X))


@pytest.mark.parametrize(
    "estimator",
    [
        linear_model.LinearRegression(),
        linear_model.LinearRegression(fit_intercept=False),
        linear_model.Ridge(),
        linear_model.SGDRegressor(random_state=1),
    ],
    ids=str,
)
def test_regressions(diabetes: Any, estimator: Any) -> None:
    pipeline = make_pipeline(preprocessing.StandardScaler(), estimator).fit(diabetes.X, diabetes.y)
    model = from_sklearn(pipeline, diabetes.schema)
    assert (model.link, model.output_names) == ("identity", ("y",))
    agrees(model.predict_raw(diabetes.X), pipeline.predict(diabetes.X))


def test_a_regression_of_several_targets_without_intercept(diabetes: Any) -> None:
    targets = np.stack([diabetes.y, 2 * diabetes.y + diabetes.X[:, 0]], axis=1)
    estimator = linear_model.LinearRegression(fit_intercept=False).fit(diabetes.X, targets)
    model = from_sklearn(estimator, diabetes.schema, output_names=["progression", "other"])
    assert model.output_names == ("progression", "other")
    agrees(model.predict_raw(diabetes.X), estimator.predict(diabetes.X))


def test_sparse_weights_are_read(breast_cancer: Any) -> None:
    pipeline = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    pipeline.fit(breast_cancer.X, breast_cancer.y)
    expected = pipeline.decision_function(breast_cancer.X)
    pipeline[-1].sparsify()
    agrees(from_sklearn(pipeline, breast_cancer.schema).predict_raw(breast_cancer.X), expected)


def test_named_columns_in_another_order_are_put_in_the_schemas(breast_cancer: Any) -> None:
    order = np.random.default_rng(1).permutation(breast_cancer.schema.d)
    pipeline = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    pipeline.fit(breast_cancer.X[:, order], breast_cancer.y)
    expected = pipeline.decision_function(breast_cancer.X[:, order])
    names = np.array(breast_cancer.schema.names, dtype=object)[order]
    # What fitting on a data frame leaves behind.
    pipeline[0].feature_names_in_ = names
    agrees(from_sklearn(pipeline, breast_cancer.schema).predict_raw(breast_cancer.X), expected)
    pipeline[0].feature_names_in_ = np.array(["unknown", *names[1:]], dtype=object)
    with pytest.raises(UsageError, match="trained on columns"):
        from_sklearn(pipeline, breast_cancer.schema)


class Subclass(linear_model.LinearRegression):  # type: ignore[misc]
    def predict(self, X: Any) -> Any:
        return super().predict(X) ** 2


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (Subclass(), "not supported; supported: LogisticRegression"),
        (linear_model.Lasso(), "Lasso is not supported"),
        (make_pipeline(PCA(2), linear_model.Ridge()), "step PCA cannot be folded"),
        (make_pipeline(preprocessing.MinMaxScaler(clip=True), linear_model.Ridge()), "clip=True"),
        (make_pipeline(preprocessing.PolynomialFeatures(1), linear_model.Ridge()), "cannot be folded"),
        (make_pipeline(preprocessing.StandardScaler()), "not supported"),
        (make_pipeline(preprocessing.StandardScaler(), "passthrough"), "without an estimator"),
        (make_pipeline(make_pipeline(preprocessing.StandardScaler()), linear_model.Ridge()), "step Pipeline"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_is_not_a_supported_affine_estimator_is_refused(diabetes: Any, estimator: Any, message: str) -> None:
    estimator.fit(diabetes.X[:, :2], diabetes.y)
    schema = Schema("two", 1, diabetes.schema.features[:2])
    with pytest.raises(UsageError, match=message):
        from_sklearn(estimator, schema)


def test_an_object_that_is_no_estimator_is_refused(diabetes: Any) -> None:
    with pytest.raises(UsageError, match=r"builtins\.dict is not supported"):
        from_sklearn({}, diabetes.schema)


def test_an_estimator_that_is_not_fitted_is_refused(diabetes: Any) -> None:
    with pytest.raises(UsageError, match="Ridge is not fitted"):
        from_sklearn(linear_model.Ridge(), diabetes.schema)
    fitted = linear_model.Ridge().fit(diabetes.X, diabetes.y)
    with pytest.raises(UsageError, match="StandardScaler is not fitted"):
        from_sklearn(Pipeline([("a", preprocessing.StandardScaler()), ("b", fitted)]), diabetes.schema)


def test_an_estimator_of_other_features_is_refused(diabetes: Any) -> None:
    fitted = linear_model.Ridge().fit(diabetes.X[:, :4], diabetes.y)
    with pytest.raises(UsageError, match="4 features, schema 'diabetes' has 10"):
        from_sklearn(fitted, diabetes.schema)
    pipeline = make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()).fit(diabetes.X[:, :4], diabetes.y)
    with pytest.raises(UsageError, match="StandardScaler has 4 features, schema 'diabetes' has 10"):
        from_sklearn(pipeline, diabetes.schema)


def test_a_logistic_regression_with_another_link_is_refused(breast_cancer: Any, multiclass: Any) -> None:
    # Older releases of scikit-learn leave these behind.
    binary = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    binary.fit(breast_cancer.X, breast_cancer.y)
    binary[-1].multi_class = "multinomial"
    with pytest.raises(UsageError, match="multinomial"):
        from_sklearn(binary, breast_cancer.schema)
    several = make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression())
    several.fit(multiclass.X, multiclass.y)
    several[-1].solver = "liblinear"
    with pytest.raises(UsageError, match="one-versus-rest"):
        from_sklearn(several, multiclass.schema)


# --- torch --------------------------------------------------------------------------------------------------------


def test_a_torch_layer_and_a_chain_of_affine_layers_are_composed(breast_cancer: Any) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(1)
    X = torch.tensor(breast_cancer.X)
    chain = nn.Sequential(
        nn.BatchNorm1d(30),
        nn.Linear(30, 7, bias=False),
        nn.Sequential(nn.Identity(), nn.BatchNorm1d(7, affine=False)),
        nn.Linear(7, 2),
    ).double()
    chain(X)  # running statistics of the data
    chain.eval()
    for module in (nn.Linear(30, 1).double(), chain):
        model = from_torch(module, breast_cancer.schema, link="margin", name="torch")
        agrees(model.predict_raw(breast_cancer.X), module(X).detach().numpy())


def test_a_torch_layer_in_single_precision_is_read_exactly(diabetes: Any) -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(10, 1)
    model = from_torch(layer, diabetes.schema, link="identity")
    assert model.weights[0].tolist() == layer.weight[0].detach().tolist()
    assert model.bias.tolist() == layer.bias.detach().tolist()


def test_torch_modules_that_are_not_affine_are_refused(diabetes: Any) -> None:
    torch = pytest.importorskip("torch")
    nn = torch.nn
    hooked = nn.Linear(10, 1)
    hooked.register_forward_hook(lambda module, args, output: output**2)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(10, 1))
    cases: list[tuple[Any, str]] = [
        (nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1)), "ReLU is not affine"),
        (nn.Sequential(nn.Linear(10, 1), nn.Sigmoid()), "pass link='logit'"),
        (nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 1)), "call eval"),
        (nn.Sequential(nn.BatchNorm1d(10, track_running_stats=False), nn.Linear(10, 1)).eval(), "track_running_stats"),
        (nn.Sequential(nn.Linear(10, 4), nn.Linear(5, 1)), "takes 5 numbers, 4 arrive"),
        (nn.Linear(9, 1), "takes 9 numbers, 10 arrive"),
        (hooked, "hooks"),
        (normed, "not affine or not supported"),
        (None, "NoneType is not affine"),
    ]
    for module, message in cases:
        with pytest.raises(UsageError, match=message):
            from_torch(module, diabetes.schema, link="identity")


# --- the model itself ---------------------------------------------------------------------------------------------


def test_a_model_does_not_show_its_weights_and_cannot_be_changed(small_schema: Schema) -> None:
    weights = np.array([[0.123456, 1.0, 2.0]])
    model = LinearModel("risk", weights, np.array([0.654321]), ("risk",), "logit", small_schema)
    assert "123456" not in repr(model)
    assert "654321" not in repr(model)
    weights[0, 0] = 9.0
    assert model.weights[0, 0] == 0.123456
    with pytest.raises(ValueError, match="read-only"):
        model.weights[0, 0] = 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": [[1.0, 2.0]]}, r"shape \(1, 2\)"),
        ({"weights": [1.0, 2.0, 3.0]}, r"shape \(3,\)"),
        ({"weights": [[1.0, 2.0, math.nan]]}, "not finite"),
        ({"weights": [["a", "b", "c"]]}, "not numbers"),
        ({"weights": np.zeros((0, 3)), "bias": [], "output_names": ()}, "0"),
        ({"bias": [0.0, 1.0]}, r"bias has shape \(2,\)"),
        ({"bias": [math.inf]}, "not finite"),
        ({"output_names": ("a", "b")}, "1 different output names"),
        ({"output_names": ("",)}, "name ''"),
        ({"name": "a\nb"}, "printable"),
        ({"link": "probit"}, "link 'probit'"),
        ({"link": "softmax"}, "two outputs"),
    ],
    ids=str,
)
def test_a_model_whose_parts_do_not_fit_is_refused(small_schema: Schema, change: Any, message: str) -> None:
    fields: dict[str, Any] = {
        "name": "risk",
        "weights": [[1.0, 2.0, 3.0]],
        "bias": [0.0],
        "output_names": ("risk",),
        "link": "logit",
        "schema": small_schema,
    }
    assert LinearModel(**fields).outputs == 1
    with pytest.raises(UsageError, match=message):
        LinearModel(**(fields | change))


def test_values_outside_the_schema_are_not_predicted(small_model: LinearModel) -> None:
    with pytest.raises(UsageError, match="age"):
        small_model.predict_raw([[17, 100, 0]])


# --- links --------------------------------------------------------------------------------------------------------


@given(st.floats(-700, 700))
@example(1e308)
@example(-1e308)
@example(0.0)
def test_the_sigmoid_is_stable_and_inverted_by_the_logit(raw: float) -> None:
    p = float(sigmoid(raw))
    assert 0 <= p <= 1
    assert float(sigmoid(-raw)) == pytest.approx(1 - p, abs=1e-15)
    if 1e-300 < p < 0.999:
        assert logit(p) == pytest.approx(raw, rel=1e-12, abs=1e-12)


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=4))
def test_a_softmax_is_a_distribution_in_the_order_of_the_answers(raw: list[float]) -> None:
    p = softmax([raw])[0]
    assert p.sum() == pytest.approx(1)
    assert p[int(np.argmax(raw))] == p.max()


def test_links_without_a_probability_leave_answers_as_they_are() -> None:
    assert apply_link("identity", [[-3.5]]).tolist() == [[-3.5]]
    assert apply_link("margin", [[7.0]]).tolist() == [[7.0]]
    assert apply_link("logit", [[0.0, 1e4]]).tolist() == [[0.5, 1.0]]


@given(st.floats(1e-9, 1 - 1e-9), st.integers(0, 20))
def test_a_threshold_on_the_grid_implies_the_one_asked_for(p: float, grid_bits: int) -> None:
    n = raw_threshold("logit", p, grid_bits)
    assert float(sigmoid(n / 2**grid_bits)) >= p * (1 - 1e-12)
    assert float(sigmoid((n - 1) / 2**grid_bits)) <= p * (1 + 1e-12)


def test_thresholds_that_state_nothing_are_refused() -> None:
    assert raw_threshold("logit", 0.5, 6) == 0
    assert raw_threshold("identity", 150.01, 6) == 9601
    cases: list[tuple[Any, float]] = [
        ("softmax", 0.5),
        ("logit", 1.0),
        ("logit", 0.0),
        ("margin", math.inf),
        ("logit", math.nan),
    ]
    for link, threshold in cases:
        with pytest.raises(UsageError):
            raw_threshold(link, threshold, 6)


@pytest.mark.parametrize("blocked", ["sklearn", "torch"])
def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, small_schema: Schema, blocked: str
) -> None:
    import sys

    from privacy.errors import MissingDependency

    for module in [m for m in sys.modules if m == blocked or m.startswith(f"{blocked}.")]:
        monkeypatch.setitem(sys.modules, module, None)
    readers: dict[str, Callable[[], object]] = {
        "sklearn": lambda: from_sklearn(object(), small_schema),
        "torch": lambda: from_torch(object(), small_schema, link="identity"),
    }
    monkeypatch.setitem(sys.modules, blocked, None)
    with pytest.raises(MissingDependency, match="pip install"):
        readers[blocked]()
