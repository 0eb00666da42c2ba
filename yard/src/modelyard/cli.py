"""The `yard` command: the commands put together, and every error of ours turned into a sentence and an exit code.

Data goes to stdout, all else to stderr; `--json` for scripts. Heavy libraries are imported where they are
used, so that `yard --help` answers at once.
"""

import sys

import typer

from modelyard.commands import (
    ledger,
    models,
    projects,
    reproducing,
    results,
    roles,
    runs,
    serving,
    stack,
    store,
    terminal,
    training,
)

app = typer.Typer(
    name="yard",
    help="From a notebook to an A/B-tested endpoint, every prediction traceable.\n\n"
    "Start here:  yard demo      Then:  yard train tumor && yard runs",
    epilog="Exit codes: 0 well, 1 failed, 2 wrong usage or setting, 3 not found, 4 refused, "
    "5 a part does not answer, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (stack, projects, training, runs, reproducing, store, models, serving, results, ledger, roles):
    app.add_typer(group.app)


def main() -> None:
    """Run the command."""
    try:
        with terminal.at_end:
            app()
    except Exception as error:
        from modelyard.errors import OURS, exit_code, sentence

        if not isinstance(error, OURS):
            raise
        print(f"yard: {sentence(error, terminal.mongo_user())}", file=sys.stderr)  # noqa: T201 - the one place where errors are printed
        sys.exit(exit_code(error))
