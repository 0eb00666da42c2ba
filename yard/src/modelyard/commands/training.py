"""Commands about training: train, lock, sweep, sweeps."""

from typing import Annotated, Any

import typer

from modelyard.commands.runs import show_run, show_sweep
from modelyard.commands.terminal import Json, Project, open_yard, print_json, stderr, stdout

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
    from modelyard_build.locks.locking import lock_project

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
    seed: Annotated[int, typer.Option(help="Of the search and of every trial; the same gives the same.")] = 0,
    resume: Annotated[int | None, typer.Option("--resume", help="Go on with a sweep that did not end.")] = None,
    address: Annotated[str | None, typer.Option(help="A running Ray cluster: HOST:6379, or auto.")] = None,
    install: Annotated[bool, typer.Option("--install", help="Have its workers install the project's lock.")] = False,
    cpus: Annotated[int | None, typer.Option(min=1, help="Processors of a Ray of this machine.")] = None,
    as_json: Json = False,
) -> None:
    """Search hyperparameters with Ray Tune and hyperopt, each trial a run; then train the winner anew.

    yard sweep tumor --trials 50
    """
    from modelyard.progress import sweep_progress
    from modelyard_tracking.sweeping.sweep import run_sweep

    yard, err = open_yard(), stderr()
    found = yard.project(project)
    _ = found.lock
    begun: list[Any] = []
    try:
        with sweep_progress(err, found, trials) as on_event:
            result = run_sweep(
                found,
                yard.settings.tracking_home,
                trials=trials,
                seed=seed,
                resume=resume,
                address=address,
                install=install,
                cpus=cpus,
                on_begin=begun.append,
                on_event=on_event,
            )
    except KeyboardInterrupt:
        if begun:
            err.print(f"Interrupted. Go on:  yard sweep {project} --resume {begun[0].id}")
        raise
    show_sweep(yard, result.id, as_json)
    err.print(f"Next:  yard show sweep:{result.id} --report sweep.html      yard request {result.promotable}")


@app.command()
def sweeps(
    project: Annotated[str | None, typer.Argument(help="Only this project's.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """The latest sweeps, with what their winners are worth."""
    from modelyard.tables import sweeps_table

    found = open_yard().sweeps.latest(project, limit)
    if as_json:
        print_json([sweep.raw for sweep in found])
    elif found:
        stdout().print(sweeps_table(found))
    else:
        stderr().print("There are no sweeps yet. Make one:  yard sweep PROJECT")


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
