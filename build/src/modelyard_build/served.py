"""Serve a bento exactly as it will be deployed, for as long as the checks need it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from modelyard_build.errors import Refused
from modelyard_serving.local_stage import free_port, serve_command, serving_env


@dataclass(frozen=True, slots=True)
class Served:
    """A running bento; `http` asks it without a gateway."""

    http: httpx.Client
    started_in_s: float


@contextmanager
def serve(bento: Path, environment: Path, home: Path, timeout_s: float = 60) -> Iterator[Served]:
    """Run the bento in its own environment by the command that deployment uses, and stop it afterwards.

    Raises:
        Refused: it does not get ready; the last lines of its log are in the text.
    """
    port, started = free_port(), time.monotonic()
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            serve_command(environment, bento, port),
            env=serving_env(home),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                while not _ready(client):
                    if process.poll() is not None or time.monotonic() - started > timeout_s:
                        log.seek(0)
                        tail = "\n".join(log.read().splitlines()[-12:])
                        raise Refused(f"The bento {bento.parent.name}:{bento.name} does not come up:\n{tail}")
                    time.sleep(0.1)
                yield Served(client, time.monotonic() - started)
        finally:
            _stop(process)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200 and client.get("/provenance").status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the whole group: BentoML's supervisor and its workers."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
