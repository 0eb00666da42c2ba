"""Lock a project: what its model needs and what the runtime needs, resolved once, hashed, for every platform.

The lock is both the environment a run is trained in and the one its bento is served in, so nothing is
resolved when a bento is built. An image gets the part of it that its kind of model wants: the same lines.
"""

import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path
from typing import Self

import uv

from modelyard_build.errors import Refused, Unavailable
from modelyard_tracking.kinds.servable import SERVED_WITH
from modelyard_tracking.project import LOCK, REQUIREMENTS


def lock_project(folder: Path, constraints: Path | None, *, upgrade: bool = False) -> Path:
    """Write `requirements.lock` from `requirements.in` and the runtime's needs.

    Args:
        constraints: a lock to stay with, such as the workspace's: training happens in that environment.

    Raises:
        Refused: requirements.in is missing, or contradicts the runtime or the constraints.
    """
    wanted = folder / REQUIREMENTS
    if not wanted.is_file():
        raise Refused(f"{wanted} is missing. List what the model needs, such as scikit-learn>=1.7, one per line.")
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
        str(folder / LOCK),
        str(wanted),
        "-",
        *(["--constraint", str(constraints)] if constraints else []),
        *(["--upgrade"] if upgrade else []),
    ]
    try:
        done = subprocess.run(
            command, input="\n".join(runtime_requirements()), capture_output=True, text=True, timeout=600, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable("Locking took longer than ten minutes; is the package index reachable?") from error
    if done.returncode:
        raise Refused(f"{wanted} cannot be locked:\n{done.stderr.strip()}")
    return folder / LOCK


def runtime_requirements() -> list[str]:
    """What modelyard-serving needs inside an image."""
    return [line for line in requires("modelyard-serving") or () if not re.search(r";.*\bextra\b", line)]


def served_part(lock: str, kind: str) -> str:
    """The part of a lock that serving a model of this kind wants, line by line as it was locked.

    That is what the runtime and the package it loads the model with need, directly or not; uv notes below each package
    what wants it. A pickle may want anything, so it gets the whole lock, as does a lock without such notes.
    """
    packages = [_Package.read(block) for block in re.split(r"\n(?=[A-Za-z0-9])", lock.strip("\n"))]
    if kind == "pickle" or not all(package.wanted_by for package in packages):
        return lock
    wanted = {_name(line) for line in runtime_requirements()} | {SERVED_WITH[kind]}
    while more := {package.name for package in packages if package.wanted_by & wanted} - wanted:
        wanted |= more
    return "".join(f"{package.block}\n" for package in packages if package.name in wanted)


@dataclass(frozen=True, slots=True)
class _Package:
    """A package of a lock, with its hashes and notes."""

    block: str
    name: str
    wanted_by: frozenset[str]

    @classmethod
    def read(cls, block: str) -> Self:
        notes = re.findall(r"^ +#(?: via)? +(\S.*)$", block, re.MULTILINE)
        return cls(block, _name(block), frozenset(note if note.startswith("-") else _name(note) for note in notes))


def _name(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""
