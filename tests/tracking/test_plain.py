"""What values become before they are stored: never an error, and nothing that MongoDB or its readers choke on."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import bson
import numpy as np
import pandas as pd
import pytest

from modelyard_tracking.recording.plain import MAX_ELEMENTS, flat, plain, plain_key, plain_number


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: float


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Tensor:
    """Behaves as torch's does; torch itself is not installed here."""

    def __init__(self, values) -> None:
        self._values = np.asarray(values, dtype="float32")
        self.shape, self.dtype = self._values.shape, "torch.float32"

    def detach(self):
        return self

    def cpu(self):
        return self

    def tolist(self):
        return self._values.tolist()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ({3, 1, 2}, [1, 2, 3]),
        ({"b", 1}, [1, "b"]),
        (2**70, "1180591620717411303424"),
        (-(2**63), -(2**63)),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.arange(3), [0, 1, 2]),
        (Tensor([1.0, 2.0]), [1.0, 2.0]),
        (Tensor(0.5), 0.5),
        (pd.Series({"a": 1}), {"a": 1}),
        (Path("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Point(1.0), {"x": 1.0}),
        ((1, (2,)), [1, [2]]),
        (range(2), [0, 1]),
        (1 + 2j, "(1+2j)"),
        ("\udc80", "?"),
        ({"a.b": 1, "$c": 2, 3: 4}, {"a,b": 1, "@c": 2, "3": 4}),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_value_becomes_the_nearest_thing_that_can_be_stored(value, stored) -> None:
    assert plain(value) == stored
    bson.encode({"value": plain(value)})


def test_nan_stays_nan() -> None:
    assert np.isnan(plain(np.float64("nan")))


def test_a_large_array_becomes_a_line_about_it() -> None:
    assert plain(np.zeros(MAX_ELEMENTS + 1)) == "<ndarray float64, shape (10001,): save it as an artifact>"


def test_an_object_whose_own_methods_fail_is_named_and_does_no_harm() -> None:
    assert plain([Hostile()])[0].startswith("<Hostile, not storable")


def test_a_value_that_holds_itself_comes_to_an_end() -> None:
    loop: list = []
    loop.append(loop)
    bson.encode({"value": plain(loop)})


@pytest.mark.parametrize(("value", "number"), [(2**70, float(2**70)), (np.array([0.5]), 0.5), ("text", "text"), (1, 1)])
def test_a_point_of_a_metric_is_a_number_where_it_can_be(value, number) -> None:
    assert plain_number(value) == number


def test_keys_lose_what_mongodb_reads_as_a_path_or_an_operator() -> None:
    assert (plain_key("val.auc"), plain_key("$set"), plain_key("a\0b")) == ("val,auc", "@set", "ab")


def test_nested_entries_get_dotted_names() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": {}}}) == {"a.b.c": 1, "a.d": {}}
