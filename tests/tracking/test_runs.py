"""Reading runs: filters and orders over a real database, ours and plain Sacred's."""

from datetime import UTC, datetime

import pytest

from modelyard_tracking.errors import NotFound
from modelyard_tracking.runs import RunStore
from modelyard_tracking.selection import Condition, Selection

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def store(db) -> RunStore:
    def ours(run_id: int, lr: float, auc: float | None, **more) -> None:
        summary = {"val,auc": {"name": "val.auc", "last": auc, "min": auc, "max": auc, "points": 3}} if auc else {}
        info = {"modelyard": {"uuid": f"u{run_id}", "metrics": summary}, "large": "x" * 1000}
        document = {"_id": run_id, "experiment": {"name": "churn"}, "status": "COMPLETED", "start_time": NOW,
                    "config": {"lr": lr, "net": {"depth": run_id}}, "info": info, "captured_out": "long"}  # fmt: skip
        db.runs.insert_one({**document, **more})

    ours(1, 0.1, 0.7)
    ours(2, 0.2, 0.9, result={"f1": 0.5})
    ours(3, 0.3, None, status="FAILED")
    db.runs.insert_one({"_id": 4, "experiment": {"name": "plain"}, "status": "COMPLETED", "start_time": NOW,
                        "config": {"lr": 0.4}, "result": 0.8, "info": {}})  # fmt: skip
    db.metrics.insert_one(
        {"run_id": 4, "name": "val.auc", "steps": [0, 1], "values": [0.1, 0.8], "timestamps": [NOW, NOW]}
    )
    return RunStore(db)


def picked(store: RunStore, *conditions: str, **more) -> list[int]:
    return [run.id for run in store.select(Selection(conditions=tuple(map(Condition.parse, conditions)), **more))]


def test_a_list_holds_neither_output_nor_sources_nor_the_users_own_info(store: RunStore) -> None:
    [run] = store.select(Selection("churn", limit=1))
    assert run.id == 3
    assert "captured_out" not in run.raw
    assert "large" not in run.raw["info"]


def test_runs_are_sorted_by_a_metric_also_those_of_plain_sacred(store: RunStore) -> None:
    assert picked(store, sort="val.auc") == [2, 4, 1, 3]
    assert picked(store, sort="val.auc", ascending=True) == [1, 4, 2, 3]


@pytest.mark.parametrize(
    ("condition", "ids"),
    [
        ("lr>0.15", [4, 3, 2]),
        ("config.lr<=0.2", [2, 1]),
        ("net.depth=2", [2]),
        ("f1=0.5", [2]),
        ("result=0.8", [4]),
        ("status=FAILED", [3]),
        ("status!=FAILED", [4, 2, 1]),
        ("val.auc>=0.8", [4, 2]),
        ("started>2026-11-20", [4, 3, 2, 1]),
        ("started<2026-11-20", []),
        ("id>2", [4, 3]),
    ],
)
def test_runs_are_filtered_by_result_metric_configuration_and_fields(store: RunStore, condition: str, ids) -> None:
    assert picked(store, condition) == ids


def test_a_project_and_conditions_together(store: RunStore) -> None:
    assert picked(store, "lr>0.15", experiment="churn", sort="lr", limit=1) == [3]


def test_a_metric_of_the_list_is_there_when_it_was_asked_for(store: RunStore) -> None:
    [run] = store.select(Selection(conditions=(Condition.parse("val.auc=0.9"),)))
    assert run.metrics["val.auc"]["last"] == 0.9


def test_a_run_nobody_knows_and_an_artifact_it_lacks_are_named(store: RunStore) -> None:
    with pytest.raises(NotFound, match="no run 99"):
        store.get(99)
    with pytest.raises(NotFound, match=r"no artifact 'x'\. It has: none"):
        store.artifact(store.get(1), "x")


def test_curves_are_read_by_name(store: RunStore) -> None:
    assert store.curves(4, ["val.auc"])["val.auc"].values == [0.1, 0.8]
    assert store.curves(4, ["other"]) == {}
