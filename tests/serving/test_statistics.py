"""The statistics of results, held against simulations and against scipy."""

import numpy as np
import pytest
from scipy import stats

from modelyard_serving.console.statistics import (
    MIN_UNITS,
    MIN_UNITS_OF_STRATUM,
    Estimate,
    Sample,
    difference,
    mean,
    quantiles,
    sample_ratio_p,
)

SEEDS = 400


def sample(units: list[int], counts: list[float], totals: list[float], strata: list[int] | None = None) -> Sample:
    where = np.array(strata if strata is not None else [0] * len(units))
    return Sample(where, np.array(units), np.array(counts, float), np.array(totals, float))


def trial(
    seed: int, *, uplift: float = 0.0, weeks: tuple[tuple[float, float], ...] = ((0.5, 0.0),)
) -> tuple[Sample, Sample]:
    """A test of 400 new units a week, each with a taste of its own and 1 to 20 predictions.

    Args:
        weeks: of each, the challenger's share, and how much better everybody's rewards are.
    """
    rng = np.random.default_rng(seed)
    rows: tuple[list, list] = ([], [])
    for week, (share, better) in enumerate(weeks):
        for unit, taste in enumerate(rng.beta(2, 2, 400)):
            side = int(rng.random() < share)
            count = int(rng.integers(1, 21))
            total = rng.binomial(count, taste * 0.6 + better + side * uplift)
            rows[side].append((week, week * 400 + unit, count, total))
    first, second = (Sample(*(np.array(column) for column in zip(*side, strict=True))) for side in rows)
    return first, second


def covered(estimates: list[Estimate], truth: float) -> float:
    assert all(estimate.interval for estimate in estimates)
    return float(np.mean([e.interval[0] <= truth <= e.interval[1] for e in estimates if e.interval]))


def test_95_percent_intervals_hold_the_truth_in_95_percent_of_null_tests_with_1_to_20_predictions_a_unit() -> None:
    trials = [trial(seed) for seed in range(SEEDS)]
    assert 0.93 <= covered([difference(*pair) for pair in trials], 0.0) <= 0.97
    assert 0.93 <= covered([mean(pair[0]) for pair in trials], 0.3) <= 0.97


def test_an_interval_that_took_predictions_for_units_would_be_far_too_short() -> None:
    right = [difference(*trial(seed)) for seed in range(SEEDS)]
    naive = []
    for seed in range(SEEDS):
        pair = trial(seed)
        p, n = [s.totals.sum() / s.counts.sum() for s in pair], [s.counts.sum() for s in pair]
        half = 1.96 * sum(q * (1 - q) / m for q, m in zip(p, n, strict=True)) ** 0.5
        naive.append(abs(p[1] - p[0]) <= half)
    assert np.mean(naive) < 0.9 < covered(right, 0.0)


def test_a_change_of_shares_in_a_better_week_is_not_taken_for_an_effect() -> None:
    trials = [trial(seed, weeks=((0.2, 0.0), (0.5, 0.25))) for seed in range(SEEDS)]
    assert 0.93 <= covered([difference(*pair) for pair in trials], 0.0) <= 0.97
    pooled = [float(b.totals.sum() / b.counts.sum() - a.totals.sum() / a.counts.sum()) for a, b in trials]
    assert np.mean(pooled) > 0.05, "what it would say of both weeks together"


def test_an_effect_that_is_there_is_found() -> None:
    found = [difference(*trial(seed, uplift=0.1)) for seed in range(50)]
    assert np.mean([e.value for e in found if e.value is not None]) == pytest.approx(0.1, abs=0.01)
    assert covered(found, 0.0) < 0.5


def test_with_one_prediction_a_unit_the_interval_is_welchs() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 80), rng.normal(0.3, 2, 50)
    pair = [sample(list(range(len(x))), [1] * len(x), list(x)) for x in (a, b)]
    wanted = stats.ttest_ind(b, a, equal_var=False).confidence_interval(0.95)
    assert difference(*pair).interval == pytest.approx((wanted.low, wanted.high))


def test_too_few_units_get_a_sentence_and_no_interval() -> None:
    few = sample(list(range(MIN_UNITS - 1)), [1] * (MIN_UNITS - 1), [1, *[0] * (MIN_UNITS - 2)])
    assert (mean(few).interval, difference(few, few).value) == (None, None)
    assert "an interval wants 30" in mean(few).not_enough
    assert "29 and 29 units" in difference(few, few).not_enough


def test_rewards_that_are_all_the_same_say_nothing_of_how_sure_they_are() -> None:
    same = sample(list(range(50)), [1] * 50, [1] * 50)
    assert (mean(same).value, mean(same).interval) == (1.0, None)
    assert "all rewards are the same" in mean(same).not_enough


def test_a_stratum_with_few_units_of_one_side_is_left_out() -> None:
    rng = np.random.default_rng(0)
    units, rewards = list(range(100)), list(rng.random(100))
    wide = sample(units, [1] * 100, rewards)
    few = MIN_UNITS_OF_STRATUM - 1
    more = sample([*units, *range(100, 100 + few)], [1] * (100 + few), [*rewards, *[99] * few], [0] * 100 + [1] * few)
    assert difference(wide, more).value == difference(wide, wide).value == 0.0


def test_the_sample_ratio_is_scipys_chi_squared_test() -> None:
    p = sample_ratio_p({"champion": 850, "challenger": 150}, {"champion": 0.8, "challenger": 0.2})
    assert p == pytest.approx(stats.chisquare([850, 150], [800, 200]).pvalue)
    assert p < 0.001


def test_a_variant_that_was_to_get_nobody_and_answered_is_an_alarm_and_few_units_are_none() -> None:
    assert sample_ratio_p({"champion": 9, "shadow": 1}, {"champion": 1.0}) == 0.0
    assert sample_ratio_p({"champion": 9}, {"champion": 1.0}) is None
    assert sample_ratio_p({"champion": 4, "challenger": 5}, {"champion": 0.5, "challenger": 0.5}) is None


def test_the_sample_ratio_alarms_one_time_in_a_thousand_where_nothing_is_wrong() -> None:
    rng = np.random.default_rng(1)
    shares = {"a": 0.7, "b": 0.3}
    found = [sample_ratio_p({"a": int(n), "b": 500 - int(n)}, shares) for n in rng.binomial(500, 0.7, 4000)]
    assert np.mean([p < 0.001 for p in found if p is not None]) < 0.003
    assert np.mean([p < 0.05 for p in found if p is not None]) == pytest.approx(0.05, abs=0.015)


def test_quantiles_of_a_histogram_are_those_of_its_values() -> None:
    values = np.array([3.0, 1.0, 2.0])
    assert quantiles(values, np.array([1, 98, 1]), (0.5, 0.98, 0.99, 1.0)) == [1.0, 1.0, 2.0, 3.0]
    assert quantiles(np.array([]), np.array([]), (0.5,)) == [None]
