"""Trial: one configuration tried in a Ray worker, recorded by exactly one run.

A trial that is begun again, after a failure, a kill or a resume, is a further attempt: a run of its own with the same
number. What it had reached is kept as Ray's checkpoint, with an index of digests, so that half a copy is never used.
"""

import functools
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError
from sacred.run import Run as SacredRun
from sacred.utils import SacredInterrupt

from modelyard_tracking.digests import INDEX, check_folder, text_sha256, write_index
from modelyard_tracking.errors import Refused, TrackingError
from modelyard_tracking.origin import GitState
from modelyard_tracking.store import Home
from modelyard_tracking.sweeping.search import PART, TRIAL


class Stopped(SacredInterrupt):  # type: ignore[misc]
    """The scheduler ended the trial early."""

    STATUS = "INTERRUPTED"


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker needs to know; pickled with the trial."""

    sweep_id: int
    folder: Path | None  # of the project; None: the code came to the worker as its working directory
    home: Home
    metric: str
    seed: int
    max_steps: int | None
    scheduler: str
    code: GitState | None
    storage: Path  # where Ray keeps this sweep's trials

    def folder_here(self) -> Path:
        """The project's folder; on another machine the working directory that travelled, which Tune has left."""
        return self.folder or Path(os.environ.get("TUNE_ORIG_WORKING_DIR") or Path.cwd())

    def home_here(self) -> Home:
        """The driver's home, connected to once; on another machine with a spool of that machine's own."""
        if self.folder is not None:
            return self.home.lasting()
        place = os.environ.get("YARD_SPOOL") or Path(tempfile.gettempdir()) / "modelyard-spool"
        return replace(self.home, spool_root=Path(place)).lasting()


@dataclass
class RayConductor:
    """A run's way to Ray Tune and back."""

    order: Order
    number: int
    source: int | None = None  # the trial that it goes on from, in population based training
    until: int | None = None  # the step at which it is over, before the project itself is done
    scores_holdout: bool = False
    reported: bool = False
    stop: BaseException | None = field(default=None, repr=False)

    @property
    def code(self) -> GitState | None:
        return self.order.code

    @property
    def waits_for_upload(self) -> bool:
        return self.order.folder is None  # on this machine the driver waits for all of them at the end

    def report(self, run: SacredRun, step: int, value: float, checkpoint: Path | None) -> None:
        """Pass a step on to Ray; raises Stopped where the scheduler ends the trial before its last step.

        Raises:
            Refused: the population's next generation would have no checkpoint to go on from.
        """
        last = self.order.max_steps is not None and step >= self.order.max_steps
        over = self.until is not None and step >= self.until and not last
        if over and checkpoint is None:
            raise Refused(f"pbt goes on from checkpoints. Report one at step {step}:  ex.report(..., checkpoint=...)")
        run.info["sweep"] |= {"value": value, "step": step}
        self.reported = True
        self.tell(run, value, step, checkpoint)
        if over or (self.stop is not None and not last):
            run.info["sweep"]["stopped_by"] = self.order.scheduler
            raise Stopped from self.stop

    def tell(self, run: SacredRun, value: float, step: int, checkpoint: Path | None = None) -> None:
        from ray import tune

        metrics = {self.order.metric: value, "step": step, "run_id": run._id, "trial": self.number}
        kept = None
        if checkpoint is not None:
            write_index(checkpoint)
            kept = tune.Checkpoint.from_directory(str(checkpoint))
        try:
            tune.report(metrics, checkpoint=kept)
        except SystemExit as end:  # how Ray ends a trial; it must get it back, or its worker cannot be used again
            self.stop = end

    def checkpoint(self) -> Path | None:
        """Ray's own, where it began the trial again; else the last whole one that an earlier session left, or that the
        trial left which this one goes on from.
        """
        from ray import tune

        given = tune.get_checkpoint()
        if given is not None:
            return Path(given.path)
        left = self._left_by(self.number)
        return self._left_by(self.source) if left is None and self.source is not None else left

    def _left_by(self, number: int) -> Path | None:
        left = self.order.storage.glob(f"*/{trial_folder(number)}/checkpoint_*")
        for folder in sorted(left, key=lambda path: path.name, reverse=True):
            with suppress(TrackingError, OSError):
                check_folder(folder, text_sha256((folder / INDEX).read_bytes()))
                return folder
        return None


@dataclass(frozen=True, slots=True)
class FreshConductor:
    """A run of the winner's configuration, outside Tune: nothing stops it, and it is scored on the holdout."""

    code: GitState | None
    scores_holdout: bool = True
    waits_for_upload: bool = True

    def report(self, run: SacredRun, step: int, value: float, checkpoint: Path | None) -> None:
        """Nobody to tell: the experiment has logged it."""

    def checkpoint(self) -> Path | None:
        return None


def trial_folder(number: int) -> str:
    return f"trial-{number:05d}"


def trainable(order: Order) -> Callable[[dict[str, Any]], None]:
    """What Ray runs for each configuration."""

    def trial(config: dict[str, Any]) -> None:
        from modelyard_tracking.recording.plain import plain

        config = dict(config)
        number = int(config.pop(TRIAL))
        experiment = _experiment(order.folder_here())
        experiment._home = order.home_here  # a worker has no settings of its own
        source, until = config.pop(PART, (None, None))
        conductor = RayConductor(order, number, source, until)
        experiment._conductor = conductor
        link = {"id": order.sweep_id, "trial": number, "attempt": _attempts(order, number), "config": plain(config)}
        if source is not None:
            link["goes_on_from"] = source
        try:
            run = experiment.run(
                config_updates={"seed": order.seed, **plain(config)},
                info={"sweep": link},
                # "sys": Sacred's default would redirect the file descriptors of Ray's worker.
                options={"--capture": "sys"},
            )
            if not conductor.reported:
                _report_result(conductor, run)
        except Stopped:
            pass
        if conductor.stop is not None:
            raise conductor.stop

    return trial


@functools.cache
def _experiment(folder: Path) -> Any:
    """The project's experiment, imported once by a worker, which runs one trial after the other."""
    from modelyard_tracking.experiment import load_experiment

    return load_experiment(folder)


def _report_result(conductor: RayConductor, run: SacredRun) -> None:
    """Of a project that reports no steps: its result is the only one."""
    metric = conductor.order.metric
    result: Mapping[str, Any] = run.result if isinstance(run.result, dict) else {}
    value = result.get(metric)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TrackingError(f"run {run._id} returned {run.result!r}, which has no number for {metric!r}")
    conductor.tell(run, float(value), 1)


def _attempts(order: Order, number: int) -> int:
    """How often this trial was begun before; 0 where the database cannot be asked."""
    with suppress(TrackingError, PyMongoError), order.home_here().connected() as db:
        return int(db.runs.count_documents({"info.sweep.id": order.sweep_id, "info.sweep.trial": number}))
    return 0
