"""Strict validation of what callers send."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from modelyard_serving.manifest import Column
from modelyard_serving.runtime.rows import BadRequest, Schema, parse_rows

COLUMNS = (Column("x", "float64"), Column("n", "int64"), Column("ok", "bool"), Column("name", "str"))
NUMBERS = (Column("x", "float64"), Column("y", "float64"))
GOOD = {"x": 1.5, "n": 3, "ok": True, "name": "äöü"}


def to_table(rows: list[Any], columns: tuple[Column, ...]) -> pd.DataFrame:
    schema = Schema(columns)
    return schema.table(schema.read(rows))


def test_rows_become_a_table_in_the_declared_order_and_dtypes() -> None:
    table = to_table([dict(reversed(GOOD.items())), {**GOOD, "x": 2}], COLUMNS)
    assert list(table.columns) == ["x", "n", "ok", "name"]
    assert [str(dtype) for dtype in table.dtypes] == ["float64", "int64", "bool", "str"]
    assert np.array_equal(table["x"], [1.5, 2.0])


def test_a_table_of_numbers_alone_is_the_same_by_its_shorter_way() -> None:
    columns = (Column("x", "float64"), Column("y", "float64"))
    rows = [{"y": 2, "x": 1.5}, {"x": -0.0, "y": 2**62}]
    mixed = to_table([{**row, "name": ""} for row in rows], (*columns, Column("name", "str")))
    pd.testing.assert_frame_equal(to_table(rows, columns), mixed[["x", "y"]])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"x": "1.5"}, "rows[0].x: expected a number, got '1.5'"),
        ({"x": None}, "rows[0].x: expected a number, got null"),
        ({"x": True}, "rows[0].x: expected a number, got True"),
        ({"n": 1.5}, "rows[0].n: expected a whole number, got 1.5"),
        ({"n": 2**63}, "rows[0].n: expected a whole number, got 9223372036854775808"),
        ({"ok": 1}, "rows[0].ok: expected true or false, got 1"),
        ({"name": 7}, "rows[0].name: expected a text, got 7"),
        ({"name": [1]}, "rows[0].name: expected a text, got a list"),
        ({"extra": 1}, "rows[0]: column 'extra' is unknown"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_place(change: dict[str, object], fault: str) -> None:
    with pytest.raises(BadRequest) as caught:
        to_table([{**GOOD, **change}], COLUMNS)
    assert caught.value.faults == [fault]


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(BadRequest) as caught:
        to_table([{"x": "a"}, 7], COLUMNS)
    assert len(caught.value.faults) == 5


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"7", b"[]", b"[NaN]", b"[1e999]", b"\xff", b"[" * 100_000, b'{"rows": {}}',
        b'{"rows": []}', b'{"rows": [], "x": 1}', b'{"rows": [' + b"{}," * 10_000 + b"{}]}",
    ],
)  # fmt: skip
def test_what_is_not_a_list_of_rows_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_rows(body, COLUMNS)


def test_a_bare_list_of_records_is_taken_too() -> None:
    assert parse_rows(b'[{"x": 1}]', COLUMNS) == parse_rows(b'{"rows": [{"x": 1}]}', COLUMNS) == [{"x": 1}]
