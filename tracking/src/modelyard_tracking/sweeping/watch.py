"""Watch: what happens in a sweep, told to those who look on. Importing this imports Ray."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard_tracking.sweeping.search import PART, TRIAL
from modelyard_tracking.sweeping.sweeps import Sweep, SweepStore

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from ray import tune


@dataclass(frozen=True, slots=True)
class TrialEvent:
    """Something that happened in a sweep."""

    kind: str  # "started", "reported", "ended", "failed"; "fresh" for a run of the winner
    number: int  # of the trial; of the fresh seed
    config: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = None
    value: float | None = None
    run_id: int | None = None
    fault: str = ""


OnEvent = Callable[[TrialEvent], object]


class Watch(tune.Callback):  # type: ignore[misc]
    """Passes Ray Tune's events on, and writes the best so far to the sweep's document."""

    def __init__(self, sweep: Sweep, sweeps: SweepStore, metric: str, mode: str, on_event: OnEvent) -> None:
        self._sweep, self._sweeps, self._on_event = sweep, sweeps, on_event
        self._metric, self._sign = metric, 1 if mode == "max" else -1
        self._best: float | None = None

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._tell("started", trial)

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:  # noqa: ARG002
        self._tell("reported", trial, result)
        value = float(result[self._metric])
        if value == value and (self._best is None or self._sign * value > self._sign * self._best):
            self._best = value
            with suppress(Exception):  # a database that is away for a moment ends no sweep
                self._sweeps.note_best(self._sweep, value, trial.config[TRIAL], result.get("run_id"))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._tell("ended", trial, trial.last_result)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._tell("failed", trial, fault=_fault(trial))

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
        self._tell("failed", trial, fault=_fault(trial))

    def _tell(self, kind: str, trial: Any, result: Mapping[str, Any] | None = None, fault: str = "") -> None:
        config = dict(trial.config)
        number = config.pop(TRIAL)
        config.pop(PART, None)
        last = result or {}
        step, value, run_id = last.get("step"), last.get(self._metric), last.get("run_id")
        self._on_event(TrialEvent(kind, number, config, step, value, run_id, fault))

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its callbacks; what this one holds cannot be saved, and need not be


def _fault(trial: Any) -> str:
    """The last line of what went wrong."""
    with suppress(Exception):
        lines = [line for line in Path(trial.error_file).read_text().splitlines() if line.strip()]
        return lines[-1].strip()
    return "its worker died"
