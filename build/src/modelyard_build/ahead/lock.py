"""The lock: pinned by hash, in step with requirements.in, complete for serving, and what is installed here."""

import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modelyard_build.ahead.draft import Draft
from modelyard_build.checks.finding import Finding
from modelyard_build.errors import Refused as NotALock
from modelyard_build.locks.foreign_locks import as_requirements, foreign_lock
from modelyard_build.locks.locking import applying, runtime_requirements, unmet
from modelyard_tracking.errors import Refused
from modelyard_tracking.kinds.servable import SERVED_WITH
from modelyard_tracking.origin import check_environment, locked_versions
from modelyard_tracking.project import LOCK, REQUIREMENTS

_PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:\[[^\]]*\])?==")


def check_pins(draft: Draft) -> Iterator[Finding]:
    """There is a lock, and every line of it is a version with its hashes."""
    file, remedy = draft.folder / LOCK, f"yard lock {draft.name}"
    if not file.is_file():
        yield Finding("lock", False, f"there is no {LOCK}, so nobody could build this environment again", remedy)
        return
    blocks = _blocks(file)
    loose = [block.split()[0] for block in blocks if not _PINNED.match(block)]
    unhashed = [block.split("==")[0] for block in blocks if _PINNED.match(block) and "--hash=sha256:" not in block]
    if loose:
        yield Finding("lock", False, f"not pinned to one version: {_some(loose)}", remedy)
    if unhashed:
        yield Finding("lock", False, f"without a hash: {_some(unhashed)}", remedy)
    if not blocks:
        yield Finding("lock", False, f"{file} is empty", remedy)
    elif not loose and not unhashed:
        yield Finding("lock", True, f"{len(blocks)} packages, each by version and hash")


def check_needs(draft: Draft) -> Iterator[Finding]:
    """What requirements.in asks for and what serving needs is in it, in versions that fit; and nothing left over."""
    file, wanted = draft.folder / LOCK, draft.folder / REQUIREMENTS
    if not file.is_file():
        return
    if not wanted.is_file() and (theirs := foreign_lock(draft.folder)):
        yield _of_another_tool(theirs, file, f"yard lock {draft.name}")
        return
    if not wanted.is_file():
        message = f"there is no {REQUIREMENTS}, so nobody can lock again"
        yield Finding("needs", False, message, "List what the model needs, such as scikit-learn>=1.7, one per line.")
        return
    remedy = f"yard lock {draft.name}"
    locked = {str(canonicalize_name(name)): version for name, version in locked_versions(file).items()}
    asked, untold = _requirements(wanted)
    faults = [*_faults(asked, locked, REQUIREMENTS), *_faults(applying(runtime_requirements()), locked, "serving")]
    if left := _left_over(file, {canonicalize_name(need.name) for need in asked}):
        faults.append(f"{REQUIREMENTS} no longer asks for {_some(left)}, which the lock holds on its account")
    if draft.project and draft.project.model.allow_pickle and SERVED_WITH["pickle"] not in locked:
        faults.append(f"project.toml allows a pickle, which is served with {SERVED_WITH['pickle']}: the lock has none")
    for fault in faults:
        yield Finding("needs", False, fault, remedy)
    if untold:
        message = f"these lines of {REQUIREMENTS} are not looked at: {_some(untold)}"
        yield Finding("needs", False, message, "Name a package and its versions, such as pandas>=2.3.", "warning")
    if not faults:
        yield Finding("needs", True, f"the lock holds what {REQUIREMENTS} and serving ask for")


def _of_another_tool(theirs: Path, file: Path, remedy: str) -> Finding:
    try:
        same = as_requirements(theirs) == file.read_text()
    except NotALock as error:
        return Finding("needs", False, str(error), "Lock with its own tool, then:  " + remedy)
    message = f"the lock is that of {theirs.name}" if same else f"{theirs.name} was locked anew, and {LOCK} was not"
    return Finding("needs", same, message, "" if same else remedy)


def check_here(draft: Draft) -> Iterator[Finding]:
    """What is installed here is what was locked; training refuses anything else."""
    file = draft.folder / LOCK
    if not file.is_file():
        return
    try:
        check_environment(file)
    except Refused as error:
        lines = str(error).splitlines()
        message = f"not the lock's, so nothing can be trained in it: {'; '.join(line.strip() for line in lines[1:-1])}"
        yield Finding("environment", False, message, lines[-1], "warning")
    else:
        yield Finding("environment", True, "what is installed here is what was locked")


def _blocks(lock: Path) -> list[str]:
    """Each entry of a lock, with the lines that belong to it."""
    lines = [line for line in lock.read_text().splitlines() if line.strip() and not line.startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines)) if lines else []


def _requirements(file: Path) -> tuple[list[Requirement], list[str]]:
    """Those that apply to this Python, and the lines that are something else."""
    asked, untold = [], []
    for line in file.read_text().splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        try:
            asked += applying([text] if text else [])
        except InvalidRequirement:
            untold.append(text)
    return asked, untold


def _faults(needs: list[Requirement], locked: dict[str, str], who: str) -> Iterator[str]:
    for need in unmet(needs, locked):
        version = locked.get(canonicalize_name(need.name))
        if version is None:
            yield f"{who} asks for {need.name}, which the lock does not hold for this Python"
        else:
            yield f"{who} asks for {need.name}{need.specifier}, and the lock has {version}"


def _left_over(lock: Path, asked: set[str]) -> list[str]:
    """Packages that are in the lock because requirements.in once named them: uv notes below each who wants it."""
    noted = re.compile(rf"^ +#(?: via)? +-r \S*{re.escape(REQUIREMENTS)}$", re.MULTILINE)
    names = [canonicalize_name(re.split(r"[=\[]", block)[0]) for block in _blocks(lock) if noted.search(block)]
    return [name for name in names if name not in asked]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
