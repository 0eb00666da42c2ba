"""Examine: every check of a project, before anything is trained."""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from modelyard_build.ahead import card, cases, declared, git, imports, lock, notebooks, program, space
from modelyard_build.ahead.draft import Draft, read_draft
from modelyard_build.checks.finding import Finding

CHECKS: tuple[Callable[[Draft], Iterable[Finding]], ...] = (
    declared.check_file,
    declared.check_metric,
    declared.check_gates,
    declared.check_comparison,
    declared.check_slices,
    card.check,
    lock.check_pins,
    lock.check_needs,
    lock.check_here,
    cases.check,
    program.check,
    imports.check,
    space.check,
    notebooks.check,
    git.check,
)


def examine(projects: Path, name: str) -> tuple[Finding, ...]:
    """What is right and what is wrong with the project `name` below the folder `projects`; nothing of it is run.

    Raises:
        NotFound: there is no such project.
    """
    draft = read_draft(projects, name)
    found: list[Finding] = []
    for check in CHECKS:
        started = time.monotonic()
        findings = list(check(draft))
        seconds = time.monotonic() - started
        found += [replace(finding, seconds=seconds if number == 0 else 0.0) for number, finding in enumerate(findings)]
    return tuple(found)
