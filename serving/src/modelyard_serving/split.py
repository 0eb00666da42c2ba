"""Traffic split: which variant answers a unit's requests.

No clock, no I/O, no randomness: replaying a log assigns exactly as the gateway did. A unit falls into one
of 10,000 buckets by GrowthBook's hash v2; a stored table says which variant owns which buckets. Changing
the shares moves as few buckets as possible, and nobody else. `gateway/assign.lua` holds the same hash for
Envoy; one test feeds both the same units.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Self

BUCKETS = 10_000


def bucket(salt: str, unit: str) -> int:
    """The unit's bucket, 0 to 9999.

    Source: GrowthBook SDK specification, hash version 2 (FNV-1a, twice, so that near units land far apart).
    """
    return _fnv1a(str(_fnv1a(salt + unit))) % BUCKETS


@dataclass(frozen=True, slots=True)
class BucketTable:
    """Who owns which buckets, as runs: (first bucket after the run, variant), in order. No runs: nobody answers."""

    runs: tuple[tuple[int, str], ...]

    def __post_init__(self) -> None:
        ends = [end for end, _ in self.runs]
        if ends and (ends != sorted(set(ends)) or ends[0] < 1 or ends[-1] != BUCKETS):
            raise ValueError(f"bucket runs must rise and end at {BUCKETS}: {self.runs}")

    @classmethod
    def of(cls, shares: Mapping[str, float]) -> Self:
        """A fresh table: the variants' shares, one after the other."""
        return cls._from_owners([variant for variant, count in _counts(shares).items() for _ in range(count)])

    def owner(self, number: int) -> str:
        """The variant that owns bucket `number`."""
        return next(variant for end, variant in self.runs if number < end)

    def shares(self) -> dict[str, float]:
        """The fraction of buckets each variant owns."""
        return {variant: count / BUCKETS for variant, count in Counter(self._owners()).items()}

    def reweighted(self, shares: Mapping[str, float]) -> Self:
        """The same table with new shares, moving the least number of buckets that gives them."""
        if not self.runs:
            return type(self).of(shares)
        wanted = _counts(shares)
        owners: list[str | None] = []
        kept: Counter[str] = Counter()
        for variant in self._owners():
            keeps = kept[variant] < wanted.get(variant, 0)
            kept[variant] += keeps
            owners.append(variant if keeps else None)
        missing = [variant for variant, count in wanted.items() for _ in range(count - kept[variant])]
        return type(self)._from_owners([owner or missing.pop(0) for owner in owners])

    def _owners(self) -> list[str]:
        owners: list[str] = []
        for end, variant in self.runs:
            owners += [variant] * (end - len(owners))
        return owners

    @classmethod
    def _from_owners(cls, owners: list[str]) -> Self:
        end, runs = 0, []
        for variant, group in groupby(owners):
            end += len(list(group))
            runs.append((end, variant))
        return cls(tuple(runs))


def _counts(shares: Mapping[str, float]) -> dict[str, int]:
    """Shares as whole buckets by largest remainder, so that they sum to exactly 10,000."""
    total = sum(shares.values())
    if not shares or min(shares.values()) < 0 or total <= 0:
        raise ValueError(f"shares must not be negative and not all zero: {dict(shares)}")
    exact = {variant: share / total * BUCKETS for variant, share in shares.items()}
    counts = {variant: int(value) for variant, value in exact.items()}
    by_remainder = sorted(exact, key=lambda variant: counts[variant] - exact[variant])
    for variant in by_remainder[: BUCKETS - sum(counts.values())]:
        counts[variant] += 1
    return counts


def _fnv1a(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
