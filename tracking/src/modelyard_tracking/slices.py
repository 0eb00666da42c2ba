"""Slices: whether a model serves every part of the rows, judged against what the project declares. Pure.

A slice with few rows is named and not judged: its number would be luck.
"""

from dataclasses import dataclass

import numpy as np

from modelyard_tracking.evaluation import Evaluation
from modelyard_tracking.measures import MEASURES, Unmeasurable, score
from modelyard_tracking.project import SlicePlan


@dataclass(frozen=True, slots=True)
class Slice:
    """The rows with one value in one column, and what the model comes to there."""

    column: str
    value: str
    rows: int
    score: float | None  # None: not judged
    passed: bool | None
    why_not: str = ""  # it was not judged


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the best and the worst judged slice of a column lie apart."""

    column: str
    best: str
    worst: str
    gap: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Slices:
    """All slices of all declared columns, and the objections that follow."""

    slices: tuple[Slice, ...]
    gaps: tuple[Gap, ...]
    objections: tuple[str, ...]


def judge(plan: SlicePlan, evaluation: Evaluation) -> Slices:
    """Weigh every slice of an evaluation against the project's bounds."""
    slices: list[Slice] = []
    gaps: list[Gap] = []
    objections: list[str] = []
    for column in plan.columns:
        if column not in evaluation.slices:
            there = ", ".join(evaluation.slices) or "none"
            objections.append(
                f"slices: the evaluation {evaluation.name} has no column {column!r}, only {there}: "
                f"ex.evaluation({evaluation.name!r}, ..., slices=rows[[{column!r}]])"
            )
            continue
        found = _of_column(plan, evaluation, column)
        judged = sorted((part for part in found if part.score is not None), key=lambda part: part.score or 0.0)
        slices += found
        objections += [
            f"slice {part.column} = {part.value}: {plan.metric} {part.score:.4g} over {part.rows} rows "
            f"is not {plan.bound}"
            for part in found
            if part.passed is False
        ]
        if not judged:
            objections.append(
                f"slices: no slice of {column} could be judged: {found[0].why_not if found else 'no rows'}"
            )
        elif plan.max_gap is not None and len(judged) > 1:
            ends = judged if not MEASURES[plan.metric].higher_is_better else judged[::-1]
            best, worst = ends[0], ends[-1]
            apart = abs((best.score or 0.0) - (worst.score or 0.0))
            gaps.append(Gap(column, best.value, worst.value, apart, apart <= plan.max_gap))
            if apart > plan.max_gap:
                objections.append(
                    f"slices of {column}: {plan.metric} of {best.value} and of {worst.value} lie {apart:.4g} apart, "
                    f"more than {plan.max_gap:g}"
                )
    return Slices(tuple(slices), tuple(gaps), tuple(objections))


def _of_column(plan: SlicePlan, evaluation: Evaluation, column: str) -> list[Slice]:
    values = evaluation.slices[column]
    return [_slice(plan, evaluation, column, str(value), values == value) for value in sorted(set(values.tolist()))]


def _slice(plan: SlicePlan, evaluation: Evaluation, column: str, value: str, mask: np.ndarray) -> Slice:
    rows = int(mask.sum())
    if rows < plan.min_rows:
        return Slice(column, value, rows, None, None, f"fewer than {plan.min_rows} rows")
    try:
        found = score(MEASURES[plan.metric], evaluation.part(mask))
    except Unmeasurable as error:
        return Slice(column, value, rows, None, None, str(error))
    return Slice(column, value, rows, found, plan.holds(found))
