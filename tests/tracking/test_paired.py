"""The difference of two models on the same rows: against numbers by hand and other ways to an interval."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from modelyard_tracking import paired
from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.measures import MEASURES, Unmeasurable
from modelyard_tracking.paired import difference


def rows(truth, prediction, positive=None, sha256="s", same_rows="r") -> Evaluation:
    return Evaluation("holdout", sha256, same_rows, np.asarray(truth), np.asarray(prediction), positive)


def labels(both: int, only_first: int, only_second: int, neither: int) -> tuple[Evaluation, Evaluation]:
    """Two models that are right on so many rows."""
    count = both + only_first + only_second + neither
    first = np.r_[np.ones(both + only_first), np.zeros(only_second + neither)]
    second = np.r_[np.ones(both), np.zeros(only_first), np.ones(only_second), np.zeros(neither)]
    return rows(np.ones(count), first, sha256="a"), rows(np.ones(count), second, sha256="b")


def scored(seed: int, count: int = 400) -> tuple[Evaluation, Evaluation]:
    """Two models of different quality whose errors have much in common."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.4
    shared = rng.normal(size=count)
    first, second = (norm.cdf(shared + rng.normal(size=count) + shift * truth - 0.7) for shift in (1.8, 1.4))
    return rows(truth, first, True, "a"), rows(truth, second, True, "b")


def test_an_accuracy_is_counted_exactly() -> None:
    found = difference(MEASURES["accuracy"], *labels(both=70, only_first=15, only_second=5, neither=10))
    assert (found.rows, found.same) == (100, 80)
    assert (found.candidate, found.other) == (0.85, 0.75)
    assert found.difference == pytest.approx(0.10)


def test_the_interval_of_an_accuracy_is_that_of_the_rows_on_which_they_differ() -> None:
    found = difference(MEASURES["accuracy"], *labels(both=700, only_first=150, only_second=50, neither=100))
    error = math.sqrt((150 + 50) / 1000 - 0.1**2) / math.sqrt(1000)  # by hand, of paired proportions
    assert found.low == pytest.approx(0.1 - 1.96 * error, abs=0.003)
    assert found.high == pytest.approx(0.1 + 1.96 * error, abs=0.003)


def delong(first: Evaluation, second: Evaluation) -> tuple[float, float]:
    """DeLong's interval of a difference of areas, written down as in the paper (doi:10.2307/2531595)."""
    wins = []
    for evaluation in (first, second):
        of, others = (evaluation.prediction[evaluation.truth == kind] for kind in (True, False))
        wins.append((of[:, None] > others) + 0.5 * (of[:, None] == others))
    apart = wins[0] - wins[1]
    per_positive, per_other = apart.mean(1), apart.mean(0)
    variance = per_positive.var(ddof=1) / len(per_positive) + per_other.var(ddof=1) / len(per_other)
    return apart.mean() - 1.96 * math.sqrt(variance), apart.mean() + 1.96 * math.sqrt(variance)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_an_area_is_delongs(seed: int) -> None:
    first, second = scored(seed)
    found, (low, high) = difference(MEASURES["roc_auc"], first, second), delong(first, second)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "log_loss", "f1"])
def test_the_same_rows_give_the_same_interval_and_the_other_way_round_the_opposite(name: str) -> None:
    first, second = scored(1)
    found = difference(MEASURES[name], first, second)
    assert found == difference(MEASURES[name], first, second)
    other_way = difference(MEASURES[name], second, first)
    assert other_way.difference == -found.difference
    assert (other_way.low, other_way.high) == pytest.approx((-found.high, -found.low), abs=0.01)
    assert found.low <= found.difference <= found.high


def test_a_lower_loss_is_better() -> None:
    first, second = scored(2)
    found = difference(MEASURES["log_loss"], first, second)
    assert found.difference == pytest.approx(found.other - found.candidate)


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    first, second = scored(3)
    narrow, wide = (difference(MEASURES["roc_auc"], first, second, level) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("name", ["roc_auc", "accuracy", "log_loss"])
def test_a_model_against_itself_is_no_better_and_no_worse(name: str) -> None:
    first, _ = scored(4)
    found = difference(MEASURES[name], first, first)
    assert (found.difference, found.low, found.high, found.same) == (0, 0, 0, found.rows)


def test_constant_predictions_have_an_interval() -> None:
    first, second = scored(5)
    constant = rows(second.truth, np.full(len(second), 0.3), True, "c")
    found = difference(MEASURES["roc_auc"], first, constant)
    assert found.other == 0.5
    assert all(map(math.isfinite, (found.low, found.high)))


def test_no_draw_lacks_a_class_however_rare_it_is() -> None:
    truth = np.arange(5000) < 10
    rng = np.random.default_rng(0)
    first, second = (rows(truth, rng.random(5000), True, name) for name in "ab")
    found = difference(MEASURES["roc_auc"], first, second)
    assert all(map(math.isfinite, (found.low, found.high)))


def test_many_rows_get_fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired, "MAX_CELLS", 1000 * 400)
    first, second = scored(6)
    assert difference(MEASURES["roc_auc"], first, second).resamples == 1000
    monkeypatch.setattr(paired, "MAX_CELLS", 1)
    assert difference(MEASURES["roc_auc"], first, second).resamples == paired.MIN_RESAMPLES


def cut(evaluation: Evaluation, count: int) -> Evaluation:
    return evaluation.part(np.arange(len(evaluation)) < count)


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "there are no rows"), (1, "needs both classes"), (29, "29 rows are too few for an interval: 30 or more")],
)
def test_too_few_rows_are_refused(count: int, said: str) -> None:
    with pytest.raises(Unmeasurable, match=said):
        difference(MEASURES["roc_auc"], *(cut(evaluation, count) for evaluation in scored(7)))


def test_one_row_of_labels_is_too_few() -> None:
    with pytest.raises(Unmeasurable, match="1 row is too few for an interval"):
        difference(MEASURES["accuracy"], *labels(1, 0, 0, 0))


def test_too_few_rows_of_a_class_are_refused() -> None:
    truth = np.arange(100) < 9
    first, second = (rows(truth, np.linspace(0, 1, 100), True, name) for name in "ab")
    with pytest.raises(Unmeasurable, match="only 9 rows are of the rarer class"):
        difference(MEASURES["roc_auc"], first, second)


def test_other_rows_and_another_positive_class_are_refused() -> None:
    first, second = scored(8)
    other = rows(second.truth, second.prediction, True, "b", "other rows")
    with pytest.raises(Unmeasurable, match="not evaluated on the same rows"):
        difference(MEASURES["roc_auc"], first, other)
    with pytest.raises(Unmeasurable, match="one counts True as positive, the other False"):
        difference(MEASURES["roc_auc"], first, rows(second.truth, second.prediction, False))
