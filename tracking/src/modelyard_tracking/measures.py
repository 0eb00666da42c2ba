"""Measures: how good answers are, by the names that scikit-learn gives them. Pure.

Each works along the last axis, so that thousands of resamples are one call. Tests hold them against scikit-learn's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modelyard_tracking.evaluation import Evaluation

Wants = Literal["score", "probability", "class", "number"]
Rows = tuple[np.ndarray, np.ndarray]  # truth and prediction as numbers, (..., n_rows)


class Unmeasurable(ValueError):
    """These rows give no such number; the text says why, and begins in the middle of a sentence."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A number that rows of truths and answers come to.

    A score puts the rows in an order; a probability is of the positive class; a class may be a text, and where only
    the probability of it was recorded, it is the one above one half.
    """

    name: str
    wants: Wants
    higher_is_better: bool
    of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    needs_both_classes: bool = False

    @property
    def sign(self) -> int:
        """1 where more is better, else -1."""
        return 1 if self.higher_is_better else -1


def score(measure: Measure, evaluation: Evaluation) -> float:
    """What an evaluation comes to.

    Raises:
        Unmeasurable: it is empty, of one class only, has missing values, or is of another kind.
    """
    return float(measure.of(*as_numbers(measure, evaluation)))


def fitting(evaluation: Evaluation) -> list[Measure]:
    """Every measure that makes sense of this evaluation, without being declared."""
    found = []
    for measure in MEASURES.values():
        try:
            as_numbers(measure, evaluation)
        except Unmeasurable:
            continue
        if evaluation.positive is not None or (measure.wants == "number") == _has_fractions(evaluation):
            found.append(measure)
    return found


def as_numbers(measure: Measure, evaluation: Evaluation) -> Rows:
    """Truth and prediction as the measure takes them.

    Raises:
        Unmeasurable: as `score`.
    """
    if not len(evaluation):
        raise Unmeasurable("there are no rows")
    for what, values in (("truths", evaluation.truth), ("predictions", evaluation.prediction)):
        if missing := _missing(values):
            raise Unmeasurable(f"{missing} of {len(values)} {what} are missing or infinite")
    if evaluation.positive is not None:
        return _of_a_class(measure, evaluation)
    return _of_answers(measure, evaluation)


def _of_a_class(measure: Measure, evaluation: Evaluation) -> Rows:
    if measure.wants == "number":
        raise Unmeasurable(f"{measure.name} is of numbers, and the predictions are probabilities")
    truth = (evaluation.truth == evaluation.positive).astype(float)
    prediction = evaluation.prediction.astype(float)
    if measure.wants != "score" and (outside := int(((prediction < 0) | (prediction > 1)).sum())):
        raise Unmeasurable(f"{outside} predictions are not between 0 and 1, so they are no probabilities")
    if measure.needs_both_classes and len(found := np.unique(truth)) == 1:
        which = evaluation.positive if found[0] else f"other than {evaluation.positive}"
        raise Unmeasurable(f"every row is {which}, and {measure.name} needs both classes")
    return truth, (prediction > 0.5).astype(float) if measure.wants == "class" else prediction


def _of_answers(measure: Measure, evaluation: Evaluation) -> Rows:
    truth, prediction = evaluation.truth, evaluation.prediction
    if measure.wants in ("score", "probability"):
        raise Unmeasurable(f"{measure.name} needs the probabilities of a class, recorded with positive=")
    numbers = [values.dtype.kind in "fiub" for values in (truth, prediction)]
    if numbers[0] != numbers[1]:
        raise Unmeasurable("the truths are texts and the predictions numbers, or the other way round")
    if measure.wants == "class":
        return np.ones(len(truth)), (truth == prediction).astype(float)
    if not numbers[0]:
        raise Unmeasurable(f"{measure.name} is of numbers, and the predictions are texts")
    return truth.astype(float), prediction.astype(float)


def _missing(values: np.ndarray) -> int:
    if values.dtype.kind == "f":
        return int((~np.isfinite(values)).sum())
    return sum(value is None for value in values) if values.dtype.kind == "O" else 0


def _has_fractions(evaluation: Evaluation) -> bool:
    """Its numbers are measured, and no classes: that two are equal says nothing."""
    numbers = (values for values in (evaluation.truth, evaluation.prediction) if values.dtype.kind == "f")
    return any(bool((values != np.round(values)).any()) for values in numbers)


def _roc_auc(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The share of pairs of a positive and another row that stand in the right order; a tie is half (Mann, Whitney)."""
    from scipy.stats import rankdata  # when it is used: a second of every command otherwise

    ranks = rankdata(prediction, axis=-1)
    positives = truth.sum(-1)
    others = truth.shape[-1] - positives
    return np.asarray(((ranks * truth).sum(-1) - positives * (positives + 1) / 2) / (positives * others))


def _log_loss(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    least = np.finfo(float).eps
    sure = np.clip(prediction, least, 1 - least)
    return np.asarray(-(truth * np.log(sure) + (1 - truth) * np.log1p(-sure)).mean(-1))


def _f1(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    called = prediction > 0.5
    wanted = truth > 0.5
    both = 2 * (called & wanted).sum(-1)
    return np.asarray(both / np.maximum(called.sum(-1) + wanted.sum(-1), 1))


def _accuracy(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.asarray((truth == prediction).mean(-1))


def _rmse(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(((truth - prediction) ** 2).mean(-1)))


def _mae(truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(truth - prediction).mean(-1))


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("roc_auc", "score", True, _roc_auc, needs_both_classes=True),
        Measure("accuracy", "class", True, _accuracy),
        Measure("f1", "probability", True, _f1, needs_both_classes=True),
        Measure("log_loss", "probability", False, _log_loss),
        Measure("rmse", "number", False, _rmse),
        Measure("mae", "number", False, _mae),
    )
}
