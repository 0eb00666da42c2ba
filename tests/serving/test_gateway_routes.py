"""The gateway's routes: each has a rule, and what it takes is what is declared."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.protos.databricks_pb2 import ErrorCode

from edge import PREDICT, Edge
from modelyard_serving.gateway.config import resources
from modelyard_serving.gateway.routes import LUA
from modelyard_serving.keys import SigningKeys

PUBLIC = {"/healthz", "/v2/health/live", "/v2/health/ready"}
SCOPES = {
    "/v1/feedback": "feedback:other",
    "/v1/endpoints/tumor/results": "read:tumor",
    "/v1/endpoints/tumor/report": "read:tumor",
    "/v2": "predict:other",
}


def routes(edge: Edge, folder: Path) -> Iterator[Mapping[str, Any]]:
    yield from resources(edge.gateway, folder)["rds.json"]["resources"][0]["virtual_hosts"][0]["routes"]


def test_every_route_asks_for_what_is_declared(edge: Edge, tmp_path: Path) -> None:
    edge.tell(revoked=["gone"])
    seen = set()
    for route in routes(edge, tmp_path):
        path = route["match"]["path"]
        methods = [h["string_match"]["exact"] for h in route["match"].get("headers", ()) if h["name"] == ":method"]
        seen.add(path)

        def ask(*scopes: str, path: str = path, methods: list[str] = methods, **claims: Any) -> int:
            auth = {"authorization": f"Bearer {edge.token(*scopes, **claims)}"} if scopes else {}
            return edge.http.request((methods or ["GET"])[0], path, headers=auth).status_code

        if path in PUBLIC:
            assert route["metadata"]["filter_metadata"][LUA] == {"public": True}
            assert ask() == 200, path
            continue
        right = SCOPES.get(path, "predict:tumor")
        verb, _, name = right.partition(":")
        wrong = f"{'read' if verb != 'read' else 'predict'}:{name}"
        answers = {
            "no key": ask(), "expired": ask(right, exp=1), "revoked": ask(right, jti="gone"), "wrong scope": ask(wrong),
            "right scope": ask(right), "everything": ask("*:*"),
        }  # fmt: skip
        assert answers == {
            "no key": 401, "expired": 401, "revoked": 401, "wrong scope": 403, "right scope": 200, "everything": 200,
        }, path  # fmt: skip
    edge.tell(revoked=[])
    assert len(seen) == len(PUBLIC) + len(SCOPES) + 6 * (1 + len(edge.gateway.deployments))


def test_a_route_that_was_given_no_rule_is_refused(edge: Edge) -> None:
    edge.tell_routes(lambda route: route["metadata"]["filter_metadata"].update({LUA: {"nothing": True}}))
    try:
        answer = edge.post(PREDICT, "*:*")
        assert (answer.status_code, answer.json()) == (404, {"error": "there is nothing at this address"})
    finally:
        edge.tell()


def test_a_request_that_the_filter_stumbles_over_does_not_pass(edge: Edge) -> None:
    # Found here: Envoy goes on with a request whose Lua filter raised an error, as if it had been allowed.
    answer = edge.post(PREDICT, "predict:tumor", **{"scopes": 5})
    assert (answer.status_code, answer.json()) == (500, {"error": "the gateway could not read this request"})


@pytest.mark.parametrize("exact", ["", "/versions/1"])
def test_every_door_of_the_runtime_is_reached_by_its_own_name(edge: Edge, exact: str) -> None:
    for door in ("predict", "invocations", "provenance"):
        assert edge.post(f"/v1/endpoints/tumor{exact}/{door}", "predict:tumor").json()["path"] == f"/{door}"
    for door in ("", "/ready", "/infer"):
        address = f"/v2/models/tumor{exact}{door}"
        answer = edge.post(address, "predict:tumor", headers={"x-unit-id": "patient-1"})
        assert answer.json()["path"] == address
        assert answer.json()["headers"]["x-assigned-by"] == ("version" if exact else "unit")


def test_v2_is_split_as_the_native_door_is(edge: Edge) -> None:
    for unit in (f"unit-{number}" for number in range(30)):
        ways = (PREDICT, "/v2/models/tumor/infer", "/v1/endpoints/tumor/invocations")
        answers = {edge.post(way, "predict:tumor", headers={"x-unit-id": unit}).headers["x-variant"] for way in ways}
        assert len(answers) == 1


def test_the_gateway_speaks_for_itself_where_no_model_is_named(edge: Edge) -> None:
    assert edge.http.get("/v2/health/live").json() == {"live": True}
    assert edge.http.get("/v2/health/ready").json() == {"ready": True}
    answer = edge.http.get("/v2", headers={"authorization": f"Bearer {edge.token('predict:tumor')}"})
    assert answer.json().keys() == {"name", "version", "extensions"}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("scopes", "claims", "status"),
    [
        ((), {}, 401),
        (("predict:tumor",), {"exp": 1}, 401),
        (("predict:tumor",), {"iss": "somebody"}, 401),
        (("predict:other",), {}, 403),
        (("read:tumor",), {}, 403),
        (("predict:tumor",), {}, 200),
        (("predict:*",), {}, 200),
        (("*:*",), {}, 200),
    ],
)
def test_a_key_opens_what_its_scopes_say_and_nothing_else(edge: Edge, scopes, claims, status) -> None:
    answer = edge.post(PREDICT, *scopes, **claims)
    assert answer.status_code == status
    if status != 200:
        assert set(answer.json()) == {"error"}


@pytest.mark.parametrize("exact", ["", "/versions/1"])
def test_what_the_gateway_refuses_at_mlflows_door_it_says_as_mlflow_would(edge: Edge, exact: str) -> None:
    door = f"/v1/endpoints/tumor{exact}/invocations"
    endpoints = edge.gateway.endpoints
    edge.tell(endpoints=[endpoints[0].with_timeout(0.3)], rates={"poor": 1})
    try:
        refused = [
            edge.post(door),
            edge.post(door, "read:tumor"),
            edge.post("/v1/endpoints/other/invocations", "*:*"),
            edge.http.post(
                door, headers={"authorization": f"Bearer {edge.token('*:*')}"}, content=b" " * (10 * 2**20 + 1)
            ),
            next(a for a in (edge.post(door, "*:*", jti="poor") for _ in range(9)) if a.status_code != 200),
            edge.post(f"{door}?seconds=5", "predict:tumor"),
        ]
    finally:
        edge.tell(endpoints=endpoints, rates={})
    assert [(answer.status_code, answer.json()) for answer in refused] == [
        (status, {"error_code": code, "message": message})
        for status, code, message in (
            (401, "UNAUTHENTICATED", "send your key as 'Authorization: Bearer KEY'"),
            (403, "PERMISSION_DENIED", "this key lacks the scope predict:tumor"),
            (404, "ENDPOINT_NOT_FOUND", "there is nothing at this address"),
            (413, "BAD_REQUEST", "the body is larger than 10485760 bytes"),
            (429, "REQUEST_LIMIT_EXCEEDED", "this key has used up its requests for now"),
            (504, "DEADLINE_EXCEEDED", "the model took longer than this endpoint allows"),
        )
    ]
    known = set(ErrorCode.keys())
    assert {answer.json()["error_code"] for answer in refused} <= known


def test_the_console_is_told_what_a_key_may_do(edge: Edge) -> None:
    headers = {"x-scopes": "feedback:*"}
    told = edge.post("/v1/feedback", "feedback:tumor", "read:tumor", headers=headers).json()["headers"]
    assert told["x-scopes"] == "feedback:tumor,read:tumor"


def test_a_key_signed_by_somebody_else_is_refused(edge: Edge, tmp_path: Path) -> None:
    stranger = Edge(tmp_path, SigningKeys(tmp_path), edge.gateway)
    with stranger.http:
        assert stranger.post(PREDICT, "predict:tumor").status_code == 401


@pytest.mark.parametrize(
    "path",
    ["/", "/predict", "/v1/endpoints/other/predict", "/internal/audit", "/v1/endpoints/tumor/metrics", "/metrics",
     "/v1/endpoints/tumor/versions/9/predict", "/v1/endpoints/tumor/../../../internal/audit", "//internal/audit"],
)  # fmt: skip
def test_an_address_without_a_rule_is_nowhere(edge: Edge, path: str) -> None:
    answer = edge.post(path, "*:*")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}
