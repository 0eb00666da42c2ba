"""Commands about training: train, lock, sweep."""

from typing import Annotated, Any

import typer

from modelyard.commands.runs import show_run
from modelyard.commands.terminal import Json, Project, open_yard, stderr

app = typer.Typer()


@app.command()
def train(
    project: Project,
    updates: Annotated[
        list[str] | None, typer.Argument(help="Configuration, as in Sacred: C=0.1 scaler=robust.")
    ] = None,
    as_json: Json = False,
) -> None:
    """One run of a project's train.py, recorded in MongoDB."""
    run = open_yard().train(project, config_updates(updates or []))
    show_run(run, as_json)
    stderr().print(f"Next:  yard show {run.id}      yard request {run.id}")


@app.command()
def lock(
    project: Project,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Take newer versions where there are some.")] = False,
) -> None:
    """Pin what a project needs, by hash: its requirements.in and the runtime's needs."""
    from modelyard_build.locking import lock_project

    yard = open_yard()
    constraints = yard.settings.root / "requirements.lock"
    with stderr().status("locking"):
        file = lock_project(
            yard.project(project).folder, constraints if constraints.is_file() else None, upgrade=upgrade
        )
    stderr().print(f"locked: {file}. Commit it; runs record its sha256.")


@app.command()
def sweep(
    project: Project,
    trials: Annotated[int | None, typer.Option(min=1, help="How many configurations to try.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the search and of every trial.")] = 0,
    as_json: Json = False,
) -> None:
    """Search hyperparameters with Ray Tune and hyperopt; each trial is a run."""
    from modelyard.progress import sweep_progress
    from modelyard_tracking.sweep import run_sweep

    yard = open_yard()
    found = yard.project(project)
    _ = found.lock
    with sweep_progress(stderr(), found, trials) as on_trial:
        result = run_sweep(found, yard.settings.tracking_home, trials=trials, seed=seed, on_trial=on_trial)
    show_run(result.best, as_json)
    failed = f", {result.failed} failed" if result.failed else ""
    stderr().print(
        f"Sweep {result.id}: {len(result.trials)} trials{failed}; best is run {result.best.id}.\n"
        f"Next:  yard request {result.best.id}"
    )


def config_updates(updates: list[str]) -> dict[str, Any]:
    import ast

    config: dict[str, Any] = {}
    for update in updates:
        name, equals, text = update.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{update!r} is not name=value, such as C=0.1")
        try:
            config[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            config[name] = text
    return config
