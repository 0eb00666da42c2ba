"""The project's own cases: what may stand in cases.json, and what comes of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard_build.cases import KINDS, Case, Expect, missing_kinds, read_cases
from modelyard_build.errors import Refused
from places import PROJECTS


def case(kind: str = "typical", rows: Any = ({"a": 1},), name: str = "one", **expect: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "rows": list(rows), "expect": expect or {"exact": {"predictions": ["b"]}}}


def written(folder: Path, *cases: Any) -> Path:
    (folder / "cases.json").write_text(json.dumps(list(cases)))
    return folder


@pytest.mark.parametrize("project", ["tumor", "digits"])
def test_the_example_projects_have_cases_of_every_kind(project: str) -> None:
    assert missing_kinds(read_cases(PROJECTS / project)) == ()


def test_a_kind_that_is_missing_is_named(tmp_path: Path) -> None:
    cases = read_cases(written(tmp_path, case(), case("must-fail", name="two", raises={})))
    assert missing_kinds(cases) == ("critical", "out-of-domain")
    assert missing_kinds(read_cases(tmp_path / "no project")) == KINDS


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (case("usual"), r"case 1 \('one'\), kind: Input should be 'typical', 'critical', 'out-of-domain' or"),
        (case(predictions=["b"]), r"case 1 \('one'\), expect\.predictions: Extra inputs"),
        (case(exact={"predictions": ["b"]}, raises={}), "say one of exact, within"),
        (case(exact={}), "say one of exact, within"),
        (case(tolerance=0.1), "say one of exact, within"),
        (case(within={"predictions": [1.0]}), "`within` and `tolerance` stand together"),
        (case(exact={"predictions": ["b"]}, tolerance=0.1), "`within` and `tolerance` stand together"),
        (case(within={"predictions": ["b"]}, tolerance=0.1), "valid number"),
        (case(exact={"predictions": ["b", "b"]}), "1 rows and 2 expected predictions: give one per row"),
        (case(exact={"answers": ["b"]}), "'predictions' or 'probabilities'"),
        (case(one_of={"predictions": []}), "at least 1 item"),
        (case("must-fail"), "what must fail is expected to raise"),
        (case(raises={}), "what is refused is not typical"),
        (case("must-fail", raises={"status": 500}), "less than 500"),
        ({**case(), "more": 1}, "more: Extra inputs"),
        (7, "case 1: "),
    ],
)
def test_a_case_that_is_wrong_is_named_with_its_fault(tmp_path: Path, wrong: Any, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read_cases(written(tmp_path, wrong))


def test_all_faults_of_a_file_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"(?s)case 1 .*kind.*case 2 .*must fail"):
        read_cases(written(tmp_path, case("usual"), case("must-fail", name="two")))


@pytest.mark.parametrize(("text", "said"), [("[", "not valid JSON"), ("{}", "the file: "), ("[NaN]", "not valid JSON")])
def test_a_file_that_is_no_list_of_cases_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(Refused, match=said):
        read_cases(tmp_path)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="several cases named 'one'"):
        read_cases(written(tmp_path, case(), case()))


def fault(said: dict[str, Any], status: int = 200, text: str = "", **answers: Any) -> str:
    return Expect.model_validate(said).fault(status, answers, text)


def test_what_is_expected_exactly_may_not_differ_at_all() -> None:
    exact = {"exact": {"predictions": [0.3]}}
    assert fault(exact, predictions=[0.3]) == ""
    assert fault(exact, predictions=[0.3001]) == "expected predictions [0.3], got [0.3001]"
    assert fault(exact, predictions=[float("nan")]) == "expected predictions [0.3], got [nan]"
    assert fault(exact) == "expected predictions [0.3], got []"
    assert fault(exact, 500, "it broke") == "expected an answer, got 500: it broke"


def test_what_is_expected_within_may_differ_by_its_tolerance() -> None:
    near = {"within": {"probabilities": [[0, 1]]}, "tolerance": 0.1}
    assert fault(near, probabilities=[[0.05, 0.95]]) == ""
    assert "within 0.1, got [[0.5, 0.5]]" in fault(near, probabilities=[[0.5, 0.5]])


def test_every_row_must_be_answered_one_of_what_is_allowed() -> None:
    allowed = {"one_of": {"predictions": ["a", "b"]}}
    assert fault(allowed, predictions=["b", "a"]) == ""
    assert fault(allowed, predictions=["b", "c"]) == "expected predictions of ['a', 'b'], got ['b', 'c']"
    assert fault(allowed, predictions=[]) != ""


@pytest.mark.parametrize(
    ("raises", "status", "text", "wrong"),
    [
        ({}, 422, "", ""),
        ({"status": 400, "text": "column 'x'"}, 400, "column 'x' is unknown", ""),
        ({}, 200, "", "expected to be refused with a 4xx, got 200"),
        ({}, 500, "", "expected to be refused with a 4xx, got 500"),
        ({"status": 400}, 413, "", "expected to be refused with 400, got 413"),
        ({"text": "column 'x'"}, 400, "no", "expected the refusal to say \"column 'x'\", got no"),
    ],
)
def test_what_must_fail_is_refused_as_it_says(raises: dict[str, Any], status: int, text: str, wrong: str) -> None:
    said = fault({"raises": raises}, status, text)
    assert said.startswith(wrong)
    assert bool(said) == bool(wrong)


def test_a_case_is_made_by_its_names() -> None:
    made = Case(name="a", kind="critical", rows=[{}], expect=Expect(exact={"predictions": [1]}))
    assert made.expect.fault(200, {"predictions": [1]}, "") == ""
