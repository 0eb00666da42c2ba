"""The demo: the whole road on the example project, on the real parts, in one go."""

import importlib.util
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import Event
from typing import Any

from rich.console import Console
from rich.padding import Padding

from modelyard import tables
from modelyard.evidence_view import catalog_table
from modelyard.progress import bar, sweep_progress
from modelyard.trace import trace
from modelyard.yard import Yard
from modelyard_build.steps import Until
from modelyard_serving.client import Client, Prediction
from modelyard_tracking.sweeping.sweep import run_sweep

PROJECT = "tumor"
SHARES = {"champion": 80.0, "challenger": 20.0}


def run_demo(yard: Yard, *, keep: bool, units: int, console: Console, out: Console) -> None:
    """Run it, telling `console` what happens and `out` what came of it; stop the stack unless `keep`."""
    ran_before = yard.stack.processes.running()
    # A closed terminal or a cancelled CI job must not leave a stack behind any more than Ctrl-C.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _interrupt)
    try:
        _demo(yard, units, console, out, keep or ran_before)
    finally:
        if not keep and not ran_before:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # impatience must not leave a process behind
            with console.status("stopping the stack"):
                yard.stack.down()
            console.print("The stack is stopped. Keep it next time:  yard demo --keep      or start it:  yard up")


def _demo(yard: Yard, units: int, console: Console, out: Console, stays: bool) -> None:
    project = yard.project(PROJECT)
    with _step(console, "stack: MongoDB, console, Envoy") as say:
        faults = yard.up(say)
    for fault in faults:
        console.print(f"[yellow]From an earlier demo: {fault}[/]")
    with _step(console, "train: one Sacred run", spinner=False):  # the script prints while it trains
        plain = yard.train(PROJECT)
    console.print(tables.runs_table([plain]))
    what = f"sweep: {project.sweep.trials} trials with Ray Tune and hyperopt, each a run; the winner anew"
    with _step(console, what), sweep_progress(console, project, None) as on_event:
        swept = run_sweep(project, yard.settings.tracking_home, on_event=on_event)
    console.print(tables.runs_table(swept.trials, (project.metric.name,)))
    if swept.winner is not None:
        console.print(tables.winner_line(swept.winner, project.metric.name))
    challenger = yard.run_store.get(swept.promotable)
    dirty = any(run.recorded["dirty"] for run in (plain, challenger))
    if dirty:
        console.print("[yellow]The code is not committed: the evidence and the trace will say so.[/]")
    refs = {}
    with _step(console, "approve: evidence, a person's reason, a version in MLflow's registry"):
        for run, alias, reason in (
            (plain, "champion", "demo: passes its gates, first version"),
            (challenger, "challenger", "demo: the sweep's winner, trained anew, to be tried on a fifth of the units"),
        ):
            refs[alias] = yard.request(run.id, allow_dirty=dirty).ref
            yard.approve(refs[alias], reason, alias)
    console.print(catalog_table(yard.catalog(PROJECT)))
    for alias, ref in refs.items():
        with _step(console, f"build {ref}: bento, served as packaged, golden rows replayed") as say:
            build = yard.build(ref, Until.BENTO, say)
        console.print(Padding(tables.findings_table(build.report["findings"]), (0, 0, 0, 4)))
        with _step(console, f"deploy {ref} as {alias}"):
            yard.deploy(f"{PROJECT}@{alias}")
    _retire_earlier(yard, refs.values())
    with _step(console, "split: champion 80 %, challenger 20 %, sticky by unit"):
        yard.split(PROJECT, SHARES)
    _, token = yard.issue_key("demo", [f"{verb}:{PROJECT}" for verb in ("predict", "feedback", "read")], days=1)
    holdout = holdout_rows(project.folder)[:units]
    with Client(yard.settings.gateway_url, token) as client:
        with bar(console, f"{len(holdout)} units ask over HTTP and report the truth", len(holdout)) as step:
            answered = _call(client, holdout, step)
        results = _settled(client, {int(ref.partition(":")[2]) for ref in refs.values()}, len(answered))
    if sum(row["feedback"] for row in results) < len(answered):
        console.print("[yellow]Not all of the audit has arrived yet; the table counts what has.[/]")
    shares = yard.endpoints.endpoint(PROJECT).table.shares()
    console.print(
        f"[green]✓[/] {len(answered)} held-out rows predicted, {len(answered)} true labels sent as feedback\n"
    )
    out.print(tables.results_table(results, shares))
    _how_to_go_on(yard, out, token, holdout[0][1], answered[-1].id, stays)


_interrupted = Event()


def _interrupt(signum: int, frame: object) -> None:  # noqa: ARG001 - the signal module passes them
    _interrupted.set()  # libraries were seen to swallow the exception; the step's end looks here
    raise KeyboardInterrupt


def _how_to_go_on(yard: Yard, out: Console, token: str, row: dict[str, Any], prediction_id: str, stays: bool) -> None:
    import json

    url = yard.settings.gateway_url
    body = yard.settings.home / "demo-row.json"
    body.write_text(json.dumps({"rows": [row]}))
    key = yard.settings.home / "secrets" / "demo-key"
    key.touch(mode=0o600)
    key.write_text(token)
    found = trace(yard, prediction_id)
    here = Path.cwd()
    short = {path: path.relative_to(here) if path.is_relative_to(here) else path for path in (body, key)}
    lines = [
        "",
        f"[bold]Endpoint[/]   {url}/v1/endpoints/{PROJECT}/predict{'' if stays else '      (after yard up)'}",
        f"[bold]Ask it[/]     curl -s {url}/v1/endpoints/{PROJECT}/predict -H 'x-unit-id: patient-7' \\",
        f'             -H "Authorization: Bearer $(cat {short[key]})" -d @{short[body]}',
        f'[bold]Feedback[/]   curl -s {url}/v1/feedback -H "Authorization: Bearer $(cat {short[key]})" \\',
        '             -d \'{"prediction_id": "...", "truth": "benign"}\'',
        "[bold]Look[/]       yard up --omniboard --mlflow      yard runs      yard models      yard status",
        "",
        f"[bold]$ yard trace {prediction_id}[/]",
    ]
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True)
    out.print(tables.trace_table(found))
    if not found.holds:
        raise RuntimeError("the trace does not hold; this is a fault of Modelyard, please report it")


def _call(
    client: Client, holdout: list[tuple[str, dict[str, Any], str]], step: Callable[[str], None]
) -> list[Prediction]:
    model = client.model(PROJECT)

    def ask(item: tuple[str, dict[str, Any], str]) -> Prediction:
        unit, row, truth = item
        prediction = model.predict([row], unit=unit)
        client.feedback(prediction.id, truth=truth)
        return prediction

    answered = []
    with ThreadPoolExecutor(4) as pool:
        for prediction in pool.map(ask, holdout):
            answered.append(prediction)
            step("")
    return answered


def _retire_earlier(yard: Yard, refs: Iterable[str]) -> None:
    """Stop the versions of earlier demos: their variants were just replaced."""
    for deployment in yard.endpoints.deployments():
        ref = f"{deployment.model}:{deployment.version}"
        if deployment.model == PROJECT and ref not in refs:
            yard.retire(ref)


def _settled(client: Client, versions: set[int], wanted: int, timeout_s: float = 15) -> list[dict[str, Any]]:
    """Results of this demo's versions, once the audit of the last prediction has reached the console."""
    deadline = time.monotonic() + timeout_s
    while True:
        results = [row for row in client.model(PROJECT).results()["variants"] if row["version"] in versions]
        if sum(row["feedback"] for row in results) >= wanted or time.monotonic() > deadline:
            return results
        time.sleep(0.1)


def holdout_rows(folder: Path) -> list[tuple[str, dict[str, Any], str]]:
    """The project's held-out rows: (unit, row, truth)."""
    spec = importlib.util.spec_from_file_location("demo_dataset", folder / "dataset.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(folder / "dataset.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_dataset"] = module
    spec.loader.exec_module(module)
    frame = module.load().holdout
    rows = frame.drop(columns="diagnosis").to_dict("records")
    return [
        (f"patient-{number}", row, truth)
        for number, (row, truth) in enumerate(zip(rows, frame["diagnosis"], strict=True))
    ]


@contextmanager
def _step(console: Console, what: str, *, spinner: bool = True) -> Iterator[Callable[[str], None]]:
    """One step of the road: a spinner while it lasts, a line with its time when it is done."""
    started = time.monotonic()
    with console.status(what) if spinner else nullcontext() as status:
        yield lambda detail: status.update(f"{what}: {detail}") if status else None
    if _interrupted.is_set():
        raise KeyboardInterrupt
    console.print(f"[green]✓[/] {what}  [dim]{time.monotonic() - started:.1f} s[/]")
