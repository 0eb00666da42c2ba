"""Reading runs, in Sacred's schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo.database import Database

from modelyard_tracking.errors import NotFound


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a training program, as Sacred recorded it."""

    id: int
    experiment: str
    status: str
    started_at: datetime | None
    stopped_at: datetime | None
    config: Mapping[str, Any]
    result: Mapping[str, Any]
    recorded: Mapping[str, Any]  # what Modelyard added: commit, lock, data, model; empty for plain Sacred runs
    sweep_id: int | None
    fail_trace: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def duration_s(self) -> float | None:
        return (self.stopped_at - self.started_at).total_seconds() if self.started_at and self.stopped_at else None

    @property
    def model_sha256(self) -> str | None:
        return (self.recorded.get("model") or {}).get("sha256")


@dataclass(frozen=True, slots=True)
class RunStore:
    """Runs in MongoDB, as Sacred's MongoObserver writes them."""

    db: "Database[dict[str, Any]]" = field(repr=False)

    def get(self, run_id: int) -> Run:
        document = self.db.runs.find_one({"_id": run_id})
        if document is None:
            raise NotFound(f"There is no run {run_id}. See which there are:  yard runs")
        return _run(document)

    def latest(self, experiment: str | None = None, limit: int = 20) -> list[Run]:
        """Newest first, without captured output and sources."""
        query = {} if experiment is None else {"experiment.name": experiment}
        fields = {"captured_out": 0, "experiment.sources": 0, "experiment.dependencies": 0, "info.modelyard.diff": 0}
        return [_run(document) for document in self.db.runs.find(query, fields).sort("_id", -1).limit(limit)]

    def of_sweep(self, sweep_id: int) -> list[Run]:
        return [_run(document) for document in self.db.runs.find({"info.sweep.id": sweep_id}).sort("_id", 1)]


def _run(document: Mapping[str, Any]) -> Run:
    info = document.get("info") or {}
    result = document.get("result")
    return Run(
        id=document["_id"],
        experiment=document.get("experiment", {}).get("name", ""),
        status=document.get("status", ""),
        started_at=_aware(document.get("start_time")),
        stopped_at=_aware(document.get("stop_time")),
        config=document.get("config") or {},
        result=result if isinstance(result, dict) else {} if result is None else {"result": result},
        recorded=info.get("modelyard") or {},
        sweep_id=(info.get("sweep") or {}).get("id"),
        fail_trace="".join(document.get("fail_trace") or ()),
        raw=document,
    )


def _aware(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment and moment.tzinfo is None else moment
