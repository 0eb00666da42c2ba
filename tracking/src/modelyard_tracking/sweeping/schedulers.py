"""Schedulers: Ray's own, which here keep their workers warm. Importing this imports Ray.

Where two trials end in the same moment, Tune keeps one worker and ends the other, and the next trial waits seconds for
a new one; most of a sweep of short trials then runs one by one.
"""

import warnings
from contextlib import suppress
from typing import Any

from modelyard_tracking.project import SweepPlan

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler


class _Warm:
    """Has Tune keep as many idle workers as trials run at once."""

    workers = 0  # still to be asked for

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        super().on_trial_add(tune_controller, trial)  # type: ignore[misc]
        with suppress(AttributeError):  # no part of Ray's interface: without it, sweeps are only slower
            tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory, self.workers)
        self.workers = 0


class WarmFifo(_Warm, FIFOScheduler):  # type: ignore[misc]
    """Every trial runs to its end."""


class WarmAsha(_Warm, AsyncHyperBandScheduler):  # type: ignore[misc]
    """Stops trials that are hopeless at the steps they report; see Ray's AsyncHyperBandScheduler."""


def scheduler_of(plan: SweepPlan) -> Any:
    scheduler: _Warm
    if plan.scheduler == "asha":
        scheduler = WarmAsha(
            time_attr="step", max_t=plan.max_steps, grace_period=plan.grace_steps, reduction_factor=plan.reduction
        )
    else:
        scheduler = WarmFifo()
    scheduler.workers = plan.concurrent
    return scheduler
