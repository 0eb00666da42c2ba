"""The digest of a data set."""

import numpy as np
import pandas as pd
import pytest

from modelyard_tracking.digests import frame_sha256

FRAME = pd.DataFrame({"x": [1.0, np.nan, 3.0], "n": [1, 2, 3], "s": ["a", None, "ä"], "b": [True, False, True]})


def test_the_same_content_has_the_same_digest_whatever_its_index_and_kind_of_nan() -> None:
    other_nan = np.frombuffer(np.array([0x7FF8000000000001], np.uint64).tobytes(), np.float64)[0]
    same = pd.DataFrame({**FRAME, "x": [1.0, other_nan, 3.0]}).set_axis(["i", "j", "k"])
    assert frame_sha256(same) == frame_sha256(FRAME)


@pytest.mark.parametrize(
    "other",
    [
        FRAME[["n", "x", "s", "b"]],
        FRAME.iloc[::-1],
        FRAME.rename(columns={"x": "y"}),
        FRAME.astype({"n": "int32"}),
        FRAME.fillna({"s": ""}),
        FRAME.fillna({"x": 0.0}),
        FRAME.head(2),
        FRAME.assign(s=["a", None, "b"]),
    ],
    ids=["column order", "row order", "a name", "a dtype", "missing text", "missing number", "fewer rows", "a value"],
)
def test_any_difference_that_training_could_see_changes_the_digest(other: pd.DataFrame) -> None:
    assert frame_sha256(other) != frame_sha256(FRAME)


def test_text_cannot_be_moved_across_rows_unnoticed() -> None:
    assert frame_sha256(pd.DataFrame({"s": ["ab", "c"]})) != frame_sha256(pd.DataFrame({"s": ["a", "bc"]}))
