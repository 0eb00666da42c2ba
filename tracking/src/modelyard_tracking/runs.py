"""Reading runs, in Sacred's schema: ours, and those of plain Sacred scripts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import gridfs
from pymongo.database import Database

from modelyard_tracking.errors import NotFound
from modelyard_tracking.recording.plain import plain_key
from modelyard_tracking.selection import Selection

# What a list of runs needs: no captured output, no sources, no `info` of the users, which may be large.
_LISTED = {
    "experiment.name": 1,
    "status": 1,
    "start_time": 1,
    "stop_time": 1,
    "config": 1,
    "result": 1,
    "meta.comment": 1,
    "info.sweep": 1,
    **{
        f"info.modelyard.{name}": 1
        for name in ("uuid", "commit", "dirty", "changes", "lock_sha256", "python", "datasets", "model", "reproduces")
    },
}

_UNREAD = {"captured_out": 0, "experiment.sources": 0, "experiment.dependencies": 0}


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

    @property
    def sweep_link(self) -> Mapping[str, Any]:
        """What the run is to its sweep, here or where it was imported from; empty outside of sweeps."""
        link = (self.raw.get("info") or {}).get("sweep") or (self.recorded.get("imported") or {}).get("sweep")
        return link or {}

    @property
    def is_trial(self) -> bool:
        return "trial" in self.sweep_link

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Last, least and greatest value and the number of points of each metric, by its name; our runs only."""
        return {entry["name"]: entry for entry in (self.recorded.get("metrics") or {}).values()}


@dataclass(frozen=True, slots=True)
class Metric:
    """A curve: values over steps, in the order in which they were logged."""

    name: str
    steps: list[Any]
    values: list[Any]
    at: list[datetime]  # UTC


def amount(dataset: Mapping[str, Any]) -> str:
    """How much there is of a data set, from what a run recorded of it."""
    return f"{dataset['rows']} rows" if "rows" in dataset else f"{dataset.get('bytes')} bytes"


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
        return self.select(Selection(experiment, limit=limit))

    def select(self, selection: Selection) -> list[Run]:
        """The runs that were asked for, without captured output and sources.

        Only the entries that the question is about are read of all runs; the rest, of those that are given back.
        """
        fields = dict(_LISTED)
        for name in selection.names:
            fields[f"info.modelyard.metrics.{plain_key(name)}"] = 1
        found = self.db.runs.find(_of(selection.experiment), fields if not selection.names else self._asked(selection))
        if not selection.names:
            return [_run(document) for document in found.sort("_id", -1).limit(selection.limit)]
        ids = selection.pick(self._with_plain_metrics(selection.names, found))
        documents = {document["_id"]: document for document in self.db.runs.find({"_id": {"$in": ids}}, fields)}
        return [_run(documents[run_id]) for run_id in ids if run_id in documents]

    def of_sweep(self, sweep_id: int, *, all_attempts: bool = False) -> list[Run]:
        """The trials of a sweep by their number, each by its last attempt; the winner's runs are not among them."""
        found = self.db.runs.find({"info.sweep.id": sweep_id, "info.sweep.trial": {"$exists": True}}, _UNREAD)
        runs = sorted(map(_run, found), key=lambda run: (run.raw["info"]["sweep"]["trial"], run.id))
        if all_attempts:
            return runs
        return list({run.raw["info"]["sweep"]["trial"]: run for run in runs}.values())

    def winners_of_sweep(self, sweep_id: int) -> list[Run]:
        """The runs of a sweep's winning configuration, trained anew with fresh seeds."""
        found = self.db.runs.find({"info.sweep.id": sweep_id, "info.sweep.role": "winner"}, _UNREAD)
        return [_run(document) for document in found.sort("_id", 1)]

    def curves(self, run_id: int, names: Sequence[str] = ()) -> dict[str, Metric]:
        """The metrics of a run by name, all of them by default."""
        query: dict[str, Any] = {"run_id": run_id}
        if names:
            query["$or"] = [{"name": {"$in": list(names)}}, {"part_of": {"$in": list(names)}}]
        curves: dict[str, Metric] = {}
        for document in self.db.metrics.find(query).sort([("part", 1), ("_id", 1)]):
            name = document.get("part_of", document["name"])
            curve = curves.setdefault(name, Metric(name, [], [], []))
            curve.steps.extend(document["steps"])
            curve.values.extend(document["values"])
            curve.at.extend(_aware(moment) or moment for moment in document["timestamps"])
        return curves

    def artifact(self, run: Run, name: str) -> bytes:
        """The content of an artifact; the last one, where several have this name.

        Raises:
            NotFound: the run has none of this name.
        """
        entries = [entry for entry in run.raw.get("artifacts") or () if entry["name"] == name]
        if not entries:
            there = ", ".join(entry["name"] for entry in run.raw.get("artifacts") or ()) or "none"
            raise NotFound(f"Run {run.id} has no artifact {name!r}. It has: {there}.")
        return bytes(gridfs.GridFS(self.db).get(entries[-1]["file_id"]).read())

    def _asked(self, selection: Selection) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "status": 1,
            "experiment.name": 1,
            "start_time": 1,
            "info.modelyard.uuid": 1,
            "info.sweep.id": 1,
        }
        for name in selection.names:
            key = plain_key(name)
            result = "result" if name == "result" else f"result.{key}"
            fields |= {result: 1, f"info.modelyard.metrics.{key}.last": 1}
            fields |= {f"config.{name}": 1} if not name.startswith(("config.", "result.")) else {name: 1}
        return fields

    def _with_plain_metrics(
        self, names: Iterable[str], documents: Iterable[dict[str, Any]]
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Each run's entries by name; plain Sacred keeps no summary of its metrics, so those are looked up."""
        documents = list(documents)
        plain = [document["_id"] for document in documents if "uuid" not in _ours(document)]
        last: dict[tuple[int, str], Any] = {}
        if plain:
            query = {"name": {"$in": list(names)}, "run_id": {"$in": plain}}
            for metric in self.db.metrics.find(query, {"run_id": 1, "name": 1, "values": {"$slice": -1}}):
                last[metric["run_id"], metric["name"]] = (metric.get("values") or [None])[0]
        for document in documents:
            yield document["_id"], {name: _entry(document, name, last) for name in names}


def _of(experiment: str | None) -> dict[str, Any]:
    return {} if experiment is None else {"experiment.name": experiment}


def _entry(document: Mapping[str, Any], name: str, last: Mapping[tuple[int, str], Any]) -> Any:
    """What a name means of a run: a field of its own, a result, a metric's last value, or a configuration entry."""
    match name:
        case "id" | "run":
            return document["_id"]
        case "status":
            return document.get("status")
        case "started":
            return _aware(document.get("start_time"))
        case "sweep":
            return ((document.get("info") or {}).get("sweep") or {}).get("id")
    key = plain_key(name)
    result = document.get("result")
    if isinstance(result, Mapping) and key in result:
        return result[key]
    if name == "result" and not isinstance(result, Mapping):
        return result
    summary = (_ours(document).get("metrics") or {}).get(key)
    if summary is not None:
        return summary.get("last")
    if (document["_id"], name) in last:
        return last[document["_id"], name]
    if name.startswith(("config.", "result.")):
        return _at(document, name)
    return _at(document.get("config") or {}, name)


def _at(document: Any, path: str) -> Any:
    for part in path.split("."):
        document = document.get(part) if isinstance(document, Mapping) else None
    return document


def _ours(document: Mapping[str, Any]) -> Mapping[str, Any]:
    ours: Mapping[str, Any] = (document.get("info") or {}).get("modelyard") or {}
    return ours


def _run(document: Mapping[str, Any]) -> Run:
    info = document.get("info") or {}
    result = document.get("result")
    return Run(
        id=document["_id"],
        experiment=(document.get("experiment") or {}).get("name", ""),
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
