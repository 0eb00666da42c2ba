"""Assignment of units to variants."""

from collections import Counter

import pytest

from modelyard_serving.split import BUCKETS, BucketTable, bucket

UNITS = [f"unit-{number}" for number in range(20_000)]


@pytest.mark.parametrize(
    ("seed", "unit", "fraction"),
    [  # the published vectors of GrowthBook's SDK specification, hash version 2
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_hash_is_growthbooks_version_2(seed: str, unit: str, fraction: float) -> None:
    assert bucket(seed, unit) == round(fraction * BUCKETS)


def test_units_spread_evenly_over_the_buckets() -> None:
    tenths = Counter(bucket("salt", unit) * 10 // BUCKETS for unit in UNITS)
    expected = len(UNITS) / 10
    assert sum((count - expected) ** 2 / expected for count in tenths.values()) < 27.9  # chi-squared, 9 df, p = 0.001


def test_two_tests_assign_independently() -> None:
    both = sum(bucket("one", unit) < 2000 and bucket("two", unit) < 2000 for unit in UNITS)
    assert both / len(UNITS) == pytest.approx(0.04, abs=0.006)


def test_shares_become_whole_buckets_that_sum_to_all_of_them() -> None:
    table = BucketTable.of({"a": 1, "b": 1, "c": 1})
    assert table.shares() == {"a": 0.3334, "b": 0.3333, "c": 0.3333}


def test_reweighting_moves_the_minimum_of_buckets_and_nobody_else() -> None:
    before = BucketTable.of({"champion": 100}).reweighted({"champion": 80, "challenger": 20})
    after = before.reweighted({"champion": 70, "challenger": 30})
    moved = [number for number in range(BUCKETS) if before.owner(number) != after.owner(number)]
    assert len(moved) == 1000
    assert {(before.owner(number), after.owner(number)) for number in moved} == {("champion", "challenger")}
    assert after.shares() == {"champion": 0.7, "challenger": 0.3}


def test_a_variant_with_no_share_owns_nothing() -> None:
    assert BucketTable.of({"a": 50, "b": 50}).reweighted({"a": 100, "b": 0}).shares() == {"a": 1.0}


def test_a_table_without_runs_is_nobodys_until_it_gets_shares() -> None:
    assert BucketTable(()).shares() == {}
    assert BucketTable(()).reweighted({"a": 80, "b": 20}).shares() == {"a": 0.8, "b": 0.2}


@pytest.mark.parametrize("runs", [((10_001, "a"),), ((500, "a"),), ((600, "a"), (500, "b"), (10_000, "a"))])
def test_a_table_that_does_not_cover_the_buckets_is_no_table(runs: tuple[tuple[int, str], ...]) -> None:
    with pytest.raises(ValueError, match="must rise and end"):
        BucketTable(runs)


@pytest.mark.parametrize("shares", [{}, {"a": 0}, {"a": 120, "b": -20}])
def test_shares_that_make_no_sense_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares must"):
        BucketTable.of(shares)
