"""Commands about approval and the model store: request, approve, models."""

from typing import Annotated

import typer

from modelyard.commands.terminal import Json, Ref, open_yard, print_json, stderr, stdout

app = typer.Typer()


@app.command()
def request(
    run: Annotated[int, typer.Argument(help="The run whose model should be used.")],
    allow_dirty: Annotated[bool, typer.Option("--allow-dirty", help="Accept code that is not committed.")] = False,
    as_json: Json = False,
) -> None:
    """Put a run's model before an approver, with its evidence."""
    version = open_yard().request(run, allow_dirty=allow_dirty)
    if as_json:
        print_json(version)
    else:
        stdout().print(version.ref)
        stderr().print(f"Look at it:  yard show {version.ref}\nApprove it:  yard approve {version.ref} --reason '...'")


@app.command()
def approve(
    ref: Ref,
    reason: Annotated[str, typer.Option(help="Why it may be used.")] = "",
    alias: Annotated[str | None, typer.Option(help="Point this alias at it: champion, challenger.")] = None,
    as_json: Json = False,
) -> None:
    """Say yes to a version, bound to the digests of its files and its evidence."""
    approval = open_yard().approve(ref, reason, alias)
    if as_json:
        print_json(approval)
    else:
        stderr().print(f"{approval.ref} approved by {approval.approved_by}.\nNext:  yard build {approval.ref}")


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None, as_json: Json = False
) -> None:
    """Model versions, their state, aliases and digests."""
    from modelyard.tables import models_table

    found = open_yard().registry.versions(model)
    if as_json:
        print_json(found)
    elif found:
        stdout().print(models_table(found))
    else:
        stderr().print("There are no model versions yet. Make one:  yard request RUN")
