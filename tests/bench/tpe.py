"""What TPE is worth on the example: the best configuration that it finds, against random search on the same budget.

The example's own train function is called, without Ray and without a database. The loss is the validation log loss: it
changes with every probability, where 1 - AUC only counts the pairs of 89 rows that are in the wrong order, of which
many configurations have equally many.
"""

import contextlib
import io
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from table import print_table

PROJECTS = Path(__file__).parents[2] / "projects"
SEEDS = range(10)
LOSS = "val_log_loss"


def training() -> Callable[[dict[str, Any]], float]:
    """Gives the loss of a configuration, by the example's main function; nothing is recorded."""
    from modelyard_tracking.experiment import load_experiment

    experiment: Any = load_experiment(PROJECTS / "tumor")
    main = experiment.commands[experiment.default_command].__wrapped__
    run = SimpleNamespace(log_scalar=lambda *_, **__: None, info={})
    for recording in ("dataset", "save_model"):
        setattr(experiment, recording, lambda *_, **__: None)

    def loss(config: dict[str, Any]) -> float:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some configurations do not converge: their loss says so
            return float(main(run, seed=0, **config)[LOSS])

    return loss


def best_loss(loss: Callable[[dict[str, Any]], float], kind: Literal["tpe", "random"], seed: int) -> float:
    """The least loss of a sweep as `yard sweep tumor` would make it: as many trials side by side, 20 at the least."""
    from modelyard_tracking.project import load_project
    from modelyard_tracking.sweeping.search import TRIAL, OrderedSearch
    from modelyard_tracking.sweeping.space import load_space

    project = load_project(PROJECTS, "tumor")
    trials, window = max(project.sweep.trials, 20), project.sweep.concurrent
    search = OrderedSearch(
        load_space(project), kind=kind, trials=trials, window=window, seed=seed, metric=LOSS, mode="min"
    )
    losses: list[float] = []
    for number in range(trials):
        if number >= window:  # the trial that began first ends first
            ended = number - window
            search.on_trial_complete(str(ended), {LOSS: losses[ended]})
        config = search.suggest(str(number))
        del config[TRIAL]
        losses.append(loss(config))
    return min(losses)


def tpe_vs_random() -> dict[str, float]:
    """Median best loss of each search over ten seeds, and TPE's over random search's."""
    loss = training()
    tpe, random = (statistics.median(best_loss(loss, kind, seed) for seed in SEEDS) for kind in ("tpe", "random"))
    return {"tpe_vs_random": tpe / random, "tpe_loss": tpe, "random_loss": random}


if __name__ == "__main__":
    print_table("TPE and random search on the example", tpe_vs_random(), {"tpe_vs_random": "below 1"})
