"""Results of an A/B test: what each version did for the units it was given, and what the challenger does more.

No verdict is invented: where there is too little, `not_enough` says so instead of a number.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pymongo.database import Database

from modelyard_serving.console import feedback
from modelyard_serving.console.evidence import Asked, Evidence, Judged, Latencies, gather
from modelyard_serving.console.statistics import (
    ALARM,
    Estimate,
    Sample,
    difference,
    mean,
    quantiles,
    sample_ratio_p,
)
from modelyard_serving.endpoints import FEEDBACK_DAYS

BASE = "champion"  # what the others are held against
ON_ITS_WAY = timedelta(minutes=10)  # feedback that waits for its audit record for longer is unmatched

Version = tuple[str, int]  # variant and version


@dataclass(frozen=True, slots=True)
class VariantResult:
    """What one version did for the units it was given as this variant."""

    variant: str
    version: int
    units: int
    predictions: int
    refused: int  # requests with a status of 400 to 499
    failures: int  # of 500 or more
    error_rate: float  # failures among all requests
    feedback: int  # predictions whose feedback counts
    mean_reward: float | None
    reward_interval: tuple[float, float] | None  # 95 %, over units
    not_enough: str  # why there is no interval
    p50_ms: float | None  # inside the runtime; the network and the gateway are not in it
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """A variant held against the champion, within each split, over the units that met one variant only."""

    variant: str
    version: int
    base: str
    base_version: int
    difference: float | None  # of mean rewards: this one's less the base's
    interval: tuple[float, float] | None  # 95 %, over units
    units: int
    not_enough: str


@dataclass(frozen=True, slots=True)
class EpochUnits:
    """The units that met each variant while one split was in force."""

    epoch: int | None
    units: Mapping[str, int]
    shares: Mapping[str, float] | None  # as they were to be; None: not known
    p: float | None


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """Whether the units that arrived match the split; tested within each epoch, and corrected for their number."""

    p: float | None  # None: nothing could be tested
    alarm: bool  # assignment is broken: mistrust every other number here
    said: str
    epochs: Sequence[EpochUnits]


@dataclass(frozen=True, slots=True)
class FeedbackCounts:
    """What became of the feedback that was sent for this endpoint."""

    counted: int
    late: int  # after the endpoint's window
    foreign: int  # of somebody else's prediction, without a scope for it
    unusable: int  # the prediction was not answered, or the truth has another length than the answer
    duplicates: int  # said again, in the same words
    contradictions: int  # said otherwise before; the first stays
    unmatched: int  # of all endpoints: no audit record has come for it
    window_days: int


@dataclass(frozen=True, slots=True)
class Results:
    """All of it, as of one moment."""

    endpoint: str
    at: datetime
    variants: Sequence[VariantResult]
    comparisons: Sequence[Comparison]
    sample_ratio: SampleRatio
    moved_units: int  # met more than one variant, since the split was changed; not in the comparisons
    feedback: FeedbackCounts
    shadows: Sequence[VariantResult]


def results(db: "Database[dict[str, Any]]", endpoint: str, at: datetime | None = None) -> Results:
    """Results of every variant of `endpoint`, of units that the split assigned.

    Requests without a unit, or to an exact version, are answered but say nothing about the split.
    """
    at = at or datetime.now(UTC)
    return summarise(gather(db, endpoint), endpoint, at, count_unmatched(db, at))


def count_unmatched(db: "Database[dict[str, Any]]", at: datetime) -> int:
    """Feedback of all endpoints whose audit record should have come, and has not."""
    return db.feedback.count_documents({"state": feedback.WAITING, "at": {"$lt": at - ON_ITS_WAY}})


def summarise(evidence: Evidence, endpoint: str, at: datetime, unmatched: int = 0) -> Results:
    """Evidence as results. Pure."""
    moved = _moved(evidence.asked)
    strata = _strata(evidence.asked, evidence.shares)
    samples = _samples(evidence.judged, strata)
    unmoved = _samples((row for row in evidence.judged if row.unit not in moved), strata) if moved else samples
    counts = evidence.counts
    return Results(
        endpoint,
        at,
        _variants(evidence.asked, evidence.latencies, samples),
        _comparisons(evidence.asked, unmoved),
        _sample_ratio(evidence.asked, evidence.shares),
        len(moved),
        FeedbackCounts(
            counts.get(feedback.COUNTED, 0),
            counts.get(feedback.LATE, 0),
            counts.get(feedback.FOREIGN, 0),
            counts.get(feedback.UNUSABLE, 0),
            counts["duplicates"],
            counts["contradictions"],
            unmatched,
            evidence.window_days or FEEDBACK_DAYS,
        ),
        _variants(evidence.shadows, evidence.shadow_latencies, {}),
    )


def _moved(asked: Iterable[Asked]) -> set[str]:
    first: dict[str, str] = {}
    return {row.unit for row in asked if first.setdefault(row.unit, row.variant) != row.variant}


def _strata(asked: Iterable[Asked], shares: Mapping[int, Mapping[str, float]]) -> dict[int | None, int]:
    """Epoch -> stratum: following epochs with the same split are one, since nobody was assigned anew between them."""
    strata: dict[int | None, int] = {None: -1}
    before: Mapping[str, float] | None = None
    number = 0
    for epoch in sorted({row.epoch for row in asked if row.epoch is not None}):
        now = _given(shares.get(epoch))
        number += before is None or now != before
        strata[epoch], before = number, now
    return strata


def _given(shares: Mapping[str, float] | None) -> Mapping[str, float] | None:
    return None if shares is None else {variant: share for variant, share in shares.items() if share > 0}


def _samples(judged: Iterable[Judged], strata: Mapping[int | None, int]) -> dict[Version, Sample]:
    columns: dict[Version, tuple[list[int], list[int], list[int], list[float]]] = defaultdict(lambda: ([], [], [], []))
    numbers: dict[str, int] = {}
    for row in judged:
        if row.state == feedback.COUNTED:
            where, units, counts, totals = columns[row.variant, row.version]
            where.append(strata.get(row.epoch, -1))
            units.append(numbers.setdefault(row.unit, len(numbers)))
            counts.append(row.count)
            totals.append(row.total)
    return {
        version: Sample(np.array(where), np.array(units), np.array(counts, float), np.array(totals, float))
        for version, (where, units, counts, totals) in columns.items()
    }


def _variants(
    asked: Iterable[Asked], latencies: Iterable[Latencies], samples: Mapping[Version, Sample]
) -> list[VariantResult]:
    groups: dict[Version, list[Asked]] = defaultdict(list)
    for row in asked:
        groups[row.variant, row.version].append(row)
    times: dict[Version, list[Latencies]] = defaultdict(list)
    for step in latencies:
        times[step.variant, step.version].append(step)
    return [_variant(version, groups[version], times[version], samples.get(version)) for version in sorted(groups)]


def _variant(
    version: Version, rows: Sequence[Asked], times: Sequence[Latencies], sample: Sample | None
) -> VariantResult:
    answered, refused, failed = (sum(getattr(row, n) for row in rows) for n in ("answered", "refused", "failed"))
    reward = mean(sample) if sample else Estimate(None, None, 0, "no feedback yet")
    milliseconds = np.array([step.milliseconds for step in times])
    p50, p95, p99 = quantiles(milliseconds, np.array([step.count for step in times]), (0.5, 0.95, 0.99))
    return VariantResult(
        *version,
        len({row.unit for row in rows}),
        answered,
        refused,
        failed,
        failed / (answered + refused + failed),
        int(sample.counts.sum()) if sample else 0,
        reward.value,
        reward.interval,
        reward.not_enough,
        p50,
        p95,
        p99,
    )


def _comparisons(asked: Sequence[Asked], samples: Mapping[Version, Sample]) -> list[Comparison]:
    """Each variant's last version against the champion's."""
    last: dict[str, tuple[int, int]] = {}
    for row in asked:
        last[row.variant] = max(last.get(row.variant, (-1, 0)), (row.epoch or 0, row.version))
    if BASE not in last:
        return []
    base = BASE, last[BASE][1]
    found = []
    for variant in sorted(set(last) - {BASE}):
        version = variant, last[variant][1]
        both = samples.get(base), samples.get(version)
        if both[0] is None or both[1] is None:
            estimate = Estimate(None, None, 0, "no feedback yet of units that met one variant only")
        else:
            estimate = difference(both[0], both[1])
        found.append(
            Comparison(*version, *base, estimate.value, estimate.interval, estimate.units, estimate.not_enough)
        )
    return found


def _sample_ratio(asked: Iterable[Asked], shares: Mapping[int, Mapping[str, float]]) -> SampleRatio:
    met: dict[int | None, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for row in asked:
        met[row.epoch][row.variant].add(row.unit)
    epochs = []
    for epoch in sorted(met, key=lambda number: -1 if number is None else number):
        units = {variant: len(of) for variant, of in sorted(met[epoch].items())}
        wanted = None if epoch is None else shares.get(epoch)
        epochs.append(EpochUnits(epoch, units, wanted, None if wanted is None else sample_ratio_p(units, wanted)))
    tested = [row.p for row in epochs if row.p is not None]
    if not tested:
        return SampleRatio(None, False, "not enough units, or no split between variants, to test the ratio", epochs)
    p = min(1.0, min(tested) * len(tested))  # Bonferroni
    if p < ALARM:
        said = f"the units that arrived do not match the split (p = {p:.2g}): mistrust every number of this A/B test"
        return SampleRatio(p, True, said, epochs)
    return SampleRatio(p, False, f"the units that arrived match the split (p = {p:.2g})", epochs)
