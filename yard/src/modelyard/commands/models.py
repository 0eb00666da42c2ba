"""Commands about model versions: models (list, show, compare, card)."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modelyard.commands.terminal import Json, ListByDefault, Ref, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard.yard import Yard

app = typer.Typer()
group = typer.Typer(
    cls=ListByDefault,
    help="Model versions: list them, read the evidence of one, hold two against each other, export a model card.\n\n"
    "Short for `yard models list`:  yard models tumor",
)
app.add_typer(group, name="models")


@group.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(help="Only this model's.")] = None, as_json: Json = False
) -> None:
    """Every version: its state, aliases, metric, run, who asked and who decided."""
    yard = open_yard()
    entries = yard.catalog(model)
    if as_json:
        print_json([{**asdict(version), "approval": approval} for version, approval in entries])
        return
    for fault in yard.approvals.drift():
        stderr().print(f"[yellow]{fault}[/]  (yard ledger mend)")
    if entries:
        from modelyard.evidence_view import catalog_table

        stdout().print(catalog_table(entries))
    else:
        stderr().print(f"There are no model versions{f' of {model}' if model else ''} yet. Make one:  yard request RUN")


@group.command()
def show(ref: Ref, as_json: Json = False) -> None:
    """What an approver needs to know of a version: its evidence, after every digest was checked."""
    show_version(open_yard(), ref, as_json)


@group.command()
def compare(
    first: Annotated[str, typer.Argument(help="The base: tumor:1, or tumor@champion.")],
    second: Annotated[str, typer.Argument(help="The version that is held against it.")],
    as_json: Json = False,
) -> None:
    """Two versions: numbers, an interval for the difference on the same rows, and where they come from."""
    found = open_yard().versus(first, second)
    if as_json:
        print_json(found.as_dict())
        return
    from modelyard.evidence_view import versus_view

    stdout().print(versus_view(found))


@group.command()
def card(
    ref: Ref,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to this file.")] = None,
    as_json: Json = False,
) -> None:
    """A model card for readers outside: Markdown with YAML front matter, as Hugging Face has it."""
    from modelyard.model_card import model_card
    from modelyard_serving.errors import Refused

    yard = open_yard()
    version, approval = yard.version(ref)
    text = model_card(version, approval)
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise Refused(f"{output} cannot be written: {error.strerror}.") from error
        stderr().print(f"written: {output}")
    if as_json:
        print_json({"ref": version.ref, "file": output and str(output), "card": text})
    elif output is None:
        print(text, end="")  # noqa: T201 - as it is, for a file or a pipe


def show_version(yard: "Yard", ref: str, as_json: bool) -> None:
    version, approval = yard.version(ref)
    if as_json:
        print_json(approval)
        return
    from modelyard.evidence_view import evidence_view

    stdout().print(evidence_view(version, approval))
