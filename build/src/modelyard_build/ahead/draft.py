"""Draft: a project as it lies in its folder, read and not run."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelyard_tracking.errors import NotFound, Refused
from modelyard_tracking.project import Project, load_project, project_names

TRAIN = "train.py"


@dataclass(frozen=True, slots=True)
class Draft:
    """What the checks may know. Where a file is wrong, what it would have said is missing, and its fault is told."""

    folder: Path
    project: Project | None
    fault: str  # of project.toml; empty where there is none
    sources: Mapping[str, ast.Module] = field(repr=False)  # by file name
    broken: Mapping[str, str] = field(default_factory=dict)  # file name -> why it is no Python

    @property
    def name(self) -> str:
        return self.folder.name


def read_draft(projects: Path, name: str) -> Draft:
    """The project `name` below the folder `projects`.

    Raises:
        NotFound: there is no such folder; the text lists those there are.
    """
    folder = projects / name
    project, fault = None, ""
    try:
        project = load_project(projects, name)
    except NotFound:
        if name not in project_names(projects):
            raise
        fault = f"{name!r} is no name of a project: letters, digits, _ and - only"
    except (Refused, UnicodeDecodeError) as error:
        fault = str(error)
    sources, broken = {}, {}
    for file in sorted(folder.glob("*.py")):
        try:
            sources[file.name] = ast.parse(file.read_bytes(), file.name)
        except (SyntaxError, ValueError) as error:
            line = f"line {error.lineno}: {error.msg}" if isinstance(error, SyntaxError) else str(error)
            broken[file.name] = line
    return Draft(folder, project, fault, sources, broken)
