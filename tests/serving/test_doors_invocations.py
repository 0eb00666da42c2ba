"""MLflow's scoring protocol: what it takes beside the forms that every door is compared in, and what it refuses."""

from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

JSON = "application/json"
ROW = {"a": 1.0, "b": 2.0, "c": 3.0}
SPLIT = {"columns": ["a", "b", "c"], "data": [[1.0, 2.0, 3.0]]}


def invoke(doors: Any, document: Any, content_type: str = JSON) -> httpx.Response:
    content = document if isinstance(document, bytes | str) else orjson.dumps(document)
    return doors.http.post("/invocations", content=content, headers={"content-type": content_type})


def predictions(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    assert list(answer.json()) == ["predictions"]
    return answer.json()["predictions"]


def test_a_classifier_answers_what_predict_gives_and_no_probabilities(mixed) -> None:
    assert predictions(invoke(mixed, {"dataframe_records": mixed.golden.rows})) == mixed.golden.answers["predict"]


def test_ping_health_and_version_answer_as_mlflows_server_does(numbers) -> None:
    for address in ("/ping", "/health"):
        answer = numbers.http.get(address)
        assert (answer.status_code, answer.text) == (200, "\n")
    assert numbers.http.get("/version").headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        ({"dataframe_split": {**SPLIT, "index": [7]}}, JSON),
        ({"dataframe_split": {"columns": ["c", "b", "a"], "data": [[3.0, 2.0, 1.0]]}}, JSON),
        ({"dataframe_split": SPLIT, "params": {}}, JSON),
        ({"dataframe_split": SPLIT, "params": None}, JSON),
        ({"dataframe_split": SPLIT}, "application/json; charset=utf-8"),
        ({"dataframe_split": SPLIT}, "Application/JSON;charset=UTF-8"),
        ({"inputs": [ROW]}, JSON),
        ("a,b,c\n1.0,2.0,3.0\n", "text/csv"),
        ("c,b,a\r\n3,2.,+1e0\r\n", "text/csv; charset=utf-8"),
        ('"a","b",c\n"1.0",2.0,.3e1', "text/csv"),
        (pd.DataFrame([ROW]).to_csv(index=False), "text/csv"),
        (pd.DataFrame([ROW]).to_csv(), "text/csv"),
    ],
)
def test_each_form_of_the_same_row_gets_the_same_answer(numbers, document, content_type: str) -> None:
    wanted = numbers.http.post("/predict", json={"rows": [ROW]}).json()["predictions"]
    assert predictions(invoke(numbers, document, content_type)) == wanted


def test_a_frame_of_every_type_comes_back_from_csv_as_it_was(mixed) -> None:
    frame = pd.DataFrame(mixed.golden.rows)
    for text in (frame.to_csv(), frame.to_csv(index=False)):
        assert predictions(invoke(mixed, text, "text/csv")) == mixed.golden.answers["predict"]


def test_a_model_of_one_column_takes_bare_values(open_doors) -> None:
    frame = pd.DataFrame({"x": np.arange(5.0)})
    doors = open_doors(LinearRegression().fit(frame, frame["x"] * 2), frame)
    for document in ({"inputs": [1.0, 2.0]}, {"instances": [1.0, 2.0]}, {"inputs": {"x": [1.0, 2.0]}}):
        assert predictions(invoke(doors, document)) == pytest.approx([2.0, 4.0])


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ([ROW], "send an object with exactly one of the keys dataframe_split, dataframe_records, instances, inputs"),
        ({}, "exactly one of the keys"),
        ({"dataframe_split": SPLIT, "inputs": [ROW]}, "exactly one of the keys"),
        ({"messages": []}, "exactly one of the keys"),
        ({"dataframe_split": SPLIT, "more": 1}, "the key 'more' is unknown"),
        ({"dataframe_split": SPLIT, "params": {"a": 1}}, "this model takes no params"),
        ({"dataframe_split": [ROW]}, "dataframe_split must be an object"),
        ({"dataframe_split": {**SPLIT, "dtype": "f8"}}, "dataframe_split must be an object"),
        ({"dataframe_split": {"data": [[1.0, 2.0, 3.0]]}}, "dataframe_split wants columns"),
        ({"dataframe_split": {"columns": ["a", "b", 3], "data": []}}, "dataframe_split wants columns"),
        ({"dataframe_split": {"columns": ["a", "b", "c"]}}, "dataframe_split wants data"),
        ({"dataframe_split": {**SPLIT, "data": []}}, "send between 1 and 10000 rows, not 0"),
        ({"dataframe_split": {**SPLIT, "data": [[1.0, 2.0]]}}, "dataframe_split.data[0]: expected 3 values"),
        ({"dataframe_split": {**SPLIT, "data": [ROW]}}, "dataframe_split.data[0]: expected 3 values"),
        ({"dataframe_split": {**SPLIT, "columns": ["a", "a", "b"]}}, "the column 'a' is there more than once"),
        ({"dataframe_records": ROW}, "dataframe_records must be a list"),
        ({"dataframe_records": [[1.0, 2.0, 3.0]]}, "rows[0]: expected an object of columns, got a list"),
        ({"dataframe_records": []}, "send between 1 and 10000 rows, not 0"),
        ({"instances": {"a": [1.0]}}, "instances must be a list"),
        ({"instances": [[1.0, 2.0, 3.0]]}, "this model's columns have names"),
        ({"inputs": [[1.0, 2.0, 3.0]]}, "this model's columns have names"),
        ({"inputs": 7}, "inputs must be an object of columns"),
        ({"inputs": {"a": 1.0, "b": 2.0, "c": 3.0}}, "each column of inputs must be a list"),
        ({"inputs": {"a": [1.0], "b": [2.0], "c": [3.0, 4.0]}}, "the columns of inputs have from 1 to 2 values"),
        ({"inputs": {}}, "send between 1 and 10000 rows, not 0"),
    ],
)
def test_what_is_no_frame_is_refused_with_what_is_and_the_model_is_not_asked(numbers, document, fault: str) -> None:
    calls = numbers.metric("modelyard_model_calls_total")
    answer = invoke(numbers, document)
    assert answer.status_code == 400, answer.text
    said = answer.json()
    assert said["error_code"] in ("BAD_REQUEST", "INVALID_PARAMETER_VALUE")
    assert fault in said["message"]
    assert numbers.metric("modelyard_model_calls_total") == calls


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "the body is empty"),
        (b"\n\n", "the body is empty"),
        (b"a,b,c\n", "send between 1 and 10000 rows, not 0"),
        (b"a,b,c\n" + b"1,2,3\n" * 10_001, "send between 1 and 10000 rows, not more"),
        (b"a,b,c\n1,2\n", "line 2: expected 3 values, as there are columns, got 2 values"),
        (b"a,b,c\n1,2,3\n1,2,3,4\n", "line 3: expected 3 values, as there are columns, got 4 values"),
        (b"a,b,b\n1,2,3\n", "the column 'b' is there more than once"),
        (b",".join(b"x%d" % n for n in range(24)) + b"\n1", "24 columns are too many, the model takes 3"),
        (b"a,b\n1,2\n", "column 'c' is missing"),
        (b"a,b,c,d\n1,2,3,4\n", "column 'd' is unknown"),
        (b"a,b,c\n1,,3\n", "rows[0].b: expected a number, got ''"),
        (b"a,b,c\n1,nan,3\n", "rows[0].b: expected a number, got 'nan'"),
        (b"a,b,c\n1,inf,3\n", "rows[0].b: expected a number, got 'inf'"),
        (b"a,b,c\n1,1e999,3\n", "rows[0].b: expected a number, got inf"),
        (b"a,b,c\n1,1_0,3\n", "rows[0].b: expected a number, got '1_0'"),
        (b"a,b,c\n1,True,3\n", "rows[0].b: expected a number, got 'True'"),
        ("a,b,c\n1,\N{ARABIC-INDIC DIGIT ONE},3\n".encode(), "rows[0].b: expected a number"),
        (b'a,b,c\n1,"2,3\n', "the body is not valid CSV"),
        (b'a,b,c\n1,"2"x,3\n', "the body is not valid CSV"),
        (b"a,b,c\n1,\xff,3\n", "the body is not UTF-8"),
        (b"a,b,c\n1," + b"1" * 200_000 + b",3\n", "the body is not valid CSV: field larger than"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused_with_its_place(numbers, text: bytes, fault: str) -> None:
    answer = invoke(numbers, text, "text/csv")
    assert answer.status_code == 400, answer.text
    assert fault in answer.json()["message"]


@pytest.mark.parametrize("number", ["1.0", "9223372036854775808", "99999999999999999999", "x"])
def test_a_text_that_is_no_whole_number_is_none_in_csv(mixed, number: str) -> None:
    frame = pd.DataFrame(mixed.golden.rows[:1]).astype({"visits": object})
    frame.loc[0, "visits"] = number
    answer = invoke(mixed, frame.to_csv(index=False), "text/csv")
    assert answer.status_code == 400
    assert "rows[0].visits: expected a whole number" in answer.json()["message"]


@pytest.mark.parametrize(
    "content_type",
    ["", "application/csv", "application/vnd.apache.parquet", "text/plain", "application/json; charset=latin-1",
     "application/json; pandas=split", "text/csv;charset=utf-16"],
)  # fmt: skip
def test_another_content_type_is_refused_in_plain_text_as_mlflow_does(numbers, content_type: str) -> None:
    answer = invoke(numbers, {"dataframe_split": SPLIT}, content_type)
    assert answer.status_code == 415
    assert answer.headers["content-type"].startswith("text/plain")
    assert "send" in answer.text
