"""Saving a model with its golden rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from modelyard_serving.runtime.model import TRUSTED_TYPES, load
from modelyard_tracking.digests import write_index
from modelyard_tracking.errors import Refused
from modelyard_tracking.saving import Golden, write_model

RNG = np.random.default_rng(7)
X = pd.DataFrame(RNG.normal(size=(80, 3)), columns=["a", "b", "c"])
Y = np.where(X["a"] + X["b"] > 0, "yes", "no")


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(StandardScaler(), LogisticRegression()),
        HistGradientBoostingClassifier(max_iter=5),
        GradientBoostingClassifier(n_estimators=5),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_saved_answers_its_golden_rows_when_the_runtime_loads_it(tmp_path: Path, model) -> None:
    schema = write_model(tmp_path, model.fit(X, Y), X.head(10), TRUSTED_TYPES)
    golden = Golden.read(tmp_path)
    ask = load(tmp_path, "sklearn", write_index(tmp_path))
    assert schema["classes"] == ["no", "yes"]
    assert schema["inputs"] == [{"name": name, "dtype": "float64"} for name in "abc"]
    predictions, probabilities = ask(pd.DataFrame(golden.rows), ["predict", "predict_proba"])
    assert predictions.tolist() == golden.answers["predict"]
    np.testing.assert_allclose(probabilities, golden.answers["predict_proba"], rtol=1e-12)


@pytest.mark.parametrize(
    "model", [LinearRegression(), RandomForestRegressor(n_estimators=3)], ids=lambda m: type(m).__name__
)
def test_a_regressor_is_served_by_predict_alone(tmp_path: Path, model) -> None:
    schema = write_model(tmp_path, model.fit(X, X["a"]), X.head(3), TRUSTED_TYPES)
    assert schema["methods"] == ["predict"]
    assert schema["classes"] == []


class Own(BaseEstimator):
    """A class that only the scientist has."""

    def fit(self, x, y):  # noqa: ARG002
        return self

    def predict(self, x):
        return np.zeros(len(x))


def test_a_type_that_the_runtime_would_not_load_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="Own"):
        write_model(tmp_path, Own().fit(X, Y), X.head(3), TRUSTED_TYPES)


def test_the_runtime_refuses_a_model_with_other_types_even_if_it_was_saved(tmp_path: Path) -> None:
    write_model(tmp_path, RandomForestRegressor(n_estimators=2).fit(X, X["a"]), X.head(3), TRUSTED_TYPES)
    import skops.io

    skops.io.dump(Own(), tmp_path / "mlflow" / "model.skops")
    with pytest.raises(Exception, match="not trusted"):
        load(tmp_path, "sklearn", write_index(tmp_path))


@pytest.mark.parametrize(
    ("examples", "fault"),
    [
        (X.to_numpy(), "a DataFrame"),
        (X.head(0), "at least one"),
        (X.head(2).rename(columns={"a": 1}), "must be a text"),
        (X.head(2).assign(a=[1.0, np.nan]), "missing or infinite"),
        (X.head(2).assign(a=[1.0, np.inf]), "missing or infinite"),
        (X.head(2).assign(a=pd.to_datetime(["2020", "2021"])), "cannot be sent as JSON"),
    ],
)
def test_examples_that_a_caller_could_not_send_are_refused(tmp_path: Path, examples, fault: str) -> None:
    model = LinearRegression().fit(X, X["a"])
    with pytest.raises(Refused, match=fault):
        write_model(tmp_path, model, examples, TRUSTED_TYPES)
