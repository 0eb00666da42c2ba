"""Locks of other tools: where uv or Pipenv has locked a project, that is what it is trained and served with.

They are written out as the hashed lines of a `requirements.lock`, which all the rest reads; nothing is resolved.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import uv

from modelyard_build.errors import Refused, Unavailable

UV, PIPENV = "uv.lock", "Pipfile.lock"


def foreign_lock(folder: Path) -> Path | None:
    """The lock of another tool in a project's folder."""
    return next((folder / name for name in (UV, PIPENV) if (folder / name).is_file()), None)


def as_requirements(lock: Path) -> str:
    """The lines of a foreign lock, each a package with version and hashes.

    Raises:
        Refused: it cannot be read, or holds something without a version and a hash.
        Unavailable: uv does not answer.
    """
    text = _from_uv(lock) if lock.name == UV else _from_pipenv(lock)
    loose = [
        block.split()[0] for block in re.split(r"\n(?=\S)", text) if block and not block.lstrip().startswith("#")
        if "==" not in block.split("\\")[0] or "--hash=sha256:" not in block
    ]  # fmt: skip
    if loose:
        raise Refused(
            f"{lock} holds {', '.join(loose[:3])} without a version and a hash, so nobody could install the same "
            "again.\nTake packages from an index, and lock again."
        )
    return text


def _from_uv(lock: Path) -> str:
    command = [
        uv.find_uv_bin(), "export", "--frozen", "--offline", "--quiet", "--no-header", "--no-dev", "--no-emit-project",
        "--no-emit-workspace", "--format", "requirements.txt", "--project", str(lock.parent),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"uv took more than two minutes to read {lock}.") from error
    if done.returncode:
        raise Refused(f"uv cannot read {lock}:\n{done.stderr.strip()}")
    return done.stdout


def _from_pipenv(lock: Path) -> str:
    try:
        packages = json.loads(lock.read_text())["default"]
        return "".join(_line(name, said) for name, said in sorted(packages.items()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{lock} is no lock that Pipenv writes: {error}") from error


def _line(name: str, said: dict[str, Any]) -> str:
    extras = f"[{','.join(said['extras'])}]" if said.get("extras") else ""
    marker = f" ; {said['markers']}" if said.get("markers") else ""
    hashes = "".join(f" \\\n    --hash={digest}" for digest in sorted(said.get("hashes", ())))
    return f"{name}{extras}{said.get('version', '')}{marker}{hashes}\n"
