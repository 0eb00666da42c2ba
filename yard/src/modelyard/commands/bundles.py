"""Commands that move runs between databases: export, import. They belong to `yard runs`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout


def export_command(
    runs: Annotated[list[int], typer.Argument(help="The runs to take along.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The bundle, such as runs.yard.")],
    as_json: Json = False,
) -> None:
    """Write runs, with their files, data, locks and models, to one file.

    yard runs export 3 4 7 -o runs.yard

    The same runs make the same file. It is complete: what it holds can be imported into another database.
    """
    from rich.filesize import decimal

    yard = open_yard()
    with stderr().status("exporting") as status:
        done = yard.export_runs(runs, output, lambda step: status.update(step))
    for missing in done.missing:
        stderr().print(f"Left out, since it is not in the store here: {missing}.")
    if as_json:
        print_json(asdict(done))
    else:
        stdout().print(f"sha256:{done.digest}")
        stderr().print(f"{len(done.runs)} runs, {decimal(done.bytes)}. Elsewhere:  yard runs import {output}")


def import_command(
    bundle: Annotated[Path, typer.Argument(help="A file that `yard runs export` wrote.")],
    as_json: Json = False,
) -> None:
    """Bring the runs of a bundle into this database, under new numbers. Doing it again does nothing.

    yard runs import runs.yard

    All digests are checked before anything is written; a damaged or changed bundle is refused as a whole.
    """
    yard = open_yard()
    with stderr().status("importing") as status:
        done = yard.import_runs(bundle, lambda step: status.update(step))
    if as_json:
        print_json(asdict(done))
        return
    for run in done.runs:
        stdout().print(f"run {run.id}  {'was run' if run.new else 'already here; is run'} {run.was} of the bundle")
    new = sum(run.new for run in done.runs)
    stderr().print(f"{new} imported, {len(done.runs) - new} already here, from sha256:{done.digest}")
