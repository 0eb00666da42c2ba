"""Sweep: one search of a project's space with Ray Tune, and the honest worth of its winner.

MongoDB knows everything that counts: the sweep's document, and a run for each trial. A sweep that was interrupted or
killed goes on from there, not from Ray's snapshots: the search gives the same configurations from the same seed, and
the results of finished trials are fed to it instead of running them again. Importing this imports Ray.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from modelyard_tracking.errors import Refused
from modelyard_tracking.experiment import load_experiment
from modelyard_tracking.origin import GitState, git_state
from modelyard_tracking.project import Project
from modelyard_tracking.recording.plain import plain
from modelyard_tracking.recording.spool import Spool
from modelyard_tracking.recording.upload import prepare
from modelyard_tracking.runs import Run, RunStore
from modelyard_tracking.store import Home
from modelyard_tracking.sweeping.cluster import places_for, ray_session
from modelyard_tracking.sweeping.population import Population
from modelyard_tracking.sweeping.schedulers import scheduler_of
from modelyard_tracking.sweeping.search import TRIAL, Finished, OrderedSearch
from modelyard_tracking.sweeping.space import Space, load_space
from modelyard_tracking.sweeping.sweeps import Sweep, SweepStore
from modelyard_tracking.sweeping.trial import FreshConductor, Order, trainable, trial_folder
from modelyard_tracking.sweeping.watch import OnEvent, TrialEvent, Watch
from modelyard_tracking.sweeping.winner import Winner, best_of, fresh_seeds, score_of

WORKER_START_S = 10.0  # what a new worker of Ray costs, imports included


@dataclass(frozen=True, slots=True)
class SweepResult:
    """A finished sweep: its trials as runs, the best one, how many failed, and what the winner is worth."""

    id: int
    trials: tuple[Run, ...]
    best: Run
    failed: int
    winner: Winner | None

    @property
    def promotable(self) -> int:
        """The run to ask approval for."""
        return self.winner.run if self.winner else self.best.id


def run_sweep(
    project: Project,
    home: Home,
    *,
    trials: int | None = None,
    seed: int = 0,
    cpus: int | None = None,
    address: str | None = None,
    install: bool = False,
    resume: int | None = None,
    on_begin: Callable[[Sweep], object] = lambda _: None,
    on_event: OnEvent = lambda _: None,
) -> SweepResult:
    """Search the project's space, then train its best configuration anew with fresh seeds.

    Args:
        trials: how many configurations to try; the project's own number by default.
        seed: of the search, and of every trial. The same seed gives the same configurations.
        cpus: how many processors a local Ray may use; all by default.
        address: of a Ray cluster; a Ray of this process is started without.
        install: have the cluster's workers install the project's lock.
        resume: a sweep that did not come to its end; trials, seed and space are its own.

    Raises:
        Refused: the space is wrong, nothing has what a trial asks for, or no trial gave the project's metric.
    """
    space, code = load_space(project), git_state(project.folder)
    with home.connected() as db:
        prepare(db)
        sweeps, runs = SweepStore(db), RunStore(db)
        if resume is None:
            space.validate(_entries(project))
            sweep = sweeps.begin(project, space.describe(), seed, _budget(project, trials), code)
        else:
            sweep = sweeps.resume(resume, project.name)
        on_begin(sweep)
        outcome = "FAILED"
        winner: Winner | None = None
        began = datetime.now(UTC)
        try:
            with ray_session(project, home, cpus=cpus, address=address, install=install):
                places = places_for(project.sweep.resources)
                order = _order(project, home, sweep, code, shipped=address is not None)
                _search(project, space, sweep, order, places, runs, sweeps, on_event)
                _await_uploads(home, began)
                best = _best(project, runs.of_sweep(sweep.id))
                if best is not None:
                    winner = _crown(project, sweep, order, runs, best, on_event)
                    outcome = "COMPLETED"
        except KeyboardInterrupt:
            outcome = "INTERRUPTED"
            raise
        finally:
            found = _settle(home, runs, sweep, outcome, began)
            sweeps.end(sweep, outcome, _best(project, found), winner)
    best = _best(project, found)
    if best is None:
        raise Refused(_why_nothing(project, sweep, found))
    failed = sum(run.status in ("FAILED", "DIED") for run in found)
    return SweepResult(sweep.id, tuple(found), best, failed, winner)


def _budget(project: Project, trials: int | None) -> int:
    """How many trials there will be; a population may leave a few over."""
    budget = trials or project.sweep.trials
    return Population.of(project.sweep, budget).trials if project.sweep.scheduler == "pbt" else budget


def _entries(project: Project) -> list[str] | None:
    """The names of the experiment's configuration, if it can be had without running it."""
    from sacred.initialize import create_run

    with suppress(Exception):  # a configuration that needs data or a device is no fault of the space
        experiment = load_experiment(project.folder)
        return list(create_run(experiment, experiment.default_command, log_level="ERROR").config)
    return None


def _order(project: Project, home: Home, sweep: Sweep, code: GitState | None, *, shipped: bool) -> Order:
    """What workers are told.

    Args:
        shipped: the code comes to them as their working directory, without its repository.
    """
    return Order(
        sweep_id=sweep.id,
        folder=None if shipped else project.folder,
        home=home,
        metric=project.metric.name,
        seed=sweep.seed,
        max_steps=project.sweep.max_steps,
        scheduler=project.sweep.scheduler,
        code=code,
        storage=home.artifacts / "sweeps" / str(sweep.id),
    )


def _search(
    project: Project,
    space: Space,
    sweep: Sweep,
    order: Order,
    places: int,
    runs: RunStore,
    sweeps: SweepStore,
    on_event: OnEvent,
) -> None:
    from ray import tune

    plan, metric, mode = project.sweep, project.metric.name, project.metric.direction
    search = OrderedSearch(
        space,
        kind=plan.search,
        trials=sweep.trials,
        window=plan.concurrent,
        seed=sweep.seed,
        metric=metric,
        mode=mode,
        population=Population.of(plan, sweep.trials) if plan.scheduler == "pbt" else None,
        finished=_finished(project, runs.of_sweep(sweep.id, all_attempts=True)),
    )
    if not search.left:
        return
    order.storage.mkdir(parents=True, exist_ok=True)
    tune.Tuner(
        tune.with_resources(trainable(order), _rays(plan.resources)),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler_of(plan, places),
            metric=metric,
            mode=mode,
            num_samples=sweep.trials,
            reuse_actors=True,
            max_concurrent_trials=plan.concurrent,
            trial_dirname_creator=lambda trial: trial_folder(trial.config[TRIAL]),
        ),
        run_config=tune.RunConfig(
            name=f"session-{len(list(order.storage.iterdir())) + 1}",
            storage_path=str(order.storage),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=plan.max_failures),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
            callbacks=[Watch(sweep, sweeps, metric, mode, on_event)],
        ),
    ).fit()


def _rays(resources: Mapping[str, float]) -> dict[str, float]:
    """Ray Tune takes processors and GPUs by lower-case names, and wants at least a trace of a processor."""
    return {"cpu": 0, **resources}


def _finished(project: Project, attempts: list[Run]) -> dict[int, Finished]:
    """The trials that need not run again, by number; None as the value of one that failed too often."""
    finished: dict[int, Finished] = {}
    failures: dict[int, int] = {}
    for run in attempts:
        link = run.raw["info"]["sweep"]
        number, value = link["trial"], _value(project, run)
        over = run.status == "COMPLETED" or (run.status == "INTERRUPTED" and link.get("stopped_by") in ("asha", "pbt"))
        if over and value is not None:
            finished[number] = Finished(link["config"], value)
        elif run.status == "FAILED":
            failures[number] = failures.get(number, 0) + 1
            if failures[number] > project.sweep.max_failures and number not in finished:
                finished[number] = Finished(link["config"], None)
    return finished


def _value(project: Project, run: Run) -> float | None:
    """What a trial came to, the number that the search was told: its last report, else its result."""
    value = (run.raw.get("info") or {}).get("sweep", {}).get("value", run.result.get(project.metric.name))
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return float(value) if number else None


def _scored(project: Project, trials: list[Run]) -> list[tuple[Run, float]]:
    """Trials with a score. Those that ended early are left out where others did not: theirs is one of fewer steps."""
    scored = [(run, value) for run in trials if (value := _value(project, run)) is not None]
    return [pair for pair in scored if pair[0].status == "COMPLETED"] or scored


def _best(project: Project, trials: list[Run]) -> Run | None:
    scored = _scored(project, trials)
    if not scored:
        return None
    best, _ = best_of([(run.id, value) for run, value in scored], project.metric.direction)
    return next(run for run, _ in scored if run.id == best)


def _crown(project: Project, sweep: Sweep, order: Order, runs: RunStore, best: Run, on_event: OnEvent) -> Winner:
    """Train the best configuration anew, outside Tune, and score it."""
    config = best.raw["info"]["sweep"]["config"]
    known = {run.config.get("seed"): run.id for run in runs.winners_of_sweep(sweep.id) if run.status == "COMPLETED"}
    seeds = fresh_seeds(sweep.seed, project.sweep.fresh_seeds)
    for seed, run_id in _trained_fresh(project, order, config, [s for s in seeds if s not in known], best.duration_s):
        known[seed] = run_id
        on_event(TrialEvent("fresh", seeds.index(seed), config, run_id=run_id))
    fresh = [score_of(project, runs.get(known[seed]).result) for seed in seeds]
    return Winner(
        config,
        best.id,
        sweep.trials,
        _value(project, best) or 0.0,
        tuple(score for score, _ in fresh),
        tuple(known[seed] for seed in seeds),
        all(on_holdout for _, on_holdout in fresh),
        project.metric.direction,
    )


def _trained_fresh(
    project: Project, order: Order, config: dict[str, Any], seeds: list[int], took_s: float | None
) -> Iterator[tuple[int, int]]:
    """Train with each seed; gives seed and run as they end."""
    if order.folder is not None and took_s is not None and took_s < WORKER_START_S:
        for seed in seeds:  # here: it is over before a worker has started
            yield seed, _train_fresh(order, config, seed)
        return
    import ray

    resources = project.sweep.resources
    custom = {name: amount for name, amount in resources.items() if name not in ("cpu", "gpu")}
    task = ray.remote(_train_fresh).options(
        num_cpus=resources.get("cpu", 0), num_gpus=resources.get("gpu", 0), resources=custom or None
    )
    waiting = {task.remote(order, config, seed): seed for seed in seeds}
    while waiting:
        [done], _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)


def _train_fresh(order: Order, config: dict[str, Any], seed: int) -> int:
    """In a worker: one run of the winner's configuration; gives its number."""
    experiment = load_experiment(order.folder_here())
    experiment._home = order.home_here
    experiment._conductor = FreshConductor(order.code)
    run = experiment.run(
        config_updates={**plain(config), "seed": seed},
        info={"sweep": {"id": order.sweep_id, "role": "winner", "config": plain(config)}},
        options={"--capture": "sys"},
    )
    return int(run._id)


def _settle(home: Home, runs: RunStore, sweep: Sweep, outcome: str, began: datetime) -> list[Run]:
    """Wait until what Ray's workers left is uploaded, and say of trials that were cut off by Ctrl-C that they were."""
    _await_uploads(home, began)
    if outcome == "INTERRUPTED":
        cut_off = {"info.sweep.id": sweep.id, "status": {"$in": ["RUNNING", "DIED"]}, "start_time": {"$gte": began}}
        runs.db.runs.update_many(cut_off, {"$set": {"status": "INTERRUPTED"}})
    return runs.of_sweep(sweep.id)


def _await_uploads(home: Home, began: datetime, timeout_s: float = 60) -> None:
    """Wait until the runs of this session that are over are in MongoDB."""
    deadline = time.monotonic() + timeout_s
    while any(not folder.is_live() for folder in Spool(home.spool).runs(began)) and time.monotonic() < deadline:
        time.sleep(0.02)


def _why_nothing(project: Project, sweep: Sweep, trials: list[Run]) -> str:
    trace = next((run.fail_trace for run in trials if run.fail_trace), "").strip().splitlines()
    return (
        f"Sweep {sweep.id}: none of its {len(trials)} trials gave a number for {project.metric.name!r}.\n"
        f"{trace[-1] if trace else 'The main function returns a dictionary; the metric must be one of its keys.'}"
    )
