"""Printing a benchmark's figures: a table for people; with --json, one JSON object as the last line."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table


def print_table(title: str, figures: Mapping[str, float], goals: Mapping[str, str] | None = None) -> None:
    """Print every figure with its goal, if it has one, and say when and where it was measured."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    where = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}"
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("figure", "value", "goal"):
        table.add_column(column)
    for name, value in figures.items():
        table.add_row(name, f"{value:,.3g}" if value < 1000 else f"{value:,.0f}", (goals or {}).get(name, ""))
    console = Console(width=100, highlight=False)
    console.print(f"[bold]{title}[/]\n{where}\n")
    console.print(table)
    if "--json" in sys.argv:
        print(json.dumps({name: round(value, 6) for name, value in figures.items()}))
