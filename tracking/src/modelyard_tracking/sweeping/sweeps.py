"""Sweeps as MongoDB knows them: what was searched, how far it is, and what came of it."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psutil
from pymongo import ReturnDocument
from pymongo.database import Database

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.origin import GitState
from modelyard_tracking.project import Project
from modelyard_tracking.runs import Run
from modelyard_tracking.sweeping.winner import Winner, winner_from


@dataclass(frozen=True, slots=True)
class Sweep:
    """One search, as it was begun and as far as it came."""

    id: int
    project: str
    metric: str
    direction: str
    space: Mapping[str, Any]
    seed: int
    trials: int  # the budget
    state: str  # RUNNING, COMPLETED, INTERRUPTED, FAILED
    started_at: datetime
    stopped_at: datetime | None
    best_run: int | None
    best_value: float | None
    winner: Winner | None
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SweepStore:
    """Reads and writes the collection `sweeps`."""

    db: "Database[dict[str, Any]]" = field(repr=False)

    def begin(
        self, project: Project, space: Mapping[str, Any], seed: int, trials: int, state: GitState | None
    ) -> Sweep:
        counter = self.db.counters.find_one_and_update(
            {"_id": "sweeps"}, {"$inc": {"last": 1}}, upsert=True, return_document=ReturnDocument.AFTER
        )
        document = {
            "_id": int((counter or {})["last"]),
            "project": project.name,
            "metric": project.metric.model_dump(),
            "space": dict(space),
            "plan": project.sweep.model_dump(mode="json", exclude={"space"}),
            "seed": seed,
            "trials": trials,
            "git": {"commit": state.commit, "dirty": state.dirty} if state else None,
            "driver": _driver(),
            "state": "RUNNING",
            "started_at": datetime.now(UTC),
            "best_run": None,
            "best_value": None,
        }
        self.db.sweeps.insert_one(document)
        return _sweep(document)

    def resume(self, sweep_id: int, project: str) -> Sweep:
        """Go on with a sweep that did not come to its end.

        Raises:
            Refused: it is another project's, is over, or still runs on this machine.
        """
        sweep = self.get(sweep_id)
        if sweep.project != project:
            raise Refused(f"Sweep {sweep_id} is of {sweep.project}, not of {project}.")
        if sweep.state == "COMPLETED":
            raise Refused(f"Sweep {sweep_id} is complete. Look at it:  yard show sweep:{sweep_id}")
        driver = sweep.raw.get("driver") or {}
        if sweep.state == "RUNNING" and driver.get("host") == platform.node() and psutil.pid_exists(driver["pid"]):
            raise Refused(f"Sweep {sweep_id} still runs, in process {driver['pid']} of this machine. Stop that first.")
        self.db.sweeps.update_one({"_id": sweep_id}, {"$set": {"state": "RUNNING", "driver": _driver()}})
        return sweep

    def get(self, sweep_id: int) -> Sweep:
        document = self.db.sweeps.find_one({"_id": sweep_id})
        if document is None:
            raise NotFound(f"There is no sweep {sweep_id}. See which there are:  yard sweeps")
        return _sweep(document)

    def latest(self, project: str | None = None, limit: int = 20) -> list[Sweep]:
        query = {} if project is None else {"project": project}
        return [_sweep(document) for document in self.db.sweeps.find(query).sort("_id", -1).limit(limit)]

    def note_best(self, sweep: Sweep, value: float, trial: int, run_id: int | None) -> None:
        """Write down the best value so far, for those who look at a sweep that is under way."""
        best = {"best_value": value, "best_trial": trial, "best_run": run_id}
        self.db.sweeps.update_one({"_id": sweep.id}, {"$set": best})

    def end(self, sweep: Sweep, state: str, best: Run | None, winner: Winner | None) -> None:
        said: dict[str, Any] = {"state": state, "stopped_at": datetime.now(UTC), "best_run": best.id if best else None}
        if winner is not None:
            said |= {"winner": winner.as_dict(), "best_value": winner.sweep_score}
        self.db.sweeps.update_one({"_id": sweep.id}, {"$set": said})


def _driver() -> dict[str, Any]:
    return {"host": platform.node(), "pid": os.getpid()}


def _sweep(document: Mapping[str, Any]) -> Sweep:
    metric = document["metric"]
    return Sweep(
        id=document["_id"],
        project=document["project"],
        metric=metric["name"],
        direction=metric["direction"],
        space=document["space"],
        seed=document["seed"],
        trials=document["trials"],
        state=document["state"],
        started_at=document["started_at"],
        stopped_at=document.get("stopped_at"),
        best_run=document.get("best_run"),
        best_value=document.get("best_value"),
        winner=winner_from(dict(document), metric["direction"]),
        raw=document,
    )
