"""The doors of a real bento, served by the command that deployment uses, two of them on one machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from metrics_page import value_of
from modelyard_build.bento import Bento, package
from modelyard_build.environment import serving_wheel
from modelyard_build.served import Served, serve, wait_until_ready
from modelyard_serving.local_stage import free_port, serving_env
from places import REPOSITORY

pytestmark = pytest.mark.system

Start = Callable[[], AbstractContextManager[Served]]
CALLS = "modelyard_model_calls_total"


@pytest.fixture(scope="module")
def start(numbers: Any, tmp_path_factory: pytest.TempPathFactory) -> Start:
    """Serve the bento of `numbers`, in the environment of these tests."""
    home = tmp_path_factory.mktemp("yard")
    (home / "wheel").mkdir()
    wheel, lock = serving_wheel(home / "wheel"), REPOSITORY / "requirements.lock"
    model, at = numbers.folder / "model", datetime(2026, 1, 1, tzinfo=UTC)
    bento: Bento = package(numbers.manifest, model, lock, wheel, {}, at, home / "bentoml", "0" * 64)
    return lambda: serve(bento.path, Path(sys.prefix), home)


@pytest.fixture(scope="module")
def bento(start: Start) -> Iterator[Served]:
    with start() as served:
        yield served


def metric(served: Served, name: str, **labels: str) -> float:
    return value_of(served.http.get("/metrics").text, name, **labels)


def _ask(served: Served, rows: list[dict[str, Any]]) -> None:
    """At each door once; none is a row that fits."""
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [value]} for name, value in rows[0].items()]
    statuses = [
        served.http.post(address, json=body).status_code
        for address, body in [
            ("/predict", {"rows": rows}),
            ("/v2/models/m/infer", {"inputs": tensors}),
            ("/invocations", {"dataframe_records": rows}),
        ]
    ]
    assert set(statuses) == ({200} if set(rows[0]) == set("abc") else {400})


def test_a_refused_request_does_not_reach_the_model_and_an_answered_one_does(bento: Served) -> None:
    before = metric(bento, CALLS)
    _ask(bento, [{"a": 1.0}])
    assert metric(bento, CALLS) == before
    _ask(bento, [{"a": 1.0, "b": 2.0, "c": 3.0}])
    assert metric(bento, CALLS) == before + 3
    for door in ("native", "v2", "invocations"):
        for status in ("200", "400"):
            assert metric(bento, "modelyard_requests_total", door=door, status=status) == 1


def test_metrics_are_one_page_and_a_callers_words_are_not_in_it(bento: Served) -> None:
    for number in range(20):
        bento.http.get(f"/v2/models/{number}-no-such-model")
        bento.http.get(f"/{number}-no-such-address")
    answer = bento.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = [line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert "process_resident_memory_bytes" in families
    assert "no-such" not in answer.text


def test_another_bento_that_starts_takes_no_metrics_away(bento: Served, start: Start) -> None:
    row = [{"a": 1.0, "b": 2.0, "c": 3.0}]
    _ask(bento, row)
    before = metric(bento, CALLS)
    with start() as other:
        _ask(other, row)
        assert metric(other, CALLS) == 3
        assert metric(bento, CALLS) == before
        _ask(bento, row)
        assert metric(bento, CALLS) == before + 3
        assert metric(other, CALLS) == 3


def test_the_doors_of_a_bento_answer_as_they_do_without_one(bento: Served, numbers: Any) -> None:
    for address in ("/v2", "/v2/models/m", "/v2/models/m/ready", "/v2/health/ready", "/ping", "/health", "/version"):
        assert bento.http.get(address).content == numbers.http.get(address).content
    unknown = bento.http.get("/v2/models/other/infer")
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])
    assert bento.http.get("/invocations").status_code == 405
    assert bento.http.get("/readyz").status_code == 200


def test_bentomls_own_server_serves_the_same_bento(numbers: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("bentoml")
    (home / "wheel").mkdir()
    wheel, lock = serving_wheel(home / "wheel"), REPOSITORY / "requirements.lock"
    model, at = numbers.folder / "model", datetime(2026, 1, 1, tzinfo=UTC)
    bento = package(numbers.manifest, model, lock, wheel, {}, at, home / "bentoml", "0" * 64)
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", str(bento.path), "--host", "127.0.0.1", "--port", str(port)]
    env = os.environ | serving_env(home, Path(sys.prefix))
    with subprocess.Popen(command, env=env, cwd="/", start_new_session=True) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                wait_until_ready(http, lambda: process.poll() is not None, str, "The bento", 60)
                golden = numbers.golden
                said = http.post("/predict", json={"rows": golden.rows}).json()
                assert said["predictions"] == golden.answers["predict"]
                assert http.post("/invocations", json={"dataframe_records": golden.rows}).json() == {
                    "predictions": golden.answers["predict"]
                }
        finally:
            os.killpg(process.pid, signal.SIGTERM)
