"""Paired: how much better one model is than another on the same rows, with an interval. Pure, and the same every time.

The interval is the percentile bootstrap of rows drawn with replacement, both models on the same draw, since what one
row does to the two belongs together. For the area under the ROC curve the classes are drawn apart, each as often as it
was (as pROC does), so that no draw lacks one. It speaks of other rows of the same kind, not of other seeds.
"""

from dataclasses import dataclass

import numpy as np

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.measures import Measure, Unmeasurable, as_numbers

RESAMPLES = 4000
MIN_RESAMPLES = 400
MAX_CELLS = 50_000_000  # resamples times rows, so that a million rows take no longer than some seconds
MIN_ROWS = 30  # below, intervals were seen to be too narrow
MIN_OF_A_CLASS = 10


@dataclass(frozen=True, slots=True)
class Difference:
    """A candidate against another model; `difference` is positive where the candidate is better."""

    rows: int
    same: int  # rows that count the same for both: the same probability, both right, or both wrong
    candidate: float
    other: float
    difference: float
    low: float
    high: float
    confidence: float
    resamples: int


def difference(measure: Measure, candidate: Evaluation, other: Evaluation, confidence: float = 0.95) -> Difference:
    """How much better `candidate` is than `other`.

    Raises:
        Unmeasurable: they were not evaluated on the same rows, or the rows are too few or of no use.
    """
    if candidate.rows_sha256 != other.rows_sha256:
        raise Unmeasurable("the two were not evaluated on the same rows")
    if candidate.positive != other.positive:
        raise Unmeasurable(f"one counts {candidate.positive!r} as positive, the other {other.positive!r}")
    (truth, first), (_, second) = as_numbers(measure, candidate), as_numbers(measure, other)
    rows = len(truth)
    if rows < MIN_ROWS:
        raise Unmeasurable(f"{_count(rows)} too few for an interval: {MIN_ROWS} or more are needed")
    strata = [np.arange(rows)]
    if measure.needs_both_classes:
        strata = [np.flatnonzero(truth == value) for value in (0, 1)]
        if (fewer := min(map(len, strata))) < MIN_OF_A_CLASS:
            raise Unmeasurable(f"only {fewer} rows are of the rarer class: an interval needs {MIN_OF_A_CLASS} or more")

    def better(*drawn: np.ndarray, axis: int) -> np.ndarray:  # noqa: ARG001 - scipy passes it; always the last
        at = np.concatenate(drawn, -1).astype(np.intp)
        return np.asarray(measure.sign * (measure.of(truth[at], first[at]) - measure.of(truth[at], second[at])))

    resamples = max(MIN_RESAMPLES, min(RESAMPLES, MAX_CELLS // rows))
    seed = int(text_sha256(f"{candidate.sha256} {other.sha256}".encode())[:16], 16)
    from scipy.stats import bootstrap

    found = bootstrap(
        strata,
        better,
        n_resamples=resamples,
        batch=max(1, 1_000_000 // rows),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    values = (float(measure.of(truth, first)), float(measure.of(truth, second)))
    same = int((first == second).sum())
    apart = measure.sign * (values[0] - values[1])
    return Difference(
        rows,
        same,
        *values,
        apart,
        float(found.low),
        float(found.high),
        confidence,
        resamples,
    )


def _count(rows: int) -> str:
    return "1 row is" if rows == 1 else f"{rows} rows are"
