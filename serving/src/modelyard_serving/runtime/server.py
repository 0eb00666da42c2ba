"""Serve a bento's model: `python -m modelyard_serving.runtime.server BENTO --port 3000`.

uvicorn on uvloop and httptools around the same app that `bentoml serve` serves. On SIGTERM a replica says that it is no
longer ready, answers what still comes and closes each connection after its answer, and ends.
"""

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import uvicorn

from modelyard_serving.errors import Refused
from modelyard_serving.runtime.app import create_app, start, stop

DRAIN_S = 0.5  # between saying so and closing the door; a gateway needs as long to notice
LAST_ANSWERS_S = 20  # for what is in flight then
KEEP_ALIVE_S = 75  # longer than any gateway keeps an idle connection: who closes first must not be us


class Server(uvicorn.Server):
    """uvicorn, which drains before it ends."""

    def __init__(self, config: uvicorn.Config, drain_s: float) -> None:
        super().__init__(config)
        self._drain_s = drain_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        plane = self.config.app.state.plane  # type: ignore[union-attr]
        if plane.draining or sig == signal.SIGINT:
            super().handle_exit(sig, frame)
            return
        plane.draining = True
        later = threading.Timer(self._drain_s, super().handle_exit, (sig, frame))
        later.daemon = True
        later.start()


def serve(bento: Path, host: str, port: int, drain_s: float = DRAIN_S) -> None:
    """Serve until a signal ends it.

    Raises:
        Refused: what lies there is not what was approved, or does not answer as it did in training.
    """
    app = create_app(bento / "src")
    start(app)
    gc.collect()
    gc.freeze()  # what is loaded now stays: it is not looked through again and again
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    try:
        Server(config, drain_s).run()
    finally:
        stop(app)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m modelyard_serving.runtime.server", description=__doc__)
    parser.add_argument("bento", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(args.bento, args.host, args.port, float(os.environ.get("YARD_DRAIN_S", DRAIN_S)))
    except Refused as error:
        sys.exit(f"Not served: {error}")


if __name__ == "__main__":
    main()
