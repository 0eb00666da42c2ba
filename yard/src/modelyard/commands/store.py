"""Commands about approval and the model store: request, approve, reject, withdraw, promote, gc."""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from modelyard.commands.terminal import Json, Ref, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard_tracking.approval import Approval
    from modelyard_tracking.storing.sweeper import Item

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
        stderr().print(
            f"Look at it:  yard models show {version.ref}\nApprove it:  yard approve {version.ref} --reason '...'"
        )


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
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and remove nothing.")] = False,
    older_than: Annotated[str, typer.Option("--older-than", help="Spare what is younger: 7d; at least 1d.")] = "7d",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what nothing refers to: files of no run, leftovers of crashes, builds' and reproductions' remains."""
    from modelyard.garbage import find_garbage, sweep
    from modelyard.tables import garbage_table, size

    err = stderr()
    with err.status("looking at everything"):
        found = find_garbage(open_yard(), _days(older_than))
    total = sum(item.bytes for item in found.going)
    if not as_json and found.going:
        stdout().print(garbage_table(found))
    for note in found.notes:
        err.print(note)
    if not dry_run and found.going and not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("nobody is asked here; add --yes to remove them, or --dry-run to only look")
        typer.confirm(f"Remove {len(found.going)} things, {size(total)}?", abort=True, err=True)
    swept = sweep([] if dry_run else found.going)
    if as_json:
        said = [{"goes": v.goes, "why": v.why, **_item_dict(v.item)} for v in found.verdicts]
        failed = [{**_item_dict(item), "error": error} for item, error in swept.failed]
        print_json({"found": said, "notes": found.notes, "freed_bytes": swept.bytes, "failed": failed})
    elif dry_run:
        err.print(f"{len(found.going)} things would go, {size(total)}. Of {len(found.verdicts)} nothing was removed.")
    else:
        for item, error in swept.failed:
            err.print(f"{item.kind} {item.name} stays: {error}")
        err.print(f"{len(swept.removed)} things removed, {size(swept.bytes)} freed")
    raise typer.Exit(1 if swept.failed else 0)


def _days(text: str) -> timedelta:
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not number.isdigit():
        raise typer.BadParameter(f"--older-than {text!r} is no time; write 7d, 36h or 2w")
    try:
        return int(number) * _UNITS[unit]
    except (OverflowError, ValueError) as error:
        raise typer.BadParameter(f"--older-than {text!r} is longer than there have been days") from error


_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _item_dict(item: "Item") -> dict[str, Any]:
    return {key: getattr(item, key) for key in ("where", "kind", "name", "bytes", "modified_at")}


def _said(approval: "Approval", as_json: bool) -> None:
    if as_json:
        print_json(approval)
    else:
        stderr().print(f"{approval.ref} is {approval.state}, by {approval.decided_by}: {approval.reason}")
