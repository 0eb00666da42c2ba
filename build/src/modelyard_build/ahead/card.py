"""The card: purpose, limitations and owner, and what each input and answer means."""

from collections.abc import Iterator, Mapping

from modelyard_build.ahead.draft import Draft
from modelyard_build.cases import read_cases
from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused
from modelyard_tracking.card import make_card

_ANSWERED = ("typical", "critical")  # kinds of cases whose rows have the columns that the model takes


def check(draft: Draft) -> Iterator[Finding]:
    """Nothing is blank. The columns are those of cases.json, since no model is there yet to name them."""
    project = draft.project
    if project is None:
        return
    columns = _columns(draft)
    schema = {"inputs": [{"name": column} for column in columns], "classes": list(project.outputs)}
    objections = list(make_card(project, schema, ()).objections)
    for part in ("inputs", "outputs"):
        if not getattr(project, part):
            objections = [objection for objection in objections if f"[{part}]" not in objection]
            objections.append(f"project.toml describes no {part}")
    for objection in objections:
        yield Finding("card", False, objection, f"Fill it in:  {draft.folder / 'project.toml'}")
    if not objections:
        yield Finding("card", True, f"says what the model is for, and what {len(columns)} inputs and its answers mean")


def _columns(draft: Draft) -> list[str]:
    try:
        cases = read_cases(draft.folder)
    except Refused:
        return []
    rows = [row for case in cases if case.kind in _ANSWERED for row in case.rows if isinstance(row, Mapping)]
    return list(rows[0]) if rows else []
