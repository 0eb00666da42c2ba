"""What project.toml declares, and whether the program could ever produce it."""

from collections.abc import Iterator

from modelyard_build.ahead.draft import TRAIN, Draft
from modelyard_build.ahead.program import Program, read_program
from modelyard_build.checks.finding import Finding
from modelyard_tracking.measures import MEASURES
from modelyard_tracking.project import ComparisonPlan, SlicePlan

_FILE = "project.toml"


def check_file(draft: Draft) -> Iterator[Finding]:
    """It is valid, and named like its folder."""
    if draft.project is None:
        yield Finding(_FILE, False, draft.fault, "Mend it; the other checks of it wait for that.")
    elif draft.project.name != draft.name:
        message = f"it is called {draft.project.name!r}, and its folder {draft.name!r}"
        yield Finding(_FILE, False, message, f'Write:  name = "{draft.name}"')
    else:
        yield Finding(_FILE, True, "every entry is known and fits")


def check_metric(draft: Draft) -> Iterator[Finding]:
    if draft.project is None:
        return
    metric = draft.project.metric
    what = f"{metric.name}, {metric.direction}"
    yield _produced("metric", metric.name, read_program(draft)) or Finding("metric", True, what)


def check_gates(draft: Draft) -> Iterator[Finding]:
    """There are some, and each is about a number that the program gives."""
    if draft.project is None:
        return
    gates, program = draft.project.gates, read_program(draft)
    if not gates:
        remedy = (
            f"Say under [gates] what a model must reach, such as:  {draft.project.metric.name} = {{ at_least = 0.9 }}"
        )
        yield Finding("gates", False, "none are declared, so any model would be put before an approver", remedy)
        return
    faults = []
    for name in sorted(gates):
        if "." in name:
            evaluation, _, measure = name.rpartition(".")
            faults.append(_evaluated("gates", f"{name} is measured", evaluation, measure, program))
        else:
            faults.append(_produced("gates", name, program))
    said = ", ".join(f"{name} {gate.bound}" for name, gate in sorted(gates.items()))
    yield from [fault for fault in faults if fault] or [Finding("gates", True, said)]


def check_comparison(draft: Draft) -> Iterator[Finding]:
    if draft.project is None:
        return
    plan = draft.project.comparison
    if plan is None:
        message = "none is declared: a candidate is not held against the champion"
        remedy = f"Declare it in {_FILE}:  [comparison] evaluation, metric, min_difference"
        yield Finding("comparison", False, message, remedy, "warning")
        return
    yield _planned("comparison", plan, draft) or Finding("comparison", True, f"{plan.metric} of {plan.evaluation}")


def check_slices(draft: Draft) -> Iterator[Finding]:
    if draft.project is None or draft.project.slices is None:
        return
    plan, program = draft.project.slices, read_program(draft)
    faults = [_planned("slices", plan, draft)]
    if program is not None and plan.evaluation in program.evaluations:
        given = program.evaluations[plan.evaluation]
        if not given & {"slices", "**"}:
            message = f"the evaluation {plan.evaluation} is recorded without slices"
            faults.append(Finding("slices", False, message, "Add to ex.evaluation(...):  slices=frame"))
        elif unknown := [column for column in plan.columns if column not in program.texts]:
            message = f"no file of the project names {', '.join(unknown)}"
            faults.append(Finding("slices", False, message, "Correct [slices] columns, or ignore this.", "warning"))
    said = f"{plan.metric} of {plan.evaluation} by {', '.join(plan.columns)}"
    yield from [fault for fault in faults if fault] or [Finding("slices", True, said)]


def _planned(check: str, plan: ComparisonPlan | SlicePlan, draft: Draft) -> Finding | None:
    return _evaluated(check, "it is made", plan.evaluation, plan.metric, read_program(draft))


def _produced(check: str, name: str, program: Program | None) -> Finding | None:
    """What is wrong with a number that main has to return."""
    result = program.result if program else None
    if result is None or name in result:
        return None
    there = ", ".join(sorted(result)) or "nothing"
    remedy = f"Correct the name in {_FILE}, or have main return it."
    return Finding(check, False, f"{name} is no key of what {TRAIN} returns: {there}", remedy)


def _evaluated(check: str, what: str, evaluation: str, measure: str, program: Program | None) -> Finding | None:
    """What is wrong with a number that is measured on recorded answers."""
    if program is None or (evaluation not in program.evaluations and not program.all_evaluations_known):
        return None
    if evaluation not in program.evaluations:
        there = ", ".join(sorted(program.evaluations)) or "none"
        remedy = f'Record it:  ex.evaluation("{evaluation}", truth=..., prediction=...)'
        message = f"{what} on the evaluation {evaluation}, which no file records; there is: {there}"
        return Finding(check, False, message, remedy)
    if MEASURES[measure].wants in ("score", "probability") and not program.evaluations[evaluation] & {"positive", "**"}:
        message = f"{measure} needs the probabilities of a class, and {evaluation} is recorded without positive="
        return Finding(check, False, message, "Add the class to ex.evaluation(...):  positive=...")
    return None
