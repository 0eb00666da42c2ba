"""The search space of a project that is swept: a table that can be searched, or a file that defines one."""

import ast
from collections.abc import Iterator

from modelyard_build.ahead.draft import Draft
from modelyard_build.checks.finding import Finding
from modelyard_tracking.errors import Refused


def check(draft: Draft) -> Iterator[Finding]:
    project = draft.project
    if project is None or "sweep" not in project.model_fields_set:
        return
    space = project.sweep.space
    if isinstance(space, dict):
        from modelyard_tracking.sweeping.space import load_space

        try:
            load_space(project)
        except Refused as error:
            yield Finding("search space", False, str(error), "Correct [sweep.space] in project.toml.")
        else:
            yield Finding("search space", True, f"{len(space)} entries can be searched")
        return
    tree = draft.sources.get(space)
    if tree is None:
        what = "is no Python" if space in draft.broken else "is missing"
        yield Finding("search space", False, f"{space} {what}", "It defines space(), see projects/tumor.")
    elif not any(isinstance(node, ast.FunctionDef) and node.name == "space" for node in tree.body):
        yield Finding("search space", False, f"{space} defines no space()", "Have space() return a dictionary.")
    else:
        yield Finding("search space", True, f"{space} defines it; read and not run")
