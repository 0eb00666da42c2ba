"""Commands about runs: runs (list, push), show, compare."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.commands.bundles import export_command, import_command
from modelyard.commands.models import show_version
from modelyard.commands.terminal import Json, ListByDefault, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard.yard import Yard
    from modelyard_tracking.runs import Run


app = typer.Typer()
group = typer.Typer(
    cls=ListByDefault,
    help="Runs: list them, push what waits in the spool, move them between databases.\n\n"
    "Short for `yard runs list`, whose options it takes:  yard runs tumor --sort val_auc -w 'C<1'",
)
app.add_typer(group, name="runs")
group.command("export")(export_command)
group.command("import")(import_command)


@group.command("list")
def list_runs(
    project: Annotated[str | None, typer.Argument(help="Only this project's.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", "-w", help="'val_auc>0.9', status=FAILED, 'config.C<1', 'started>2d'; repeatable."),
    ] = None,
    sort: Annotated[str | None, typer.Option("--sort", "-s", help="A result, metric or configuration entry.")] = None,
    ascending: Annotated[bool | None, typer.Option("--ascending/--descending", help="Order of --sort.")] = None,
    columns: Annotated[str | None, typer.Option("--columns", "-c", help="Show these entries: C,val_auc.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 20,
    as_json: Json = False,
) -> None:
    """Runs, the newest first, or filtered and sorted."""
    yard = open_yard()
    if project:
        _known(yard, project)
    found = yard.runs(project, limit, where=where or (), sort=sort, ascending=ascending)
    if as_json:
        print_json([run_dict(run) for run in found])
    elif found:
        from modelyard.tables import runs_table

        named = [name.strip() for name in columns.split(",")] if columns else [sort] if sort else []
        stdout().print(runs_table(found, tuple(named)))
    else:
        stderr().print("No run fits." if where else "There are no runs yet. Make one:  yard train PROJECT")


@group.command()
def push(as_json: Json = False) -> None:
    """Upload what a crash or a lost network left: runs in the spool, files that wait for the shared store.

    Doing it again does nothing.
    """
    from modelyard_tracking.recording.spool import Spool

    yard, err = open_yard(), stderr()
    spool = Spool(yard.settings.tracking_home.spool)
    pushed: list[dict[str, Any]] = []
    with err.status(f"uploading {len(spool.runs())} runs"):
        left = yard.push(lambda folder, run_id: pushed.append({"run": run_id, "spooled": folder.uuid}))
    live = len(spool.runs()) - left
    with err.status("bringing files to the shared store") as status:
        shared = yard.share(lambda thing: status.update(f"{thing.kind} {thing.digest[:12]} to the shared store"))
    if as_json:
        print_json({"pushed": pushed, "left": left, "live": max(0, live), "shared": shared})
    else:
        for entry in pushed:
            stdout().print(f"run {entry['run']}  was {entry['spooled']}")
        if shared:
            err.print(f"{shared} models, data sets and locks are in the shared store")
        err.print(f"{len(pushed)} pushed" + (f", {left} are being uploaded by another process" if left else ""))
        others = [folder for folder in spool.root.parent.glob("*/") if folder != spool.root and Spool(folder).runs()]
        for folder in others:
            err.print(f"{len(Spool(folder).runs())} runs in {folder} wait for another database; see YARD_MONGO_URL.")


@app.command()
def show(
    what: Annotated[str, typer.Argument(help="A run's number, a model version such as tumor:2, or sweep:1.")],
    report: Annotated[Path | None, typer.Option("--report", help="Of a sweep: write .html, .png or .svg.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what a run prints while it runs.")] = False,
    output: Annotated[bool, typer.Option("--output", help="Print all that the run printed, and no more.")] = False,
    as_json: Json = False,
) -> None:
    """A run with its configuration, result, curves and origin; a model version with its evidence; a sweep."""
    yard = open_yard()
    if what.startswith("sweep:") and what.removeprefix("sweep:").isdigit():
        show_sweep(yard, int(what.removeprefix("sweep:")), as_json, report)
        return
    if not what.isdigit():
        show_version(yard, what, as_json)
        return
    yard.bury()
    run = yard.run_store.get(int(what))
    if output:
        print(_output(yard, run), end="")  # noqa: T201 - as it was printed
        return
    if follow:
        run = _follow(yard, run)
    show_run(run, as_json)
    if not as_json:
        from modelyard.tables import curves_table

        curves = yard.run_store.curves(run.id)
        if curves:
            stdout().print()
            stdout().print(curves_table(curves.values()))


@app.command()
def compare(
    runs: Annotated[list[int], typer.Argument(help="Two runs or more; the first is the base.", min=1)],
    everything: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    as_json: Json = False,
) -> None:
    """What differs between runs: configuration, numbers, code, environment, data."""
    if len(runs) < 2:
        raise typer.BadParameter("two runs or more are compared, such as: yard compare 7 9")
    yard = open_yard()
    comparison = yard.compare(*runs)
    if as_json:
        print_json(comparison.as_dict())
        return
    from modelyard.tables import comparison_table, diff_text

    out = stdout()
    out.print(comparison_table(comparison, everything))
    if comparison.diff:
        out.print()
        out.print(diff_text(comparison.diff))
    if comparison.diff_note:
        stderr().print(f"No code diff: {comparison.diff_note}")


def show_run(run: "Run", as_json: bool) -> None:
    from modelyard.tables import fields

    if as_json:
        print_json({**run_dict(run), "captured_out": run.raw.get("captured_out", "")})
        return
    recorded = run.recorded
    dirty = f" with {len(recorded['changes'])} changes" if recorded.get("dirty") and recorded.get("commit") else ""
    artifacts = ", ".join(entry["name"] for entry in run.raw.get("artifacts") or ())
    comment = (run.raw.get("meta") or {}).get("comment")
    imported = recorded.get("imported") or {}
    pairs: list[tuple[str, Any]] = [
        ("run", f"{run.id} of {run.experiment}, {run.status}"),
        ("result", ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in run.result.items())),
        ("config", ", ".join(f"{k}={v}" for k, v in run.config.items())),
        ("comment", comment),
        ("sweep", run.sweep_id),
        ("reproduces", recorded.get("reproduces")),
        ("imported", f"run {imported['id']} of another database" if imported else None),
        ("commit", f"{recorded.get('commit') or 'none recorded'}{dirty}"),
        ("left out", ", ".join(recorded.get("left_out") or ())),
        ("lock", recorded.get("lock_sha256")),
        *((f"data {k}", f"{v['sha256']} ({_amount(v)})") for k, v in (recorded.get("datasets") or {}).items()),
        ("model", run.model_sha256 or "none saved"),
        ("artifacts", artifacts),
        ("lost", f"{recorded['lost_lines']} lines, on a full disk" if recorded.get("lost_lines") else None),
        ("failure", run.fail_trace.strip()),
    ]
    stdout().print(fields((name, value) for name, value in pairs if value))


def show_sweep(yard: "Yard", number: int, as_json: bool, report: Path | None = None) -> None:
    from modelyard import sweep_report
    from modelyard.tables import fields, runs_table, sparkline

    sweep = yard.sweeps.get(number)
    runs = yard.run_store.of_sweep(number)
    trials = sweep_report.tried(sweep, runs)
    if report is not None:
        sweep_report.write_report(sweep, runs, report)
        stderr().print(f"written: {report}")
    if as_json:
        print_json({**sweep.raw, "importance": sweep_report.importance(trials), "runs": [run.id for run in runs]})
        return
    weights = sweep_report.importance(trials)
    said = [
        *sweep_report.facts(sweep, trials),
        ("best so far", sparkline(sweep_report.best_so_far(trials, sweep.direction))),
        ("what mattered", ", ".join(f"{name} {weight:.0%}" for name, weight in weights.items())),
    ]
    stdout().print(fields(pair for pair in said if pair[1]))
    stdout().print()
    ordered = sorted(zip(trials, runs, strict=True), key=lambda pair: (pair[0].value is None, pair[0].value or 0))
    best_first = ordered if sweep.direction == "min" else _best_first(ordered)
    names = tuple(dict.fromkeys(name for trial in trials for name in trial.parameters))
    stdout().print(runs_table([run for _, run in best_first[:10]], (sweep.metric, *names)))
    if len(runs) > 10:
        stderr().print(f"{len(runs) - 10} trials more:  yard runs {sweep.project} -w sweep={number} -n {len(runs)}")


def _best_first(ordered: list[Any]) -> list[Any]:
    scored = [pair for pair in ordered if pair[0].value is not None]
    return scored[::-1] + [pair for pair in ordered if pair[0].value is None]


def run_dict(run: "Run") -> dict[str, Any]:
    values = asdict(run)
    del values["raw"]
    return values


def _amount(facts: dict[str, Any]) -> str:
    return f"{facts['rows']} rows" if "rows" in facts else f"{facts['bytes']} bytes of {facts['path']}"


def _known(yard: "Yard", project: str) -> None:
    """A project that has no folder may still have runs: a plain script's experiment."""
    if yard.db.runs.find_one({"experiment.name": project}, {"_id": 1}) is None:
        yard.project(project)


def _follow(yard: "Yard", run: "Run") -> "Run":
    seen, seen_bytes = "", 0
    while True:
        text = run.raw.get("captured_out") or ""
        total = run.recorded.get("output_bytes", len(text.encode()))
        if text.startswith(seen):
            new = text[len(seen) :]
        else:  # only the tail is kept
            added = total - seen_bytes
            new = text.encode()[-added:].decode(errors="replace") if added > 0 else ""
        print(new, end="", flush=True)  # noqa: T201 - as it was printed
        seen, seen_bytes = text, total
        if run.status not in ("RUNNING", "QUEUED"):
            return run
        time.sleep(0.5)
        yard.bury()
        run = yard.run_store.get(run.id)


def _output(yard: "Yard", run: "Run") -> str:
    from modelyard_tracking.recording.upload import OUTPUT_ARTIFACT

    if any(entry["name"] == OUTPUT_ARTIFACT for entry in run.raw.get("artifacts") or ()):
        return yard.run_store.artifact(run, OUTPUT_ARTIFACT).decode(errors="replace")
    return str(run.raw.get("captured_out") or "")
