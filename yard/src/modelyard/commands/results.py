"""Results of an A/B test, in the terminal, as JSON or as a page."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from modelyard.commands.terminal import Json, open_yard, print_json, stderr, stdout

if TYPE_CHECKING:
    from modelyard_serving.console.results import Comparison, Results

app = typer.Typer()


@app.command()
def results(
    endpoint: Annotated[str, typer.Argument(help="Such as tumor.")],
    html: Annotated[Path | None, typer.Option(help="Write them as a page to this file.")] = None,
    as_json: Json = False,
) -> None:
    """What each variant did for its units, how they differ, and whether the split can be trusted."""
    from modelyard.tables import results_table

    yard = open_yard()
    if html is not None:
        html.write_text(yard.report(endpoint))
        stderr().print(f"{html} is written; open it in a browser.", soft_wrap=True)
        return
    found = yard.results(endpoint)
    if as_json:
        print_json(asdict(found))
        return
    shares = yard.endpoints.endpoint(endpoint).table.shares()
    stdout().print(results_table([asdict(row) for row in (*found.variants, *found.shadows)], shares))
    for line in _said(found):
        stderr().print(line, soft_wrap=True, highlight=False)


def _said(found: "Results") -> list[str]:
    ratio, counts = found.sample_ratio, found.feedback
    lines = [f"[bold red]{escape(ratio.said)}[/]" if ratio.alarm else escape(ratio.said)]
    lines += [escape(_compared(compared)) for compared in found.comparisons]
    if found.moved_units:
        lines.append(f"{found.moved_units} units met more than one variant; they are left out of the comparison")
    odd = ("late", "foreign", "unusable", "duplicates", "contradictions", "unmatched")
    if said := [f"{getattr(counts, name)} {name}" for name in odd if getattr(counts, name)]:
        lines.append(f"feedback: {counts.counted} counted, {', '.join(said)}")
    return lines


def _compared(compared: "Comparison") -> str:
    who = f"{compared.variant} - {compared.base}"
    if compared.difference is None or compared.interval is None:
        return f"{who}: not enough to say; {compared.not_enough}"
    low, high = compared.interval
    return f"{who}: {compared.difference:+.4f} ({low:+.4f} to {high:+.4f}), over {compared.units} units"
