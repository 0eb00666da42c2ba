"""A project: one folder per model, described by its `project.toml`."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from modelyard_tracking.errors import NotFound, Refused

LOCK = "requirements.lock"
REQUIREMENTS = "requirements.in"

Text = Annotated[str, Field(min_length=1)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metric(_Table):
    """The number a project is judged by; a key of the dictionary that its main function returns."""

    name: Text
    direction: Literal["max", "min"]


class Gate(_Table):
    """A bound that a metric must keep before anybody is asked to approve."""

    at_least: float | None = None
    at_most: float | None = None


class EndpointContract(_Table):
    """What callers are promised."""

    unit: Text  # who or what `x-unit-id` names
    reward: Text  # what the feedback means
    tolerance: Annotated[float, Field(ge=0)] = 1e-9  # relative; how far a served number may be from the trained one


class SweepPlan(_Table):
    """How hyperparameters are searched."""

    trials: Annotated[int, Field(ge=1)] = 20
    concurrent: Annotated[int, Field(ge=1)] = 2
    space: str = "search_space.py"  # defines `space()`, a dictionary of hyperopt expressions


class Project(_Table):
    """Everything `project.toml` says, and where it lies."""

    folder: Path
    name: Text
    owner: str = ""
    purpose: str = ""
    limitations: str = ""
    metric: Metric
    gates: dict[str, Gate] = {}
    endpoint: EndpointContract
    sweep: SweepPlan = SweepPlan()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
            raise ValueError("use lower-case letters, digits and _ only: it becomes part of addresses and tags")
        return name

    @property
    def lock(self) -> Path:
        """The project's lock.

        Raises:
            Refused: there is none.
        """
        lock = self.folder / LOCK
        if not lock.is_file():
            raise Refused(
                f"{self.name} has no {LOCK}, so nobody could build its environment again.\n"
                f"Make it:  yard lock {self.name}"
            )
        return lock


def load_project(projects: Path, name: str) -> Project:
    """The project `name` below the folder `projects`.

    Raises:
        NotFound: there is no such folder; the text lists those there are.
        Refused: its project.toml is wrong; every fault is named.
    """
    file = projects / name / "project.toml"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not file.is_file():
        there = ", ".join(project_names(projects)) or "none"
        raise NotFound(f"There is no project {name!r} in {projects}. There is: {there}.")
    try:
        raw = tomllib.loads(file.read_text())
        return Project(folder=file.parent.resolve(), **raw)
    except tomllib.TOMLDecodeError as error:
        raise Refused(f"{file} is not valid TOML: {error}") from error
    except (ValidationError, TypeError) as error:
        raise Refused(f"{file} has faults:\n{_faults(error)}") from error


def project_names(projects: Path) -> list[str]:
    return sorted(file.parent.name for file in projects.glob("*/project.toml"))


def _faults(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"  {error}"
    return "\n".join(f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
