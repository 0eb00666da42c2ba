"""Lock a project: what its model needs and what the runtime needs, resolved once, hashed, for every platform.

The lock is both the environment a run is trained in and the one its bento is served in, so nothing is
resolved when a bento is built.
"""

import re
import subprocess
from importlib.metadata import requires
from pathlib import Path

import uv

from modelyard_build.errors import Refused, Unavailable
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
