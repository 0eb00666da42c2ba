"""Commands about the local stack: demo, up, down, status, doctor, config."""

from dataclasses import asdict
from typing import Annotated

import typer

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout

app = typer.Typer()


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    units: Annotated[int, typer.Option(min=1, max=300, help="How many units call the endpoint.")] = 300,
) -> None:
    """The whole road on the example project: train, sweep, approve, build, deploy, split, trace."""
    from modelyard.demo import run_demo

    run_demo(open_yard(), keep=keep, units=units, console=stderr(), out=stdout())


@app.command()
def up(
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Also MLflow's pages.")] = False,
    omniboard: Annotated[bool, typer.Option("--omniboard", help="Also Omniboard (needs Node.js).")] = False,
    jupyter: Annotated[bool, typer.Option("--jupyter", help="Also JupyterLab.")] = False,
) -> None:
    """Start MongoDB, the console, Envoy, and what was deployed. Running it again does no harm."""
    from modelyard import pages
    from modelyard.omniboard import omniboard as omniboard_page

    yard, err = open_yard(), stderr()
    with err.status("starting") as status:
        faults = yard.up(say=lambda what: status.update(f"starting {what}"))
        lines = [("endpoints", yard.settings.gateway_url)]
        if mlflow:
            status.update("starting MLflow")
            lines.append(("MLflow", yard.stack.open(pages.mlflow(yard.settings))))
        if omniboard:
            status.update("starting Omniboard")
            lines.append(("Omniboard", yard.stack.open(omniboard_page(yard.settings, say=status.update))))
        if jupyter:
            status.update("starting JupyterLab")
            lines.append(("JupyterLab", yard.stack.open(pages.jupyter(yard.settings))))
    from modelyard.tables import fields

    stdout().print(fields(lines))
    for fault in faults:
        err.print(f"[red]✗[/] {fault}")
    err.print("Stop it:  yard down")
    raise typer.Exit(4 if faults else 0)


@app.command()
def down() -> None:
    """Stop everything that `yard up` started. Data stays."""
    stderr().print("stopped" if open_yard().stack.down() else "nothing was running")


@app.command()
def status(as_json: Json = False) -> None:
    """What should run, and what does."""
    from modelyard import tables
    from modelyard.status import observe

    yard = open_yard()
    states = yard.stack.processes.states()
    if not states:
        if as_json:
            print_json({"processes": [], "endpoints": [], "deployments": [], "variants": []})
        else:
            stderr().print("The stack does not run. Start it:  yard up")
        return
    endpoints, deployments, variants = yard.endpoints.endpoints(), yard.endpoints.deployments(), observe(yard)
    if as_json:
        shares = [{**asdict(e), "table": None, "shares": e.table.shares()} for e in endpoints]
        print_json({"processes": states, "endpoints": shares, "deployments": deployments, "variants": variants})
        return
    out = stdout()
    out.print(tables.processes_table(states))
    if endpoints:
        out.print()
        out.print(tables.variants_table(variants))
    stderr().print(f"\nEndpoints at {yard.settings.gateway_url}, logs in {yard.stack.processes.logs}")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check every part: versions, ports, disk, safe lower bounds; print what mends it."""
    from modelyard.doctor import examine

    found = examine(open_yard().settings)
    if as_json:
        print_json(found)
    else:
        from rich.text import Text

        from modelyard.tables import fields

        rows = []
        for part in found:
            mark = Text("✓ ", "green") if part.well else Text("✗ ", "bold red")
            rows.append(
                (part.part, mark + Text(part.found) + Text(f"\n  {part.remedy}" if part.remedy else "", "yellow"))
            )
        stdout().print(fields(rows))
    raise typer.Exit(0 if all(part.well for part in found) else 5)


@app.command()
def config(
    as_json: Json = False,
    secrets: Annotated[bool, typer.Option("--secrets", help="Print passwords, too.")] = False,
) -> None:
    """Every setting, its value and where it came from."""
    from modelyard.settings import KNOWN
    from modelyard.tables import fields
    from modelyard_tracking.recording.redaction import masked

    settings = open_yard().settings
    values = {}
    for name, _, _ in KNOWN:
        value = str(getattr(settings, name) or "")
        values[name] = {"value": value if secrets else masked(value), "source": settings.sources[name]}
    if as_json:
        print_json(values)
        return
    stdout().print(fields((name, f"{v['value'] or 'none'}  ({v['source']})") for name, v in values.items()))
    stderr().print("\nOrder: YARD_NAME in the environment, then yard.toml beside projects/, then the default.")
