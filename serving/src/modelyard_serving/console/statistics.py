"""Means, differences and sample ratios of an A/B test. Pure.

The unit is what is assigned, so the unit is what varies: the predictions of one unit are a cluster, and intervals come
from the spread between units, however many predictions each of them has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
MIN_UNITS = 30  # with feedback, before an interval is said: below, the normal approximation is not to be trusted
MIN_UNITS_OF_STRATUM = 10  # in each variant
MIN_EXPECTED = 5.0  # units in each variant, before a chi-squared test says something
ALARM = 0.001  # a sample ratio with a smaller p-value: mistrust every other number of this A/B test

Interval = tuple[float, float]
Whole = NDArray[np.int64]
Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """Rewards of one variant. Each entry is of one unit in one stratum; a pair may have several."""

    strata: Whole  # what is compared within: epochs with the same split
    units: Whole  # which unit; the same number is the same unit
    counts: Real  # predictions with a reward
    totals: Real  # the sum of their rewards

    @property
    def n_units(self) -> int:
        return len(np.unique(self.units))

    def only(self, kept: NDArray[np.bool_]) -> "Sample":
        return Sample(self.strata[kept], self.units[kept], self.counts[kept], self.totals[kept])


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; without one, `not_enough` says why."""

    value: float | None
    interval: Interval | None
    units: int
    not_enough: str = ""


def mean(sample: Sample) -> Estimate:
    """The mean reward of a prediction, with an interval over units.

    The ratio of two means over units, linearised (Deng, Knoblich, Lu, KDD 2018, doi:10.1145/3219819.3219919).
    """
    units = sample.n_units
    if not units:
        return Estimate(None, None, 0, "no feedback yet")
    value = float(sample.totals.sum() / sample.counts.sum())
    if units < MIN_UNITS:
        return Estimate(value, None, units, f"{units} units with feedback; an interval wants {MIN_UNITS}")
    variance, freedom = _variance(sample, np.full(len(sample.units), value), sample.counts.sum())
    return _with_interval(value, variance, freedom, units)


def difference(base: Sample, other: Sample) -> Estimate:
    """How much more reward `other` has than `base`, with an interval over units.

    The two are compared within each stratum, so that a change of the shares over time is not taken for an effect. A
    stratum with fewer than `MIN_UNITS_OF_STRATUM` units in either is left out. No unit may be in both.
    """
    value, variances, freedoms = 0.0, [0.0, 0.0], [0, 0]
    weights = _weights(base, other)
    kept = [sample.only(np.isin(sample.strata, list(weights))) for sample in (base, other)]
    units = [sample.n_units for sample in kept]
    if min(units) < MIN_UNITS:
        said = f"{units[0]} and {units[1]} units with feedback in both; a comparison wants {MIN_UNITS} of each"
        return Estimate(None, None, sum(units), said)
    for side, (sample, sign) in enumerate(zip(kept, (-1, 1), strict=True)):
        means, scales = np.empty(len(sample.units)), np.empty(len(sample.units))
        for stratum, weight in weights.items():
            here = sample.strata == stratum
            count = sample.counts[here].sum()
            means[here] = sample.totals[here].sum() / count
            scales[here] = count / weight
            value += sign * weight * float(means[here][0])
        variances[side], freedoms[side] = _variance(sample, means, scales)
    variance = sum(variances)
    parts = sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))
    return _with_interval(value, variance, variance**2 / parts if parts else 1.0, sum(units))


def sample_ratio_p(units: Mapping[str, int], shares: Mapping[str, float]) -> float | None:
    """Do the units that arrived match the split that was in force?

    Args:
        units: distinct units that met each variant (units, not requests).
        shares: the fraction of units each was to get.

    Returns:
        The p-value of a chi-squared test. Below `ALARM` assignment is broken. None: too few units to tell.

    Source: Fabijan et al., KDD 2019, doi:10.1145/3292500.3330722.
    """
    if any(count and not shares.get(variant) for variant, count in units.items()):
        return 0.0  # a variant answered that was to get nobody
    given = {variant: share for variant, share in shares.items() if share > 0}
    seen = np.array([units.get(variant, 0) for variant in given], float)
    expected = np.array(list(given.values())) / sum(given.values()) * seen.sum() if given else seen
    if len(given) < 2 or expected.min() < MIN_EXPECTED:
        return None
    return float(stats.chisquare(seen, expected).pvalue)


def quantiles(values: Real, counts: Real, wanted: tuple[float, ...]) -> list[float | None]:
    """Quantiles of values that occur `counts` times each."""
    if not len(values):
        return [None] * len(wanted)
    order = np.argsort(values)
    reached = np.cumsum(counts[order])
    places = np.searchsorted(reached, np.array(wanted) * reached[-1])
    return [float(value) for value in values[order][np.minimum(places, len(values) - 1)]]


def _weights(base: Sample, other: Sample) -> dict[int, float]:
    """How much each stratum says, by its units: the harmonic mean of both sides, as Mantel and Haenszel weigh."""
    sizes: dict[int, list[int]] = {}
    for side, sample in enumerate((base, other)):
        for stratum in np.unique(sample.strata).tolist():
            sizes.setdefault(stratum, [0, 0])[side] = len(np.unique(sample.units[sample.strata == stratum]))
    enough = {s: a * b / (a + b) for s, (a, b) in sizes.items() if min(a, b) >= MIN_UNITS_OF_STRATUM}
    return {stratum: weight / sum(enough.values()) for stratum, weight in enough.items()}


def _variance(sample: Sample, means: Real, scales: Any) -> tuple[float, int]:
    """Of a mean or a weighted sum of means, from what each unit adds to it; and the degrees of freedom."""
    _, number = np.unique(sample.units, return_inverse=True)
    added = np.bincount(number, (sample.totals - means * sample.counts) / scales)
    return float(len(added) / (len(added) - 1) * (added**2).sum()), len(added) - 1


def _with_interval(value: float, variance: float, freedom: float, units: int) -> Estimate:
    if variance <= 0:
        return Estimate(value, None, units, "all rewards are the same, so nothing says how sure this is")
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom) * variance**0.5)
    return Estimate(value, (value - half, value + half), units)
