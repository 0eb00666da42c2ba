"""Commands about approval and the model store: request, approve, reject, withdraw, promote, models."""

from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.commands.terminal import Json, Ref, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard_tracking.approval import Approval

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
def reject(
    ref: Ref,
    reason: Annotated[str, typer.Option(help="Why it may not be used.")] = "",
    as_json: Json = False,
) -> None:
    """Say no to a version. That stays so; a better one gets another number."""
    _said(open_yard().reject(ref, reason), as_json)


@app.command()
def withdraw(
    ref: Ref,
    reason: Annotated[str, typer.Option(help="Why it may not be used any more.")] = "",
    as_json: Json = False,
) -> None:
    """Take back a request or an approval. What runs goes on; `yard live` shows it as broken."""
    _said(open_yard().withdraw(ref, reason), as_json)


@app.command()
def promote(
    ref: Ref,
    alias: Annotated[str, typer.Argument(help="Such as champion or challenger.")],
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    expected: Annotated[
        str | None, typer.Option("--from", help="Where it points now, such as tumor:2; refused if it does not.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Point an alias at an approved version, unless somebody else has moved it meanwhile."""
    version = open_yard().promote(ref, alias, reason, expected)
    if as_json:
        print_json(version)
    else:
        stderr().print(f"{version.model}@{alias} is {version.ref}.")


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


def _said(approval: "Approval", as_json: bool) -> None:
    if as_json:
        print_json(approval)
    else:
        stderr().print(f"{approval.ref} is {approval.state}, by {approval.decided_by}: {approval.reason}")
