"""What every command shares: opening the yard, printing for people and for scripts, common arguments."""

import atexit
import logging
import os
import sys
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from rich.console import Console

    from modelyard.yard import Yard

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Project = Annotated[str, typer.Argument(help="A folder of projects/, such as tumor.")]
Stage = Annotated[
    str | None, typer.Option(help="Where: local, or a table [stages.NAME] of yard.toml; YARD_STAGE, or local.")
]
Ref = Annotated[str, typer.Argument(help="A model version: tumor:2, or tumor@champion.")]

at_end = ExitStack()  # closed by `cli.main`


class ListByDefault(TyperGroup):
    """`yard runs tumor` means `yard runs list tumor`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def open_yard(stage: str | None = None) -> "Yard":
    import modelyard

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "httpcore", "alembic", "mlflow", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)
    yard = modelyard.open(stage)
    at_end.callback(yard.close)
    _end_at_once()
    return yard


def mongo_user() -> str | None:
    """Who commands log in to MongoDB as, where the settings can be read and name somebody."""
    from modelyard.settings import SettingsError, read_settings

    try:
        return read_settings().mongo_user
    except (SettingsError, ValueError, OSError):
        return None


def _end_at_once() -> None:
    """At the end of a process pymongo joins its threads, half a second for nothing: they are daemons, and closed."""
    with suppress(ImportError, AttributeError):
        from pymongo.synchronous import monitor

        atexit.unregister(monitor._shutdown_resources)


def stdout() -> "Console":
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160)


def stderr() -> "Console":
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True, width=None if sys.stderr.isatty() else 160)


def print_json(data: Any) -> None:
    """Print JSON that every reader takes: times in ISO 8601, NaN and infinity as null."""
    import orjson

    layout = 0 if os.environ.get("CI") else orjson.OPT_INDENT_2
    print(orjson.dumps(data, default=str, option=layout | orjson.OPT_NON_STR_KEYS).decode())  # noqa: T201
