"""Cases: the project's own rows with what must be answered to them; at least one of each kind."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from modelyard_build.ahead.draft import Draft
from modelyard_build.cases import Case, read_cases
from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused

KINDS = {
    "typical": "a row as most are, with its answer",
    "critical": "a row on which a wrong answer would do harm",
    "out-of-domain": "a row that the model was not made for, and what may be answered",
    "must-fail": "a row that must be refused",
}


def check(draft: Draft) -> Iterator[Finding]:
    try:
        cases = read(draft.folder)
    except Refused as error:
        yield Finding("cases", False, str(error), "Mend cases.json.")
        return
    missing = [kind for kind in KINDS if not any(case.kind == kind for case in cases)]
    for kind in missing:
        yield Finding("cases", False, f"no case is {kind}", f"Add one to cases.json: {KINDS[kind]}.")
    if not missing:
        yield Finding("cases", True, f"{len(cases)} cases: {', '.join(KINDS)}")


def read(folder: Path) -> Sequence[Case]:
    """The cases, each with name, kind, rows and expect.

    Raises:
        Refused: the file is missing, or wrong.
    """
    file = folder / "cases.json"
    if not file.is_file():
        raise Refused(f"{file} is missing")
    return read_cases(folder)
