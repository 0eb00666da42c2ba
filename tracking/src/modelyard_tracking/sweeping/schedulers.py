"""Schedulers: Ray's own, which here keep their workers warm. Importing this imports Ray.

Tune lets go of workers in two ways that cost a sweep of short trials half its speed. Where two trials end in the same
moment, it keeps one worker and ends the other. And while workers start, a trial whose worker is on its way is given to
one that has become free, and the other is called off, again and again: all trials run one by one.
"""

import time
import warnings
from contextlib import suppress
from typing import Any

from modelyard_tracking.project import SweepPlan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler

START_S = 15.0  # in which the workers of a sweep start


class _Warm:
    """Has Tune start as many workers as trials run at once, and keep them."""

    workers = 0  # still to be asked for

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        if self.workers:
            with suppress(AttributeError):  # no part of Ray's interface: without it, sweeps are only slower
                _keep_workers(tune_controller._tune_controller, trial.placement_group_factory, self.workers)
            self.workers = 0


def _keep_workers(controller: Any, resources: Any, workers: int) -> None:
    controller._actor_cache.increase_max(resources, workers)
    reuse, on_their_way, until = (
        controller._maybe_reuse_cached_actor,
        controller._trial_to_actor,
        time.monotonic() + START_S,
    )
    controller._maybe_reuse_cached_actor = lambda trial: (
        not (trial in on_their_way and time.monotonic() < until) and reuse(trial)
    )


class WarmFifo(_Warm, FIFOScheduler):  # type: ignore[misc]
    """Every trial runs to its end."""


class WarmAsha(_Warm, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Stops trials that are hopeless at the steps they report; see Ray's AsyncHyperBandScheduler."""


def scheduler_of(plan: SweepPlan, places: int) -> Any:
    """The plan's scheduler.

    Args:
        places: how many trials can run at once; where that is less than the plan wants, workers have to be shared.
    """
    scheduler: _Warm
    if plan.scheduler == "asha":
        scheduler = WarmAsha(
            time_attr="step", max_t=plan.max_steps, grace_period=plan.grace_steps, reduction_factor=plan.reduction
        )
    else:
        scheduler = WarmFifo()
    scheduler.workers = plan.concurrent if places >= plan.concurrent else 0
    return scheduler
