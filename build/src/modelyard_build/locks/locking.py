"""Lock a project: what its model needs and what the runtime needs, resolved once, hashed, for every platform.

The lock is both the environment a run is trained in and the one its bento is served in, so nothing is
resolved when a bento is built. An image gets the part of it that its kind of model wants: the same lines.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions, requires
from pathlib import Path
from typing import Self

import uv
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modelyard_build.errors import Refused, Unavailable
from modelyard_build.locks.foreign_locks import as_requirements, foreign_lock
from modelyard_tracking.kinds.servable import SERVED_WITH
from modelyard_tracking.project import LOCK, REQUIREMENTS


def lock_project(folder: Path, constraints: Path | None, *, upgrade: bool = False) -> Path:
    """Write `requirements.lock` from `requirements.in` and the runtime's needs, or from the lock of uv or Pipenv.

    Args:
        constraints: a lock to stay with, such as the workspace's: training happens in that environment. None: what is
            installed here, unless newer versions are asked for.

    Raises:
        Refused: requirements.in is missing, or contradicts the runtime or the constraints; a lock of uv or Pipenv lacks
            what serving needs.
    """
    wanted = folder / REQUIREMENTS
    if not wanted.is_file() and (theirs := foreign_lock(folder)):
        return _taken_over(theirs)
    if not wanted.is_file():
        raise Refused(f"{wanted} is missing. List what the model needs, such as scikit-learn>=1.7, one per line.")
    with tempfile.TemporaryDirectory() as scratch:
        if constraints is None and not upgrade:
            constraints = Path(scratch) / _INSTALLED
            constraints.write_text("\n".join(_installed()))
        _compile(folder, wanted, constraints, upgrade)
    lock = folder / LOCK
    lock.write_text(re.sub(rf"-c \S*/{_INSTALLED}", f"-c {_INSTALLED}", lock.read_text()))
    return lock


def _taken_over(theirs: Path) -> Path:
    lock, before = theirs.with_name(LOCK), as_requirements(theirs)
    versions = {block.name: block.version for block in _read(before)}
    missing = [line for line in runtime_requirements() if any(unmet(applying([line]), versions))]
    if missing:
        raise Refused(
            f"{theirs} does not hold what a model is served with: {', '.join(missing)}.\n"
            "Add that to the project's needs, lock it with its own tool, and lock again here."
        )
    lock.write_text(before)
    return lock


def applying(lines: Iterable[str]) -> list[Requirement]:
    """The requirements among `lines` that hold for this Python."""
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.marker is None or need.marker.evaluate()]


def unmet(needs: Iterable[Requirement], locked: Mapping[str, str]) -> Iterator[Requirement]:
    """Those that no locked version meets.

    Args:
        locked: package -> version, by names as package indexes compare them.
    """
    for need in needs:
        version = locked.get(canonicalize_name(need.name))
        if version is None or not need.specifier.contains(version, prereleases=True):
            yield need


_INSTALLED = "installed.txt"


def _installed() -> list[str]:
    """What is installed here, but for ourselves."""
    there: dict[str, str] = {}
    for found in distributions():  # of several with one name, the first one is imported
        there.setdefault(_name(found.metadata["Name"]), found.version)
    return sorted(f"{name}=={version}" for name, version in there.items() if not name.startswith("modelyard"))


def _compile(folder: Path, wanted: Path, constraints: Path | None, upgrade: bool) -> None:
    command = [
        uv.find_uv_bin(),
        "pip",
        "compile",
        "--quiet",
        "--universal",
        "--generate-hashes",
        "--no-emit-index-url",
        "--no-header",
        "--python-version",
        "3.11",
        "--output-file",
        str(folder.resolve() / LOCK),
        str(wanted.resolve()),
        "-",
        *(["--constraint", str(constraints.resolve())] if constraints else []),
        *(["--upgrade"] if upgrade else []),
    ]
    try:
        done = subprocess.run(
            command,
            input="\n".join(runtime_requirements()),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd=folder.resolve().parents[1],  # the notes name files as they lie below the repository, wherever we are
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("Locking took longer than ten minutes; is the package index reachable?") from error
    if done.returncode:
        raise Refused(f"{wanted} cannot be locked:\n{done.stderr.strip()}")


def runtime_requirements() -> list[str]:
    """What modelyard-serving needs inside an image."""
    return [line for line in requires("modelyard-serving") or () if not re.search(r";.*\bextra\b", line)]


def served_part(lock: str, kind: str) -> str:
    """The part of a lock that serving a model of this kind wants, line by line as it was locked.

    That is what the runtime and the package it loads the model with need, directly or not; uv notes below each package
    what wants it. A pickle may want anything, so it gets the whole lock, as does a lock without such notes.
    """
    packages = _read(lock)
    if kind == "pickle" or not all(package.wanted_by for package in packages):
        return lock
    wanted = {_name(line) for line in runtime_requirements()} | {SERVED_WITH[kind]}
    while more := {package.name for package in packages if package.wanted_by & wanted} - wanted:
        wanted |= more
    return "".join(f"{package.block}\n" for package in packages if package.name in wanted)


def servable_parts(lock: str, *, with_pickle: bool) -> list[str]:
    """The part of a lock for each kind of model that it has the means to serve; see `served_part`."""
    names = {package.name for package in _read(lock)}
    kinds = [kind for kind, package in SERVED_WITH.items() if package in names and (with_pickle or kind != "pickle")]
    return [served_part(lock, kind) for kind in kinds]


def locked_hashes(lock: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """By name and version, the sha256 digests that a lock has: of the wheels for every platform, and of the source."""
    found = {}
    for package in _read(lock):
        if package.version:
            found[package.name, package.version] = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", package.block))
    return found


@dataclass(frozen=True, slots=True)
class _Package:
    """A package of a lock, with its hashes and notes."""

    block: str
    name: str
    version: str
    wanted_by: frozenset[str]

    @classmethod
    def read(cls, block: str) -> Self:
        notes = re.findall(r"^ +#(?: via)? +(\S.*)$", block, re.MULTILINE)
        version = re.match(r"[^\s=]+==([^\s;]+)", block)
        return cls(
            block,
            _name(block),
            version[1] if version else "",
            frozenset(note if note.startswith("-") else _name(note) for note in notes),
        )


def _read(lock: str) -> list[_Package]:
    return [_Package.read(block) for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip("\n"))]


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""
