"""Keys at the gateway: two signing keys, revocation while it is busy, and rates."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import httpx
import pytest

from asking import wait_until
from edge import PREDICT, Edge, running_edge


@pytest.fixture
def own(tmp_path: Path, serve_app) -> Iterator[Edge]:
    with running_edge(tmp_path, serve_app) as running:
        yield running


@contextmanager
def busy(edge: Edge) -> Iterator[list[int]]:
    """Callers who ask without a pause, on connections that stay; gives what they were answered."""
    statuses: list[int] = []
    stop = False

    def ask(number: int) -> None:
        headers = {"authorization": f"Bearer {edge.token('predict:tumor', jti=f'busy-{number}')}"}
        with httpx.Client(base_url=edge.url, headers=headers, timeout=30) as http:
            while not stop:
                statuses.append(http.post(PREDICT, json={}).status_code)

    threads = [Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(statuses) >= len(threads), 30)
        yield statuses
    finally:
        stop = True
        for thread in threads:
            thread.join()


def test_a_revoked_key_is_refused_within_five_seconds_while_the_gateway_is_busy(own: Edge) -> None:
    with busy(own) as statuses:
        assert own.post(PREDICT, "predict:tumor", jti="gone").status_code == 200
        asked_at = time.monotonic()
        own.tell(revoked=["gone"])
        while own.post(PREDICT, "predict:tumor", jti="gone").status_code != 401:
            time.sleep(0.01)
        assert time.monotonic() - asked_at < 5
    assert set(statuses) == {200}


def test_a_key_is_accepted_as_long_as_the_key_that_signed_it(own: Edge) -> None:
    with busy(own) as statuses:  # on the connections that there are, too: nobody has to connect anew
        old = own.token("predict:tumor")
        own.keys.rotate()
        own.tell(jwks=own.keys.jwks())
        new = own.token("predict:tumor")

        def ask(token: str) -> int:
            return own.http.post(PREDICT, headers={"authorization": f"Bearer {token}"}).status_code

        assert [ask(old), ask(new)] == [200, 200]
        assert set(statuses) == {200}
        own.keys.retire_old()
        own.tell(jwks=own.keys.jwks())
        assert [ask(old), ask(new)] == [401, 200]


def test_a_key_with_a_rate_is_held_to_it_and_no_other_key_is(own: Edge) -> None:
    own.tell(rates={"limited": 5, "rich": 1000})
    answers = [own.post(PREDICT, "predict:tumor", jti="limited") for _ in range(20)]
    statuses = [answer.status_code for answer in answers]
    assert 5 <= statuses.count(200) <= 12
    refused = answers[statuses.index(429)]
    assert refused.json() == {"error": "this key has used up its requests for now"}
    assert refused.headers["retry-after"] == "1"
    for other in ("rich", "key-1"):
        assert {own.post(PREDICT, "predict:tumor", jti=other).status_code for _ in range(20)} == {200}
    time.sleep(1.1)
    assert own.post(PREDICT, "predict:tumor", jti="limited").status_code == 200
