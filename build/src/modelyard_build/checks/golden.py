"""Golden rows: the served model answers training's own rows as it did in training.

This is what catches train/serve skew: another library version, a changed constant, a swapped column.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_serving.manifest import METHODS

SINGLES = 5  # rows also sent one by one: a batch of one must answer like a batch of many


def check(served: Served, subject: Subject) -> Finding:
    rows = list(subject.golden_rows)
    batches = [(0, rows), *((number, rows[number : number + 1]) for number in range(min(SINGLES, len(rows))))]
    for start, batch in batches:
        response = served.http.post("/predict", json={"rows": batch})
        if response.status_code != 200:
            return _failed(f"golden rows from {start} were answered {response.status_code}: {response.text[:200]}")
        answer = response.json()
        for method, expected in subject.golden_answers.items():
            wanted = expected[start : start + len(batch)]
            different = first_difference(wanted, answer.get(METHODS[method], ()), subject.tolerance)
            if different is not None:
                number, want, got = different
                return _failed(f"golden row {start + number}: training's {method} gave {want}, the bento answers {got}")
    return Finding("golden", True, f"{len(rows)} golden rows answered as in training, in a batch and one by one")


def first_difference(wanted: Sequence[Any], got: Sequence[Any], tolerance: float) -> tuple[int, Any, Any] | None:
    """The first row in which two answers differ: (row, wanted, got). Numbers may differ by `tolerance`, relatively."""
    if len(wanted) != len(got):
        return 0, f"{len(wanted)} answers", f"{len(got)} answers"
    for number, (want, have) in enumerate(zip(wanted, got, strict=True)):
        if not _same(want, have, tolerance):
            return number, want, have
    return None


def _same(want: Any, have: Any, tolerance: float) -> bool:
    if isinstance(want, float) or (isinstance(want, list) and any(isinstance(value, float) for value in want)):
        try:
            left, right = np.asarray(want, float), np.asarray(have, float)
        except (TypeError, ValueError):
            return False
        return left.shape == right.shape and bool(np.allclose(left, right, rtol=tolerance, atol=tolerance))
    return bool(want == have)


def _failed(message: str) -> Finding:
    remedy = "The packaged model is not the trained one. Train again, request and approve the new run."
    return Finding("golden", False, message, remedy)
