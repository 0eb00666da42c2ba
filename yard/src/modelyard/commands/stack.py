"""Commands about the stack, here and in a cluster: demo, up, install, image, down, status, doctor, config."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from modelyard.commands.terminal import Json, Stage, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard.yard import Yard

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
    stage: Stage = None,
) -> None:
    """Start MongoDB, the console, Envoy, and what was deployed. Running it again does no harm."""
    from modelyard import pages
    from modelyard.omniboard import omniboard as omniboard_page

    yard, err = open_yard(stage), stderr()
    with err.status("starting") as status:
        faults = yard.up(say=lambda what: status.update(f"starting {what}"))
        known = yard.settings.local or yard.settings.gateway_address
        lines = [("endpoints", yard.settings.gateway_url)] if known else []
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
    if yard.settings.local:
        err.print("Stop it:  yard down")
    raise typer.Exit(4 if faults else 0)


@app.command()
def install(
    overlay: Annotated[Path | None, typer.Option(help="A folder of kustomize; k8s/overlays/STAGE by default.")] = None,
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Bring up a stage of pods: secrets, MongoDB, console, gateway, by the files of k8s/. Again, it mends."""
    yard, err = open_yard(stage), stderr()
    settings = yard.settings
    with err.status("installing") as status:
        done = yard.install(overlay or settings.root / "k8s" / "overlays" / settings.stage, status.update)
    if as_json:
        print_json(done)
        return
    if done.made_secrets:
        err.print(f"made the secrets {', '.join(done.made_secrets)}")
    err.print(f"{done.objects} objects applied; {', '.join(done.waited_for)} run.")
    secret = f"kubectl -n {settings.namespace} get secret mongodb -o jsonpath='{{.data.engineer-url}}' | base64 -d"
    err.print(f"Its MongoDB:  export YARD_MONGO_URL=$({secret})", soft_wrap=True)
    err.print(f"Next:  yard deploy MODEL:VERSION --stage {settings.stage}")


@app.command()
def image(
    base: Annotated[
        str | None, typer.Option(help="What it is built upon; python:3.X by default, with git for JupyterLab.")
    ] = None,
    as_json: Json = False,
    stage: Stage = None,
) -> None:
    """Make and push the image that pods run all but models from: what is installed here, for `yard install`."""
    yard, err = open_yard(stage), stderr()
    with err.status("making the image") as status:
        ref = yard.platform_image(base, status.update)
    if as_json:
        print_json({"image": ref})
        return
    stdout().print(ref, soft_wrap=True)
    err.print(f"Next, in your overlay's folder:  kustomize edit set image modelyard={ref}", soft_wrap=True)


@app.command()
def down() -> None:
    """Stop everything that `yard up` started. Data stays."""
    stderr().print("stopped" if open_yard().stack.down() else "nothing was running")


@app.command()
def status(as_json: Json = False, stage: Stage = None) -> None:
    """What should run, and what does."""
    from modelyard import tables
    from modelyard.status import observe

    yard = open_yard(stage)
    if not yard.settings.local:
        _status_of_pods(yard, as_json)
        return
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


def _status_of_pods(yard: "Yard", as_json: bool) -> None:
    from modelyard import tables
    from modelyard.status import observe, observe_parts

    deployments, variants, parts = yard.endpoints.deployments(), observe(yard), observe_parts(yard)
    drift, late = yard.kubernetes_stage.drift(deployments), yard.late_gateways()
    if as_json:
        shares = [{**asdict(e), "table": None, "shares": e.table.shares()} for e in yard.endpoints.endpoints()]
        print_json(
            {"parts": parts, "endpoints": shares, "deployments": deployments, "variants": variants, "drift": drift}
            | {"late_gateways": late}
        )
        return
    out, err = stdout(), stderr()
    out.print(tables.parts_table(parts))
    if variants:
        out.print()
        out.print(tables.variants_table(variants))
    for fault in [*drift, *([late] if late else [])]:
        err.print(f"[red]✗[/] {escape(fault)}", soft_wrap=True)
    if drift:
        err.print(f"Mend it:  yard up --stage {yard.settings.stage}")
    err.print(f"\nNamespace {yard.settings.namespace}; logs:  kubectl -n {yard.settings.namespace} logs deploy/NAME")


@app.command()
def doctor(as_json: Json = False, stage: Stage = None) -> None:
    """Check every part: versions, ports, disk, safe lower bounds; print what mends it."""
    from modelyard.doctor import examine

    found = examine(open_yard(stage).settings)
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
    stage: Stage = None,
) -> None:
    """Every setting, its value and where it came from."""
    from modelyard.settings import KNOWN
    from modelyard.tables import fields
    from modelyard_tracking.recording.redaction import masked

    settings = open_yard(stage).settings
    values = {}
    for name, _, _ in KNOWN:
        value = str(getattr(settings, name) or "")
        values[name] = {"value": value if secrets else masked(value), "source": settings.sources[name]}
    if as_json:
        print_json(values)
        return
    stdout().print(fields((name, f"{v['value'] or 'none'}  ({v['source']})") for name, v in values.items()))
    stderr().print("\nOrder: YARD_NAME in the environment, then yard.toml beside projects/, then the default.")
