"""Wheelhouse: a folder with every wheel of a lock, from which environments are made without a network.

pip fills it, since uv downloads nothing that it does not install. What is in it is verified by the lock's hashes twice:
when it is fetched, and when it is installed.
"""

import re
import subprocess
import sys
from pathlib import Path

import uv

from modelyard_build.errors import Refused, Unavailable


def fill(lock: Path, folder: Path, python: str) -> None:
    """Fetch the wheels of a hashed lock that are missing in `folder`, for this machine's platform.

    Args:
        python: version of the interpreter that will use them, such as 3.11.

    Raises:
        Refused: the lock is missing or has no hashes, or a package has no wheel for this platform and Python.
        Unavailable: the interpreter or the package index could not be had.
    """
    if not lock.is_file():
        raise Refused(f"{lock} is missing. Lock the project first:  yard lock PROJECT")
    folder.mkdir(parents=True, exist_ok=True)
    strict = ["--require-hashes", "--only-binary", ":all:", "--no-deps"]
    places = ["--find-links", str(folder), "--dest", str(folder)]  # what is there already is not fetched again
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--python", _interpreter(python)]
    try:
        done = subprocess.run(
            [*pip, "download", *strict, *places, "--requirement", str(lock)],
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"The wheels of {lock} took longer than half an hour. Run it again: it goes on.") from error
    if done.returncode:
        raise _explained(lock, python, done.stderr)


def offline(folder: Path) -> list[str]:
    """What `uv pip install` is told, to take everything from this folder and nothing from anywhere else."""
    return ["--offline", "--no-index", "--find-links", str(folder)]


def _interpreter(python: str) -> str:
    """Markers in a lock are about the interpreter that pip runs in, so it must be one of the wanted version."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" == python:
        return sys.executable
    found = subprocess.run(
        [uv.find_uv_bin(), "python", "find", python], capture_output=True, text=True, timeout=60, check=False
    )
    if found.returncode:
        raise Unavailable(f"There is no Python {python} here, and its wheels are wanted: install it first.")
    return found.stdout.strip()


def _explained(lock: Path, python: str, said: str) -> Refused | Unavailable:
    """What pip's words mean to somebody who has a lock."""
    if "DO NOT MATCH THE HASHES" in said:
        _, _, found = said.partition("tampered with them.")
        return Refused(f"A wheel is not the one that {lock} was made with, so it is not kept:\n{found.strip()[:600]}")
    if "Hashes are required" in said:
        return Refused(f"{lock} has no hashes, so nobody can tell what is fetched. Lock again:  yard lock PROJECT")
    if missing := re.findall(r"No matching distribution found for (\S+)", said):
        return Refused(
            f"{', '.join(missing)} of {lock} has no wheel for Python {python} on this machine, or the package index "
            "does not answer.\nAsk for a version that has one in requirements.in, then:  yard lock PROJECT"
        )
    return Unavailable(f"pip could not fetch the wheels of {lock}:\n{said.strip()[-1000:]}")
