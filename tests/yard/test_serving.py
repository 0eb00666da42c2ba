"""What the local stack serves: the real console, Envoy and supervisord; the models are stand-ins that start quickly."""

import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread

import httpx
import pytest

from certificates import certificate
from modelyard.serving import Serving
from modelyard.settings import read_settings
from modelyard.status import observe
from modelyard.yard import Yard
from modelyard_serving.endpoints import Deployment
from modelyard_serving.errors import Refused, Unavailable
from modelyard_serving.local_stage import free_port
from shipping import ship

PREDICT = "/v1/endpoints/tumor/predict"


@dataclass
class Shop:
    """A running stack, and versions to deploy on it."""

    folder: Path
    yard: Yard
    http: httpx.Client

    @property
    def serving(self) -> Serving:
        return self.yard.serving

    def version(self, number: int, bento: str = "b") -> Deployment:
        """A version of `tumor` that can be deployed."""
        environment = self.folder / "environment" / "bin"
        environment.mkdir(parents=True, exist_ok=True)
        python = environment / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("stand_in.py")} "$@"\n')
        python.chmod(0o755)
        place, digest = self.folder / f"tumor-{number}-{bento}", f"m{number}"
        place.mkdir(exist_ok=True)
        (place / "model.json").write_text(json.dumps({"model_sha256": digest, "version": number}))
        tag = f"tumor-{number}"
        return Deployment(tag, "tumor", number, tag, bento, str(place), str(environment.parent), (), digest)

    def deploy(self, wanted: Deployment, replicas: int | None = None, variant: str = "champion") -> Deployment:
        deployed = ship(self.serving, wanted, replicas, variant)
        self.serving.end_replaced("tumor")
        return deployed

    def ask(self, **params: float) -> httpx.Response:
        return self.http.post(PREDICT, params=params, json={})

    def running(self) -> set[str]:
        states = self.serving.stage.processes.states()
        return {state.name for state in states if state.state in ("STARTING", "RUNNING")} - {"console", "envoy"}


@pytest.fixture
def shop(home, tmp_path: Path) -> Iterator[Shop]:
    (tmp_path / "yard.toml").touch()
    env = {f"YARD_{name}_PORT": str(free_port()) for name in ("GATEWAY", "CONSOLE")}
    env |= {"YARD_MONGO_URL": home.mongo_url, "YARD_DATABASE": home.database, "YARD_USER": "tester"}
    yard = Yard(read_settings(env, tmp_path))
    try:
        yard.up()
        _, token = yard.issue_key("tester", ["predict:tumor"])
        headers = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=yard.settings.gateway_url, headers=headers, timeout=30) as http:
            yield Shop(tmp_path, yard, http)
    finally:
        yard.close()
        yard.stack.down()


@dataclass
class Callers:
    """Threads that ask without a pause, and what they were answered."""

    shop: Shop
    statuses: list[int] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)
    stop: bool = False

    def ask(self) -> None:
        with httpx.Client(base_url=self.shop.http.base_url, headers=self.shop.http.headers, timeout=30) as http:
            while not self.stop:
                answer = http.post(PREDICT, json={})
                self.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    self.ports.add(answer.json()["port"])


@contextmanager
def calling(shop: Shop) -> Iterator[Callers]:
    callers = Callers(shop)
    threads = [Thread(target=callers.ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        callers.stop = True
        for thread in threads:
            thread.join()


def test_a_version_runs_in_as_many_processes_as_asked_for_and_a_repeated_deploy_changes_the_number(shop: Shop) -> None:
    two = shop.deploy(shop.version(1), replicas=2)
    assert shop.running() == {"tumor-1.1", "tumor-1.2"}
    assert {shop.ask().json()["port"] for _ in range(40)} == set(two.ports)
    with calling(shop) as callers:
        three = shop.deploy(shop.version(1), replicas=3)
        time.sleep(0.5)
        assert shop.deploy(shop.version(1)) == three, "the number stays where none is given"
        one = shop.deploy(shop.version(1), replicas=1)
    assert three.ports[:2] == two.ports
    assert one.ports == two.ports[:1]
    assert callers.ports == set(three.ports)
    assert shop.running() == {"tumor-1.1"}
    assert set(callers.statuses) == {200}


def test_a_killed_replica_is_back_in_a_moment_and_fails_no_request(shop: Shop) -> None:
    deployed = shop.deploy(shop.version(1), replicas=2)
    processes = shop.serving.stage.processes
    with calling(shop) as callers:
        for number in range(4):
            name = deployed.replica(number % 2 + 1)
            os.kill(processes.state(name).pid, signal.SIGKILL)
            killed_at = time.monotonic()
            time.sleep(0.1)
            while len(shop.serving.stage.up(deployed)) < 2:
                assert time.monotonic() - killed_at < 10  # 2 s on a machine that has nothing else to do
                time.sleep(0.05)
            time.sleep(1.1)  # what dies within a second of its start waits before it is started again
    assert len(callers.statuses) > 100
    assert set(callers.statuses) == {200}


def test_another_bento_of_a_version_takes_the_place_of_the_one_that_answers_and_no_request_fails(shop: Shop) -> None:
    before = shop.deploy(shop.version(1))
    with calling(shop) as callers:
        after = shop.deploy(shop.version(1, bento="another"))
    assert after.ports == before.ports
    assert shop.ask().json()["bento"] == "another"
    assert shop.running() == {"tumor-1.1"}
    assert len(callers.ports) == 2, "one replica more, for the time being"
    assert set(callers.statuses) == {200}


def test_another_version_takes_the_place_of_the_one_before_which_stays_for_a_rollback(shop: Shop) -> None:
    shop.deploy(shop.version(1))
    with calling(shop) as callers:
        shop.deploy(shop.version(2))
        assert shop.running() == {"tumor-1.1", "tumor-2.1"}
        shop.deploy(shop.version(3))
        assert shop.running() == {"tumor-2.1", "tumor-3.1"}, "the one before that is stopped"
        assert shop.serving.previous("tumor", "champion") == "tumor:2"
        started = time.monotonic()
        shop.deploy(shop.version(2))
        assert time.monotonic() - started < 10
        assert shop.serving.previous("tumor", "champion") == "tumor:3"
    assert shop.ask().headers["x-model-version"] == "2"
    assert set(callers.statuses) == {200}


def test_a_version_that_is_another_variant_is_not_stopped(shop: Shop) -> None:
    shop.deploy(shop.version(1), variant="challenger")
    for number in (1, 2, 3):
        shop.deploy(shop.version(number))
    assert shop.running() == {"tumor-1.1", "tumor-2.1", "tumor-3.1"}


def test_status_shows_what_should_answer_beside_what_does(shop: Shop) -> None:
    deployed = shop.deploy(shop.version(1), replicas=2)
    shop.deploy(shop.version(2), variant="candidate")
    shop.yard.shadow("tumor", "candidate", 20)
    entries = list(shop.serving.ledger.entries())
    assert [entry.kind for entry in entries] == ["deploy", "deploy", "shadow"]
    assert entries[-1].facts["variants"]["candidate"]["shadow"] == 20
    champion, candidate = sorted(observe(shop.yard), key=lambda found: found.version)
    assert (champion.version, champion.share, champion.up, champion.wanted, champion.holds) == (1, 1.0, 2, 2, True)
    assert (candidate.share, candidate.shadow, candidate.holds) == (0.0, 20, True)
    assert champion.since == entries[0].at
    shop.serving.stage.stop(deployed, beyond=1)
    [champion] = [found for found in observe(shop.yard) if found.version == 1]
    assert (champion.up, champion.wanted, champion.holds) == (1, 2, False)
    shop.yard.shadow("tumor", None)
    assert shop.serving.endpoints.endpoint("tumor").shadow is None
    assert shop.ask().json()["x-epoch"] == "4"


def test_with_a_certificate_the_stack_comes_up_and_the_gateway_speaks_tls(home, tmp_path: Path) -> None:
    (tmp_path / "yard.toml").touch()
    given = certificate(tmp_path)
    env = {f"YARD_{name}_PORT": str(free_port()) for name in ("GATEWAY", "CONSOLE")}
    env |= {"YARD_MONGO_URL": home.mongo_url, "YARD_DATABASE": home.database, "YARD_TLS_KEY": str(given.key)}
    yard = Yard(read_settings(env | {"YARD_TLS_CERTIFICATE": str(given.chain)}, tmp_path))
    try:
        assert yard.up() == []
        assert yard.settings.gateway_url.startswith("https://")
        trust = ssl.create_default_context(cafile=str(given.chain))
        assert httpx.get(f"{yard.settings.gateway_url}/healthz", verify=trust).status_code == 200
    finally:
        yard.close()
        yard.stack.down()


def test_what_does_not_come_up_changes_nothing(shop: Shop) -> None:
    shop.deploy(shop.version(1))
    broken = shop.version(2)
    (Path(broken.bento_path) / "model.json").write_text("{")
    with pytest.raises(Unavailable, match=r"tumor-2.1 did not come up .*Last lines of its log"):
        shop.deploy(broken)
    assert shop.running() == {"tumor-1.1"}
    assert [deployment.name for deployment in shop.serving.endpoints.deployments()] == ["tumor-1"]
    assert shop.ask().headers["x-model-version"] == "1"


def test_a_database_of_a_stage_of_pods_takes_no_processes(shop: Shop) -> None:
    pods = replace(shop.version(1), image="registry.example/tumor@sha256:1", pods=1, service="tumor-1.modelyard.svc")
    shop.serving.endpoints.put_deployment(pods)
    with pytest.raises(Refused, match="database is that of a stage of pods, and a database serves one stage"):
        shop.yard.split("tumor", {"champion": 100})


def test_replicas_and_gateway_are_asked_without_reading_certificates(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes longer than their answers, and from those who start on the same cores."""
    deployed = shop.deploy(shop.version(1))
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: pytest.fail("certificates are read"))
    assert shop.serving.stage.up(deployed) == ("tumor-1.1",)
    shop.serving.gateway.publish()
