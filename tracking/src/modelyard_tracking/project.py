"""A project: one folder per model, described by its `project.toml`."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from modelyard_tracking.errors import NotFound, Refused

LOCK = "requirements.lock"
REQUIREMENTS = "requirements.in"

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]


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

    trials: Count = 20
    concurrent: Count = 2
    space: str | dict[str, Any] = "search_space.py"  # a file that defines `space()`, or the space: `sweeping/space.py`
    search: Literal["tpe", "random", "grid"] = "tpe"
    scheduler: Literal["none", "asha", "pbt"] = "none"
    resources: dict[Text, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {"cpu": 1.0}  # per trial
    max_failures: Annotated[int, Field(ge=0)] = 1  # how often a trial that failed is tried again
    max_steps: Count | None = None  # the largest step that a trial reports
    grace_steps: Count = 1  # asha stops no trial before this step
    reduction: Annotated[int, Field(ge=2)] = 3  # asha lets one of so many trials go on
    perturb_every: Count | None = None  # steps of a generation of pbt; trials are the population times the generations
    fresh_seeds: Count = 5  # how often the winner is trained anew

    @field_validator("space", mode="before")
    @classmethod
    def _file_or_table(cls, space: Any) -> Any:
        if not isinstance(space, str | dict) or not space:
            raise _fault("give the name of a Python file that defines space(), or a table of entries")
        return space

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        steps = self.max_steps
        if self.scheduler != "none" and steps is None:
            faults.append(f'scheduler = "{self.scheduler}" needs max_steps, the largest step that a trial reports')
        if self.scheduler == "asha" and steps is not None and self.grace_steps > steps:
            faults.append(f"grace_steps = {self.grace_steps} is beyond max_steps = {steps}: no trial would be stopped")
        if self.scheduler == "pbt" and self.perturb_every is None:
            faults.append('scheduler = "pbt" needs perturb_every, after how many steps the worst go on from the best')
        if self.scheduler == "pbt" and self.search != "random" and "search" in self.model_fields_set:
            faults.append(f'scheduler = "pbt" draws its population at random: leave search = "{self.search}" out')
        if not any(self.resources.values()):
            faults.append("resources: a trial needs something above 0, such as cpu = 1")
        if wrong := sorted({"CPU", "GPU"} & self.resources.keys()):
            faults.append(f"resources: write {' and '.join(wrong).lower()} in lower case")
        if (gpus := self.resources.get("gpu", 0)) > 1 and gpus % 1:
            faults.append(f"resources: gpu = {gpus} is neither a part of one GPU nor a whole number of them")
        if faults:
            raise _fault("; ".join(faults))
        return self


class ModelPlan(_Table):
    """How the model may be saved."""

    allow_pickle: bool = False  # for what neither skops nor ONNX can hold; loading a pickle runs code


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
    model: ModelPlan = ModelPlan()
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


def allows_pickle(folder: Path) -> bool:
    """Does the project in `folder`, if it is one, say that its model may be a pickle?"""
    return (folder / "project.toml").is_file() and load_project(folder.parent, folder.name).model.allow_pickle


def project_names(projects: Path) -> list[str]:
    return sorted(file.parent.name for file in projects.glob("*/project.toml"))


def _fault(text: str) -> PydanticCustomError:
    return PydanticCustomError("modelyard", "{text}", {"text": text})  # pydantic would put "Value error" before it


def _faults(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"  {error}"
    return "\n".join(f"  {'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
