"""The project's own cases, `cases.json`: what the model must answer, and what it must refuse."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from modelyard_build.errors import Refused
from modelyard_serving.answers import first_difference

CASES = "cases.json"
Kind = Literal["typical", "critical", "out-of-domain", "must-fail"]
KINDS: tuple[Kind, ...] = get_args(Kind)

AnswerName = Literal["predictions", "probabilities"]  # as the model's answer names them: the manifest's METHODS
Text = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Refusal(_Table):
    """How bad rows are refused."""

    status: Annotated[int, Field(ge=400, lt=500)] | None = None  # any 4xx, if it is not said
    text: str = ""  # stands in the error


class Expect(_Table):
    """What must come of a case: exactly one of `exact`, `within`, `one_of` and `raises`."""

    exact: dict[AnswerName, list[Any]] | None = None  # one answer per row
    within: dict[AnswerName, list[Finite | list[Finite]]] | None = None  # one number, or one list of them, per row
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # of `within`; relative
    one_of: dict[AnswerName, Annotated[list[Any], Field(min_length=1)]] | None = None  # what each row may be answered
    raises: Refusal | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (said := self.model_fields_set - {"tolerance"}) and len(said) == 1 and getattr(self, said.pop()) != {}:
            if (self.within is None) == (self.tolerance is None):
                return self
            raise _fault("`within` and `tolerance` stand together")
        raise _fault("say one of exact, within (with tolerance), one_of and raises")

    def fault(self, status: int, answers: Mapping[str, Sequence[Any]], text: str) -> str:
        """What is wrong with an answer; empty where it is as expected.

        Args:
            answers: by name, such as predictions.
            text: the answer's body, for what it says of an error.
        """
        if self.raises is not None:
            return self._refusal_fault(self.raises, status, text)
        if status != 200:
            return f"expected an answer, got {status}: {text[:300]}"
        for name, wanted in (self.exact or {}).items():
            if first_difference(wanted, answers.get(name, ()), 0.0):
                return f"expected {name} {wanted}, got {list(answers.get(name, ()))}"
        for name, near in (self.within or {}).items():
            if first_difference(near, answers.get(name, ()), self.tolerance or 0.0):
                return f"expected {name} {near} within {self.tolerance:g}, got {list(answers.get(name, ()))}"
        for name, allowed in (self.one_of or {}).items():
            got = list(answers.get(name, ()))
            if not got or any(all(first_difference([one], [have], 0.0) for one in allowed) for have in got):
                return f"expected {name} of {allowed}, got {got}"
        return ""

    def _refusal_fault(self, wanted: Refusal, status: int, text: str) -> str:
        said = f"{wanted.status}" if wanted.status else "a 4xx"
        if not (status == wanted.status if wanted.status else 400 <= status < 500):
            return f"expected to be refused with {said}, got {status}: {text[:300]}"
        return "" if wanted.text in text else f"expected the refusal to say {wanted.text!r}, got {text[:300]}"


class Case(_Table):
    """Rows, and what must come of them."""

    name: Text
    kind: Kind
    rows: list[Any]  # what must fail need not even be objects
    expect: Expect

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.kind == "must-fail") and self.expect.raises is None:
            raise _fault("what must fail is expected to raise")
        if self.kind == "typical" and self.expect.raises is not None:
            raise _fault("what is refused is not typical: call it must-fail")
        for wanted in (self.expect.exact or {}, self.expect.within or {}):
            for name, answers in wanted.items():
                if len(answers) != len(self.rows):
                    raise _fault(f"{len(self.rows)} rows and {len(answers)} expected {name}: give one per row")
        return self


_ALL = TypeAdapter(list[Case])


def read_cases(folder: Path) -> tuple[Case, ...]:
    """The cases of the project in `folder`; none where there is no file.

    Raises:
        Refused: the file is wrong; every fault is named, with its case.
    """
    file = folder / CASES
    if not file.is_file():
        return ()
    try:
        raw = orjson.loads(file.read_bytes())
        cases = tuple(_ALL.validate_python(raw))
    except orjson.JSONDecodeError as error:
        raise Refused(f"{file} is not valid JSON: {error}. Mend it.") from error
    except ValidationError as error:
        raise Refused(f"{file} has faults; mend them:\n{_faults(raw, error)}") from error
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refused(f"{file} has several cases named {', '.join(map(repr, twice))}: give each a name of its own.")
    return cases


def missing_kinds(cases: Sequence[Case]) -> tuple[Kind, ...]:
    """The kinds of which there is no case; a project has at least one of each."""
    there = {case.kind for case in cases}
    return tuple(kind for kind in KINDS if kind not in there)


def _fault(text: str) -> PydanticCustomError:
    return PydanticCustomError("modelyard", "{text}", {"text": text})  # pydantic would put "Value error" before it


def _faults(raw: Any, error: ValidationError) -> str:
    return "\n".join(f"  {_place(raw, fault['loc'])}: {fault['msg']}" for fault in error.errors())


def _place(raw: Any, loc: tuple[int | str, ...]) -> str:
    """Where a fault is, with the name of its case if it has one."""
    if not loc or not isinstance(loc[0], int):
        return "the file"
    case = raw[loc[0]]
    name = case.get("name") if isinstance(case, dict) else None
    rest = ".".join(map(str, loc[1:]))
    return f"case {loc[0] + 1}" + (f" ({name!r})" if isinstance(name, str) else "") + (f", {rest}" if rest else "")
