"""What a sweep costs beside Ray Tune itself, and whether TPE is worth it. On a real Ray and a real mongod.

Both sides search one space with hyperopt, two trials at a time, with warm workers; ours records each trial as a run.
Seconds per trial are taken between the end of the first tenth of the trials and the end of the last: the steady state.
"""

import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from own_mongod import mongod
from table import print_table
from tpe import tpe_vs_random

from modelyard_tracking.project import Project, load_project
from modelyard_tracking.store import Home

TRIALS = 200
ROUNDS = 3  # of Ray alone and ours in turn; medians
QUIET = {**os.environ, "PYTHONWARNINGS": "ignore"}
TRAIN = """
from modelyard import Experiment
ex = Experiment("trivial")
@ex.config
def config():
    x = 0.0
@ex.automain
def main(x):
    return {"score": -(x - 0.3) ** 2}
"""
PROJECT = """
name = "trivial"
[metric]
name = "score"
direction = "max"
[endpoint]
unit = "u"
reward = "r"
[sweep]
concurrent = 2
fresh_seeds = 1
space = { x = { uniform = [-1.0, 1.0] } }
"""


def project(folder: Path) -> Project:
    place = folder / "projects" / "trivial"
    place.mkdir(parents=True)
    (place / "train.py").write_text(TRAIN)
    (place / "project.toml").write_text(PROJECT)
    return load_project(folder / "projects", "trivial")


def steady(ends: list[float]) -> float:
    warm = max(1, len(ends) // 10)
    return (ends[-1] - ends[warm - 1]) / (len(ends) - warm)


def ours(trivial: Project, home: Home, trials: int) -> dict[str, float]:
    """Our sweep, and where its start goes: Ray's import, Ray's start, and the first worker's with its imports."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import modelyard_tracking.sweeping.sweep, ray.tune"], check=True, env=QUIET)
    imported_s = time.perf_counter() - began
    from modelyard_tracking.sweeping import sweep as sweeping
    from modelyard_tracking.sweeping.sweep import run_sweep

    ready: list[float] = []

    @contextlib.contextmanager
    def timed(*args: Any, **kwargs: Any) -> Iterator[None]:
        before = time.perf_counter()
        with ray_session(*args, **kwargs):
            ready.append(time.perf_counter() - before)
            yield

    ray_session, sweeping.ray_session = sweeping.ray_session, timed
    started, ends, first = time.perf_counter(), [], []

    def on_event(event: Any) -> None:
        if event.kind == "started" and not first:
            first.append(time.perf_counter() - started)
        if event.kind == "ended":
            ends.append(time.perf_counter())

    run_sweep(trivial, home, trials=trials, on_event=on_event)
    sweeping.ray_session = ray_session
    return {
        "s_per_trial": steady(ends),
        "cold_start_s": imported_s + first[0],
        "of_it_imports_s": imported_s,
        "of_it_ray_start_s": ready[0],
        "first_result_s": imported_s + ends[0] - started,
    }


def plain_ray(folder: Path, trials: int) -> float:
    """The same search by Ray Tune alone, with the settings that Modelyard uses."""
    import ray
    from hyperopt import hp
    from ray import tune
    from ray.tune.search.hyperopt import HyperOptSearch

    ends: list[float] = []

    class Watch(tune.Callback):  # type: ignore[misc]
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:  # noqa: ARG002
            ends.append(time.perf_counter())

        def __getstate__(self) -> dict[str, Any]:
            return {}

    def trial(config: dict[str, Any]) -> None:
        tune.report({"score": -((config["x"] - 0.3) ** 2)})

    options = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    ray.init(_node_ip_address="127.0.0.1", **options)
    search = HyperOptSearch({"x": hp.uniform("x", -1, 1)}, metric="score", mode="max", random_state_seed=0)
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            metric="score",
            mode="max",
            num_samples=trials,
            reuse_actors=True,
            max_concurrent_trials=2,
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "plain"), verbose=0, callbacks=[Watch()]),
    ).fit()
    ray.shutdown()
    return steady(ends)


def main() -> None:
    warnings.simplefilter("ignore")
    from modelyard_tracking.sweeping.cluster import _environment

    _environment()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, mongod(Path(scratch)) as url:
        folder = Path(scratch)
        home = Home(url, "bench", folder / "artifacts", folder / "spool")
        trivial = project(folder)
        pairs = [(plain_ray(folder, TRIALS), ours(trivial, home, TRIALS)) for _ in range(ROUNDS)]
        figures = {name: statistics.median(mine[name] for _, mine in pairs) for name in pairs[0][1]}
        figures["ray_s_per_trial"] = statistics.median(ray_s for ray_s, _ in pairs)
        figures["vs_ray"] = statistics.median(mine["s_per_trial"] / ray_s for ray_s, mine in pairs)
    if "--no-tpe" not in sys.argv:
        figures |= tpe_vs_random()
    goals = {"vs_ray": "<= 1.3", "s_per_trial": "<= 0.5", "tpe_vs_random": "< 1"}
    print_table("Sweeps", figures, goals)


if __name__ == "__main__":
    main()
