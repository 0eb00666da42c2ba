"""Results of an A/B test: predictions joined with feedback, per variant. Pure, but for reading the rows."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymongo.database import Database


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What one variant did for the units it was given."""

    variant: str
    version: int
    units: int
    predictions: int
    failures: int  # answers with a status of 400 or more
    feedback: int  # predictions whose feedback has arrived
    mean_reward: float | None
    p50_ms: float | None  # inside the runtime; the network and the gateway are not in it
    p99_ms: float | None


def results(db: "Database[dict[str, Any]]", endpoint: str) -> list[VariantResult]:
    """Results of every variant of `endpoint`, of units that the split assigned.

    Requests without a unit, or to an exact version, are answered but say nothing about the split.
    """
    pipeline: list[dict[str, Any]] = [
        {"$match": {"endpoint": endpoint, "assigned_by": "unit"}},
        {"$lookup": {"from": "feedback", "localField": "_id", "foreignField": "_id", "as": "feedback"}},
        {"$project": {"inputs": 0}},
    ]
    return summarise(db.predictions.aggregate(pipeline, allowDiskUse=True))


def summarise(predictions: Iterable[dict[str, Any]]) -> list[VariantResult]:
    """One result per (variant, version), sorted. Each prediction may carry a `feedback` list of at most one."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for prediction in predictions:
        groups[prediction["variant"], prediction["version"]].append(prediction)
    return [_result(variant, version, rows) for (variant, version), rows in sorted(groups.items())]


def reward_of(prediction: dict[str, Any], feedback: dict[str, Any]) -> float | None:
    """The reward of one prediction: as given, or the fraction of its answers that equal the truth.

    None where the feedback is not the caller's to give, or its truth has another length than the answer.
    """
    if feedback["caller"] != prediction["caller"]:
        return None
    if feedback.get("reward") is not None:
        return float(feedback["reward"])
    answers = (prediction.get("outputs") or {}).get("predictions")
    truth = feedback["truth"] if isinstance(feedback["truth"], list) else [feedback["truth"]]
    if answers is None or len(truth) != len(answers):
        return None
    right = sum(bool(answer == true) for answer, true in zip(answers, truth, strict=True))
    return float(right / len(answers))


def _result(variant: str, version: int, rows: list[dict[str, Any]]) -> VariantResult:
    answered = [row for row in rows if row["status"] < 400]
    rewards = [r for row in answered for f in row.get("feedback", ()) if (r := reward_of(row, f)) is not None]
    latencies = [row["latency_ms"] for row in answered]
    p50, p99 = np.percentile(latencies, [50, 99]).tolist() if latencies else (None, None)
    return VariantResult(
        variant,
        version,
        len({row["unit"] for row in rows}),
        len(answered),
        len(rows) - len(answered),
        len(rewards),
        float(np.mean(rewards)) if rewards else None,
        p50,
        p99,
    )
