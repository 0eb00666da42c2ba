"""Several replicas behind one variant: they share the work, and one that dies, hangs or is slow fails nobody."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread

import httpx
import pytest

from edge import PREDICT, Edge, running_edge
from modelyard_serving.local_stage import free_port

VERSION = "/v1/endpoints/tumor/versions/1/predict"


@dataclass
class Replica:
    """A server in a process of its own, so that it can be killed."""

    folder: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        code = (
            "import sys, uvicorn; from edge import echo_app; from modelyard_serving.runtime.server import Protocol; "
            "uvicorn.run(echo_app(sys.argv[1]), port=int(sys.argv[1]), log_level='error', http=Protocol)"
        )
        command = [sys.executable, "-c", code, str(self.port)]
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{self.port}/", timeout=2)
            except httpx.HTTPError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def two(tmp_path: Path, serve_app: Callable[..., int]) -> Iterator[tuple[Edge, list[Replica]]]:
    """tumor:1 on two replicas."""
    replicas = [Replica(tmp_path, free_port()) for _ in range(2)]
    with running_edge(tmp_path, serve_app) as edge:
        try:
            for replica in replicas:
                replica.start()
            first, second = edge.gateway.deployments
            ports = tuple(replica.port for replica in replicas)
            edge.tell(deployments=[replace(first, ports=ports), second])
            yield edge, replicas
        finally:
            for replica in replicas:
                replica.kill()


@contextmanager
def calling(edge: Edge, callers: int = 8) -> Iterator[list[tuple[int, float]]]:
    """Callers without a pause; gives status and seconds of each answer."""
    answers: list[tuple[int, float]] = []
    stop = False

    def ask() -> None:
        headers = {"authorization": f"Bearer {edge.token('predict:tumor')}"}
        with httpx.Client(base_url=edge.url, headers=headers, timeout=30) as http:
            while not stop:
                started = time.monotonic()
                status = http.post(VERSION, json={}).status_code
                answers.append((status, time.monotonic() - started))

    threads = [Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop = True
        for thread in threads:
            thread.join()


def test_replicas_share_the_work(two: tuple[Edge, list[Replica]]) -> None:
    edge, replicas = two
    asked = Counter(edge.post(VERSION, "predict:tumor").json()["upstream"] for _ in range(60))
    assert asked.keys() == {str(replica.port) for replica in replicas}
    assert min(asked.values()) > 10


def test_a_replica_that_is_killed_again_and_again_fails_no_request(two: tuple[Edge, list[Replica]]) -> None:
    edge, replicas = two
    with calling(edge) as answers:
        for number in range(6):
            replica = replicas[number % 2]
            replica.kill()
            time.sleep(0.3)
            replica.start()
            time.sleep(1)  # until it was asked whether it is ready, on a busy machine, too
    assert len(answers) > 200
    assert Counter(status for status, _ in answers).keys() == {200}


def test_a_replica_that_is_back_is_asked_at_once(two: tuple[Edge, list[Replica]]) -> None:
    # Found here: Envoy's workers heard of it up to a second later, and asked a dead one alone meanwhile.
    edge, replicas = two
    with calling(edge):
        for replica in (replicas[0], replicas[1], replicas[0]):
            replica.kill()
            time.sleep(0.3)
            replica.start()
            deadline = time.monotonic() + 0.9
            while edge.post(VERSION, "predict:tumor").json()["upstream"] != str(replica.port):
                assert time.monotonic() < deadline


def test_a_replica_that_is_stopped_fails_no_request_either(two: tuple[Edge, list[Replica]]) -> None:
    edge, replicas = two
    with calling(edge) as answers:
        for replica in replicas:
            replica.signal(signal.SIGTERM)
            assert replica.process is not None
            replica.process.wait(20)
            replica.start()
            time.sleep(1)
    assert Counter(status for status, _ in answers).keys() == {200}


def test_a_replica_that_hangs_is_left_out_after_a_few_requests(two: tuple[Edge, list[Replica]]) -> None:
    edge, replicas = two
    edge.tell(endpoints=[edge.gateway.endpoints[0].with_timeout(0.5)])
    replicas[0].signal(signal.SIGSTOP)
    try:
        slow = [edge.post(VERSION, "predict:tumor").status_code for _ in range(10)]
        statuses = [edge.post(VERSION, "predict:tumor").status_code for _ in range(20)]
    finally:
        replicas[0].signal(signal.SIGCONT)
    assert slow.count(504) < 10
    assert statuses.count(504) <= 2, "it is tried again now and then"


def test_the_last_replica_is_asked_whatever_it_did(two: tuple[Edge, list[Replica]]) -> None:
    edge, replicas = two
    for replica in replicas:
        replica.kill()
    refused = [edge.post(VERSION, "predict:tumor") for _ in range(20)]
    assert {answer.status_code for answer in refused} == {503}
    assert refused[-1].json() == {"error": "the model cannot be reached; try again"}
    assert refused[-1].headers["retry-after"] == "1"
    for replica in replicas:
        replica.start()
    deadline = time.monotonic() + 10
    while edge.post(VERSION, "predict:tumor").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {edge.post(VERSION, "predict:tumor").status_code for _ in range(20)} == {200}


def test_a_version_that_goes_and_one_that_comes_fail_nobody(two: tuple[Edge, list[Replica]]) -> None:
    edge, _ = two
    first, second = edge.gateway.deployments
    with calling(edge, callers=4) as answers:
        for _ in range(5):
            edge.tell(deployments=[first, second, replace(second, name="tumor-3", version=3)])
            edge.tell(deployments=[first, second])
            edge.tell(deployments=[replace(first, ports=first.ports[:1]), second])
            edge.tell(deployments=[first, second])
    assert Counter(status for status, _ in answers).keys() == {200}
    assert edge.post(PREDICT, "predict:tumor").status_code == 200
