"""Which runs, in which order."""

from datetime import UTC, datetime, timedelta

import pytest

from modelyard_tracking.errors import Refused
from modelyard_tracking.selection import Condition, Selection

RUNS = [
    (1, {"auc": 0.7, "name": "a"}),
    (2, {"auc": 0.9}),
    (3, {"auc": None}),
    (4, {"auc": float("nan")}),
    (5, {"auc": 0.8}),
]


@pytest.mark.parametrize(
    ("text", "entries", "holds"),
    [
        ("auc>0.8", {"auc": 0.9}, True),
        ("auc>0.8", {"auc": 0.8}, False),
        ("auc >= 0.8", {"auc": 0.8}, True),
        ("status=FAILED", {"status": "FAILED"}, True),
        ("status==FAILED", {"status": "COMPLETED"}, False),
        ("status!=FAILED", {"status": None}, True),
        ("scaler~ROB", {"scaler": "robust"}, True),
        ("flag=true", {"flag": True}, True),
        ("auc>0.8", {"auc": "high"}, False),
        ("auc<1", {"auc": None}, False),
    ],
)
def test_a_condition_is_read_as_it_is_typed(text: str, entries: dict, holds: bool) -> None:
    assert Condition.parse(text).holds(entries) is holds


@pytest.mark.parametrize("text", ["auc", "", ">0.8", "started>yesterday-ish"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(Refused, match=r"val_auc>0\.9|2026-11-20"):
        Condition.parse(text)


def test_started_may_be_said_as_time_ago() -> None:
    now = datetime.now(UTC)
    recent = Condition.parse("started>2d")
    assert recent.holds({"started": now - timedelta(days=1)})
    assert not recent.holds({"started": now - timedelta(days=3)})


def test_the_newest_come_first_without_a_sort() -> None:
    assert Selection(limit=2).pick(RUNS) == [5, 4]


def test_runs_without_a_number_to_sort_by_come_last() -> None:
    assert Selection(sort="auc").pick(RUNS) == [2, 5, 1, 4, 3]
    assert Selection(sort="auc", ascending=True).pick(RUNS) == [1, 5, 2, 4, 3]


def test_all_conditions_must_hold() -> None:
    wanted = (Condition.parse("auc>0.6"), Condition.parse("name=a"))
    assert Selection(conditions=wanted).pick(RUNS) == [1]
