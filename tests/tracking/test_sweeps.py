"""Sweeps as MongoDB knows them."""

import subprocess

import pytest

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.project import load_project
from modelyard_tracking.sweeping.sweeps import Sweep, SweepStore
from places import PROJECTS


@pytest.fixture
def store(db) -> SweepStore:
    return SweepStore(db)


@pytest.fixture
def begun(store: SweepStore) -> Sweep:
    return store.begin(load_project(PROJECTS, "tumor"), {"C": {"loguniform": [1e-8, 1e4]}}, 3, 20, None)


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_a_sweep_comes_back_as_it_was_begun(store: SweepStore, begun: Sweep) -> None:
    sweep = store.get(begun.id)
    assert (sweep.id, sweep.metric, sweep.direction, sweep.seed, sweep.trials) == (1, "val_auc", "max", 3, 20)
    assert sweep.space == {"C": {"loguniform": [1e-8, 1e4]}}
    assert (sweep.state, sweep.stopped_at, sweep.winner) == ("RUNNING", None, None)
    assert [sweep.id for sweep in store.latest("tumor")] == [1]
    assert store.latest("other") == []


def test_a_sweep_whose_driver_is_dead_can_be_gone_on_with(store: SweepStore, begun: Sweep) -> None:
    store.db.sweeps.update_one({"_id": begun.id}, {"$set": {"driver.pid": gone()}})
    assert store.resume(begun.id, "tumor").id == begun.id


def test_a_sweep_that_still_runs_is_not_run_twice(store: SweepStore, begun: Sweep) -> None:
    with pytest.raises(Refused, match="still runs, in process"):
        store.resume(begun.id, "tumor")


def test_a_sweep_that_is_over_or_is_anothers_is_not_gone_on_with(store: SweepStore, begun: Sweep) -> None:
    store.end(begun, "COMPLETED", None, None)
    with pytest.raises(Refused, match="is complete"):
        store.resume(begun.id, "tumor")
    with pytest.raises(Refused, match="is of tumor, not of digits"):
        store.resume(begun.id, "digits")
    with pytest.raises(NotFound, match="yard sweeps"):
        store.resume(99, "tumor")


def test_the_best_so_far_can_be_read_while_it_runs(store: SweepStore, begun: Sweep) -> None:
    store.note_best(begun, 0.97, 4, 12)
    assert (store.get(begun.id).best_value, store.get(begun.id).best_run) == (0.97, 12)
