"""Printing a benchmark's figures: tables for people; with --json, one JSON object as the last line."""

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table


def print_table(
    title: str,
    figures: Mapping[str, float],
    goals: Mapping[str, str] | None = None,
    details: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Print every figure with its goal, if it has one, and say when and where it was measured.

    Args:
        details: a second table, row by row; in JSON, each of its values is a figure named ROW_COLUMN.
    """
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    where = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}"
    console = Console(width=100, highlight=False)
    console.print(f"[bold]{title}[/]\n{where}\n")
    console.print(
        _table(("figure", "value", "goal"), ((n, _said(v), (goals or {}).get(n, "")) for n, v in figures.items()))
    )
    if details:
        columns = list(next(iter(details.values())))
        console.print()
        console.print(_table(("", *columns), ((row, *map(_said, of.values())) for row, of in details.items())))
    if "--json" in sys.argv:
        named = {f"{row}_{column}": value for row, of in (details or {}).items() for column, value in of.items()}
        print(json.dumps({name: round(value, 6) for name, value in {**figures, **named}.items()}))


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    return table


def _said(value: float) -> str:
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"
