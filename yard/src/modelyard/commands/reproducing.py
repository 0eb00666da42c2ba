"""Command: reproduce a run."""

from dataclasses import asdict
from math import isinf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from modelyard_tracking.reproducing.reproduce import Reproduction

app = typer.Typer()


@app.command()
def reproduce(
    run: Annotated[int, typer.Argument(help="The run to make again.")],
    given: Annotated[
        list[str] | None,
        typer.Argument(help="Values of redacted configuration entries: db.password=@FILE takes a file's content."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="How far numbers may be apart, relatively.")] = 1e-6,
    as_json: Json = False,
) -> None:
    """Run a recorded run again: its commit, changes, lock and configuration; then compare.

    yard reproduce 7

    Exit code 0 for identical and within tolerance, 1 for different. Your checkout is not touched.
    """
    values = _values(given or [])
    yard = open_yard()
    with stderr().status("looking the run up") as status:
        done = yard.reproduce(run, values, tolerance, lambda step: status.update(step))
    if as_json:
        print_json(_plain(done))
    else:
        stdout().print(_table(done))
        stderr().print(_summary(done))
    if done.explanation:
        raise typer.Exit(1)


def _values(given: list[str]) -> dict[str, Any]:
    from modelyard.commands.training import config_updates

    values = config_updates(given)
    for name, value in values.items():
        if isinstance(value, str) and value.startswith("@"):
            file = Path(value[1:]).expanduser()
            if not file.is_file():
                raise typer.BadParameter(f"{file}, wanted for {name}, is not a file")
            values[name] = file.read_text().rstrip("\n")
    return values


def _plain(done: "Reproduction") -> dict[str, Any]:
    values = asdict(done)
    for item in values["compared"]:
        if isinf(item["deviation"]):
            item["deviation"] = None  # JSON knows no infinity
    return values


def _table(done: "Reproduction") -> "Table":
    from rich.table import Table
    from rich.text import Text

    colours = {"identical": "green", "within tolerance": "yellow", "different": "red"}
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "verdict", f"run {done.run}", f"run {done.reproductions[0]}", "relative difference"):
        table.add_column(column, overflow="fold")
    for item in done.compared:
        apart = f"{item.deviation:.1e}" if item.deviation and not isinf(item.deviation) else ""
        verdict = Text(item.verdict, colours[item.verdict])
        table.add_row(Text(item.what), verdict, Text(item.was), Text(item.now), apart)
    return table


def _summary(done: "Reproduction") -> str:
    lines = [
        f"Run {done.run}, made again as run {done.reproductions[0]}: {done.verdict}.",
        f"Environment: {done.environment}.",
        *done.notes,
    ]
    if done.explanation:
        lines += [f"First cause: {done.explanation.cause}.", *(f"  {line}" for line in done.explanation.because)]
    return "\n".join(lines)
