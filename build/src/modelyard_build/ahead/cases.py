"""Cases: the project's own rows with what must be answered to them; at least one of each kind."""

from collections.abc import Iterator

from modelyard_build.ahead.draft import Draft
from modelyard_build.cases import CASES, KINDS, Kind, missing_kinds, read_cases
from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused

_MEANS: dict[Kind, str] = {
    "typical": "a row as most are, with its answer",
    "critical": "a row on which a wrong answer would do harm",
    "out-of-domain": "a row that the model was not made for, and what may be answered",
    "must-fail": "a row that must be refused",
}


def check(draft: Draft) -> Iterator[Finding]:
    file = draft.folder / CASES
    if not file.is_file():
        yield Finding("cases", False, f"{file} is missing", "Mend cases.json.")
        return
    try:
        cases = read_cases(draft.folder)
    except Refused as error:
        yield Finding("cases", False, str(error), "Mend cases.json.")
        return
    missing = missing_kinds(cases)
    for kind in missing:
        yield Finding("cases", False, f"no case is {kind}", f"Add one to cases.json: {_MEANS[kind]}.")
    if not missing:
        yield Finding("cases", True, f"{len(cases)} cases: {', '.join(KINDS)}")
