"""Commands about training: train, lock, sweep, runs, show."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

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
    run = open_yard().train(project, _config_updates(updates or []))
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


@app.command()
def runs(
    project: Annotated[str | None, typer.Argument(help="Only this project's.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """The latest runs."""
    from modelyard.tables import runs_table

    yard = open_yard()
    if project:
        yard.project(project)
    found = yard.runs(project, limit)
    if as_json:
        print_json([run_dict(run) for run in found])
    elif found:
        stdout().print(runs_table(found))
    else:
        stderr().print("There are no runs yet. Make one:  yard train PROJECT")


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A run's number, or a model version such as tumor:2.")],
    as_json: Json = False,
) -> None:
    """A run with its configuration, result and origin; or a model version with its evidence."""
    yard = open_yard()
    if what.isdigit():
        show_run(yard.run_store.get(int(what)), as_json)
        return
    version = yard.registry.resolve(what)
    approval = yard.approvals.verified(version)
    if as_json:
        print_json(approval)
        return
    from modelyard.tables import fields

    facts = approval.evidence
    stdout().print(
        fields(
            [
                ("version", f"{version.ref} {' '.join('@' + alias for alias in version.aliases)}"),
                ("state", approval.state),
                ("asked by", f"{approval.requested_by}, {approval.requested_at:%Y-%m-%d %H:%M}"),
                ("approved by", f"{approval.approved_by}: {approval.reason}" if approval.approved_by else "nobody yet"),
                ("run", facts["run_id"]),
                ("commit", f"{facts['commit']}{' (changed since)' if facts['dirty'] else ''}"),
                ("model", facts["model_sha256"]),
                ("lock", facts["lock_sha256"]),
                *((f"data {name}", digest) for name, digest in facts["data"].items()),
                *((f"gate {g['metric']}", f"{g['value']:.4g}, {g['bound']}") for g in facts["gates"]),
                *((name, str(text).strip()) for name, text in facts["card"].items()),
            ]
        )
    )


def show_run(run: Any, as_json: bool) -> None:
    from modelyard.tables import fields

    if as_json:
        print_json(run_dict(run))
        return
    recorded = run.recorded
    dirty = f" with {len(recorded.get('changes', ()))} changes" if recorded.get("dirty") else ""
    stdout().print(
        fields(
            [
                ("run", f"{run.id} of {run.experiment}, {run.status}"),
                (
                    "result",
                    ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in run.result.items()),
                ),
                ("config", ", ".join(f"{k}={v}" for k, v in run.config.items())),
                *([("sweep", run.sweep_id)] if run.sweep_id else []),
                ("commit", f"{recorded.get('commit')}{dirty}"),
                ("lock", recorded.get("lock_sha256")),
                *(
                    (f"data {k}", f"{v['sha256']} ({v['rows']} rows)")
                    for k, v in (recorded.get("datasets") or {}).items()
                ),
                ("model", run.model_sha256 or "none saved"),
                *([("failure", run.fail_trace.strip())] if run.fail_trace else []),
            ]
        )
    )


def run_dict(run: Any) -> dict[str, Any]:
    values = asdict(run)
    del values["raw"]
    return values


def _config_updates(updates: list[str]) -> dict[str, Any]:
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
