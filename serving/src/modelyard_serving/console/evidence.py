"""Evidence of an A/B test, by unit, epoch and version, as MongoDB sums it up from its indexes.

Nothing is summed up when it arrives: a record that is sent twice, feedback that comes weeks later and a console that
dies in between cannot make a sum wrong. What is read is an index that holds all that is asked for, never a document. A
record carries what it is summed up by as one text, its cell: MongoDB groups by one text in a third of the time that
five fields take.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.database import Database

ASSIGNED = ("unit", "caller")  # the split said who answers; requests without a unit or to an exact version are left out

SPLIT, _SHADOW, _OTHER = "split", "shadow", "other"
_BETWEEN = "\t"  # what is between the parts of a cell; the unit comes last, since only it may hold one

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What one unit asked one version in one epoch."""

    epoch: int | None
    variant: str
    version: int
    unit: str
    answered: int
    refused: int  # the caller's mistake: 400 to 499
    failed: int
    first_at: datetime | None  # where it was asked for


@dataclass(frozen=True, slots=True)
class Judged:
    """What was said of a unit's predictions of one version in one epoch; of the split's, and in one state."""

    epoch: int | None
    variant: str
    version: int
    unit: str
    state: str
    count: int
    total: float  # of their scores


@dataclass(frozen=True, slots=True)
class Latencies:
    """How often a version answered in about so many milliseconds; 1 % apart."""

    variant: str
    version: int
    milliseconds: float
    count: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that results are made of."""

    asked: Sequence[Asked]
    judged: Sequence[Judged]
    latencies: Sequence[Latencies]
    shadows: Sequence[Asked]
    shadow_latencies: Sequence[Latencies]
    counts: Mapping[str, int]  # of all feedback of the endpoint: by state, and duplicates and contradictions
    shares: Mapping[int, Mapping[str, float]]  # by epoch, as the ledger has them
    window_days: int | None  # of feedback, where the endpoint says one


def cells(record: Mapping[str, Any]) -> Document:
    """What an audit record is summed up by: its unit and outcome, and how fast it was."""
    kind = _SHADOW if record.get("shadow") else SPLIT if record.get("assigned_by") in ASSIGNED else ""
    if not kind:
        return {}
    status = record["status"]
    version = f"{kind}\t{record.get('variant') or ''}\t{record.get('version')}\t"
    outcome = "answered" if status < 400 else "refused" if status < 500 else "failed"
    found = {"cell": f"{version}{_or_none(record.get('epoch'))}\t{outcome}\t{record.get('unit') or ''}"}
    if status < 400:
        found["speed"] = f"{version}{int(100 * math.log(max(record['latency_ms'], 0.001)))}"
    return found


def feedback_cell(joined: Mapping[str, Any]) -> str:
    """What joined feedback is summed up by."""
    kind = SPLIT if joined["assigned_by"] in ASSIGNED else _OTHER
    parts = (kind, joined["variant"] or "", joined["version"], _or_none(joined["epoch"]), joined["state"])
    return _BETWEEN.join(map(str, (*parts, joined["unit"] or "")))


def parts_of_feedback_cell(cell: str) -> list[str]:
    """Kind, variant, version, epoch, state and unit."""
    return cell.split(_BETWEEN, 5)


def gather(db: "Database[dict[str, Any]]", endpoint: str, *, times: bool = False) -> Evidence:
    """Read what is known of an endpoint now.

    Args:
        times: also when each unit was first met.
    """
    with ThreadPoolExecutor(2) as pool:  # MongoDB sums up in one thread for each question
        rows, steps, judged = pool.map(
            lambda question: question(),
            (lambda: _asked(db, endpoint, times), lambda: _latencies(db, endpoint), lambda: _judged(db, endpoint)),
        )
    known = db.endpoints.find_one({"_id": endpoint}, {"feedback_days": 1}) or {}
    shares = _shares(db, endpoint, {row.epoch for row in rows[SPLIT]} - {None})
    said = (judged[0], steps[SPLIT], rows[_SHADOW], steps[_SHADOW], judged[1])
    return Evidence(rows[SPLIT], *said, shares, known.get("feedback_days"))


def _asked(db: "Database[dict[str, Any]]", endpoint: str, times: bool) -> dict[str, list[Asked]]:
    sums: Document = {"n": {"$sum": 1}, **({"first": {"$min": "$at"}} if times else {})}
    met: dict[str, dict[tuple[str, ...], Document]] = {SPLIT: {}, _SHADOW: {}}
    for row in _grouped(db.predictions, endpoint, "cell", sums):
        kind, variant, version, epoch, outcome, unit = row["_id"].split(_BETWEEN, 5)
        known = met[kind].setdefault((epoch, variant, version, unit), {"first": row.get("first")})
        known[outcome] = row["n"]
        if times:
            known["first"] = min(known["first"], row["first"])
    return {
        kind: [
            Asked(
                _number(epoch),
                variant,
                int(version),
                unit,
                answered=of.get("answered", 0),
                refused=of.get("refused", 0),
                failed=of.get("failed", 0),
                first_at=of["first"],
            )
            for (epoch, variant, version, unit), of in found.items()
        ]
        for kind, found in met.items()
    }


def _latencies(db: "Database[dict[str, Any]]", endpoint: str) -> dict[str, list[Latencies]]:
    """Of what was answered. MongoDB before 7 knows no percentiles: so a histogram, in steps of 1 %."""
    found: dict[str, list[Latencies]] = {SPLIT: [], _SHADOW: []}
    for row in _grouped(db.predictions, endpoint, "speed", {"n": {"$sum": 1}}):
        kind, variant, version, step = row["_id"].split(_BETWEEN)
        found[kind].append(Latencies(variant, int(version), math.exp((int(step) + 0.5) / 100), row["n"]))
    return found


def _judged(db: "Database[dict[str, Any]]", endpoint: str) -> tuple[list[Judged], dict[str, int]]:
    again = ("duplicates", "contradictions")
    sums = {"n": {"$sum": 1}, "total": {"$sum": "$score"}, **{name: {"$sum": f"${name}"} for name in again}}
    rows, counts = [], dict.fromkeys(again, 0)
    for row in _grouped(db.feedback, endpoint, "cell", sums):
        kind, variant, version, epoch, state, unit = parts_of_feedback_cell(row["_id"])
        counts[state] = counts.get(state, 0) + row["n"]
        for name in again:
            counts[name] += row[name]
        if kind == SPLIT:
            rows.append(Judged(_number(epoch), variant, int(version), unit, state, row["n"], row["total"]))
    return rows, counts


def _grouped(collection: Any, endpoint: str, by: str, sums: Mapping[str, Any]) -> Iterable[Document]:
    pipeline = [{"$match": {"endpoint": endpoint, by: {"$gt": ""}}}, {"$group": {"_id": f"${by}", **sums}}]
    found: Iterable[Document] = collection.aggregate(pipeline, allowDiskUse=True, batchSize=20_000)
    return found


def _or_none(epoch: Any) -> str:
    return "" if epoch is None else str(epoch)


def _number(epoch: str) -> int | None:
    return int(epoch) if epoch else None


def _shares(db: "Database[dict[str, Any]]", endpoint: str, epochs: set[Any]) -> dict[int, dict[str, float]]:
    """The split that was in force in each epoch: an epoch is the number of the ledger's entry that began it."""
    entries = db.ledger.find({"_id": {"$in": sorted(epochs)}, "subject": endpoint}, {"facts.variants": 1})
    return {
        entry["_id"]: {variant: said["share"] for variant, said in (entry["facts"].get("variants") or {}).items()}
        for entry in entries
    }
