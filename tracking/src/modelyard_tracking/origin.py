"""Where a run comes from: the commit, what was changed since, and the environment it ran in."""

import importlib.metadata
import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from packaging.markers import Marker

from modelyard_tracking.errors import Refused
from modelyard_tracking.project import REQUIREMENTS

PATCH_ARTIFACT = "changes.patch"  # of a run whose code was changed since its commit

# Importing train.py writes bytecode beside it: that is no change of the code.
_EVERYTHING_ELSE = ("--", ".", ":(exclude,glob)**/__pycache__/**")
_MAX_NEW_FILE_BYTES = 2**20
_MAX_PATCH_BYTES = 32 * 2**20
_SECRET_FILE = re.compile(
    r"^\.env|\.(?:pem|key|p12|pfx|jks|kdbx)$|^id_(?:rsa|dsa|ecdsa|ed25519)|secret|credential", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class GitState:
    """The repository around a folder when a run started."""

    root: Path
    folder: str  # the one that was asked about, below the root
    url: str  # of its remote "origin", else where it lies; without a password
    commit: str
    changes: tuple[str, ...]  # lines of `git status --porcelain`
    patch: bytes = field(repr=False, default=b"")  # what makes the commit into what ran; for `git apply`
    left_out: tuple[str, ...] = ()  # files that no commit knows and that the patch does not hold either

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
    changes = tuple(_git(Path(root), "status", "--porcelain", *_EVERYTHING_ELSE).splitlines())
    patch, left_out = _patch(Path(root)) if changes else (b"", ())
    below = folder.resolve().relative_to(root).as_posix()
    return GitState(Path(root), below, _url(root), commit, changes, patch, left_out)


def has_commit(folder: Path, commit: str) -> bool:
    """Is `commit` in the repository around `folder`?"""
    try:
        _git(folder, "cat-file", "-e", f"{commit}^{{commit}}")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    return True


def diff_between(folder: Path, first: str, last: str) -> str:
    """The diff between two commits, as text."""
    return _git(folder, "diff", "--no-color", "--no-ext-diff", first, last)


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


def check_locked(lock: Path, package: str) -> None:
    """Stop if there is a lock without the package that the model is served with: its image could not be built.

    Raises:
        Refused: says what to add.
    """
    if lock.is_file() and package not in locked_versions(lock):
        raise Refused(
            f"This model is served with {package}, which {lock} does not hold.\n"
            f"Add {package} to {lock.with_name(REQUIREMENTS)}, then:  yard lock {lock.parent.name}"
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


def _patch(root: Path) -> tuple[bytes, tuple[str, ...]]:
    """Everything that is not in the commit, as one patch, and the new files that were left out of it.

    Made in an index and an object store of its own: the repository is only read.
    """
    listed = _git(root, "ls-files", "--others", "--exclude-standard", "-z", *_EVERYTHING_ELSE).split("\0")
    new = [name for name in listed if name and not name.endswith("/")]  # a slash: another repository inside this one
    kept = [name for name in new if _is_keepable(root / name)]
    with tempfile.TemporaryDirectory() as scratch:
        objects = _git(root, "rev-parse", "--git-path", "objects").strip()
        env = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": scratch,
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve()),
        }
        _git(root, "read-tree", "HEAD", env=env)
        _git(root, "add", "--update", ":/", env=env)
        _git(root, "update-index", "--add", "-z", "--stdin", env=env, stdin="".join(f"{name}\0" for name in kept))
        patch = _run(root, "diff", "--cached", "--binary", "--no-color", "--no-ext-diff", "HEAD", env=env)
    left_out = [name for name in new if name not in kept]
    if len(patch) > _MAX_PATCH_BYTES:
        return b"", tuple(sorted({*left_out, f"the changes themselves, {len(patch) / 2**20:.0f} MB"}))
    return patch, tuple(left_out)


def _is_keepable(file: Path) -> bool:
    """Is it a text that may be stored: not large, not binary, not named like a secret?"""
    if file.is_symlink() or _SECRET_FILE.search(file.name):
        return False
    try:
        if file.stat().st_size > _MAX_NEW_FILE_BYTES:
            return False
        return b"\0" not in file.read_bytes()[:8192]
    except OSError:
        return False


def _url(root: str) -> str:
    try:
        url = _git(Path(root), "remote", "get-url", "origin").strip()
    except subprocess.CalledProcessError:
        return root
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _git(folder: Path, *args: str, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    return _run(folder, *args, env=env, stdin=stdin).decode(errors="surrogateescape")


def _run(folder: Path, *args: str, env: Mapping[str, str] | None = None, stdin: str = "") -> bytes:
    return subprocess.run(
        ["git", "-C", str(folder), *args],
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, **(env or {})},
        input=stdin.encode(errors="surrogateescape"),
    ).stdout
