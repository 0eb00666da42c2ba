"""Serve a bento exactly as it will be deployed, for as long as the checks need it."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

from modelyard_build.errors import Refused
from modelyard_serving.local_stage import free_port, serve_command, serving_env

CHECKED = {"YARD_START_CHECK": "off"}  # of a model whose golden rows are asked by a check, which says more


@dataclass(frozen=True, slots=True)
class Served:
    """A model that answers; `http` asks it without a gateway."""

    http: httpx.Client
    started_in_s: float
    memory_mb: Callable[[], float]  # what it holds now; a million bytes each


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
            env=serving_env(home, environment) | CHECKED,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )

        def tail() -> str:
            log.seek(0)
            return "\n".join(log.read().splitlines()[-12:])

        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                what = f"The bento {bento.parent.name}:{bento.name}"
                wait_until_ready(client, lambda: process.poll() is not None, tail, what, timeout_s)
                yield Served(client, time.monotonic() - started, partial(tree_memory_mb, process.pid))
        finally:
            _stop(process)


def wait_until_ready(
    client: httpx.Client, over: Callable[[], bool], tail: Callable[[], str], what: str, timeout_s: float
) -> None:
    """Wait until a model answers.

    Args:
        over: whether what should answer has ended.
        tail: the last lines of its log.

    Raises:
        Refused: it has ended, or the time is up.
    """
    deadline = time.monotonic() + timeout_s
    while not _ready(client):
        if over() or time.monotonic() > deadline:
            raise Refused(f"{what} does not come up:\n{tail()}")
        time.sleep(0.1)


def tree_memory_mb(pid: int) -> float:
    """The resident memory of a process and of all that it started."""
    total, root = 0, psutil.Process(pid)
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total / 1e6


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
