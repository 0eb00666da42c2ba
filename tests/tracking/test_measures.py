"""Measures, held against scikit-learn's own, and what they say of rows that give no number."""

import numpy as np
import pytest
from sklearn import metrics

from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.measures import MEASURES, Unmeasurable, fitting, score

THEIRS = {
    "roc_auc": lambda t, p: metrics.roc_auc_score(t, p),
    "accuracy": lambda t, p: metrics.accuracy_score(t, p > 0.5),
    "f1": lambda t, p: metrics.f1_score(t, p > 0.5, zero_division=0),
    "log_loss": lambda t, p: metrics.log_loss(t, p, labels=[False, True]),
    "rmse": lambda t, p: metrics.root_mean_squared_error(t, p),
    "mae": lambda t, p: metrics.mean_absolute_error(t, p),
}


def rows(truth, prediction, positive=None) -> Evaluation:
    return Evaluation("holdout", "s", "r", np.asarray(truth), np.asarray(prediction), positive)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("seed", range(20))
def test_every_measure_is_scikit_learns(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 60))
    if MEASURES[name].wants == "number":
        truth, prediction = rng.normal(size=count), rng.normal(size=count)
        assert score(MEASURES[name], rows(truth, prediction)) == pytest.approx(THEIRS[name](truth, prediction))
        return
    truth = np.r_[True, False, rng.random(count) < 0.4]
    prediction = np.round(rng.random(count + 2), int(rng.integers(1, 4)))  # rounded: with ties, and with 0 and 1
    assert score(MEASURES[name], rows(truth, prediction, True)) == pytest.approx(THEIRS[name](truth, prediction))


def test_the_accuracy_of_labels_is_the_share_that_is_equal() -> None:
    assert score(MEASURES["accuracy"], rows(["a", "b", "b", "c"], ["a", "b", "c", "c"])) == 0.75
    assert score(MEASURES["accuracy"], rows([1, 2, 3], [1.0, 2.0, 4.0])) == pytest.approx(2 / 3)


def test_many_resamples_are_one_call() -> None:
    truth = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    prediction = np.array([[0.9, 0.1, 0.8], [0.1, 0.2, 0.9]])
    assert MEASURES["roc_auc"].of(truth, prediction).tolist() == [1.0, 0.0]


NONE = np.array([None, "a"], dtype=object)


@pytest.mark.parametrize(
    ("name", "evaluation", "said"),
    [
        ("accuracy", rows([], []), "there are no rows"),
        ("roc_auc", rows(np.ones(4), np.full(4, 0.5), 1), "every row is 1, and roc_auc needs both classes"),
        ("roc_auc", rows(np.ones(4), np.full(4, 0.5), 2), "every row is other than 2"),
        ("roc_auc", rows([1.0], [0.5], 1), "needs both classes"),
        ("roc_auc", rows([1.0, 0.0], [np.nan, 0.5], 1), "1 of 2 predictions are missing or infinite"),
        ("mae", rows([1.0, np.inf], [1.0, 0.5]), "1 of 2 truths are missing or infinite"),
        ("accuracy", rows(NONE, ["a", "a"]), "1 of 2 truths are missing"),
        ("log_loss", rows([1, 0], [1.5, 0.5], 1), "1 predictions are not between 0 and 1"),
        ("roc_auc", rows(["a", "b"], ["a", "b"]), "recorded with positive="),
        ("rmse", rows([1, 0], [0.5, 0.5], 1), "the predictions are probabilities"),
        ("rmse", rows(["a", "b"], ["a", "b"]), "rmse is of numbers, and the predictions are texts"),
        ("accuracy", rows(["1", "2"], [1, 2]), "the truths are texts and the predictions numbers"),
    ],
)
def test_rows_that_give_no_number_are_said_in_a_sentence(name: str, evaluation: Evaluation, said: str) -> None:
    with pytest.raises(Unmeasurable, match=said):
        score(MEASURES[name], evaluation)


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "f1", "log_loss"])
def test_constant_and_certain_predictions_give_finite_numbers(name: str) -> None:
    assert np.isfinite(score(MEASURES[name], rows([1, 0, 1], [0.5, 0.5, 0.5], 1)))
    assert np.isfinite(score(MEASURES[name], rows([1, 0, 1], [0.0, 1.0, 0.0], 1)))


def test_what_is_measured_undeclared_makes_sense() -> None:
    def names(evaluation):
        return [measure.name for measure in fitting(evaluation)]

    assert names(rows([1, 0], [0.5, 0.2], 1)) == ["roc_auc", "accuracy", "f1", "log_loss"]
    assert names(rows([7, 3], [7, 4])) == ["accuracy"], "the error of a digit means nothing"
    assert names(rows([7.5, 3.25], [7.0, 4.0])) == ["rmse", "mae"]
    assert names(rows(["a", "b"], ["a", "b"])) == ["accuracy"]
    assert names(rows([], [])) == []
