"""The project's own cases: typical, critical, out of domain, and such that must fail."""

from modelyard_build.cases import CASES, missing_kinds
from modelyard_build.checks.doors import PREDICT
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_serving.manifest import METHODS


def check(served: Served, subject: Subject) -> Finding:
    if missing := missing_kinds(subject.cases):
        message = f"{CASES} has no case that is {' and none that is '.join(missing)}"
        return Finding("cases", False, message, f"Add one of each to {CASES} of the project, and build again.")
    for case in subject.cases:
        answer = PREDICT.ask(served.http, subject.manifest, case.rows)
        named = {METHODS[method]: given for method, given in answer.answers.items()}
        if fault := case.expect.fault(answer.status, named, answer.text):
            message = f"case {case.name!r}: {fault}"
            return Finding("cases", False, message, "Mend the model, or the case if it is wrong.")
    return Finding("cases", True, f"{len(subject.cases)} cases of {CASES} answered as expected")
