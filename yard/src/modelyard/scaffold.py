"""Scaffold: a repository of its own for one model, with an example that works as it stands.

The files are those of `templates/repository` without their suffix `.jinja`, NAME in their paths replaced; `dot_` at the
beginning stands for a dot.
"""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from jinja2 import Environment, StrictUndefined

from modelyard.settings import system_user
from modelyard_build.errors import BuildError
from modelyard_build.locks.locking import lock_project
from modelyard_tracking.errors import Refused
from modelyard_tracking.origin import python_version
from modelyard_tracking.project import LOCK, NAME, load_project

# Not jinja's usual ones: workflows of GitHub are full of those.
_TEMPLATES = Environment(  # noqa: S701 - what is made are programs and settings, no pages
    variable_start_string="{=", variable_end_string="=}", undefined=StrictUndefined, keep_trailing_newline=True
)
_CARD = ("owner", "purpose", "limitations")


@dataclass(frozen=True, slots=True)
class Scaffold:
    """A repository as it was made."""

    folder: Path
    files: tuple[str, ...]
    blanks: tuple[str, ...]  # what only a person can fill in
    lock_fault: str  # why there is no lock; empty where there is one


def new_repository(name: str, folder: Path) -> Scaffold:
    """Write a repository for the model `name` into `folder`, which must not be there yet, or be empty.

    Raises:
        Refused: the name does not fit, or there is something in the folder; nothing was written.
    """
    if not re.fullmatch(NAME, name):
        raise Refused(
            f"{name!r} is no name for a model: a lower-case letter, then up to 40 lower-case letters, digits or _.\n"
            "It becomes part of addresses and tags."
        )
    folder = folder.expanduser().absolute()
    if folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise Refused(f"{folder} is there already, and nothing is overwritten. Name another one:  --folder DIR")
    folder.parent.mkdir(parents=True, exist_ok=True)
    values = {"name": name, "owner": _owner(), "python": python_version()}
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        draft = Path(scratch) / "repository"
        made = [_write(template, path, draft, values) for template, path in _templates()]
        _git_init(draft)
        lock_fault = _lock(draft / "projects" / name)
        draft.rename(folder)
    project = load_project(folder / "projects", name)
    where = f"projects/{name}/project.toml"
    blanks = [f"{where}: {part}" for part in _CARD if not getattr(project, part).strip()]
    locked = [] if lock_fault else [f"projects/{name}/{LOCK}"]
    return Scaffold(folder, tuple(sorted([*made, *locked])), tuple(blanks), lock_fault)


def _templates() -> Iterator[tuple[Traversable, PurePosixPath]]:
    """Every template, and the path of what it makes, with NAME in it."""
    waiting = [(files("modelyard") / "templates" / "repository", PurePosixPath())]
    while waiting:
        folder, path = waiting.pop()
        for entry in folder.iterdir():
            below = path / re.sub(r"^dot_", ".", entry.name.removesuffix(".jinja"))
            if entry.is_dir():
                waiting.append((entry, below))
            else:
                yield entry, below


def _write(template: Traversable, path: PurePosixPath, folder: Path, values: dict[str, str]) -> str:
    """Write what a template makes; gives its path."""
    named = str(path).replace("NAME", values["name"])
    file = folder / named
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_TEMPLATES.from_string(template.read_text(encoding="utf-8")).render(values), encoding="utf-8")
    return named


def _git_init(folder: Path) -> None:
    command = ["git", "-c", "init.defaultBranch=main", "init", "--quiet", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(f"git could not make a repository, and nothing was written: {done.stderr.strip()}")


def _lock(project: Path) -> str:
    try:
        lock_project(project, None)
    except BuildError as error:
        return str(error)
    return ""


def _owner() -> str:
    """Who git says is working here, else the login."""
    said = [
        subprocess.run(["git", "config", f"user.{part}"], capture_output=True, text=True, timeout=60, check=False)
        for part in ("name", "email")
    ]
    name, email = (re.sub(r'[\\"]|[^\x20-\ud7ff]', "", answer.stdout.strip()) for answer in said)
    return f"{name or system_user()} <{email}>" if email else name or system_user()
