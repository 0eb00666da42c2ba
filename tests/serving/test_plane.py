"""Behind the doors: who is answered, what is recorded, and what happens where that cannot be."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from starlette.applications import Starlette

from metrics_page import value_of
from modelyard_serving.manifest import AuditPlan, Column, Manifest
from modelyard_serving.runtime.app import create_app, start, stop
from packed import pack

FRAME = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
ROWS = FRAME.head(2).to_dict("records")
SECRET = {"x-gateway-secret": "s3cret"}
SAID = {
    "x-caller": "alice", "x-key-id": "key-1", "x-unit-id": "patient-7", "x-assigned-by": "unit", "x-bucket": "42",
    "x-endpoint": "tumor", "x-variant": "champion", "x-epoch": "3", "x-request-id": "r-1",
}  # fmt: skip


def bodies(rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """The same rows, for each door's address."""
    tensors = [
        {"name": name, "shape": [len(rows)], "datatype": "FP64", "data": [row[name] for row in rows]}
        for name in rows[0]
    ]
    return {
        "/predict": orjson.dumps({"rows": rows}),
        "/v2/models/m/infer": orjson.dumps({"inputs": tensors}),
        "/invocations": orjson.dumps({"dataframe_records": rows}),
    }


class Behind:
    """A model that answers only its gateway, and what it has recorded."""

    def __init__(self, app: Starlette, http: httpx.Client, audit: Path) -> None:
        self.app, self.http, self.audit = app, http, audit

    def ask(self, rows: Any = None, path: str = "/predict", **headers: str) -> httpx.Response:
        said = {
            "content-type": "application/json",
            **SECRET,
            **SAID,
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return self.http.post(path, content=bodies(ROWS if rows is None else rows)[path], headers=said)

    def records(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for file in self.audit.glob("*.jsonl") for line in file.read_bytes().splitlines()]

    def metric(self, name: str, **labels: str) -> float:
        return value_of(self.http.get("/metrics").text, name, **labels)


Make = Callable[..., Behind]


@pytest.fixture
def make(tmp_path: Path, monkeypatch, serve_app: Callable[[Starlette], int]) -> Iterator[Make]:
    """Serve a regressor over three columns, as its manifest says."""
    made: list[Behind] = []

    def make_(model: Any = None, columns: tuple[Column, ...] = (), **more: Any) -> Behind:
        folder = tmp_path / "bento"
        (folder / "model").mkdir(parents=True)
        manifest = pack(folder, model or LinearRegression().fit(FRAME, FRAME.sum(axis=1)), FRAME.head(4), **more)
        if columns:
            declared = orjson.loads(manifest.to_json()) | {"inputs": [orjson.loads(orjson.dumps(c)) for c in columns]}
            (folder / "manifest.json").write_bytes(Manifest.from_json(orjson.dumps(declared)).to_json())
        (tmp_path / "secret").write_text("s3cret\n")
        monkeypatch.setenv("YARD_GATEWAY_SECRET_FILE", str(tmp_path / "secret"))
        monkeypatch.setenv("YARD_AUDIT_DIR", str(tmp_path / "audit"))
        app = create_app(folder)
        start(app)
        made.append(
            Behind(app, httpx.Client(base_url=f"http://127.0.0.1:{serve_app(app)}", timeout=30), tmp_path / "audit")
        )
        return made[-1]

    yield make_
    for behind in made:
        behind.http.close()
        stop(behind.app)


@pytest.mark.parametrize("path", bodies(ROWS))
def test_what_is_answered_at_any_door_is_in_the_audit_with_who_asked_what(make: Make, path: str) -> None:
    behind = make()
    answer = behind.ask(path=path)
    [record] = behind.records()
    assert record["_id"] == answer.headers["x-prediction-id"]
    assert pd.DataFrame(**record["inputs"]).equals(pd.DataFrame(ROWS))
    assert record["outputs"] == {"predictions": pytest.approx(FRAME.head(2).sum(axis=1).tolist())}
    said = {"caller": "alice", "key": "key-1", "unit": "patient-7", "assigned_by": "unit", "bucket": 42,
            "endpoint": "tumor", "variant": "champion", "epoch": 3, "request_id": "r-1", "shadow": False,
            "model": "m", "version": 1, "status": 200, "error": None}  # fmt: skip
    assert said.items() <= record.items()


@pytest.mark.parametrize("path", bodies(ROWS))
def test_what_is_refused_at_any_door_is_in_the_audit_with_the_reason(make: Make, path: str) -> None:
    behind = make()
    assert behind.ask([{"a": 1}], path).status_code == 400
    [record] = behind.records()
    assert (record["status"], record["outputs"]) == (400, None)
    assert "do not fit the model's inputs" in record["error"]


@pytest.mark.parametrize("path", bodies(ROWS))
def test_no_door_answers_whoever_did_not_come_through_the_gateway(make: Make, path: str) -> None:
    behind = make()
    for secret in ("", "s3cre", "s3cret2", "S3CRET"):
        answer = behind.ask(path=path, x_gateway_secret=secret)
        assert answer.status_code == 403
        assert "only through its gateway" in answer.text
    assert behind.records() == []


def test_a_copy_of_a_request_is_recorded_as_a_shadows(make: Make) -> None:
    behind = make()
    behind.ask(x_shadow="1")
    assert behind.records()[0]["shadow"] is True


def test_columns_that_are_not_to_be_recorded_are_not_and_the_model_sees_them_all_the_same(make: Make) -> None:
    behind = make(audit=AuditPlan(redact=("b",)))
    answer = behind.ask()
    assert answer.json()["predictions"] == pytest.approx(FRAME.head(2).sum(axis=1).tolist())
    behind.ask([{"a": 1, "b": "a secret"}])
    behind.http.post("/predict", content=b'{"rows": ["a secret"]}', headers=SECRET)
    answered, refused, strange = behind.records()
    assert [row[1] for row in answered["inputs"]["data"]] == ["(redacted)"] * 2
    assert refused["inputs"] == [{"a": 1, "b": "(redacted)"}]
    assert strange["inputs"] == [None]
    assert not any(b"a secret" in file.read_bytes() for file in behind.audit.glob("*.jsonl"))


def test_how_long_a_record_is_kept_travels_with_it(make: Make) -> None:
    behind = make(audit=AuditPlan(retention_days=30))
    behind.ask()
    assert behind.records()[0]["retention_days"] == 30


class Full:
    """In the place of a disk that takes nothing."""

    def append(self, _: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        pass


def test_without_a_record_there_is_no_answer(make: Make) -> None:
    behind = make()
    behind.app.state.plane.audit = Full()
    answer = behind.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "predictions" not in answer.json()


def test_where_a_project_says_so_what_could_not_be_recorded_is_answered_and_counted(make: Make) -> None:
    behind = make(audit=AuditPlan(when_full="count"))
    behind.app.state.plane.audit = Full()
    assert behind.ask().json()["predictions"] == pytest.approx(FRAME.head(2).sum(axis=1).tolist())
    assert behind.metric("modelyard_unaudited_total") == 1


def test_the_same_request_with_an_idempotency_key_is_the_same_prediction(make: Make) -> None:
    behind = make()
    ids = [
        behind.ask(idempotency_key="k-1").headers["x-prediction-id"],
        behind.ask(idempotency_key="k-1").headers["x-prediction-id"],
        behind.ask(idempotency_key="k-2").headers["x-prediction-id"],
        behind.ask(ROWS[:1], idempotency_key="k-1").headers["x-prediction-id"],
        behind.ask(idempotency_key="k-1", x_caller="bob").headers["x-prediction-id"],
        behind.ask().headers["x-prediction-id"],
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 5
    assert all(len(each) == 32 for each in ids)


def test_refused_rows_that_are_nested_too_deeply_to_be_written_are_refused_for_what_they_are(make: Make) -> None:
    behind = make()
    answer = behind.http.post("/predict", content=b'{"rows": [' + b"[" * 600 + b"]" * 600 + b"]}", headers=SECRET)
    assert answer.status_code == 400
    [record] = behind.records()
    assert (record["status"], record["inputs"]) == (400, None)


def test_a_number_outside_of_its_declared_range_is_refused_with_the_bounds(make: Make) -> None:
    columns = (Column("a", "float64", -9, 9), Column("b", "float64", None, 9), Column("c", "float64"))
    behind = make(columns=columns)
    assert behind.ask([{"a": 9, "b": -1e9, "c": 1e9}]).status_code == 200
    answer = behind.ask([{"a": -9.5, "b": 10, "c": 0}])
    assert answer.status_code == 400
    assert answer.json()["faults"] == [
        "rows[0].a: expected at least -9 and at most 9, got -9.5",
        "rows[0].b: expected at most 9, got 10",
    ]


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(make: Make) -> None:
    port = make().http.base_url.port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(
            b"POST /predict HTTP/1.1\r\nhost: x\r\nx-gateway-secret: s3cret\r\ncontent-length: 1073741824\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_an_answer_that_is_no_finite_number_fails_its_own_request_and_is_counted(make: Make) -> None:
    behind = make()
    huge = [{"a": 1.7e308, "b": 1.7e308, "c": 0.0}]
    answer = behind.ask(huge)
    assert answer.status_code == 500
    assert "not a finite number" in answer.json()["error"]
    assert behind.metric("modelyard_bad_answers_total") == 1
    assert behind.ask().status_code == 200


def test_nobody_is_taken_at_their_word_where_there_is_no_gateway(make: Make) -> None:
    behind = make()
    behind.app.state.plane._secret = None
    behind.ask()
    assert {behind.records()[0][name] for name in ("caller", "unit", "variant", "bucket")} == {None}
