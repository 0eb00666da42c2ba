"""Commands about a project before it is trained or built: new, check, wheelhouse."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from modelyard.commands.terminal import Json, Project, open_yard, print_json, stderr, stdout

app = typer.Typer()


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Of the model, such as churn.")],
    folder: Annotated[Path | None, typer.Option(help="Where to; by default a folder of this name here.")] = None,
    as_json: Json = False,
) -> None:
    """A repository of its own for one model: an example that works, to be replaced piece by piece.

    yard new churn && cd churn && yard check churn
    """
    from modelyard.scaffold import new_repository

    err = stderr()
    with err.status("writing and locking"):
        made = new_repository(name, folder or Path.cwd() / name)
    if as_json:
        print_json(made)
        return
    for file in made.files:
        err.print(f"  {file}")
    if made.lock_fault:
        err.print(f"[yellow]It has no lock yet:[/] {made.lock_fault}\nLater, in the folder:  yard lock {name}")
    err.print("Fill these in, nobody else can (yard check refuses them blank):")
    for blank in made.blanks:
        err.print(f"  {blank}")
    stdout().print(str(made.folder), soft_wrap=True, highlight=False)
    err.print(f"Next:  cd {made.folder} && yard check {name}      yard up && yard train {name}")


@app.command()
def check(
    project: Project,
    junit: Annotated[Path | None, typer.Option(help="Write a report for Jenkins or GitLab to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Everything that can be known before training: lock, gates, cases, card. Nothing of the project is run."""
    from modelyard_build.checks.finding import passed
    from modelyard_build.junit import write_junit

    findings = open_yard().check(project)
    if junit is not None:
        write_junit(junit, {f"modelyard.{project}.project": findings})
    if as_json:
        print_json({"project": project, "passed": passed(findings), "findings": findings})
    else:
        from modelyard.tables import findings_table

        stdout().print(findings_table(asdict(finding) for finding in findings))
        stderr().print(f"Next:  yard train {project}" if passed(findings) else f"{project} is not ready to be trained.")
    raise typer.Exit(0 if passed(findings) else 4)


@app.command()
def wheelhouse(
    project: Project,
    folder: Annotated[Path, typer.Argument(help="Where the wheels go; what is there is not fetched again.")],
) -> None:
    """Fetch what builds of a project install, for a machine that reaches no package index."""
    with stderr().status(f"fetching wheels into {folder}"):
        count = open_yard().wheelhouse(project, folder)
    stderr().print(f"{count} wheels in {folder}.\nOn the other machine:  export YARD_WHEELHOUSE=.../{folder.name}")
