"""What one caller may take of the gateway, and what one slow model costs the others."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from asking import wait_until
from edge import PREDICT, Edge, echo_app, running_edge
from modelyard_serving.gateway import clusters
from modelyard_serving.gateway.listener import Limits

LIMITS = Limits(headers_s=1, request_s=2, idle_s=2)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory, serve_app) -> Iterator[Edge]:
    """A gateway whose patience is short."""
    with running_edge(tmp_path_factory.mktemp("tight"), serve_app, limits=LIMITS) as running:
        yield running


def request(edge: Edge, *lines: str) -> bytes:
    auth = f"authorization: Bearer {edge.token('predict:tumor')}"
    return "\r\n".join((f"POST {PREDICT} HTTP/1.1", "host: a", auth, *lines, "", "")).encode()


@pytest.mark.parametrize("size", [10 * 2**20 + 1, 10**9, 10**18])
def test_a_body_that_is_too_large_is_refused_when_it_is_announced(edge: Edge, size: int) -> None:
    started = time.monotonic()
    answer = edge.raw(request(edge, f"content-length: {size}"))
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'{"error":"the body is larger than 10485760 bytes"}' in answer
    assert time.monotonic() - started < 2


def test_a_body_that_is_as_large_as_allowed_gets_through(edge: Edge) -> None:
    auth = {"authorization": f"Bearer {edge.token('predict:tumor')}"}
    assert edge.http.post(PREDICT, content=b" " * (10 * 2**20), headers=auth).status_code == 200


@pytest.mark.parametrize("lines", [["x-a: " + "a" * 20_000], [f"x-{number}: a" for number in range(120)]])
def test_headers_that_are_too_large_or_too_many_are_refused(edge: Edge, lines: list[str]) -> None:
    assert edge.raw(request(edge, *lines, "content-length: 0")).startswith(b"HTTP/1.1 431")


@pytest.mark.parametrize("beginning", [b"", b"POST / HTTP/1.1\r\nhost: a\r\nx-a: ", None])
def test_a_slow_client_is_cut(tight: Edge, beginning: bytes | None) -> None:
    """Who sends nothing, the beginning of its headers, or the beginning of its body."""
    started = time.monotonic()
    if beginning is None:
        beginning = request(tight, "content-length: 1000") + b"{"
    tight.raw(beginning)
    assert time.monotonic() - started < 8


def test_a_client_that_trickles_its_body_is_cut(tight: Edge) -> None:
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", tight.gateway.port), timeout=10) as connection:
        connection.sendall(request(tight, "content-length: 1000"))
        with suppress(ConnectionError):
            while time.monotonic() - started < 8:
                connection.sendall(b" ")
                time.sleep(0.1)
    assert time.monotonic() - started < 8


def test_more_connections_than_allowed_are_refused_and_those_that_there_are_go_on(tmp_path: Path, serve_app) -> None:
    with running_edge(tmp_path, serve_app, limits=Limits(connections=200)) as edge:
        assert edge.post(PREDICT, "predict:tumor").status_code == 200
        held = [socket.create_connection(("127.0.0.1", edge.gateway.port)) for _ in range(250)]
        try:
            assert edge.post(PREDICT, "predict:tumor").status_code == 200
            wait_until(lambda: _closed(held) >= 50, 10)
            assert edge.post(PREDICT, "predict:tumor").status_code == 200
        finally:
            for connection in held:
                connection.close()


def _closed(connections: list[socket.socket]) -> int:
    """How many the other side has closed; it has nothing else to say."""
    readable = select.poll()
    for connection in connections:
        readable.register(connection, select.POLLIN)
    return len(readable.poll(0))


def test_ten_thousand_idle_connections_do_not_stop_answers(edge: Edge) -> None:
    held = []
    try:
        for _ in range(10_000):
            held.append(socket.create_connection(("127.0.0.1", edge.gateway.port)))
        with httpx.Client(base_url=edge.url, timeout=10) as newcomer:
            headers = {"authorization": f"Bearer {edge.token('predict:tumor')}"}
            assert {newcomer.post(PREDICT, headers=headers).status_code for _ in range(20)} == {200}
    finally:
        for connection in held:
            connection.close()


def test_an_endpoint_says_how_long_an_answer_may_take(edge: Edge) -> None:
    endpoints = edge.gateway.endpoints
    edge.tell(endpoints=[endpoints[0].with_timeout(0.3)])
    try:
        started = time.monotonic()
        answer = edge.post(f"{PREDICT}?seconds=5", "predict:tumor")
        assert (answer.status_code, answer.json()) == (
            504, {"error": "the model took longer than this endpoint allows"},
        )  # fmt: skip
        assert time.monotonic() - started < 2
    finally:
        edge.tell(endpoints=endpoints)


def test_a_full_model_refuses_at_once_and_the_other_variant_answers(
    tmp_path: Path, serve_app: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "REQUESTS_PER_REPLICA", 4)
    monkeypatch.setattr(clusters, "PENDING_PER_REPLICA", 4)
    with running_edge(tmp_path, serve_app) as edge, ThreadPoolExecutor(40) as pool:
        one, two = (f"/v1/endpoints/tumor/versions/{number}/predict" for number in (1, 2))
        slow = [pool.submit(edge.post, f"{one}?seconds=2", "predict:tumor") for _ in range(30)]
        time.sleep(0.5)
        started = time.monotonic()
        for _ in range(10):
            refused = edge.post(one, "predict:tumor")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json() == {"error": "the model has as many requests as it can hold; try again"}
            assert edge.post(two, "predict:tumor").status_code == 200
        assert time.monotonic() - started < 1
        statuses = [answer.result().status_code for answer in slow]
    assert statuses.count(200) >= 4
    assert set(statuses) == {200, 503}


def test_a_full_replicas_refusal_is_passed_on_and_asked_of_no_other(edge: Edge, serve_app: Callable[..., int]) -> None:
    asked: list[str] = []

    def note(headers: dict[str, str], name: str) -> None:
        if "x-caller" in headers:  # and not Envoy, who asks whether it is ready
            asked.append(name)

    ports = tuple(serve_app(echo_app(name, partial(note, name=name))) for name in ("a", "b"))
    before = edge.gateway.deployments
    edge.tell(deployments=[replace(before[0], ports=ports), before[1]])
    try:
        answers = [edge.post("/v1/endpoints/tumor/versions/1/predict?status=503", "predict:tumor") for _ in range(20)]
    finally:
        edge.tell(deployments=before)
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert len(asked) == 20
    assert set(asked) == {"a", "b"}, "and none of them is left out for it"
