"""When two answers are the same."""

import pytest

from modelyard_serving.answers import first_difference


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (["a", "b"], ["a", "b"]),
        ([1, 2], [1, 2]),
        ([1, 2], [1.0, 2.0]),
        ([0.1 + 0.2], [0.3]),
        ([[0.25, 0.75]], [[0.25, 0.75 + 1e-12]]),
        ([], []),
    ],
)
def test_answers_within_tolerance_are_the_same(wanted, got) -> None:
    assert first_difference(wanted, got, 1e-9) is None


@pytest.mark.parametrize(
    ("wanted", "got", "row"),
    [
        (["a", "b"], ["a", "c"], 1),
        ([1, 2], [1, 3], 1),
        ([1, 0], [True, 0], 0),
        ([10**18], [10**18 + 1], 0),
        ([0.3], [0.3001], 0),
        ([[0.25, 0.75]], [[0.75, 0.25]], 0),
        ([0.3], ["0.3x"], 0),
        ([0.3], [None], 0),
        ([None], [None], 0),
        ([0.3], [float("nan")], 0),
        ([float("nan")], [float("nan")], 0),
        ([float("inf")], [float("inf")], 0),
        ([[0.1, 0.9]], [[0.1]], 0),
        (["a"], ["a", "a"], 0),
    ],
)
def test_any_other_answer_is_found_with_its_row(wanted, got, row: int) -> None:
    difference = first_difference(wanted, got, 1e-9)
    assert difference is not None
    assert difference[0] == row
