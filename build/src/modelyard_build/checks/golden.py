"""Golden rows: the served model answers training's own rows as it did in training, over every door.

This is what catches train/serve skew: another library version, a changed constant, a swapped column.
"""

from modelyard_build.checks.doors import DOORS, Door
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served
from modelyard_serving.answers import first_difference, is_finite

SINGLES = 5  # rows also sent one by one: a batch of one must answer like a batch of many


def check(served: Served, subject: Subject) -> Finding:
    for door in DOORS:
        if fault := _fault(served, subject, door):
            remedy = "The packaged model is not the trained one. Train again, request and approve the new run."
            return Finding("golden", False, fault, remedy)
    message = (
        f"{len(subject.golden_rows)} golden rows answered as in training over {len(DOORS)} doors, "
        "in a batch and one by one"
    )
    return Finding("golden", True, message)


def _fault(served: Served, subject: Subject, door: Door) -> str:
    """What differs behind a door; empty where nothing does."""
    rows, address = list(subject.golden_rows), door.address(subject.manifest)
    batches = [(0, rows), *((number, rows[number : number + 1]) for number in range(min(SINGLES, len(rows))))]
    for start, batch in batches:
        answer = door.ask(served.http, subject.manifest, batch)
        if answer.fault:
            return f"{address} answered the golden rows from {start} with {answer.fault}"
        for method, expected in subject.golden_answers.items():
            if method not in door.methods:
                continue
            wanted = expected[start : start + len(batch)]
            different = first_difference(wanted, answer.answers.get(method, ()), subject.tolerance)
            if different is not None:
                number, want, got = different
                what = f"{got}" if is_finite(got) else f"{got}, which is no finite number"
                return f"golden row {start + number}: training's {method} gave {want}, {address} answers {what}"
    return ""
