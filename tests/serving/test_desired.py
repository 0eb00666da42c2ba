"""What the console tells gateways that are elsewhere, and what it hears from them; the follower beside a real Envoy."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from asking import wait_until
from edge import PREDICT, echo_app, envoy
from modelyard_serving.console.app import create_app
from modelyard_serving.endpoints import Deployment, Endpoint, EndpointStore
from modelyard_serving.errors import Unavailable
from modelyard_serving.gateway.desired import STAGE, FollowingGateways, desired, digest_of, heard
from modelyard_serving.gateway.follow import Follower
from modelyard_serving.keys import Keys, SigningKeys
from modelyard_serving.local_stage import free_port

Serve = Callable[[Starlette], int]


@pytest.fixture
def console(db: Any, serve_app: Serve) -> Iterator[httpx.Client]:
    url = f"http://127.0.0.1:{serve_app(create_app(db, 's'))}"
    with httpx.Client(base_url=url, headers={"x-gateway-secret": "s"}, timeout=20) as client:
        yield client


def asked(console: httpx.Client, known: str = "", wait_s: float = 0) -> httpx.Response:
    return console.get("/internal/gateway", params={"known": known, "wait_s": wait_s})


def one_pod(port: int, name: str = "tumor-1") -> Deployment:
    number = int(name.rpartition("-")[2])
    return Deployment(
        name, "tumor", number, "t", "b", "", "", (port,), "m", image="r/tumor@sha256:x", pods=0, service="localhost"
    )


def test_nobody_without_the_secret_learns_or_says_anything(console: httpx.Client) -> None:
    stranger = {"x-gateway-secret": "guess"}
    assert console.get("/internal/gateway", headers=stranger).status_code == 403
    assert console.post("/internal/gateway", headers=stranger, json={}).status_code == 403


def test_what_is_known_is_not_told_again_and_what_is_new_is_told_at_once(console: httpx.Client, db: Any) -> None:
    document = asked(console).json()
    assert asked(console, digest_of(document)).status_code == 304
    answers: list[httpx.Response] = []
    waiting = threading.Thread(target=lambda: answers.append(asked(console, digest_of(document), wait_s=15)))
    waiting.start()
    EndpointStore(db).put_deployment(one_pod(4001))
    waiting.join(10)
    assert [each["_id"] for each in answers[0].json()["deployments"]] == ["tumor-1"]


def test_revoked_keys_and_public_signing_keys_are_told_and_no_private_ones(
    console: httpx.Client, db: Any, tmp_path: Path
) -> None:
    signing = SigningKeys(tmp_path)
    key, _ = Keys(db, signing).issue("me", ["predict:tumor"], rate=5)
    db.stage.update_one({"_id": STAGE}, {"$set": {"jwks": signing.jwks()}}, upsert=True)
    Keys(db, signing).revoke(key.id)
    told = asked(console).json()
    assert told["revoked"] == [key.id]
    assert told["rates"] == {key.id: 5}
    assert "d" not in told["jwks"]["keys"][0]


def test_a_change_is_in_force_once_every_gateway_that_lives_says_so(db: Any) -> None:
    gateways = FollowingGateways(db, timeout_s=0.3)
    with pytest.raises(Unavailable, match="No gateway was heard of"):
        gateways.publish()
    now = digest_of(desired(db))
    heard(db, "one", now, "")
    heard(db, "two", "before", "Envoy says no")
    with pytest.raises(Unavailable, match="gateway two goes on with the state before: Envoy says no"):
        gateways.publish()
    heard(db, "two", "", "")  # it ends
    gateways.publish()
    db.gateways.insert_one({"_id": "three", "digest": "x", "fault": "", "at": datetime.now(UTC) - timedelta(minutes=1)})
    gateways.publish()


def test_a_follower_brings_envoy_what_is_desired_and_says_so(
    console: httpx.Client, db: Any, serve_app: Serve, tmp_path: Path
) -> None:
    signing, port, folder = SigningKeys(tmp_path / "keys"), free_port(), tmp_path / "gateway"
    _, token = Keys(db, signing).issue("me", ["predict:tumor"])
    console_port = console.base_url.port
    own = {"port": port, "secret": "s", "console_host": "localhost", "console_port": console_port, "certificate": None}
    follower, ending = Follower(console, folder, "gateway-1", **own), threading.Event()
    running = threading.Thread(target=follower.follow, args=(ending,))
    running.start()
    try:
        wait_until(lambda: (folder / "bootstrap.json").exists(), 20)
        with envoy(folder), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            gateways, headers = FollowingGateways(db, timeout_s=20), {"authorization": f"Bearer {token}"}
            gateways.publish()
            assert http.post(PREDICT, headers=headers, json={}).status_code in (401, 404), "no key is known yet"
            db.stage.update_one({"_id": STAGE}, {"$set": {"jwks": signing.jwks()}}, upsert=True)
            store = EndpointStore(db)
            store.put_deployment(one_pod(serve_app(echo_app("one"))))
            store.put(Endpoint.first("tumor", "champion", "tumor-1"), 1)
            gateways.publish()
            answer = http.post(PREDICT, headers=headers, json={})
            assert (answer.status_code, answer.json()["upstream"]) == (200, "one")
            ending.set()
            running.join(20)
            assert db.gateways.count_documents({}) == 0, "it has said that it ends"
            assert http.post(PREDICT, headers=headers, json={}).headers["connection"] == "close"
    finally:
        ending.set()
        running.join(20)
