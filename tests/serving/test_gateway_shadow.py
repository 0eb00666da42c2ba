"""Shadow: a variant that is sent a copy of the requests, and whose answers nobody sees."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge import PREDICT, Edge, echo_app, running_edge
from modelyard_serving.endpoints import Deployment, Shadow


@pytest.fixture
def copied(tmp_path: Path, serve_app) -> Iterator[tuple[Edge, list[dict[str, str]]]]:
    """An endpoint with a shadow, and the headers of what it was sent."""
    seen: list[dict[str, str]] = []
    with running_edge(tmp_path, serve_app) as edge:
        port = serve_app(echo_app("shadow", seen.append))
        shadow = Deployment("tumor-3", "tumor", 3, "", "", "", "", (port,), "")
        [endpoint] = edge.gateway.endpoints
        endpoint = endpoint.with_variant("candidate", "tumor-3").shadowed(Shadow("candidate"))
        edge.tell(deployments=[*edge.gateway.deployments, shadow], endpoints=[endpoint])
        yield edge, seen


def sent(seen: list[dict[str, str]], number: int) -> list[dict[str, str]]:
    deadline = time.monotonic() + 5
    while len(seen) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    return seen


def test_a_shadow_is_sent_what_a_variant_is_and_marked_and_the_variant_answers(copied) -> None:
    edge, seen = copied
    answer = edge.post(PREDICT, "predict:tumor", headers={"x-unit-id": "patient-7"})
    primary = answer.json()["headers"]
    assert answer.json()["upstream"] != "shadow"
    assert "x-shadow" not in primary
    [copy] = sent(seen, 1)
    assert (copy["x-shadow"], copy["x-variant"]) == ("1", "candidate")
    same = ("x-request-id", "x-unit-id", "x-caller", "x-key-id", "x-bucket", "x-epoch", "x-gateway-secret", "host")
    assert {name: copy[name] for name in same} == {name: primary[name] for name in same}


def test_only_what_asks_the_model_is_copied(copied) -> None:
    edge, seen = copied
    asking = (PREDICT, "/v1/endpoints/tumor/invocations", "/v2/models/tumor/infer")
    silent = ("/v1/endpoints/tumor/provenance", "/v2/models/tumor", "/v2/models/tumor/ready")
    exact = ("/v1/endpoints/tumor/versions/1/predict",)
    for path in (*asking, *silent, *exact):
        assert edge.post(path, "predict:tumor").status_code == 200
    assert len(sent(seen, 3)) == 3


def test_a_share_of_the_requests_can_be_copied(copied) -> None:
    edge, seen = copied
    [endpoint] = edge.gateway.endpoints
    edge.tell(endpoints=[replace(endpoint, shadow=Shadow("candidate", 20))])
    for number in range(200):
        edge.post(PREDICT, "predict:tumor", headers={"x-unit-id": f"unit-{number}"})
    assert abs(len(sent(seen, 40)) / 200 - 0.2) < 4 * (0.2 * 0.8 / 200) ** 0.5


def test_a_shadow_that_is_slow_or_away_costs_nobody_anything(copied) -> None:
    edge, _ = copied
    gone = replace(edge.gateway.deployments[-1], ports=(1,))
    edge.tell(deployments=[*edge.gateway.deployments[:-1], gone])
    assert {edge.post(PREDICT, "predict:tumor").status_code for _ in range(50)} == {200}


def test_nobody_can_say_that_a_request_is_a_copy(copied) -> None:
    edge, _ = copied
    headers = {"x-shadow": "1", "x-variant": "candidate"}
    answer = edge.post(PREDICT, "predict:tumor", headers=headers)
    assert answer.json()["upstream"] != "shadow"
    assert "x-shadow" not in answer.json()["headers"]
