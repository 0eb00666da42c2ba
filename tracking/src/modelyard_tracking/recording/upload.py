"""Upload: one spooled run on its way to MongoDB. Doing it again, in part or in whole, changes nothing.

Documents are set to what the events say. Points of a metric are appended only if the array still has the length it had
when they were taken, so a batch whose answer was lost is not appended twice. The database itself says how far it is.
"""

import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import gridfs
from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError

from modelyard_tracking.digests import text_sha256
from modelyard_tracking.recording.plain import plain_key
from modelyard_tracking.recording.spool import EVENTS, EventReader, RunFolder, number

TAIL_BYTES = 64 * 1024  # of the captured output, in the run document; the whole of a longer one is an artifact
OUTPUT_ARTIFACT = "captured_out.txt"
MAX_POINTS = 200_000  # of one metric in one document: MongoDB takes 16 MB, and a point is about 50 bytes
_DUPLICATE_KEY = 11000

Db = Database[dict[str, Any]]


_INDEXES: tuple[tuple[str, tuple[tuple[str, int], ...], dict[str, Any]], ...] = (
    (
        "runs",
        (("info.modelyard.uuid", 1),),
        {"unique": True, "partialFilterExpression": {"info.modelyard.uuid": {"$type": "string"}}},
    ),
    ("runs", (("experiment.name", 1), ("_id", -1)), {}),
    ("runs", (("info.sweep.id", 1),), {}),
    ("runs", (("status", 1),), {}),
    ("metrics", (("run_id", 1), ("name", 1)), {}),
    # GridFS would make these itself with the first file: by somebody who may not.
    ("fs.files", (("filename", 1), ("uploadDate", 1)), {}),
    ("fs.chunks", (("files_id", 1), ("n", 1)), {"unique": True}),
)


def prepare(db: Db) -> None:
    """The indexes that runs rely on. Only missing ones are made: who records runs need not be allowed to make any."""
    names = dict.fromkeys(name for name, _, _ in _INDEXES)
    there = {name: {tuple(index["key"].items()) for index in db[name].list_indexes()} for name in names}
    for name, keys, options in _INDEXES:
        if keys not in there[name]:
            db[name].create_index(list(keys), **options)


def take_id(db: Db) -> int:
    """The next run number. A number is never given twice, also not after a run was deleted."""
    while True:
        counter = db.counters.find_one_and_update(
            {"_id": "runs"}, {"$inc": {"last": 1}}, return_document=ReturnDocument.AFTER
        )
        if counter is not None and db.runs.find_one({"_id": counter["last"]}, {"_id": 1}) is None:
            return int(counter["last"])
        # The first of ours, or plain Sacred took numbers of its own: it takes the largest and one more.
        newest = db.runs.find_one({"_id": {"$type": "number"}}, {"_id": 1}, sort=[("_id", -1)])
        db.counters.update_one({"_id": "runs"}, {"$max": {"last": int(newest["_id"]) if newest else 0}}, upsert=True)


def insert_run(db: Db, document: Mapping[str, Any]) -> int:
    """Insert a run under a new number, or find the number it has already."""
    uuid = document["info"]["modelyard"]["uuid"]
    while True:
        found = db.runs.find_one({"info.modelyard.uuid": uuid}, {"_id": 1})
        if found is not None:
            return int(found["_id"])
        with suppress(DuplicateKeyError):  # the number went to plain Sacred, or the run was inserted by another
            run_id = take_id(db)
            db.runs.insert_one({"_id": run_id, **document})
            return run_id


def mark_died(db: Db, silent_s: float = 25) -> int:
    """Mark runs DIED that have given no sign of life; gives how many.

    The database's own clock counts. A run that was only cut off from the network is set right when it is heard again.
    """
    beat = {"$ifNull": ["$meta.options.--beat-interval", "$meta.options.--beat_interval", 10]}
    seconds = {"$convert": {"input": beat, "to": "double", "onError": 10, "onNull": 10}}
    patience = {
        "$cond": [
            {"$eq": [{"$type": "$info.modelyard.uuid"}, "string"]},
            silent_s,
            {"$max": [60, {"$multiply": [3, seconds]}]},
        ]
    }
    heard = {"$ifNull": ["$heartbeat", "$start_time"]}
    silent = {"$gt": [{"$dateDiff": {"startDate": heard, "endDate": "$$NOW", "unit": "second"}}, patience]}
    died = {"$set": {"status": "DIED", "stop_time": heard}}
    return db.runs.update_many({"status": "RUNNING", "$expr": silent}, [died]).modified_count


@dataclass
class _Metric:
    """The points of one metric that MongoDB has, and those that wait."""

    name: str
    stored: int | None = None  # None: not asked yet
    seen: int = 0  # points read from the spool
    steps: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    low: float | None = None
    high: float | None = None
    last: Any = None

    def add(self, step: Any, value: Any, at: float) -> None:
        self.seen += 1
        self.last = value
        if isinstance(value, int | float) and value == value:
            self.low = value if self.low is None or value < self.low else self.low
            self.high = value if self.high is None or value > self.high else self.high
        self.steps.append(step)
        self.values.append(value)
        self.times.append(at)

    def summary(self) -> dict[str, Any]:
        return {"name": self.name, "last": self.last, "min": self.low, "max": self.high, "points": self.seen}


class RunUpload:
    """Brings one run to MongoDB, as far as its folder goes, each time it is asked to."""

    def __init__(self, folder: RunFolder, db: Db) -> None:
        self.folder = folder
        self.run_id: int | None = None
        self.ended = False  # the event that ends the run was read
        self._db = db
        self._fs = gridfs.GridFS(db)
        self._reader = EventReader(folder)
        self._metrics: dict[str, _Metric] = {}
        self._started: dict[str, Any] | None = None
        self._sources: list[list[Any]] = []
        self._info: dict[str, Any] = {}
        self._files: list[dict[str, Any]] = []  # events of artifacts and resources, not yet stored
        self._artifacts: list[dict[str, Any]] = []
        self._resources: list[list[str]] = []
        self._changes: dict[str, Any] = {}  # what the run document must be set to
        self._output_bytes = 0
        self._flushed_at = 0.0
        self._asked = False

    def step(self) -> bool:
        """Read what is new, and store it when it is time to; True once all of an ended run is stored.

        Raises:
            PyMongoError: the database does not answer or refuses; call again later.
        """
        live = self.folder.is_live()  # before reading: what a dead process wrote is all there is
        while events := self._reader.read():
            for event in events:
                self._take(event)
            if self._waiting() > 500_000:
                self._store(final=False)
        if self._started is None:
            return False
        if self.run_id is None:
            self.run_id = insert_run(self._db, self._first_document())
        final = not live
        if final and not self.ended:
            time.sleep(0.2)  # its last printed lines may still be on their way through `tee`
            self._changes |= {"status": "DIED", "stop_time": self._last_sign()}
            self.ended = True
        if final or time.monotonic() - self._flushed_at >= self._pause():
            self._store(final)
        return final

    @property
    def started(self) -> bool:
        return self._started is not None

    def begin(self) -> int | None:
        """Only give the run its number and its document."""
        for event in self._reader.read():
            self._take(event)
        if self._started is None:
            return None
        self.run_id = insert_run(self._db, self._first_document())
        return self.run_id

    # reading

    def _take(self, event: Any) -> None:
        if isinstance(event, list):
            name, step, value, at = event
            metric = self._metrics.get(name)
            if metric is None:
                metric = self._metrics[name] = _Metric(name)
            metric.add(number(step), number(value), at)
            return
        match event.get("event"):
            case "started":
                self._started = event["document"]
                self._sources = self._started["experiment"].pop("sources")
                self._info = self._started["info"]
            case "info":
                ours = self._info["modelyard"]
                self._info = {**event["info"], "modelyard": {**ours, **event["info"].get("modelyard", {})}}
                self._changes["result"] = event["result"]
            case "artifact" | "resource":
                self._files.append(event)
            case "ended":
                self.ended = True
                if event.get("lost_lines"):
                    self._info["modelyard"]["lost_lines"] = event["lost_lines"]
                keys = ("status", "stop_time", "result", "fail_trace")
                self._changes |= {key: event[key] for key in keys if key in event}

    def _first_document(self) -> dict[str, Any]:
        started = self._started or {}
        experiment = {**started["experiment"], "sources": []}
        return {**started, "experiment": experiment, "heartbeat": datetime.now(UTC)}

    def _last_sign(self) -> datetime:
        written = (self.folder.path / EVENTS, self.folder.output)
        times = [path.stat().st_mtime for path in written if path.exists()]
        return datetime.fromtimestamp(max(times, default=time.time()), UTC)

    # storing

    def _waiting(self) -> int:
        return sum(len(metric.steps) for metric in self._metrics.values())

    def _pause(self) -> float:
        """Seconds between two writes: MongoDB rewrites a metric's whole document for each, so long ones wait longer."""
        longest = max((metric.seen for metric in self._metrics.values()), default=0)
        return min(10.0, 0.5 + longest / 20_000)

    def _store(self, final: bool) -> None:
        if self.run_id is None:
            self.run_id = insert_run(self._db, self._first_document())
        self._store_points()
        self._store_files()
        changes = {**self._changes, **self._output(final)}
        if self._sources:
            changes["experiment.sources"] = [
                [name, self._once(path, digest)] for name, path, digest in self._sources if digest
            ]
        parts = [part for metric in self._metrics.values() for part in _parts(metric)]
        metrics = [{"name": part, "id": str(self._metric_id(part))} for part in parts]
        info = {**self._info, **({"metrics": metrics} if metrics else {})}
        info["modelyard"] = {
            **info["modelyard"],
            "metrics": {plain_key(name): metric.summary() for name, metric in self._metrics.items()},
            "output_bytes": self._output_bytes,
        }
        changes |= {"info": info, "artifacts": self._artifacts, "resources": self._resources}
        changes.setdefault("status", (self._started or {})["status"])
        self._db.runs.update_one({"_id": self.run_id}, {"$set": changes, "$currentDate": {"heartbeat": True}})
        self._sources = []
        self._flushed_at = time.monotonic()
        self.folder.touch_progress()

    def _store_points(self) -> None:
        """Append what waits, batch by batch; a batch that was appended before its answer was lost is left out."""
        if not self._asked and self._metrics:
            self._ask_lengths()
        while batch := self._next_batch():
            try:
                result = self._db.metrics.bulk_write([update for _, _, update in batch], ordered=False)
            except BulkWriteError as error:
                faults = (error.details or {}).get("writeErrors", ())
                if not faults or any(fault["code"] != _DUPLICATE_KEY for fault in faults):
                    raise
                self._ask_lengths()  # the metric's document is there already
                continue
            if result.matched_count + len(result.upserted_ids or {}) < len(batch):
                self._ask_lengths()
                continue
            for metric, count, _ in batch:
                metric.stored = (metric.stored or 0) + count
                del metric.steps[:count], metric.values[:count], metric.times[:count]
            self.folder.touch_progress()

    def _ask_lengths(self) -> None:
        """How many points of each metric MongoDB has; those are not sent again."""
        found = self._db.metrics.aggregate(
            [
                {"$match": {"run_id": self.run_id}},
                {"$project": {"name": {"$ifNull": ["$part_of", "$name"]}, "length": {"$size": "$steps"}}},
                {"$group": {"_id": "$name", "length": {"$sum": "$length"}}},
            ]
        )
        lengths = {document["_id"]: document["length"] for document in found}
        for name, metric in self._metrics.items():
            stored = lengths.get(name, 0)
            known = metric.seen - len(metric.steps)  # points that are no longer held here
            drop = max(0, stored - known)
            del metric.steps[:drop], metric.values[:drop], metric.times[:drop]
            metric.stored = stored
        self._asked = True

    def _next_batch(self) -> list[tuple[_Metric, int, UpdateOne]]:
        batch, points = [], 0
        for metric in self._metrics.values():
            if not metric.steps or points > 100_000:
                continue
            stored = metric.stored or 0
            part, inside = divmod(stored, MAX_POINTS)
            count = min(len(metric.steps), MAX_POINTS - inside, 50_000)
            points += count
            name = _part_name(metric.name, part)
            where: dict[str, Any] = {"_id": self._metric_id(name)}
            push = {
                "steps": {"$each": metric.steps[:count]},
                "values": {"$each": metric.values[:count]},
                "timestamps": {"$each": [datetime.fromtimestamp(at, UTC) for at in metric.times[:count]]},
            }
            update: dict[str, Any] = {"$push": push}
            if inside:
                where["steps"] = {"$size": inside}
            else:
                where["steps"] = {"$exists": False}
                update["$setOnInsert"] = {"run_id": self.run_id, "name": name}
                if part:
                    update["$setOnInsert"] |= {"part_of": metric.name, "part": part + 1}
            batch.append((metric, count, UpdateOne(where, update, upsert=not inside)))
        return batch

    def _metric_id(self, name: str) -> ObjectId:
        return ObjectId(text_sha256(f"{self.folder.uuid}\0{name}".encode())[:24])

    def _store_files(self) -> None:
        while self._files:
            event = self._files[0]
            if event["event"] == "resource":
                if event["file"]:
                    self._once(event["name"], event["file"])
                if [event["name"], event["md5"]] not in self._resources:
                    self._resources.append([event["name"], event["md5"]])
            else:
                self._artifacts.append({"name": event["name"], "file_id": self._store_artifact(event)})
            del self._files[0]
            self.folder.touch_progress()

    def _store_artifact(self, event: Mapping[str, Any]) -> ObjectId:
        """Store one file under an id that follows from the run and its place in it, so that it is there once."""
        key = f"{self.folder.uuid}\0{event['name']}\0{event['file']}\0{len(self._artifacts)}"
        file_id = ObjectId(text_sha256(key.encode())[:24])
        if not self._fs.exists(file_id):
            self._db.fs.chunks.delete_many({"files_id": file_id})  # of an upload that was cut off
            with self.folder.file(event["file"]).open("rb") as file:
                self._fs.put(
                    file,
                    _id=file_id,
                    filename=f"artifact://runs/{self.run_id}/{event['name']}",
                    metadata=event.get("metadata"),
                    content_type=event.get("content_type"),
                    sha256=event["file"],
                )
        return file_id

    def _once(self, name: str, digest: str) -> ObjectId:
        """Store a source or resource, unless the same file with the same content is there."""
        found = self._fs.find_one({"filename": name, "sha256": digest})
        if found is not None:
            return ObjectId(found._id)
        with self.folder.file(digest).open("rb") as file:
            return ObjectId(self._fs.put(file, filename=name, sha256=digest))

    def _output(self, final: bool) -> dict[str, Any]:
        """The tail of what was printed; the whole of it becomes an artifact when the run is over."""
        try:
            size = self.folder.output.stat().st_size
        except FileNotFoundError:
            return {}
        if final and size > TAIL_BYTES:
            self._store_output()
        if size == self._output_bytes and not final:
            return {}
        self._output_bytes = size
        with self.folder.output.open("rb") as file:
            file.seek(max(0, size - TAIL_BYTES))
            tail = file.read(TAIL_BYTES).decode(errors="replace")
        if size > TAIL_BYTES:
            tail = tail.partition("\n")[2] or tail
        return {"captured_out": _as_on_a_terminal(tail)}

    def _store_output(self) -> None:
        if any(artifact["name"] == OUTPUT_ARTIFACT for artifact in self._artifacts):
            return
        file_id = ObjectId(text_sha256(f"{self.folder.uuid}\0{OUTPUT_ARTIFACT}".encode())[:24])
        if not self._fs.exists(file_id):
            self._db.fs.chunks.delete_many({"files_id": file_id})
            name = f"artifact://runs/{self.run_id}/{OUTPUT_ARTIFACT}"
            with self.folder.output.open("rb") as file:
                self._fs.put(file, _id=file_id, filename=name, content_type="text/plain")
        self._artifacts.append({"name": OUTPUT_ARTIFACT, "file_id": file_id})


def _parts(metric: _Metric) -> list[str]:
    return [_part_name(metric.name, part) for part in range((max(metric.seen, 1) - 1) // MAX_POINTS + 1)]


def _part_name(name: str, part: int) -> str:
    return f"{name} (part {part + 1})" if part else name


def _as_on_a_terminal(text: str) -> str:
    """A line that was overwritten, as progress bars do, only as it was seen last."""
    return re.sub(r"[^\n]*\r(?!\n)", "", text)
