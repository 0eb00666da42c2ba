"""The checks, on what they compare; tests/system runs them on a real bento."""

import json

import pytest

from modelyard_build.checks.bad_input import bad_bodies
from modelyard_build.checks.finding import Finding
from modelyard_build.checks.golden import first_difference
from modelyard_build.report import Report, report_sha256
from modelyard_serving.manifest import Column
from modelyard_serving.runtime.rows import BadRequest, parse_rows, to_table


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (["a", "b"], ["a", "b"]),
        ([1, 2], [1, 2]),
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
        ([0.3], [0.3001], 0),
        ([[0.25, 0.75]], [[0.75, 0.25]], 0),
        ([0.3], ["0.3x"], 0),
        ([0.3], [None], 0),
        ([0.3], [float("nan")], 0),
        ([[0.1, 0.9]], [[0.1]], 0),
        (["a"], ["a", "a"], 0),
    ],
)
def test_any_other_answer_is_found_with_its_row(wanted, got, row: int) -> None:
    difference = first_difference(wanted, got, 1e-9)
    assert difference is not None
    assert difference[0] == row


@pytest.mark.parametrize("row", [{"x": 1.5, "y": 2.5}, {"x": "text", "y": 1.0}], ids=["numbers", "text first"])
def test_every_generated_bad_body_is_bad_and_the_row_it_was_made_from_is_good(row) -> None:
    columns = [Column(name, "str" if isinstance(value, str) else "float64") for name, value in row.items()]
    to_table(parse_rows(json.dumps({"rows": [row]}).encode()), columns)
    for _, body in bad_bodies(row):
        with pytest.raises(BadRequest):
            to_table(parse_rows(body), columns)


def test_one_failed_check_fails_the_report_and_changes_its_digest() -> None:
    good = Report("m:1", "m:1-x", "b", "m", (Finding("a", True, "fine"), Finding("b", True, "fine")))
    bad = Report("m:1", "m:1-x", "b", "m", (Finding("a", True, "fine"), Finding("b", False, "not fine")))
    assert good.passed
    assert not bad.passed
    assert good.sha256 != bad.sha256
    assert report_sha256(json.loads(json.dumps(good.to_dict()))) == good.sha256
