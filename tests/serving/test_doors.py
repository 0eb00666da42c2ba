"""One model behind three doors: the same rows, the same numbers, the same strictness, one audit."""

from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pytest

DATATYPES = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "bool": "BOOL", "str": "BYTES"}
NAN, INFINITY, TOO_LARGE = "NaN", "Infinity", "1e999"
Ask = Callable[[Any, list[dict[str, Any]]], httpx.Response]


def native(doors: Any, rows: list[dict[str, Any]]) -> httpx.Response:
    return doors.http.post("/predict", content=orjson.dumps({"rows": rows}))


def v2(doors: Any, rows: list[dict[str, Any]]) -> httpx.Response:
    dtypes = {column.name: DATATYPES[column.dtype] for column in doors.manifest.inputs}
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": dtypes.get(name, "FP64"), "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    return doors.http.post("/v2/models/m/infer", content=orjson.dumps({"inputs": tensors}))


def table(doors: Any, rows: list[dict[str, Any]]) -> httpx.Response:
    document = {"columns": list(rows[0])[::-1], "rows": [list(row.values())[::-1] for row in rows]}
    return doors.http.post("/predict", content=orjson.dumps(document))


def _invocations(document: Any) -> Callable[[Any, Any], httpx.Response]:
    def ask(doors: Any, rows: list[dict[str, Any]]) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return doors.http.post("/invocations", content=orjson.dumps(document(rows)), headers=headers)

    return ask


split = _invocations(
    lambda rows: {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}
)
records = _invocations(lambda rows: {"dataframe_records": rows})
instances = _invocations(lambda rows: {"instances": rows})
inputs = _invocations(lambda rows: {"inputs": {name: [row[name] for row in rows] for name in rows[0]}})
ALL = pytest.mark.parametrize("ask", [native, table, v2, split, records, instances, inputs])


def predictions(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return said["outputs"][0]["data"] if "outputs" in said else said["predictions"]


def error(answer: httpx.Response) -> str:
    """What a refusal says, wherever this door says it; and that it is in this door's own shape."""
    said = answer.json()
    if answer.request.url.path == "/invocations":
        assert set(said) == {"error_code", "message"}
        return str(said["message"])
    assert set(said) == ({"error", "faults"} if answer.request.url.path == "/predict" else {"error"})
    return "; ".join([said["error"], *said.get("faults", ())])


@ALL
@pytest.mark.parametrize("model", ["mixed", "numbers"])
def test_the_golden_rows_get_the_same_answers_at_every_door(request, model: str, ask: Ask) -> None:
    doors = request.getfixturevalue(model)
    golden = doors.golden
    assert predictions(ask(doors, golden.rows)) == doors.native["predictions"] == golden.answers["predict"]
    for number in (0, 5):
        assert (
            predictions(ask(doors, golden.rows[number : number + 1])) == golden.answers["predict"][number : number + 1]
        )


@ALL
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"height": "1.5"}, "rows[1].height: expected a number, got '1.5'"),
        ({"height": None}, "rows[1].height: expected a number, got null"),
        ({"height": True}, "rows[1].height: expected a number, got True"),
        ({"weight": 1e39}, "rows[1].weight: expected a number between"),
        ({"visits": 1.5}, "rows[1].visits: expected a whole number, got 1.5"),
        ({"visits": 2**63}, "rows[1].visits: expected a whole number"),
        ({"smoker": 1}, "rows[1].smoker: expected true or false, got 1"),
        ({"town": 7}, "rows[1].town: expected a text, got 7"),
        ({"town": {"a": 1}}, "rows[1].town: expected a text, got an object"),
    ],
)
def test_a_value_that_does_not_fit_is_named_at_every_door_and_the_model_is_not_asked(
    mixed, ask: Ask, change: dict[str, Any], fault: str
) -> None:
    before = mixed.metric("modelyard_model_calls_total")
    answer = ask(mixed, [mixed.golden.rows[0], {**mixed.golden.rows[1], **change}])
    assert answer.status_code == 400
    assert fault in error(answer)
    assert mixed.metric("modelyard_model_calls_total") == before


@ALL
@pytest.mark.parametrize("literal", [NAN, INFINITY, f"-{INFINITY}", TOO_LARGE])
def test_what_is_no_number_in_json_is_refused_at_every_door(numbers, ask: Ask, literal: str) -> None:
    row = {**numbers.golden.rows[0], "a": 0.123456789}
    sent = ask(numbers, [row]).request
    content = sent.content.replace(b"0.123456789", literal.encode())
    headers = {"content-type": "application/json"}
    answer = numbers.http.post(sent.url.path, content=content, headers=headers)
    assert answer.status_code == 400
    assert error(answer).startswith("the body is not valid JSON")


@ALL
def test_columns_are_neither_missing_nor_unknown_at_any_door(numbers, ask: Ask) -> None:
    row = numbers.golden.rows[0]
    for wrong, fault in (({"a": 1.0, "b": 2.0}, "'c' is missing"), ({**row, "d": 1.0}, "'d' is unknown")):
        answer = ask(numbers, [wrong])
        assert answer.status_code == 400
        assert fault in error(answer)


@ALL
def test_at_most_ten_thousand_rows_are_taken_at_every_door(numbers, ask: Ask) -> None:
    row = {"a": 1, "b": 2, "c": 3}
    assert len(predictions(ask(numbers, [row] * 10_000))) == 10_000
    answer = ask(numbers, [row] * 10_001)
    assert answer.status_code == 400
    assert "send between 1 and 10000 rows, not 10001" in error(answer)


@pytest.mark.parametrize("address", ["/predict", "/v2/models/m/infer", "/invocations"])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"", {}, 400),
        (b"{", {}, 400),
        (b"\xff\xfe", {}, 400),
        (b"null", {}, 400),
        (b"7", {}, 400),
        (b'"text"', {}, 400),
        (b"{}", {}, 400),
        (b"[]", {}, 400),
        (b'{"rows": [], "inputs": []}', {}, 400),
        (b'{"columns": ["a"], "rows": [1]}', {}, 400),
        (b'{"columns": ["a", "a"], "rows": [[1, 2]]}', {}, 400),
        (b'{"columns": "abc", "rows": [[1, 2, 3]]}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (b'{"inputs":' * 2000 + b"1" + b"}" * 2000, {}, 400),
        (b" " * (10 * 2**20 + 1), {}, 413),
        (b"\x1f\x8b\x08\x00", {"content-encoding": "gzip"}, 400),
    ],
)
def test_a_body_that_is_no_question_is_refused_in_the_doors_own_words(
    numbers, address: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    before = numbers.metric("modelyard_model_calls_total")
    answer = numbers.http.post(address, content=body, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status
    key = "message" if address == "/invocations" else "error"
    assert len(answer.json()[key]) > 10
    assert numbers.metric("modelyard_model_calls_total") == before


@pytest.mark.parametrize(
    ("address", "key"), [("/predict", "error"), ("/v2/models/m/infer", "error"), ("/invocations", "message")]
)
def test_the_wrong_method_is_answered_in_the_doors_own_words(numbers, address: str, key: str) -> None:
    answer = numbers.http.request("DELETE", address)
    assert answer.status_code == 405
    assert answer.json()[key] == "Method Not Allowed"


def test_every_door_says_by_headers_what_answered(numbers) -> None:
    for ask in (native, v2, records):
        headers = ask(numbers, numbers.golden.rows).headers
        assert len(headers["x-prediction-id"]) == 32
        assert headers["x-model-version"] == "1"
        assert headers["x-model-digest"] == f"sha256:{numbers.manifest.model_sha256}"


# Metrics


def test_metrics_count_each_request_by_its_door_and_status(numbers) -> None:
    doors = [("native", native), ("v2", v2), ("invocations", records)]
    for name, ask in doors:
        before = {
            status: numbers.metric("modelyard_requests_total", door=name, status=status) for status in ("200", "400")
        }
        timed = numbers.metric("modelyard_request_duration_seconds_count", door=name)
        ask(numbers, numbers.golden.rows)
        ask(numbers, [{"a": 1}])
        for status, count in before.items():
            assert numbers.metric("modelyard_requests_total", door=name, status=status) == count + 1
        assert numbers.metric("modelyard_request_duration_seconds_count", door=name) == timed + 2


def test_metrics_count_the_rows_and_the_times_the_model_was_asked(numbers) -> None:
    calls, rows = numbers.metric("modelyard_model_calls_total"), numbers.metric("modelyard_rows_total")
    v2(numbers, numbers.golden.rows)
    assert numbers.metric("modelyard_model_calls_total") == calls + 1
    assert numbers.metric("modelyard_rows_total") == rows + len(numbers.golden.rows)
