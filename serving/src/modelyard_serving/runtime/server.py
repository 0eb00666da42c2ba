"""Serve a bento's model: `python -m modelyard_serving.runtime.server BENTO --port 3000 --workers 2`.

uvicorn on httptools around the same app that `bentoml serve` serves. On SIGTERM a replica says that it is no
longer ready, answers what still comes and closes each connection after its answer, and ends. Of several workers each
has the whole model; one that dies is replaced.
"""

import argparse
import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from socket import SO_REUSEADDR, SOL_SOCKET, socket
from types import FrameType
from typing import Any

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelyard_serving.errors import Refused

DRAIN_S = 0.5  # between saying so and closing the door; a gateway needs as long to notice
LAST_ANSWERS_S = 20  # for what is in flight then
KEEP_ALIVE_S = 75  # longer than any gateway keeps an idle connection: who closes first must not be us
BACKLOG = 2048
_LOOK_S = 0.1  # how often workers are looked after


class OneWrite:
    """A transport that writes what comes in one turn of the event loop at once.

    uvicorn writes the head of an answer and its body one after the other. A process that is killed in between would
    leave half an answer, which no gateway can ask another replica for.
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


class Protocol(HttpToolsProtocol):
    """uvicorn's, on such a transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(OneWrite(transport, self.loop))  # type: ignore[arg-type]


class Server(uvicorn.Server):
    """uvicorn, which drains before it ends."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        plane = self.config.loaded_app.state.plane
        if plane.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        plane.draining = True
        later = threading.Timer(float(os.environ.get("YARD_DRAIN_S", DRAIN_S)), super().handle_exit, (sig, frame))
        later.daemon = True
        later.start()


def serve(bento: Path, listening: socket) -> None:
    """Serve until a signal ends it.

    Raises:
        Refused: what lies there is not what was approved, or does not answer as it did in training.
    """
    from modelyard_serving.runtime.app import create_app, start, stop  # here: who watches over workers does without

    app = create_app(bento / "src")
    start(app)
    gc.collect()
    gc.freeze()  # what is loaded now stays: it is not looked through again and again
    config = uvicorn.Config(
        app,
        loop="asyncio",  # uvloop carried no more here, and is 14 MB of an image
        http=Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    try:
        Server(config).run([listening])
    finally:
        stop(app)


def watch(bento: Path, listening: socket, workers: int) -> int:
    """Keep so many workers running on one socket until a signal ends them; gives the exit code."""
    listening.set_inheritable(True)
    command = [sys.executable, "-m", "modelyard_serving.runtime.server", str(bento), "--fd", str(listening.fileno())]

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(command, pass_fds=[listening.fileno()], stdin=subprocess.PIPE)

    ending = False

    def end(sig: int, _: FrameType | None) -> None:
        nonlocal ending
        ending = True
        for worker in running:
            worker.send_signal(sig)

    running = [start() for _ in range(workers)]
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, end)
    code = 0
    while running:
        for worker in [worker for worker in running if worker.poll() is not None]:
            running.remove(worker)
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
            if worker.stdin:
                worker.stdin.close()
            if worker.returncode > 0 and not ending:  # it said why; another would say the same
                code = worker.returncode
                end(signal.SIGTERM, None)
            elif not ending:
                logging.warning("a worker ended with %s and is replaced", worker.returncode)
                running.append(start())
        time.sleep(_LOOK_S)
    return code


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelyard_serving.runtime.server", description=__doc__)
    parser.add_argument("bento", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    workers = int(os.environ.get("YARD_WORKERS", "1"))
    parser.add_argument("--workers", type=int, default=workers, help="processes, each with the whole model")
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if args.workers > 1 and args.fd is None:
        with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # one page about all workers
            sys.exit(watch(args.bento, _bound(args.host, args.port), args.workers))
    if args.fd is not None:
        threading.Thread(target=_end_with_the_watcher, daemon=True).start()
    try:
        serve(args.bento, socket(fileno=args.fd) if args.fd is not None else _bound(args.host, args.port))
    except Refused as error:
        sys.exit(f"Not served: {error}")


def _bound(host: str, port: int) -> socket:
    """Bound, and not yet listening: nobody is let in before the model is loaded."""
    bound = socket()
    bound.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


def _end_with_the_watcher() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
