"""The caller's client, sync and async, over real HTTP against a gateway that can be told to fail."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from modelyard_serving import call_errors
from modelyard_serving.call_errors import CallFailed, ConnectionLost, Overloaded, Timeout
from modelyard_serving.client import AsyncClient, Client
from modelyard_serving.local_stage import free_port

ROW = {"age": 1.5, "town": "Bonn"}


class Gateway:
    """Answers with what it is told, then well; remembers what it was asked."""

    def __init__(self, serve_app: Callable[[Starlette], int]) -> None:
        self.next: list[Response] = []
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.pause_s = 0.0
        methods = ["GET", "POST"]
        self.url = (
            f"http://127.0.0.1:{serve_app(Starlette(routes=[Route('/{path:path}', self._answer, methods=methods)]))}"
        )

    async def _answer(self, request: Request) -> Response:
        body = await request.body()
        self.asked.append((request.url.path, dict(request.headers), orjson.loads(body) if body else None))
        await asyncio.sleep(self.pause_s)
        if self.next:
            return self.next.pop(0)
        said = {"prediction_id": "a" * 32, "predictions": ["yes"], "version": 2, "accepted": 1, "variants": []}
        return JSONResponse(said, headers={"x-variant": "champion"})


@pytest.fixture
def gateway(serve_app: Callable[[Starlette], int]) -> Gateway:
    return Gateway(serve_app)


class Sync:
    """A client as a caller without an event loop has it."""

    def __call__(self, url: str, what: str, *args: Any, timeout_s: float = 10, **kwargs: Any) -> Any:
        with Client(url, "KEY", timeout_s) as client:
            there = client.model("tumor") if what in ("predict", "results") else client
            return getattr(there, what)(*args, **kwargs)


class Async:
    def __call__(self, url: str, what: str, *args: Any, timeout_s: float = 10, **kwargs: Any) -> Any:
        async def act() -> Any:
            async with AsyncClient(url, "KEY", timeout_s) as client:
                there = client.model("tumor") if what in ("predict", "results") else client
                return await getattr(there, what)(*args, **kwargs)

        return asyncio.run(act())


@pytest.fixture(params=[Sync(), Async()], ids=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_both_clients_send_the_same(gateway: Gateway) -> None:
    for act in (Sync(), Async()):
        answer = act(gateway.url, "predict", [ROW], unit="u1", version=3, idempotency_key="k")
        assert (answer.id, answer.predictions, answer.version, answer.variant) == ("a" * 32, ["yes"], 2, "champion")
        act(gateway.url, "feedback", "a" * 32, truth=["yes"])
        act(gateway.url, "feedback_many", [{"prediction_id": "a" * 32, "reward": 1}])
        act(gateway.url, "results")
    first, second = gateway.asked[:4], gateway.asked[4:]
    for (path, headers, body), (path2, headers2, body2) in zip(first, second, strict=True):
        names = ("authorization", "x-unit-id", "idempotency-key", "content-type")
        assert (path, body, *map(headers.get, names)) == (path2, body2, *map(headers2.get, names))
    path, headers, body = first[0]
    assert (path, body, headers["x-unit-id"]) == ("/v1/endpoints/tumor/versions/3/predict", {"rows": [ROW]}, "u1")
    assert headers["authorization"] == "Bearer KEY"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_passes_is_tried_again_as_the_same_prediction(gateway: Gateway, call: Any, status: int) -> None:
    gateway.next = [JSONResponse({"error": "later"}, status)] * 2
    assert call(gateway.url, "predict", [ROW]).predictions == ["yes"]
    keys = [headers["idempotency-key"] for _, headers, _ in gateway.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    call(gateway.url, "predict", [ROW])
    assert gateway.asked[-1][1]["idempotency-key"] != keys[0], "another call is another prediction"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequest"), (401, "NotAuthenticated"), (403, "NotAllowed"), (404, "NotFound"), (409, "BadRequest"),
     (413, "BadRequest"), (422, "BadRequest"), (500, "ServerFailed")],
)  # fmt: skip
def test_what_stays_is_raised_at_once_as_its_own_class(gateway: Gateway, call: Any, status: int, kind: str) -> None:
    headers = {"x-prediction-id": "b" * 32}
    gateway.next = [JSONResponse({"error": "no", "faults": ["row 0: x is missing"]}, status, headers)]
    with pytest.raises(CallFailed) as raised:
        call(gateway.url, "predict", [ROW])
    error = raised.value
    assert type(error) is getattr(call_errors, kind)
    assert (error.status, error.faults, error.prediction_id) == (status, ["row 0: x is missing"], "b" * 32)
    assert str(error).splitlines() == [f"HTTP {status}: no", *error.faults, f"prediction {'b' * 32}", error.next_step]
    assert len(gateway.asked) == 1


def test_retry_after_is_waited_for(gateway: Gateway, call: Any) -> None:
    gateway.next = [JSONResponse({"error": "slower"}, 429, {"retry-after": "1"})]
    started = time.monotonic()
    call(gateway.url, "predict", [ROW])
    assert time.monotonic() - started >= 1


def test_trying_again_ends_before_the_deadline_with_the_last_error(gateway: Gateway, call: Any) -> None:
    gateway.next = [JSONResponse({"error": "full"}, 503, {"retry-after": "1"})] * 100
    started = time.monotonic()
    with pytest.raises(Overloaded, match="full"):
        call(gateway.url, "predict", [ROW], timeout_s=3)
    assert time.monotonic() - started < 3
    assert 1 < len(gateway.asked) < 5


def test_an_answer_that_does_not_come_is_a_timeout_and_is_not_asked_for_again(gateway: Gateway, call: Any) -> None:
    gateway.pause_s = 1.5
    with pytest.raises(Timeout, match="no answer in time"):
        call(gateway.url, "predict", [ROW], timeout_s=0.5)
    assert len(gateway.asked) == 1


def test_a_gateway_that_is_not_there_is_said(call: Any) -> None:
    with pytest.raises(ConnectionLost, match="Look at the address"):
        call(f"http://127.0.0.1:{free_port()}", "predict", [ROW], timeout_s=1)


def test_a_connection_that_breaks_is_made_again(gateway: Gateway, call: Any) -> None:
    gateway.next = [Response(b"short", headers={"content-length": "999"})]
    assert call(gateway.url, "predict", [ROW]).predictions == ["yes"]
    assert len(gateway.asked) == 2


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([{"a": 1, "b": 2.5}], None),
        (pd.DataFrame({"a": [1], "b": [2.5]}), None),
        (np.array([[1, 2.5]]), ["a", "b"]),
        ([[1, 2.5]], ("a", "b")),
        ([{"a": np.int64(1), "b": np.float32(2.5)}], None),
    ],
)
def test_rows_may_be_records_a_frame_or_a_table_with_columns(gateway: Gateway, rows: Any, columns: Any) -> None:
    Sync()(gateway.url, "predict", rows, columns=columns)
    assert gateway.asked[0][2] == {"rows": [{"a": 1, "b": 2.5}]}


@pytest.mark.parametrize(("rows", "columns"), [([[1, 2]], None), (np.zeros((1, 3)), ["a"]), (np.zeros(3), ["a"])])
def test_rows_that_have_no_names_or_too_many_values_are_refused_here(rows: Any, columns: Any) -> None:
    with pytest.raises(ValueError, match="columns"):
        Sync()("http://127.0.0.1:1", "predict", rows, columns=columns)


def test_importing_the_client_loads_no_pandas_numpy_or_database() -> None:
    script = (
        "import sys, modelyard_serving.client\n"
        "print([n for n in ('pandas', 'numpy', 'pymongo', 'starlette', 'bentoml') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
