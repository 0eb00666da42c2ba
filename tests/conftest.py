"""Shared by all tests: a real mongod for the session, a fresh database per test."""

import os
import subprocess
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from pymongo import MongoClient
from starlette.applications import Starlette

from modelyard.mongod import mongod_process, wait_until_primary
from modelyard_serving.local_stage import free_port
from modelyard_tracking.store import Home


@pytest.fixture(scope="session")
def mongo_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real mongod, the embedded one, on a free port."""
    port = free_port()
    process = mongod_process(tmp_path_factory.mktemp("mongod"), port)
    with subprocess.Popen(process.command, env=os.environ | process.env, stdout=subprocess.DEVNULL) as running:
        try:
            wait_until_primary(port)
            yield port
        finally:
            running.terminate()


@pytest.fixture
def home(mongo_port: int, tmp_path: Path) -> Iterator[Home]:
    """A fresh database and an empty artifact store."""
    name = f"test_{uuid.uuid4().hex}"
    url = f"mongodb://127.0.0.1:{mongo_port}/?directConnection=true&w=majority&journal=true"
    yield Home(url, name, tmp_path / "artifacts")
    with MongoClient(url) as client:
        client.drop_database(name)


@pytest.fixture
def db(home: Home) -> Iterator[object]:
    with home.connected() as database:
        yield database


@pytest.fixture(scope="session")
def serve_app() -> Iterator[Callable[[Starlette], int]]:
    """Serve an ASGI app over real HTTP until the tests end; gives its port."""
    running: list[tuple[uvicorn.Server, Thread]] = []

    def serve(app: Starlette) -> int:
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", ws="none"))
        thread = Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        while not server.started:
            time.sleep(0.01)
        return port

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(5)


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import modelyard_tracking.experiment  # noqa: F401 - sacred warns while it is imported, once and here
