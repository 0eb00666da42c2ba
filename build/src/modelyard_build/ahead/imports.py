"""Imports: what the project's files import is there, and in the lock."""

import ast
import importlib.metadata
import sys
from collections.abc import Iterator

from packaging.utils import canonicalize_name

from modelyard_build.ahead.draft import Draft
from modelyard_build.checks.finding import Finding, Severity
from modelyard_tracking.errors import Refused
from modelyard_tracking.origin import check_environment, locked_versions
from modelyard_tracking.project import LOCK, REQUIREMENTS

# Come with Modelyard wherever something is trained, and are in no image.
_OURS = {"modelyard", "modelyard_build", "modelyard_serving", "modelyard_tracking", "sacred", "ray", "hyperopt"}


def check(draft: Draft) -> Iterator[Finding]:
    lock = draft.folder / LOCK
    if not lock.is_file():
        return
    locked = {canonicalize_name(name) for name in locked_versions(lock)}
    owners = importlib.metadata.packages_distributions()
    findings = []
    for module, files in sorted(_imported(draft).items()):
        packages = {canonicalize_name(name) for name in owners.get(module, ())} or {canonicalize_name(module)}
        if packages & locked:
            continue
        where = f"{' and '.join(files)} imports {module}"
        remedy = f"Add it to {REQUIREMENTS}, then:  yard lock {draft.name}"
        if module in owners:
            message = f"{where}, which is installed here and not in the lock"
            findings.append(Finding("imports", False, message, remedy, "warning"))
        else:
            # In another environment than the lock's it may be there under another name.
            severity: Severity = "error" if _installed_as_locked(draft) else "warning"
            findings.append(Finding("imports", False, f"{where}, which is not there", remedy, severity))
    yield from findings or [Finding("imports", True, "everything imported is in the lock, beside it, or Modelyard's")]


def _imported(draft: Draft) -> dict[str, list[str]]:
    """Module to the files that import it; those that are a file of the project, Python's or ours are left out."""
    own = {entry.stem for entry in draft.folder.iterdir()}
    found: dict[str, list[str]] = {}
    for file, tree in draft.sources.items():
        for name in sorted(set(_names(tree)) - own - _OURS - sys.stdlib_module_names):
            found.setdefault(name, []).append(file)
    return found


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]
        elif not isinstance(node, ast.Try):  # there, somebody is ready for it to be missing
            yield from _names(node)


def _installed_as_locked(draft: Draft) -> bool:
    try:
        check_environment(draft.folder / LOCK)
    except Refused:
        return False
    return True
