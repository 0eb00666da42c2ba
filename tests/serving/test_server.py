"""The server: a replica as it runs, from its start to its drained end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import orjson
import pandas as pd
import psutil
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from metrics_page import value_of
from modelyard_serving.local_stage import free_port, serve_command
from modelyard_serving.runtime.server import OneWrite
from modelyard_tracking.digests import write_index
from packed import pack

FRAME = pd.DataFrame(np.random.default_rng(7).normal(size=(60, 3)), columns=["a", "b", "c"])
ROW = {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.fixture
def bento(tmp_path: Path) -> Path:
    (tmp_path / "src" / "model").mkdir(parents=True)
    pack(tmp_path / "src", LinearRegression().fit(FRAME, FRAME.sum(axis=1)), FRAME.head(8))
    return tmp_path


@contextmanager
def replica(bento: Path, **env: str) -> Iterator[tuple[httpx.Client, "subprocess.Popen[str]"]]:
    """A process as deployments start it, once it is ready."""
    port = free_port()
    command = serve_command(Path(sys.prefix), bento, port)
    process = subprocess.Popen(command, env=os.environ | env, stderr=subprocess.PIPE, text=True, cwd="/")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            deadline = time.monotonic() + 60
            while not _ready(client):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, "it does not get ready"
                time.sleep(0.05)
            yield client, process
    finally:
        process.kill()
        process.communicate()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_replica_answers_and_says_what_it_is(bento: Path) -> None:
    with replica(bento) as (client, _):
        assert client.post("/predict", json={"rows": [ROW]}).json()["predictions"] == [pytest.approx(6.0)]
        assert client.get("/provenance").json()["model"] == "m"
        for probe in ("/livez", "/healthz", "/readyz", "/v2/health/ready"):
            assert client.get(probe).status_code == 200
        assert value_of(client.get("/metrics").text, "modelyard_model_calls_total") == 1


def test_a_replica_that_is_told_to_end_says_so_answers_what_still_comes_and_ends(bento: Path) -> None:
    with replica(bento, YARD_DRAIN_S="2") as (client, process):
        client.post("/predict", json={"rows": [ROW]})
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 5
        while (said := client.get("/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert said.status_code == 503
        assert client.get("/v2/health/ready").json() == {"ready": False}
        assert client.get("/livez").status_code == 200
        answer = client.post("/predict", json={"rows": [ROW]})
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        assert process.wait(15) is not None
        with pytest.raises(httpx.ConnectError):
            client.get("/livez")


def test_an_answer_under_way_is_given_before_the_end(bento: Path) -> None:
    with replica(bento, YARD_DRAIN_S="0.2") as (client, process):
        rows = orjson.dumps({"rows": [ROW]})

        def slowly() -> Iterator[bytes]:
            yield rows[:10]
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            yield rows[10:]

        answer = client.post("/predict", content=slowly())
        assert answer.json()["predictions"] == [pytest.approx(6.0)]
        assert process.wait(15) is not None


def test_a_model_that_answers_otherwise_than_in_training_does_not_start(bento: Path) -> None:
    model = bento / "src" / "model"
    golden = orjson.loads((model / "golden.json").read_bytes())
    golden["answers"]["predict"][3] += 1e-6
    (model / "golden.json").write_bytes(orjson.dumps(golden))
    manifest = orjson.loads((bento / "src" / "manifest.json").read_bytes())
    (bento / "src" / "manifest.json").write_bytes(orjson.dumps(manifest | {"model_sha256": write_index(model)}))
    command = serve_command(Path(sys.prefix), bento, free_port())
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("Not served: m:1 answers golden row 3 with predict")
    with replica(bento, YARD_START_CHECK="off") as (client, _):  # as the build serves it, whose check says more
        assert client.get("/readyz").status_code == 200


def test_a_model_that_was_changed_after_approval_does_not_start(bento: Path) -> None:
    (bento / "src" / "model" / "schema.json").write_text("{}")
    command = serve_command(Path(sys.prefix), bento, free_port())
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Not served:" in done.stderr


def test_the_head_of_an_answer_and_its_body_leave_in_one_piece() -> None:
    class Transport:
        def __init__(self) -> None:
            self.written: list[bytes] = []

        def write(self, data: bytes) -> None:
            self.written.append(data)

        def close(self) -> None:
            self.written.append(b"closed")

    async def answers() -> list[bytes]:
        inner = Transport()
        outer = OneWrite(inner, asyncio.get_running_loop())
        outer.write(b"head ")
        outer.write(b"body")
        assert inner.written == []
        await asyncio.sleep(0)
        outer.write(b"another, the last")
        outer.close()
        await asyncio.sleep(0)
        return inner.written

    assert asyncio.run(answers()) == [b"head body", b"another, the last", b"closed"]


def test_who_sends_a_body_too_slowly_does_not_keep_others_waiting(bento: Path) -> None:
    with replica(bento) as (client, _):

        def half() -> Iterator[bytes]:
            yield b'{"rows": '
            answer = httpx.post(f"{client.base_url}/predict", json={"rows": [ROW]}, timeout=5)
            assert answer.status_code == 200
            yield orjson.dumps([ROW]) + b"}"

        assert client.post("/predict", content=half()).status_code == 200


def test_a_replica_of_many_requests_at_once_asks_the_model_less_often(bento: Path) -> None:
    with replica(bento) as (client, _):
        body = orjson.dumps({"rows": [ROW]})

        async def many() -> list[int]:
            async with httpx.AsyncClient(base_url=str(client.base_url), timeout=30) as asking:
                answers = await asyncio.gather(*(asking.post("/predict", content=body) for _ in range(200)))
            return [answer.status_code for answer in answers]

        assert asyncio.run(many()) == [200] * 200
        page = client.get("/metrics").text
        assert value_of(page, "modelyard_rows_total") == 200
        assert value_of(page, "modelyard_model_calls_total") < 150


def test_of_several_workers_one_that_is_killed_is_replaced_and_their_metrics_are_one_page(bento: Path) -> None:
    with replica(bento, YARD_WORKERS="2") as (client, process):
        workers = _workers(process.pid)
        assert len(workers) == 2
        for _ in range(20):
            with httpx.Client(base_url=client.base_url, timeout=10) as another:
                assert another.post("/predict", json={"rows": [ROW]}).status_code == 200
        assert value_of(client.get("/metrics").text, "modelyard_model_calls_total") == 20
        workers[0].kill()
        deadline = time.monotonic() + 30
        while len(_workers(process.pid)) < 2 or workers[0] in _workers(process.pid):
            with httpx.Client(base_url=client.base_url, timeout=10) as another:
                assert another.post("/predict", json={"rows": [ROW]}).status_code == 200
            assert time.monotonic() < deadline, "the worker is not replaced"
        workers = _workers(process.pid)
        process.kill()
        assert psutil.wait_procs(workers, timeout=30)[1] == []  # without who watches over them they end, too


def _workers(pid: int) -> list[psutil.Process]:
    """The processes that answer, below the one that watches over them."""
    try:
        below = psutil.Process(pid).children()
        return [child for child in below if "--fd" in child.cmdline()]
    except psutil.NoSuchProcess:
        return []


def test_several_workers_end_together_and_with_what_one_of_them_said(bento: Path) -> None:
    with replica(bento, YARD_WORKERS="2") as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    (bento / "src" / "model" / "schema.json").write_text("{}")
    command = [*serve_command(Path(sys.prefix), bento, free_port()), "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
    assert done.returncode == 1
    assert "Not served:" in done.stderr


def test_a_constant_model_is_asked_by_arrays_and_a_frame_alike(tmp_path: Path) -> None:
    (tmp_path / "src" / "model").mkdir(parents=True)
    pack(tmp_path / "src", DummyRegressor(strategy="constant", constant=7.0).fit(FRAME, FRAME["a"]), FRAME.head(8))
    with replica(tmp_path) as (client, _):
        assert client.post("/predict", json={"rows": [ROW, ROW]}).json()["predictions"] == [7.0, 7.0]


def test_a_model_that_answers_arrays_as_training_recorded_is_served_without_pandas(tmp_path: Path) -> None:
    examples = pd.DataFrame(np.random.default_rng(3).normal(size=(20, 3)), columns=["a", "b", "c"])
    pack(tmp_path, make_pipeline(StandardScaler(), LinearRegression()).fit(examples, examples.sum(axis=1)), examples)
    asks = """
import sys
from pathlib import Path
from modelyard_serving.runtime import golden
from modelyard_serving.runtime.model import Model
folder = Path(sys.argv[1])
model = golden.checked(Model.load(folder), folder / "model")
print(model.takes_arrays, "pandas" in sys.modules)
print(len(model.schema.table([(1.0, 2.0, 3.0)])), "pandas" in sys.modules)
"""
    command = [sys.executable, "-c", asks, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["True False", "1 True"], "and a frame can still be made"
