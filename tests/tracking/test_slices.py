"""Slices: is every part of the rows served."""

from typing import Any

import numpy as np
import pytest

from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.project import SlicePlan
from modelyard_tracking.slices import judge


def plan(**bounds: Any) -> SlicePlan:
    values = {"evaluation": "holdout", "metric": "accuracy", "columns": ["age"], "min_rows": 10, **bounds}
    return SlicePlan(**values)


def rows(**slices: tuple[int, int]) -> Evaluation:
    """Labels in slices of a column `age`: of so many rows so many are right."""
    ages = np.concatenate([[name] * count for name, (count, _) in slices.items()]).astype(object)
    right = np.concatenate([np.arange(count) < hits for count, hits in slices.values()])
    return Evaluation("holdout", "s", "r", np.ones(len(ages)), right.astype(float), None, {"age": ages})


def test_a_slice_below_its_bound_is_an_objection_and_the_others_are_not() -> None:
    found = judge(plan(at_least=0.8), rows(old=(20, 15), young=(40, 36)))
    assert [(part.value, part.rows, part.score, part.passed) for part in found.slices] == [
        ("old", 20, 0.75, False),
        ("young", 40, 0.9, True),
    ]
    assert found.objections == ("slice age = old: accuracy 0.75 over 20 rows is not at least 0.8",)


def test_a_small_slice_is_named_and_not_judged() -> None:
    found = judge(plan(at_least=0.8), rows(old=(9, 0), young=(10, 9)))
    assert found.slices[0].why_not == "fewer than 10 rows"
    assert (found.slices[0].score, found.slices[0].passed, found.objections) == (None, None, ())


def test_the_gap_is_between_the_best_and_the_worst_judged_slice() -> None:
    evaluation = rows(old=(20, 15), middle=(20, 18), young=(20, 20), few=(3, 0))
    [gap] = judge(plan(max_gap=0.25), evaluation).gaps
    assert (gap.best, gap.worst, gap.gap, gap.passed) == ("young", "old", 0.25, True)
    found = judge(plan(max_gap=0.2), evaluation)
    assert found.objections == ("slices of age: accuracy of young and of old lie 0.25 apart, more than 0.2",)


def test_of_a_loss_the_best_is_the_lowest() -> None:
    truth = np.tile([True, False], 10)
    prediction = np.where(np.arange(20) < 10, 0.5, truth * 0.8 + 0.1)
    ages = np.array(["old"] * 10 + ["young"] * 10, dtype=object)
    evaluation = Evaluation("holdout", "s", "r", truth, prediction, True, {"age": ages})
    found = judge(plan(metric="log_loss", at_most=0.6, max_gap=5.0), evaluation)
    assert (found.gaps[0].best, found.gaps[0].worst) == ("young", "old")
    assert [part.passed for part in found.slices] == [False, True]


def test_a_column_without_a_slice_that_can_be_judged_is_no_pass() -> None:
    assert judge(plan(at_least=0.8), rows(old=(9, 9))).objections == (
        "slices: no slice of age could be judged: fewer than 10 rows",
    )
    one_class = Evaluation("holdout", "s", "r", np.ones(12), np.ones(12), 1, {"age": np.array(["old"] * 12, object)})
    [objection] = judge(plan(metric="roc_auc", at_least=0.8), one_class).objections
    assert "every row is 1, and roc_auc needs both classes" in objection
    [objection] = judge(plan(at_least=0.8), rows(old=(0, 0))).objections
    assert "no rows" in objection


def test_a_column_that_was_not_recorded_is_said_with_the_line_that_records_it() -> None:
    [objection] = judge(plan(columns=["sex"], at_least=0.8), rows(old=(10, 9))).objections
    assert "no column 'sex', only age: ex.evaluation('holdout', ..., slices=rows[['sex']])" in objection


@pytest.mark.parametrize("seed", range(20))
def test_slices_of_accuracy_add_up_to_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = {f"s{i}": (int(count), int(rng.integers(0, count + 1))) for i, count in enumerate(rng.integers(10, 50, 5))}
    found = judge(plan(at_least=0.0), rows(**parts))
    right = sum((part.score or 0.0) * part.rows for part in found.slices)
    assert right == pytest.approx(sum(hits for _, hits in parts.values()))
