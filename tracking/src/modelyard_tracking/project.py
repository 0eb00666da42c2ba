"""A project: one folder per model, described by its `project.toml`."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from modelyard_tracking.errors import NotFound, Refused

LOCK = "requirements.lock"
REQUIREMENTS = "requirements.in"
NAME = r"[a-z][a-z0-9_]{0,40}"  # of a project and its model: it becomes part of addresses and tags

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
MeasureName = Literal["roc_auc", "accuracy", "f1", "log_loss", "rmse", "mae"]  # those of `measures`


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metric(_Table):
    """The number a project is judged by; a key of the dictionary that its main function returns."""

    name: Text
    direction: Literal["max", "min"]


class Bounds(_Table):
    """What a number must keep."""

    at_least: Finite | None = None
    at_most: Finite | None = None

    @property
    def bound(self) -> str:
        """The bounds as people say them; empty where there are none."""
        said = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {value:g}" for words, value in said if value is not None)

    def holds(self, value: float) -> bool:
        low, high = self.at_least, self.at_most
        return (low is None or value >= low) and (high is None or value <= high)


class Gate(Bounds):
    """A bound that a metric must keep before anybody is asked to approve.

    Its name is a key of the run's result, or EVALUATION.MEASURE, such as `holdout.roc_auc`.
    """

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.bound:
            raise _fault("give at_least, at_most or both")
        return self


class ComparisonPlan(_Table):
    """How a candidate is held against the champion, on the same rows."""

    evaluation: Text
    metric: MeasureName
    min_difference: Finite  # the interval must lie above it: -0.01 lets a candidate be so much worse, 0 demands better
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


class SlicePlan(Bounds):
    """What a model must keep in each part of the rows, and between them."""

    evaluation: Text
    metric: MeasureName
    columns: Annotated[list[Text], Field(min_length=1)]
    max_gap: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # between the best and the worst slice
    min_rows: Count = 30  # smaller slices are named and not judged

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.bound and self.max_gap is None:
            raise _fault("give at_least, at_most or max_gap: else no slice could fail")
        return self


class Description(_Table):
    """What an input, or an answer, means; blanks are found when a run is put before an approver."""

    meaning: str = ""
    unit: str = ""
    range: Annotated[list[Finite], Field(min_length=2, max_length=2)] | None = (
        None  # least and greatest that is allowed
    )

    @model_validator(mode="before")
    @classmethod
    def _or_only_its_meaning(cls, said: Any) -> Any:
        return {"meaning": said} if isinstance(said, str) else said

    @field_validator("range")
    @classmethod
    def _rises(cls, bounds: list[float] | None) -> list[float] | None:
        if bounds and bounds[0] > bounds[1]:
            raise _fault("give the least first, such as [0, 16]")
        return bounds


class EndpointContract(_Table):
    """What callers are promised."""

    unit: Text  # who or what `x-unit-id` names
    reward: Text  # what the feedback means
    tolerance: Annotated[float, Field(ge=0)] = 1e-9  # relative; how far a served number may be from the trained one
    p99_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 200.0  # the slowest but 1 % of requests for one row
    feedback_days: Annotated[int, Field(ge=1, le=3650)] = 90  # how long after its prediction feedback counts
    memory_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1024.0  # what the served model may hold
    breaks: str = ""  # such as tumor:3, with whose signature, and with that of those before, this one breaks

    @field_validator("breaks")
    @classmethod
    def _names_a_version(cls, breaks: str) -> str:
        if breaks and not re.fullmatch(r"[a-z][a-z0-9_]*:[1-9][0-9]{0,8}", breaks):
            raise _fault(f"name the version that it breaks with, such as tumor:3, not {breaks!r}")
        return breaks


class AuditContract(_Table):
    """What of each prediction is kept, and for how long."""

    redact: list[Text] = []  # inputs whose values are not recorded
    retention_days: Count | None = None  # unsaid: for ever
    when_full: Literal["refuse", "count"] = "refuse"  # no record can be written: no answer, or a counted one
    flush: Literal["system", "disk"] = "system"  # who has the record when the answer leaves


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


class BuildPlan(_Table):
    """What an image may be made of."""

    licenses_denied: list[Text] | None = None  # patterns of SPDX ids, such as "GPL-*"; unsaid: the build's own list
    image_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 500.0  # beyond the base image
    licenses_allowed_for: dict[Text, Text] = {}  # a package -> the reason why it may be there all the same


class Project(_Table):
    """Everything `project.toml` says, and where it lies."""

    folder: Path
    name: Text
    owner: str = ""
    purpose: str = ""
    limitations: str = ""
    license: str = ""  # of the model, by its SPDX name
    inputs: dict[Text, Description] = {}  # by patterns, see `card`
    outputs: dict[Text, Description] = {}
    metric: Metric
    gates: dict[str, Gate] = {}
    comparison: ComparisonPlan | None = None
    slices: SlicePlan | None = None
    endpoint: EndpointContract
    model: ModelPlan = ModelPlan()
    build: BuildPlan = BuildPlan()
    audit: AuditContract = AuditContract()
    sweep: SweepPlan = SweepPlan()

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError("use lower-case letters, digits and _ only: it becomes part of addresses and tags")
        return name

    @field_validator("endpoint")
    @classmethod
    def _breaks_with_its_own(cls, endpoint: EndpointContract, info: ValidationInfo) -> EndpointContract:
        name, broken = info.data.get("name"), endpoint.breaks.rpartition(":")[0]
        if name and broken and broken != name:
            raise _fault(f"breaks: name a version of {name}, not of {broken}: who calls {name} would see the break")
        return endpoint

    @field_validator("gates")
    @classmethod
    def _measurable(cls, gates: dict[str, Gate]) -> dict[str, Gate]:
        known = get_args(MeasureName)
        if wrong := sorted(name for name in gates if "." in name and name.rpartition(".")[2] not in known):
            raise _fault(f"{', '.join(wrong)}: behind the dot stands one of {', '.join(known)}")
        return gates

    @property
    def evaluations(self) -> set[str]:
        """The evaluations that gates, comparison and slices are about."""
        plans = [plan.evaluation for plan in (self.comparison, self.slices) if plan is not None]
        return {*plans, *(name.rpartition(".")[0] for name in self.gates if "." in name)}

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
