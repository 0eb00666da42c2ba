"""Winner: what a sweep's best configuration is worth on rows, and with seeds, that had no part in choosing it.

The best of many trials is flattered by the score that chose it: some of its lead is luck. So its configuration is
trained anew, outside the sweep, with fresh seeds, and scored on a holdout that no trial saw. The difference is the
optimism.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median_low
from typing import Any

from modelyard_tracking.project import Project


@dataclass(frozen=True, slots=True)
class Winner:
    """A configuration, and what it is worth.

    `fresh` are scores of the runs `runs`, one a fresh seed: on the holdout, where the project has one, else by the same
    metric as in the sweep, which leaves the luck of the validation rows in.
    """

    config: dict[str, Any]
    trial_run: int  # the trial that the search liked best
    trials_seen: int  # how many were looked at; the more, the more luck
    sweep_score: float
    fresh: tuple[float, ...]
    runs: tuple[int, ...]
    on_holdout: bool
    direction: str

    @property
    def fresh_score(self) -> float:
        return fmean(self.fresh)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval of the mean over seeds (Student's t): the seeds' luck, not the rows'. None of a single seed."""
        if len(self.fresh) < 2:
            return None
        from scipy import stats

        if len(set(self.fresh)) == 1:
            return self.fresh[0], self.fresh[0]
        low, high = stats.t.interval(0.95, len(self.fresh) - 1, loc=self.fresh_score, scale=stats.sem(self.fresh))
        return float(low), float(high)

    @property
    def optimism(self) -> float:
        """How much better the sweep made it look; positive is flattery, whichever way the metric points."""
        better = self.sweep_score - self.fresh_score
        return better if self.direction == "max" else -better

    @property
    def run(self) -> int:
        """The run to promote: the middle one of the fresh seeds. The best would be chosen by luck again."""
        return self.runs[self.fresh.index(median_low(self.fresh))]

    def as_dict(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "trial_run": self.trial_run,
            "trials_seen": self.trials_seen,
            "sweep_score": self.sweep_score,
            "fresh": list(self.fresh),
            "fresh_score": self.fresh_score,
            "interval": list(self.interval) if self.interval else None,
            "optimism": self.optimism,
            "on_holdout": self.on_holdout,
            "runs": list(self.runs),
            "run": self.run,
        }


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Seeds that no trial had: trials all have the sweep's own."""
    return [seed + 10_007 * (number + 1) for number in range(count)]


def score_of(project: Project, result: Any) -> tuple[float, bool]:
    """A fresh run's score, and whether it is the holdout's."""
    if isinstance(result, dict) and isinstance(result.get("holdout"), int | float):
        return float(result["holdout"]), True
    return float(result[project.metric.name]), False


def winner_from(document: dict[str, Any], direction: str) -> Winner | None:
    """The winner as the sweep's document has it."""
    stored = document.get("winner")
    if not stored:
        return None
    return Winner(
        stored["config"],
        stored["trial_run"],
        stored["trials_seen"],
        stored["sweep_score"],
        tuple(stored["fresh"]),
        tuple(stored["runs"]),
        stored["on_holdout"],
        direction,
    )


def best_of(scores: Sequence[tuple[int, float]], direction: str) -> tuple[int, float]:
    """The number with the best score; of equals the first."""
    return (max if direction == "max" else min)(scores, key=lambda pair: pair[1])
