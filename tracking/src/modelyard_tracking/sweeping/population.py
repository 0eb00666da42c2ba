"""Population based training: the worst of a population go on from the best, with a changed configuration. Pure.

Jaderberg et al., "Population Based Training of Neural Networks", 2017, https://arxiv.org/abs/1711.09846, with
truncation selection, in generations: all members train for some steps, then each of the next generation is decided
from what all of this one came to. So a member's part of a generation is a trial like any other, the same seed gives the
same configurations, and a sweep that was killed goes on. Ray's own scheduler decides from whatever has come in so far,
and takes no configurations from hyperopt.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import SweepPlan
from modelyard_tracking.sweeping.space import Space

QUANTILE = 0.25  # so many of the worst are replaced, by as many of the best


@dataclass(frozen=True, slots=True)
class Member:
    """What a member of the population did in one generation."""

    config: Mapping[str, Any]
    value: float | None  # None where it failed


@dataclass(frozen=True, slots=True)
class Population:
    """How trials are numbered, and what each goes on from.

    Trial n is member n modulo `size` in generation n divided by `size`.
    """

    size: int
    generations: int
    every: int  # steps of a generation
    last_step: int

    @classmethod
    def of(cls, plan: SweepPlan, trials: int) -> "Population":
        """As many members as `trials` allow.

        Raises:
            Refused: for less than four.
        """
        steps, every = plan.max_steps or 1, plan.perturb_every or 1
        generations = math.ceil(steps / every)
        size = trials // generations
        if size < 4:
            raise Refused(
                f"{trials} trials make a population of {size}, since pbt runs {generations} generations of it "
                f"(max_steps {steps}, perturb_every {every}).\nGive it at least {4 * generations} trials."
            )
        return cls(size, generations, every, steps)

    @property
    def trials(self) -> int:
        return self.size * self.generations

    def first(self, number: int) -> int:
        """The first trial of the generation that a trial is in."""
        return number // self.size * self.size

    def until(self, number: int) -> int:
        """The step at which a trial is over."""
        return min((number // self.size + 1) * self.every, self.last_step)

    def next(
        self, number: int, before: Sequence[Member], space: Space, seed: int, mode: str
    ) -> tuple[Mapping[str, Any], int]:
        """A trial's configuration, and the trial whose checkpoint it goes on from.

        Args:
            before: the generation before this trial's.
        """
        member = number % self.size
        rng = random.Random(f"{seed}:{number}")  # noqa: S311
        sign = 1 if mode == "max" else -1
        scored = {at: sign * m.value for at, m in enumerate(before) if m.value is not None and m.value == m.value}
        ranks = sorted(scored, key=lambda at: (scored[at], -at))
        count = min(math.ceil(len(ranks) * QUANTILE), len(ranks) // 2)
        if ranks and (member not in scored or member in ranks[:count]):
            model = rng.choice(ranks[-max(count, 1) :])
            return space.perturbed(before[model].config, rng), number // self.size * self.size - self.size + model
        return before[member].config, number - self.size
