"""How an A/B test came to what it is: units, and the mean reward with its interval, up to each of some moments."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from pymongo.database import Database

from modelyard_serving.console import feedback
from modelyard_serving.console.evidence import SPLIT, Asked, parts_of_feedback_cell
from modelyard_serving.console.statistics import Estimate, Sample, mean

MOMENTS = 40


@dataclass(frozen=True, slots=True)
class Course:
    """What had been seen of one variant at each moment."""

    units: Sequence[int]
    rewards: Sequence[Estimate]


@dataclass(frozen=True, slots=True)
class Timeline:
    moments: Sequence[datetime]
    courses: Mapping[str, Course]  # by variant


def timeline(db: "Database[dict[str, Any]]", endpoint: str, asked: Sequence[Asked], at: datetime) -> Timeline:
    """The course of every variant, from the first unit until `at`; `asked` must say when each was met."""
    met: dict[str, dict[str, datetime]] = defaultdict(dict)
    for row in asked:
        if row.first_at is not None:
            met[row.variant][row.unit] = min(met[row.variant].get(row.unit, row.first_at), row.first_at)
    if not met:
        return Timeline((), {})
    start = min(moment for of in met.values() for moment in of.values())
    step = max((at - start) / MOMENTS, timedelta(milliseconds=1))
    moments = [start + step * (number + 1) for number in range(MOMENTS)]
    rewards = _rewards(db, endpoint, start, step)
    return Timeline(
        moments,
        {
            variant: Course(
                np.searchsorted(
                    np.sort([when.timestamp() for when in of.values()]), _seconds(moments), "right"
                ).tolist(),
                rewards.get(variant, [mean(_sample({}))] * MOMENTS),
            )
            for variant, of in sorted(met.items())
        },
    )


def _rewards(
    db: "Database[dict[str, Any]]", endpoint: str, start: datetime, step: timedelta
) -> dict[str, list[Estimate]]:
    since = {"$subtract": ["$predicted_at", start]}
    number = {"$floor": {"$divide": [since, step / timedelta(milliseconds=1)]}}
    pipeline: list[dict[str, Any]] = [
        {"$match": {"endpoint": endpoint, "cell": {"$gt": ""}}},
        {"$group": {"_id": {"c": "$cell", "m": number}, "n": {"$sum": 1}, "total": {"$sum": "$score"}}},
    ]
    arrived: dict[str, list[list[tuple[str, int, float]]]] = defaultdict(lambda: [[] for _ in range(MOMENTS)])
    for row in db.feedback.aggregate(pipeline, allowDiskUse=True, batchSize=20_000):
        kind, variant, _, _, state, unit = parts_of_feedback_cell(row["_id"]["c"])
        if kind == SPLIT and state == feedback.COUNTED:
            moment = min(max(int(row["_id"]["m"]), 0), MOMENTS - 1)
            arrived[variant][moment].append((unit, row["n"], row["total"]))
    found: dict[str, list[Estimate]] = {}
    for variant, by_moment in arrived.items():
        sums: dict[str, tuple[int, float]] = {}
        found[variant] = []
        for rows in by_moment:
            for unit, count, total in rows:
                before = sums.get(unit, (0, 0.0))
                sums[unit] = (before[0] + count, before[1] + total)
            found[variant].append(mean(_sample(sums)))
    return found


def _sample(sums: Mapping[str, tuple[int, float]]) -> Sample:
    values = np.array(list(sums.values()), dtype=float).reshape(-1, 2)
    return Sample(np.zeros(len(sums), np.int64), np.arange(len(sums)), values[:, 0], values[:, 1])


def _seconds(moments: Sequence[datetime]) -> list[float]:
    return [moment.timestamp() for moment in moments]
