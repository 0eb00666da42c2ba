"""Where a run comes from: the commit, what was changed since, and the environment it ran in."""

import importlib.metadata
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker

from modelyard_tracking.errors import Refused


@dataclass(frozen=True, slots=True)
class GitState:
    """The repository around a folder when a run started."""

    root: Path
    url: str  # of its remote "origin", else where it lies; without a password
    commit: str
    changes: tuple[str, ...]  # lines of `git status --porcelain`
    diff: str

    @property
    def dirty(self) -> bool:
        return bool(self.changes)


def git_state(folder: Path) -> GitState | None:
    """The state of the repository that holds `folder`; None where there is none, or no commit yet."""
    try:
        root = _git(folder, "rev-parse", "--show-toplevel").strip()
        commit = _git(folder, "rev-parse", "HEAD").strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    # Importing train.py writes bytecode beside it: that is no change of the code.
    everything_else = ["--", ".", ":(exclude,glob)**/__pycache__/**"]
    changes = tuple(_git(Path(root), "status", "--porcelain", *everything_else).splitlines())
    return GitState(Path(root), _url(root), commit, changes, _git(Path(root), "diff", "HEAD") if changes else "")


def has_commit(folder: Path, commit: str) -> bool:
    """Is `commit` in the repository around `folder`?"""
    try:
        _git(folder, "cat-file", "-e", f"{commit}^{{commit}}")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    return True


def check_environment(lock: Path) -> None:
    """Stop unless every package of the lock is installed here in the locked version: what is trained is served.

    Raises:
        Refused: names up to five packages that differ.
    """
    wrong = []
    for name, version in locked_versions(lock).items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            installed = "not installed"
        if installed != version:
            wrong.append(f"  {name}: the lock has {version}, this environment {installed}")
    if wrong:
        more = [f"  and {len(wrong) - 5} more"] if len(wrong) > 5 else []
        raise Refused(
            "\n".join([f"This environment is not the one of {lock}:", *wrong[:5], *more])
            + f"\nInstall it:  uv pip install -r {lock}      or lock anew:  yard lock {lock.parent.name}"
        )


def locked_versions(lock: Path) -> dict[str, str]:
    """Package to version, of the lines that apply to this Python and platform."""
    versions = {}
    for line in lock.read_text().splitlines():
        match = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;\s*([^\\]+))?", line)
        if match and (match[3] is None or Marker(match[3].strip()).evaluate()):
            versions[match[1].lower()] = match[2]
    return versions


def python_version() -> str:
    """Such as 3.11: what the model's environment is made with."""
    return ".".join(platform.python_version_tuple()[:2])


def _url(root: str) -> str:
    try:
        url = _git(Path(root), "remote", "get-url", "origin").strip()
    except subprocess.CalledProcessError:
        return root
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _git(folder: Path, *args: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *args], capture_output=True, text=True, check=True, timeout=60, errors="replace"
    ).stdout
