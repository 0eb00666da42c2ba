"""Sweep: one Ray Tune search with hyperopt. Each trial is exactly one Sacred run, linked to the sweep."""

import importlib.util
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from pymongo import ReturnDocument
from pymongo.database import Database

from modelyard_tracking.errors import Refused, TrackingError
from modelyard_tracking.experiment import load_experiment
from modelyard_tracking.project import Project
from modelyard_tracking.recording.spool import Spool
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import Home


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished sweep: its trials as runs, the best one, and how many failed."""

    id: int
    trials: tuple[Run, ...]
    best: Run
    failed: int


def run_sweep(
    project: Project,
    home: Home,
    *,
    trials: int | None = None,
    seed: int = 0,
    cpus: int | None = None,
    on_trial: Callable[[Run], object] = lambda _: None,
) -> SweepResult:
    """Search the project's space and give the best trial.

    Args:
        trials: how many configurations to try; the project's own number by default.
        seed: of the search, and of every trial. The first half of the configurations follow from it alone; later
            ones also from the order in which trials that ran side by side have ended.
        cpus: how many processors Ray may use; all by default.
        on_trial: called with each trial's run as it ends.

    Raises:
        Refused: the space is wrong, or no trial gave the project's metric.
    """
    space = load_space(project)
    trials = trials or project.sweep.trials
    with home.connected() as db:
        started_at = datetime.now(UTC)
        sweep_id = _begin(db, project, space, seed, trials)
        state = "FAILED"
        try:
            with _ray(cpus):
                _search(project, home, RunStore(db), space, sweep_id, trials, seed, on_trial)
            state = "COMPLETED"
        except KeyboardInterrupt:
            state = "INTERRUPTED"
            raise
        finally:
            runs, best = _end(db, project, home, sweep_id, state, started_at)
    if best is None:
        trace = next((run.fail_trace for run in runs if run.fail_trace), "").strip().splitlines()
        raise Refused(
            f"Sweep {sweep_id}: none of its {len(runs)} trials gave a number for {project.metric.name!r}.\n"
            f"{trace[-1] if trace else 'The main function returns a dictionary; the metric must be one of its keys.'}"
        )
    return SweepResult(sweep_id, runs, best, sum(run.status == "FAILED" for run in runs))


def load_space(project: Project) -> dict[str, Any]:
    """The project's search space: what `space()` in its search_space.py gives, a dictionary of hyperopt expressions."""
    file = project.folder / project.sweep.space
    if not file.is_file():
        raise Refused(f"{file} is missing. It defines space(), a dictionary of hyperopt expressions.")
    spec = importlib.util.spec_from_file_location("search_space", file)
    if spec is None or spec.loader is None:
        raise Refused(f"{file} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    with _quiet():
        spec.loader.exec_module(module)
    space = getattr(module, "space", lambda: None)()
    if not isinstance(space, dict) or not space:
        raise Refused(
            f"{file}: space() must give a dictionary of hyperopt expressions, such as hp.loguniform('C', -6, 4)."
        )
    return space


def _begin(db: "Database[dict[str, Any]]", project: Project, space: dict[str, Any], seed: int, trials: int) -> int:
    """Write the sweep down; gives its number."""
    sweep_id = _next_id(db)
    db.sweeps.insert_one(
        {
            "_id": sweep_id,
            "project": project.name,
            "space": {name: str(node) for name, node in space.items()},
            "metric": project.metric.model_dump(),
            "seed": seed,
            "trials": trials,
            "state": "RUNNING",
            "started_at": datetime.now(UTC),
        }
    )
    return sweep_id


def _end(
    db: "Database[dict[str, Any]]", project: Project, home: Home, sweep_id: int, state: str, started_at: datetime
) -> tuple[tuple[Run, ...], Run | None]:
    """Write down how the sweep ended; gives its runs and the best of them."""
    now = datetime.now(UTC)
    # Trials that were ended with Ray's workers just now: the uploader brings what they had written, and says DIED.
    deadline = time.monotonic() + 10
    while any(not folder.is_live() for folder in Spool(home.spool).runs(started_at)) and time.monotonic() < deadline:
        time.sleep(0.02)
    cut_off = {"info.sweep.id": sweep_id, "status": {"$in": ["RUNNING", "DIED"]}}
    if state == "INTERRUPTED":
        db.runs.update_many(cut_off, {"$set": {"status": "INTERRUPTED"}})
    runs = tuple(RunStore(db).of_sweep(sweep_id))
    best = _best(project, runs)
    said = {"state": state, "stopped_at": now, "best_run": best.id if best else None}
    db.sweeps.update_one({"_id": sweep_id}, {"$set": said})
    return runs, best


def _search(
    project: Project,
    home: Home,
    store: RunStore,
    space: dict[str, Any],
    sweep_id: int,
    trials: int,
    seed: int,
    on_trial: Callable[[Run], object],
) -> None:
    from ray import tune
    from ray.tune.search.hyperopt import HyperOptSearch

    metric, mode = project.metric.name, project.metric.direction

    class Watch(tune.Callback):  # type: ignore[misc]
        def __init__(self, ended: Callable[[int], object]) -> None:
            self.ended = ended

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
            run_id = trial.last_result.get("run_id")
            if run_id is not None:
                self.ended(int(run_id))

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves its callbacks; a database connection cannot be saved, and need not be

    search = HyperOptSearch(
        space=space, metric=metric, mode=mode, random_state_seed=seed, n_initial_points=max(2, min(20, trials // 2))
    )
    tune.Tuner(
        tune.with_resources(_trainable(project.folder, home, sweep_id, metric, seed), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            metric=metric,
            mode=mode,
            num_samples=trials,
            reuse_actors=True,
            max_concurrent_trials=project.sweep.concurrent,
        ),
        run_config=tune.RunConfig(
            name=f"sweep-{sweep_id}",
            storage_path=str(home.artifacts / "sweeps"),
            verbose=0,
            callbacks=[Watch(lambda run_id: on_trial(store.get(run_id)))],
        ),
    ).fit()


def _trainable(folder: Path, home: Home, sweep_id: int, metric: str, seed: int) -> Callable[[Mapping[str, Any]], None]:
    """One trial in a Ray worker: a Sacred run of the project's own train.py."""

    def trial(config: Mapping[str, Any]) -> None:
        from ray import tune

        experiment = load_experiment(folder)
        experiment._home = lambda: home  # the driver's home; a worker has no settings of its own
        link = {"id": sweep_id, "trial": tune.get_context().get_trial_id()}
        # "sys": Sacred's default would redirect the file descriptors of Ray's worker.
        run = experiment.run(
            config_updates={"seed": seed, **_plain(config)}, info={"sweep": link}, options={"--capture": "sys"}
        )
        result = run.result if isinstance(run.result, dict) else {}
        if not isinstance(result.get(metric), int | float):
            raise TrackingError(f"run {run._id} returned {result!r}, which has no number for {metric!r}")
        tune.report({metric: float(result[metric]), "run_id": run._id})

    return trial


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """hyperopt gives NumPy scalars, which Sacred would store as Python objects."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in config.items()}


def _best(project: Project, runs: tuple[Run, ...]) -> Run | None:
    metric = project.metric.name
    scored = [run for run in runs if run.status == "COMPLETED" and isinstance(run.result.get(metric), int | float)]
    sign = 1 if project.metric.direction == "max" else -1
    return max(scored, key=lambda run: sign * run.result[metric], default=None)


def _next_id(db: "Database[dict[str, Any]]") -> int:
    counter = db.counters.find_one_and_update(
        {"_id": "sweeps"}, {"$inc": {"last": 1}}, upsert=True, return_document=ReturnDocument.AFTER
    )
    return int((counter or {})["last"])


@contextmanager
def _ray(cpus: int | None) -> Iterator[None]:
    """Ray in this process, and nothing of it left behind."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would swallow Ctrl-C and return normally
    before = _ray_processes()
    started: set[psutil.Process] = set()
    with _quiet():
        import ray

        try:
            ray.init(
                num_cpus=cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                _node_ip_address="127.0.0.1",
            )
            started |= _ray_processes() - before
            yield
        finally:
            started |= _ray_processes() - before
            ray.shutdown()
            for process in psutil.wait_procs(started, timeout=10)[1]:  # its agents outlive it by some seconds
                with suppress(psutil.Error):
                    process.kill()


def _ray_processes() -> set[psutil.Process]:
    """Children of this process that belong to a Ray; it may well have others."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ray" in " ".join(process.cmdline()):
                found.add(process)
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
