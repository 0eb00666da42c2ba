"""Answers: when two of them are the same."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def first_difference(wanted: Sequence[Any], got: Sequence[Any], tolerance: float) -> tuple[int, Any, Any] | None:
    """The first row in which two answers differ: (row, wanted, got).

    Floating-point numbers may differ by `tolerance`, relatively; all else must be equal. What is not a finite number
    is the same as nothing.
    """
    if len(wanted) != len(got):
        return 0, f"{len(wanted)} answers", f"{len(got)} answers"
    for number, (want, have) in enumerate(zip(wanted, got, strict=True)):
        if not _same(want, have, tolerance):
            return number, want, have
    return None


def is_finite(answer: Any) -> bool:
    """Is there no NaN, infinity or null in it?"""
    if isinstance(answer, list | tuple):
        return all(map(is_finite, answer))
    return answer is not None and not (isinstance(answer, float) and not math.isfinite(answer))


def _same(want: Any, have: Any, tolerance: float) -> bool:
    if not is_finite(have) or isinstance(want, bool) != isinstance(have, bool):
        return False
    if isinstance(want, float) or (isinstance(want, list) and any(isinstance(value, float) for value in want)):
        try:
            left, right = np.asarray(want, float), np.asarray(have, float)
        except (TypeError, ValueError):
            return False
        return left.shape == right.shape and bool(np.allclose(left, right, rtol=tolerance, atol=tolerance))
    return bool(want == have)
