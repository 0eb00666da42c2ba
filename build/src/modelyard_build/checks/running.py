"""Running the checks: side by side, and those that measure by themselves."""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from modelyard_build.checks import (
    bad_input,
    budget,
    cases,
    golden,
    known_bad,
    licences,
    model_kind,
    packages,
    provenance,
    servable,
    signature,
    slim,
)
from modelyard_build.checks.finding import Finding, Subject
from modelyard_build.served import Served

log = logging.getLogger(__name__)

Check = Callable[[Any, Subject], Finding]  # of what is served: a bento, or an image

CHECKS: tuple[Check, ...] = (
    servable.check,
    provenance.check,
    model_kind.check,
    signature.check,
    golden.check,
    cases.check,
    packages.check,
    licences.check,
    known_bad.check,
    slim.check,
)
SMOKE: tuple[Check, ...] = (provenance.check, golden.check, cases.check)  # of what is deployed, and may be in use
ALONE: tuple[Check, ...] = (bad_input.check, budget.check)  # they count the model's calls, and take its time


def run_checks(
    served: Served, subject: Subject, checks: Sequence[Check] = CHECKS, alone: Sequence[Check] = ALONE
) -> tuple[Finding, ...]:
    """What `checks` find, side by side, and then what each of `alone` finds, in their order.

    A check that raises has failed. It is named after its module, as its findings should be.
    """
    with ThreadPoolExecutor(max(1, len(checks)), "check") as pool:
        together = list(pool.map(lambda check: _run(check, served, subject), checks))
    return (*together, *(_run(check, served, subject) for check in alone))


def _run(check: Check, served: Served, subject: Subject) -> Finding:
    started = time.monotonic()
    try:
        finding = check(served, subject)
    except Exception as error:
        name = getattr(check, "__module__", "").rpartition(".")[2].replace("_", " ")
        log.exception("check broke off: %s", name)
        remedy = "If the served model is well, by its log, then this is a fault of the check: report it."
        finding = Finding(name, False, f"the check broke off: {type(error).__name__}: {error}", remedy)
    return replace(finding, seconds=round(time.monotonic() - started, 3))
