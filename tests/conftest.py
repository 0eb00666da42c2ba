"""Shared by all tests: a real mongod for the session, a fresh database per test."""

import os
import signal
import subprocess
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import uvicorn
from pymongo import MongoClient
from starlette.applications import Starlette

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard.settings import embedded_mongo_url
from modelyard_serving.local_stage import free_port
from modelyard_tracking.origin import python_version
from modelyard_tracking.store import Home
from own_ceph import Ceph, missing_programs
from own_ceph import ceph as own_ceph
from own_engine import BASE_PYTHON, OwnEngine, own_engine
from own_engine import missing_programs as missing_of_engine
from own_jenkins import Jenkins
from own_jenkins import missing_programs as missing_for_jenkins
from side_by_side import SideBySide, turn

# A shell that runs the tests in the background has them ignore Ctrl-C, and with them all that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> SideBySide:
    return SideBySide(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes; alone, the quick tests come first
        items.sort(key=lambda item: turn(item.nodeid))


_FIGURES = pytest.StashKey[list[tuple[str, str]]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes what a fault test came to, for the table at the end: it is what the docs show."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    what = request.node.name.removeprefix("test_").replace("_", " ")
    return lambda text: figures.append((what, text))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if figures := config.stash.get(_FIGURES, []):
        terminalreporter.section("figures")
        for what, text in figures:
            terminalreporter.write_line(f"| {what} | {text} |")


@pytest.fixture(scope="session")
def mongo_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the session's mongod: its data, and the secrets that its users log in with."""
    return tmp_path_factory.mktemp("mongod")


@pytest.fixture(scope="session")
def mongo_port(mongo_home: Path) -> Iterator[int]:
    """A real mongod, the embedded one, on a free port."""
    port = free_port()
    process = mongod_process(mongo_home, port)
    with subprocess.Popen(process.command, env=os.environ | process.env, stdout=subprocess.DEVNULL) as running:
        try:
            wait_until_primary(mongo_home, port)
            yield port
        finally:
            running.terminate()


@pytest.fixture(scope="session")
def mongo_url(mongo_home: Path, mongo_port: int) -> str:
    """Where the session's mongod is, with user and password."""
    return embedded_mongo_url(mongo_home, mongo_port)


@pytest.fixture
def home(mongo_url: str, tmp_path: Path) -> Iterator[Home]:
    """A fresh database and an empty artifact store."""
    name = f"test_{uuid.uuid4().hex}"
    yield Home(mongo_url, name, tmp_path / "artifacts", tmp_path / "spool")
    with MongoClient(mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def db(home: Home) -> Iterator[object]:
    with home.connected() as database:
        yield database


@pytest.fixture(scope="session")
def ceph() -> Iterator[Ceph]:
    """A real Ceph with its S3."""
    if missing := missing_programs():
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"there is no {', '.join(missing)} on PATH; install Ceph:  make ceph")
    with own_ceph() as running:
        yield running


@pytest.fixture(scope="session")
def new_jenkins() -> Callable[[Path], Jenkins]:
    """Makes what runs Jenkinsfiles as a Jenkins would, in a folder."""
    if missing := missing_for_jenkins():
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"there is no {' and no '.join(missing)}; install Groovy:  make jenkins")
    return Jenkins


@pytest.fixture
def jenkins(new_jenkins: Callable[[Path], Jenkins], tmp_path: Path) -> Jenkins:
    return new_jenkins(tmp_path / "jenkins")


@pytest.fixture(scope="session")
def engine() -> Iterator[OwnEngine]:
    """A real docker engine, a base image and a registry."""
    if python_version() != BASE_PYTHON:  # another run of CI has it
        pytest.skip(f"the base image of the tests has Python {BASE_PYTHON}, and this is {python_version()}")
    missing = ", ".join(missing_of_engine())
    if missing or (os.geteuid() != 0 and not os.environ.get("DOCKER_HOST")):
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"there is no {missing or 'docker engine, and only root may start one'}; install it:  make engine")
    with own_engine() as running:
        yield running


@pytest.fixture(scope="session")
def serve_app() -> Iterator[Callable[[Starlette], int]]:
    """Serve an ASGI app over real HTTP until the tests end; gives its port."""
    running: list[tuple[uvicorn.Server, Thread]] = []

    def serve(app: Starlette) -> int:
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        return port

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(5)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import modelyard_tracking.experiment  # noqa: F401 - sacred warns while it is imported, once and here
