"""Audit intake: records as JSON lines, each kept exactly once by its prediction id.

On the good path the whole batch is one parse and one insert, and a record gets its dates and what it is summed up by. A
line that is no record never blocks the others; it is kept apart, in `bad_records`, and counted in the reply.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
import orjson
from pymongo import ReplaceOne
from pymongo.database import Database
from pymongo.errors import BulkWriteError

from modelyard_serving.console.evidence import cells
from modelyard_serving.console.feedback import DUPLICATE_KEY, join_waiting

Record = dict[str, Any]

BAD_RECORDS_DAYS = 30  # as long as somebody may look for the fault; a line may hold what a caller sent
_BSON_BYTES = 15 * 2**20  # MongoDB takes documents up to 16 MB
_KEPT_OF_A_LINE = 64 * 2**10
_NEVER = {2, 121, 10334, 17280}  # MongoDB's codes: a bad value, not valid, too large, a key too large for an index
_NO_RECORD = (KeyError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch: the lines there were, those that were not known before, and those that are no records."""

    received: int
    new: int
    bad: int


def take(db: "Database[dict[str, Any]]", body: bytes) -> Taken:
    """Keep every record of `body`, one JSON object a line.

    Raises:
        PyMongoError: MongoDB does not answer; nothing is lost if the same lines are sent again.
    """
    lines = [line for line in body.split(b"\n") if line]
    records, bad = _records(lines)
    new, refused = _insert(db, records) if records else (0, [])
    bad += [(orjson.dumps(record, default=str), why) for record, why in refused]
    if records:
        join_waiting(db, [record["_id"] for record in records])
    if bad:
        _keep_apart(db, bad)
    return Taken(len(lines), new, len(bad))


def _records(lines: Sequence[bytes]) -> tuple[list[Record], list[tuple[bytes, str]]]:
    try:
        records = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(records) == len(lines):
            return [_dated(record) for record in records], []
    except _NO_RECORD:
        pass
    good, bad = [], []
    for line in lines:
        try:
            good.append(_dated(orjson.loads(line)))
        except _NO_RECORD as error:
            bad.append((line, f"{type(error).__name__}: {error}"))
    return good, bad


def _dated(record: Record) -> Record:
    """The record with what expiry and sums rely on.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no record.
    """
    at = record["at"] = datetime.fromisoformat(record["at"])
    if days := record.get("retention_days"):
        record["expires_at"] = at + timedelta(days=days)
    record["shadow"] = record.get("shadow") is True
    record.setdefault("epoch")
    if record["_id"].__class__ is not str or record["status"].__class__ is not int:
        raise TypeError("_id must be a text and status a whole number")
    record["latency_ms"] = float(record["latency_ms"])
    record.update(cells(record))
    return record


def _insert(db: "Database[dict[str, Any]]", records: list[Record]) -> tuple[int, list[tuple[Record, str]]]:
    """How many were new, and which ones MongoDB will never take."""
    try:
        return len(db.predictions.insert_many(records, ordered=False).inserted_ids), []
    except (OverflowError, bson.errors.BSONError):  # what a refused request held may be anything
        fitting = [_fitting(record) for record in records]
    except BulkWriteError as error:
        return _after(error, records)
    try:
        return len(db.predictions.insert_many(fitting, ordered=False).inserted_ids), []
    except BulkWriteError as error:
        return _after(error, fitting)


def _after(error: BulkWriteError, records: list[Record]) -> tuple[int, list[tuple[Record, str]]]:
    faults = [fault for fault in error.details["writeErrors"] if fault["code"] != DUPLICATE_KEY]
    if error.details.get("writeConcernErrors") or any(fault["code"] not in _NEVER for fault in faults):
        raise error  # time is up, the disk is full, or it is not safe yet: the lines are to be sent again
    return int(error.details["nInserted"]), [(records[fault["index"]], fault["errmsg"][:500]) for fault in faults]


def _fitting(record: Record) -> Record:
    """The record as MongoDB can hold it: as it is, or with the rows as text."""
    try:
        if len(bson.encode(record)) < _BSON_BYTES:
            return record
    except (OverflowError, bson.errors.BSONError):
        pass
    return {**record, "inputs": orjson.dumps(record.get("inputs")).decode()[: _BSON_BYTES // 2]}


def _keep_apart(db: "Database[dict[str, Any]]", bad: Iterable[tuple[bytes, str]]) -> None:
    """Once each, by content, so that a batch that is sent again adds none."""
    now = datetime.now(UTC)
    expires_at = now + timedelta(days=BAD_RECORDS_DAYS)
    writes = []
    for line, why in bad:
        about = {"at": now, "why": why, "line": line[:_KEPT_OF_A_LINE], "expires_at": expires_at}
        writes.append(ReplaceOne({"_id": hashlib.sha256(line).hexdigest()}, about, upsert=True))
    db.bad_records.bulk_write(writes, ordered=False)
