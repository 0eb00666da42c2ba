"""Commands of the auditor: ledger, ledger verify, live."""

from dataclasses import asdict
from typing import Annotated

import typer

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout

app = typer.Typer()
ledger_app = typer.Typer(help="Who asked, approved, built and put into use: an append-only chain.")
app.add_typer(ledger_app, name="ledger")


@ledger_app.callback(invoke_without_command=True)
def ledger(
    context: typer.Context,
    of: Annotated[str | None, typer.Option(help="Only of tumor:3, tumor@champion, or the endpoint tumor.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Only these: request, approve, promote, deploy, ...")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 30,
    as_json: Json = False,
) -> None:
    """What was done, by whom and why; the newest last."""
    if context.invoked_subcommand is not None:
        return
    from modelyard.tables import ledger_table
    from modelyard_tracking.ledger import KINDS

    if wrong := sorted(set(kind or ()) - set(KINDS)):
        raise typer.BadParameter(f"{wrong[0]!r} is no kind of entry. There is: {', '.join(KINDS)}")
    entries = list(open_yard().approvals.ledger.entries(kind or (), of, newest_first=True, limit=limit))[::-1]
    if as_json:
        print_json(entries)
    elif entries:
        stdout().print(ledger_table(entries))
    else:
        stderr().print("The ledger has no such entry. It begins with:  yard request RUN")


@ledger_app.command()
def verify(as_json: Json = False) -> None:
    """Compute every hash of the chain anew, and hold it against what this machine and every build know of it."""
    found = open_yard().verify_ledger()
    if as_json:
        print_json(asdict(found))
    else:
        for fault in found.faults:
            stderr().print(f"[bold red]✗[/] {fault}")
        if not found.faults:
            stderr().print(f"[green]✓[/] {found.entries} entries, every hash holds")
        stdout().print(str(found.head or "empty"), soft_wrap=True, highlight=False)
    raise typer.Exit(4 if found.faults else 0)


@ledger_app.command()
def mend() -> None:
    """Have MLflow's registry show the states and aliases that the ledger says."""
    yard = open_yard()
    for fault in yard.approvals.drift():
        stderr().print(f"mended: {fault}")
    yard.approvals.mend()


@app.command()
def live(
    endpoint: Annotated[str | None, typer.Argument(help="Only this one.")] = None,
    at: Annotated[str | None, typer.Option(help="A time, such as 2026-11-20T14:00; local without a zone.")] = None,
    as_json: Json = False,
) -> None:
    """What answers, or answered at a time: which version, since when, by whose word; every digest taken anew."""
    from modelyard.live import live as look
    from modelyard.live import parse_time
    from modelyard.tables import live_table

    try:
        moment = parse_time(at) if at else None
    except ValueError:
        raise typer.BadParameter(f"{at!r} is no time; write it like 2026-11-20T14:00, or with a zone") from None
    found = look(open_yard(), moment, endpoint)
    if as_json:
        print_json([{**asdict(variant), "holds": variant.holds} for variant in found])
    elif found:
        stdout().print(live_table(found))
        broken = [variant for variant in found if not variant.holds]
        stderr().print("[bold red]the chain is broken[/]" if broken else "every link holds")
    else:
        stderr().print("Nothing was live then." if at else "Nothing is live yet. Next:  yard deploy MODEL:N")
    raise typer.Exit(0 if all(variant.holds for variant in found) else 4)
