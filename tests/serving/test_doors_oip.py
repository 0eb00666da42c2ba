"""The Open Inference Protocol: its addresses, its forms of tensors, and what it refuses."""

import struct
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

MODEL = "/v2/models/m"
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def infer(doors: Any, document: Any, address: str = f"{MODEL}/infer", **headers: str) -> httpx.Response:
    return doors.http.post(address, content=orjson.dumps(document), headers=headers)


def tensor(name: str, data: list[Any], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(data)], "datatype": datatype, "data": data, **more}


def columns(**changed: Any) -> list[dict[str, Any]]:
    """The tensors of ROWS; one is given otherwise, or left out by None."""
    made = {name: tensor(name, list(data)) for name, data in zip("abc", zip(*ROWS, strict=True), strict=True)}
    return [each for each in (made | changed).values() if each is not None]


def table(**changed: Any) -> dict[str, Any]:
    return {"name": "input-0", "shape": [2, 3], "datatype": "FP64", "data": ROWS, **changed}


def output(answer: httpx.Response, number: int = 0) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["outputs"][number])


# What is there


def test_server_and_health_are_told_as_the_protocol_says(numbers) -> None:
    said = numbers.http.get("/v2").json()
    assert said["name"] == "modelyard"
    assert said["version"]
    assert said["extensions"] == ["binary_tensor_data"]
    assert numbers.http.get("/v2/health/live").json() == {"live": True}
    assert numbers.http.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("address", [MODEL, f"{MODEL}/versions/1"])
def test_a_model_is_described_by_the_tensors_it_takes_and_gives(mixed, address: str) -> None:
    assert mixed.http.get(address).json() == {
        "name": "m",
        "versions": ["1"],
        "platform": "sklearn_mlflow",
        "inputs": [
            {"name": "height", "datatype": "FP64", "shape": [-1]},
            {"name": "weight", "datatype": "FP32", "shape": [-1]},
            {"name": "visits", "datatype": "INT64", "shape": [-1]},
            {"name": "smoker", "datatype": "BOOL", "shape": [-1]},
            {"name": "town", "datatype": "BYTES", "shape": [-1]},
        ],
        "outputs": [
            {"name": "predictions", "datatype": "BYTES", "shape": [-1]},
            {
                "name": "probabilities",
                "datatype": "FP64",
                "shape": [-1, 2],
                "parameters": {"classes": ["ja", "nein"]},
            },
        ],
    }
    assert mixed.http.get(f"{address}/ready").json() == {"name": "m", "ready": True}


def test_a_regressor_gives_floats(numbers) -> None:
    assert numbers.http.get(MODEL).json()["outputs"] == [{"name": "predictions", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("/v2/models/other", "there is no model 'other' here, only 'm'"),
        ("/v2/models/m/versions/2", "there is no version '2' of 'm' here, only 1"),
    ],
)
def test_another_model_or_version_is_not_found(numbers, address: str, fault: str) -> None:
    calls = numbers.metric("modelyard_model_calls_total")
    answers = [numbers.http.get(address), numbers.http.get(f"{address}/ready")]
    answers.append(infer(numbers, {"inputs": columns()}, f"{address}/infer"))
    for answer in answers:
        assert answer.status_code == 404
        assert answer.json() == {"error": fault}
    assert numbers.metric("modelyard_model_calls_total") == calls


def test_an_address_that_the_protocol_does_not_have_is_not_found_in_its_own_words(numbers) -> None:
    answer = numbers.http.post("/v2/repository/index")
    assert answer.status_code == 404
    assert answer.json() == {"error": "nothing answers a POST of '/v2/repository/index'"}


# Forms of a question


@pytest.mark.parametrize(
    "inputs",
    [
        columns(),
        columns(b={**tensor("b", [[2.0], [5.0]]), "shape": [2, 1]}),
        columns(b={**tensor("b", [2.0, 5.0]), "shape": [2, 1]}),
        columns(b=tensor("b", [2, 5])),
        columns()[::-1],
        columns(b=tensor("b", [2.0, 5.0], parameters={"content_type": "np"})),
        [table()],
        [table(data=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
        [table(parameters={"content_type": "np", "anything": 7})],
    ],
    ids=["flat", "nested", "flat of two dimensions", "whole numbers", "other order", "content type", "table",
         "flat table", "table of MLServer"],
)  # fmt: skip
def test_each_form_of_the_same_rows_gets_the_same_answer(numbers, inputs: list[Any]) -> None:
    wanted = numbers.http.post("/predict", json={"rows": [dict(zip("abc", row, strict=True)) for row in ROWS]}).json()
    answer = infer(numbers, {"inputs": inputs, "parameters": {"content_type": "pd"}})
    assert output(answer) == {
        "name": "predictions", "shape": [2], "datatype": "FP64", "data": wanted["predictions"]
    }  # fmt: skip


def test_the_answer_names_model_version_and_the_callers_own_id(numbers) -> None:
    answer = infer(numbers, {"id": "mine", "inputs": columns()}, f"{MODEL}/versions/1/infer")
    said = answer.json()
    assert (said["id"], said["model_name"], said["model_version"]) == ("mine", "m", "1")
    assert said["parameters"] == {"prediction_id": answer.headers["x-prediction-id"]}


def test_who_sends_no_id_gets_the_predictions(numbers) -> None:
    answer = infer(numbers, {"inputs": columns()})
    assert answer.json()["id"] == answer.headers["x-prediction-id"]


def test_only_the_outputs_that_are_asked_for_are_given(mixed) -> None:
    dtypes = {column["name"]: column["datatype"] for column in mixed.http.get(MODEL).json()["inputs"]}
    row = mixed.golden.rows[0]
    inputs = [tensor(name, [value], dtypes[name]) for name, value in row.items()]
    both = infer(mixed, {"inputs": inputs}).json()["outputs"]
    assert [each["name"] for each in both] == ["predictions", "probabilities"]
    assert both[0]["datatype"] == "BYTES"
    assert both[1]["shape"] == [1, 2]
    assert both[1]["data"] == mixed.native["probabilities"][0]
    asked = {"inputs": inputs, "outputs": [{"name": "probabilities"}]}
    assert infer(mixed, asked).json()["outputs"] == both[1:]


# Triton's bytes


def binary(doors: Any, document: dict[str, Any], raw: bytes, length: str | None = None) -> httpx.Response:
    header = orjson.dumps(document)
    headers = {"inference-header-content-length": str(len(header)) if length is None else length}
    return doors.http.post(f"{MODEL}/infer", content=header + raw, headers=headers)


def _bytes_of(name: str, raw: bytes, datatype: str = "FP64", shape: tuple[int, ...] = (2,)) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(raw)}}


def test_bytes_and_json_may_be_mixed_and_are_answered_as_they_are_asked_for(numbers) -> None:
    raw = np.array([2.0, 5.0]).tobytes()
    inputs = columns(b=_bytes_of("b", raw))
    wanted = output(infer(numbers, {"inputs": columns()}))["data"]
    assert output(binary(numbers, {"inputs": inputs}, raw))["data"] == wanted
    answer = binary(numbers, {"inputs": inputs, "parameters": {"binary_data_output": True}}, raw)
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    [said] = orjson.loads(answer.content[:length])["outputs"]
    assert said["parameters"] == {"binary_data_size": len(answer.content) - length}
    assert np.frombuffer(answer.content[length:], "<f8").tolist() == wanted


def test_a_nan_in_bytes_is_a_fault_of_its_row(numbers) -> None:
    raw = np.array([2.0, np.nan]).tobytes()
    answer = binary(numbers, {"inputs": columns(b=_bytes_of("b", raw))}, raw)
    assert answer.status_code == 400
    assert "rows[1].b: expected a number, got nan" in answer.json()["error"]


@pytest.mark.parametrize(
    ("raw", "claimed", "length", "fault"),
    [
        (b"\0" * 16, {}, "-1", "Inference-Header-Content-Length is '-1'"),
        (b"\0" * 16, {}, "9" * 5000, "Inference-Header-Content-Length is"),
        (b"\0" * 16, {}, "99999", "Inference-Header-Content-Length is '99999'"),
        (b"\0" * 15, {"parameters": {"binary_data_size": 15}}, None, "15 bytes, and 2 values of FP64 are 16"),
        (b"\0" * 16, {"parameters": {"binary_data_size": 17}}, None, "binary_data_size is 17, and 16 bytes are left"),
        (b"\0" * 16, {"parameters": {"binary_data_size": -1}}, None, "binary_data_size is -1"),
        (b"\0" * 16, {"parameters": {"binary_data_size": "16"}}, None, "binary_data_size is '16'"),
        (b"\0" * 17, {}, None, "1 bytes behind the JSON belong to no tensor"),
        (b"\0" * 16, {"data": [1.0, 2.0]}, None, "both data and a binary_data_size"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(
    numbers, raw: bytes, claimed: dict[str, Any], length: Any, fault: str
) -> None:
    inputs = columns(b={**_bytes_of("b", b"\0" * 16), **claimed})
    answer = binary(numbers, {"inputs": inputs}, raw, length)
    assert answer.status_code == 400
    assert fault in answer.json()["error"]


@pytest.mark.parametrize(
    ("name", "datatype", "raw", "fault"),
    [
        ("smoker", "BOOL", b"\x02", "a byte is neither 0 nor 1"),
        ("town", "BYTES", struct.pack("<I", 9) + b"Bonn", "the bytes end within the text number 0"),
        ("town", "BYTES", b"\1\0", "the bytes end within the text number 0"),
        ("town", "BYTES", struct.pack("<I", 1) + b"\xff", "the text number 0 is no UTF-8"),
        ("town", "BYTES", struct.pack("<I", 0) * 2, "the 8 bytes do not hold 1 texts"),
        ("town", "BYTES", b"", "the 0 bytes do not hold 1 texts"),
    ],
)
def test_bytes_that_are_no_values_are_refused(mixed, name: str, datatype: str, raw: bytes, fault: str) -> None:
    answer = binary(mixed, {"inputs": [_bytes_of(name, raw, datatype, (1,))]}, raw)
    assert answer.status_code == 400
    assert fault in answer.json()["error"]


# What is refused


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"inputs": []}, "send {"),
        ({"inputs": {}}, "the body: inputs must be a list of objects"),
        ({"inputs": [7]}, "the body: inputs must be a list of objects"),
        ({"inputs": columns(), "rows": []}, "the body: the key 'rows' is unknown; known are id, inputs"),
        ({"inputs": columns(), "id": 7}, "the body: the id must be a text"),
        ({"inputs": columns(), "parameters": []}, "the body: parameters must be an object"),
        ({"inputs": columns(), "parameters": {"a": {}}}, "the body: parameters must be an object of texts"),
        ({"inputs": columns(), "parameters": {"sequence_id": 1}}, "no parameter 'sequence_id'; leave it out"),
        ({"inputs": columns(), "parameters": {"content_type": "pil"}}, "must be one of np, pd, str, not pil"),
        ({"inputs": columns(), "outputs": {}}, "outputs: outputs must be a list of objects"),
        ({"inputs": columns(), "outputs": [{"name": "probabilities"}]}, "no output 'probabilities', only"),
        ({"inputs": columns(), "outputs": [{}]}, "no output 'None'"),
        (
            {"inputs": columns(), "outputs": [{"name": "predictions", "parameters": {"classification": 2}}]},
            "no parameter 'classification'",
        ),
        ({"inputs": columns() * 8}, "24 tensors are too many, the model takes 3"),
        ({"inputs": columns(b=None)}, "tensor 'b' is missing"),
        ({"inputs": [*columns(), tensor("b", [2.0, 5.0])]}, "tensor 'b' is there 2 times"),
        ({"inputs": [*columns(), tensor("d", [2.0, 5.0])]}, "tensor 'd' is unknown"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], "FP32"))}, "tensor 'b' is FP32, expected FP64"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], "FP16"))}, "the datatype must be one of FP64, FP32"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], shape=[3]))}, "data has 2 values, and the shape is [3]"),
        ({"inputs": columns(b=tensor("b", [2.0]))}, "the tensors have from 1 to 2 rows; give each as many"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], shape=[2, 1, 1]))}, "the shape must be"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], shape=[True, 2]))}, "the shape must be"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], shape="2"))}, "the shape must be"),
        ({"inputs": columns(b=tensor("b", [], shape=[-2]))}, "send between 1 and 10000 rows, not -2"),
        ({"inputs": columns(b=tensor("b", [], shape=[0]))}, "send between 1 and 10000 rows, not 0"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0, 2.0, 5.0], shape=[2, 2]))}, "has the shape [2, 2], expected"),
        ({"inputs": columns(b=tensor("b", [[2.0], [5.0, 6.0]], shape=[2, 1]))}, "data has a row of 2 values"),
        ({"inputs": columns(b=tensor("b", [], shape=[2, -1]))}, "data has 0 values, and the shape is [2, -1]"),
        ({"inputs": columns(b=tensor("b", [[[2.0]], [[5.0]]]))}, "rows[0].b: expected a number, got a list"),
        ({"inputs": columns(b={"shape": [2], "datatype": "FP64", "data": []})}, "inputs[1]: the name must be a text"),
        ({"inputs": columns(b=tensor("b", "ab"))}, "inputs[1]: data must be a list"),
        ({"inputs": columns(b=tensor("b", [2.0, 5.0], values=[1]))}, "inputs[1]: the key 'values' is unknown"),
        ({"inputs": [table(shape=[3, 2], data=[1.0] * 6)]}, "tensor 'input-0' is FP64 [3, 2], expected FP64 [n, 3]"),
        ({"inputs": [table(datatype="FP32")]}, "tensor 'input-0' is FP32 [2, 3], expected FP64 [n, 3]"),
        ({"inputs": [table(name="a")]}, "tensor 'a' has the shape [2, 3], expected [n] or [n, 1]"),
        ({"inputs": [table(), table()]}, "tensor 'input-0' is unknown"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_does_and_the_model_is_not_asked(numbers, document, fault: str) -> None:
    calls = numbers.metric("modelyard_model_calls_total")
    answer = infer(numbers, document)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert fault in answer.json()["error"]
    assert numbers.metric("modelyard_model_calls_total") == calls


def test_a_table_is_only_for_columns_of_one_type_of_number(mixed) -> None:
    answer = infer(mixed, {"inputs": [table(shape=[2, 5], data=[0.0] * 10)]})
    assert answer.status_code == 400
    assert "tensor 'height' is missing" in answer.json()["error"]


def test_all_tensors_that_do_not_fit_are_named_at_once(numbers) -> None:
    answer = infer(numbers, {"inputs": columns(a=tensor("a", [1.0, 2.0], "FP32"), b=None, d=tensor("d", [1.0, 2.0]))})
    error = answer.json()["error"]
    assert all(fault in error for fault in ("'a' is FP32", "'b' is missing", "'d' is unknown"))
